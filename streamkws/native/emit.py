"""The kernels as machine code for one kind of CPU, which need not be this one's.

    python -m streamkws.native.emit TARGET INSTRUCTIONS FILE

numba compiles for one kind of CPU a process. So this is run once for each, with the variables of its environment that
say for which (build.py sets them), and writes an object file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import types
from numba.core.codegen import AOTCPUCodegen
from numba.core.registry import cpu_target

from streamkws.kernels.compiling import KernelCache
from streamkws.kernels.cpu import INSTRUCTIONS
from streamkws.native.python_call import INT32, INT64, define_python_path, python_places
from streamkws.native.signatures import WHOLE_PATHS
from streamkws.native.targets import TARGETS, X86_64, Target, define_cpu_kinds, define_rounding


def machine_of(target: Target, instructions: str) -> llvm.TargetMachine:
    """LLVM for a kind of CPU of a target; code that may be loaded anywhere."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()  # for cpuid, which only x86 asks
    kind = target.kinds[instructions]
    found = llvm.Target.from_triple(target.triple)
    return found.create_target_machine(cpu=kind.cpu, features=kind.features, opt=3, reloc="pic", codemodel="default")


def compile_for(target: Target, machine: llvm.TargetMachine) -> None:
    """Have numba compile every kernel of this process for another machine, to be emitted and never run."""

    class Code(AOTCPUCodegen):  # type: ignore[misc]
        def _init(self, module: Any) -> None:
            super()._init(module)
            self._tm, self._data_layout = machine, str(machine.target_data)

        def _create_empty_module(self, name: str) -> ir.Module:
            module: ir.Module = super()._create_empty_module(name)
            module.triple = target.triple
            return module

    def nothing_to_run(library: Any, function: Any, environment: Any) -> Any:
        library._ensure_finalized()
        return [].append  # numba keeps a built-in function of its own for each kernel

    KernelCache.is_used = False
    context = cpu_target.target_context
    context._internal_codegen = Code("streamkws")
    context.get_executable = nothing_to_run


def kernels_module(target: Target) -> llvm.ModuleRef:
    """All functions of a library for one kind of CPU, streamkws_<instructions>_<name>; only these are to be seen."""
    from streamkws.native.entries import ENTRIES  # compiles nothing before compile_for

    module, parts = ir.Module("streamkws"), []
    module.triple = target.triple
    places = python_places(module, is_defined=False)
    for name, (dispatcher, n_arguments) in ENTRIES.items():
        dispatcher.compile((types.int64,) * n_arguments)
        (overload,) = dispatcher.overloads.values()
        parts.append(overload.library._get_module_for_linking())
        calls = cpu_target.target_context.call_conv
        kind = calls.get_function_type(overload.fndesc.restype, overload.fndesc.argtypes)
        inner = ir.Function(module, kind, overload.fndesc.llvm_func_name)
        outer = ir.Function(module, ir.FunctionType(INT64, [INT64] * n_arguments), f"streamkws_{INSTRUCTIONS}_{name}")
        builder = ir.IRBuilder(outer.append_basic_block())
        result, error = (builder.alloca(argument.type.pointee) for argument in inner.args[:2])
        status = builder.call(inner, [result, error, *outer.args])
        is_good = builder.icmp_signed("==", status, INT32(0))
        builder.ret(builder.select(is_good, builder.load(result), INT64(-1)))
        if name in WHOLE_PATHS:
            define_python_path(module, places, outer, f"{outer.name}_python")
    whole = llvm.parse_assembly(str(module))
    for part in parts:
        whole.link_in(part, preserve=True)
    for function in whole.functions:
        if not function.is_declaration and not function.name.startswith("streamkws_"):
            function.linkage = "internal"
    for variable in whole.global_variables:
        if not variable.name.startswith("streamkws_"):
            variable.linkage = "internal"
    return whole


def base_module(target: Target) -> llvm.ModuleRef:
    """What a library has once, for every CPU."""
    module = ir.Module("streamkws base")
    module.triple = target.triple
    define_cpu_kinds(module, target)
    python_places(module, is_defined=True)
    if target.kinds is X86_64:
        define_rounding(module)
    whole = llvm.parse_assembly(str(module))
    for function in whole.functions:
        if not function.name.startswith("streamkws_"):
            function.visibility = "hidden"
    return whole


def object_code(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> bytes:
    """A module optimized, as an object file."""
    module.data_layout = str(machine.target_data)
    module.verify()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(module, passes)
    code: bytes = machine.emit_object(module)
    return code


def main() -> None:
    """Write the object file that the command line names; INSTRUCTIONS "base" is what a library has once."""
    name, instructions, path = sys.argv[1:]
    target = TARGETS[name]
    if instructions == "base":
        baseline = next(iter(target.kinds))
        Path(path).write_bytes(object_code(base_module(target), machine_of(target, baseline)))
        return
    assert instructions == INSTRUCTIONS, f"expected kernels for {instructions}, got {INSTRUCTIONS}"
    machine = machine_of(target, instructions)
    compile_for(target, machine)
    Path(path).write_bytes(object_code(kernels_module(target), machine))


if __name__ == "__main__":
    main()
