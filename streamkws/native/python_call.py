"""A function that CPython calls at the cost of one of its own, in LLVM: no compiler of C, no linking with CPython."""

from __future__ import annotations

from llvmlite import ir

from streamkws.native.signatures import PYTHON_FUNCTIONS

POINTER = ir.IntType(8).as_pointer()
INT32, INT64 = ir.IntType(32), ir.IntType(64)
NOTHING = ir.Constant(POINTER, None)

BUFFER_WORDS = 10
"""64-bit words of CPython's Py_buffer; word 0 is the address, word 2 the length in bytes."""

_TYPES = dict(
    zip(
        PYTHON_FUNCTIONS,
        (
            ir.FunctionType(INT64, [POINTER]),
            ir.FunctionType(POINTER, [INT64]),
            ir.FunctionType(INT32, [POINTER, INT64.as_pointer(), INT32]),
            ir.FunctionType(ir.VoidType(), [INT64.as_pointer()]),
            ir.FunctionType(POINTER, []),
            ir.FunctionType(ir.VoidType(), [POINTER]),
            ir.FunctionType(INT32, []),
        ),
        strict=True,
    )
)


def python_places(module: ir.Module, is_defined: bool) -> ir.GlobalVariable:
    """The array streamkws_python of where PYTHON_FUNCTIONS are, which one module of a library defines."""
    kind = ir.ArrayType(POINTER, len(PYTHON_FUNCTIONS))
    places = ir.GlobalVariable(module, kind, "streamkws_python")
    if is_defined:
        places.initializer = ir.Constant(kind, [NOTHING] * len(PYTHON_FUNCTIONS))
    return places


def define_python_path(module: ir.Module, places: ir.GlobalVariable, path: ir.Function, name: str) -> None:
    """Define path(address, pcm, floats) for CPython under a name: with two objects that have buffers, for a path of
    numbers. places: the module's, of python_places. It runs without the GIL; a METH_FASTCALL of CPython's."""
    kind = ir.FunctionType(POINTER, [POINTER, POINTER.as_pointer(), INT64])
    function = ir.Function(module, kind, name)
    _, arguments, n_arguments = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    failed = function.append_basic_block("failed")
    buffers = [builder.alloca(INT64, BUFFER_WORDS) for _ in range(2)]

    def call(python: str, *values: ir.Value) -> ir.Value:
        place = builder.gep(places, [INT32(0), INT32(PYTHON_FUNCTIONS.index(python))])
        pointer = builder.bitcast(builder.load(place), _TYPES[python].as_pointer())
        return builder.call(pointer, values)

    def go_on_if(condition: ir.Value, otherwise: ir.Block) -> None:
        block = function.append_basic_block()
        builder.cbranch(condition, block, otherwise)
        builder.position_at_end(block)

    def word(buffer: ir.Value, index: int) -> ir.Value:
        return builder.load(builder.gep(buffer, [INT64(index)]))

    wrong, first_held = function.append_basic_block("wrong"), function.append_basic_block("first_held")
    go_on_if(builder.icmp_signed("==", n_arguments, INT64(3)), wrong)
    objects = [builder.load(builder.gep(arguments, [INT64(index)])) for index in range(3)]
    address = call("PyLong_AsLongLong", objects[0])
    go_on_if(builder.icmp_signed("!=", address, INT64(-1)), failed)
    for item, buffer, otherwise in zip(objects[1:], buffers, (failed, first_held), strict=True):
        status = call("PyObject_GetBuffer", item, buffer, INT32(0))
        go_on_if(builder.icmp_signed("==", status, INT32(0)), otherwise)
    thread = call("PyEval_SaveThread")
    samples = [
        value
        for buffer, item_bytes in zip(buffers, (2, 4), strict=True)
        for value in (word(buffer, 0), builder.sdiv(word(buffer, 2), INT64(item_bytes)))
    ]
    n_events = builder.call(path, [address, *samples])
    call("PyEval_RestoreThread", thread)
    for buffer in buffers:
        call("PyBuffer_Release", buffer)
    builder.ret(call("PyLong_FromLongLong", n_events))

    builder.position_at_end(wrong)
    call("PyErr_BadArgument")
    builder.branch(failed)
    builder.position_at_end(first_held)
    call("PyBuffer_Release", buffers[0])
    builder.branch(failed)
    builder.position_at_end(failed)
    builder.ret(NOTHING)
