"""Runs dense layers in NumPy, onnxruntime or LiteRT for bench/speed/kernels.py, in an environment of theirs.

A network is a list of (O, I) float32 matrices with rectification between them. Every engine has `x`, the (I,) float32
input, `call`, which computes the network for it, and `y`, which returns the (O,) float32 output of the last call.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from protocol import pin, serve


class NumPy:
    """Matrix by vector in float32, by the BLAS that NumPy comes with."""

    def __init__(self, weights):
        self.weights, self.x = weights, np.zeros(weights[0].shape[1], np.float32)
        outputs = [np.zeros(len(w), np.float32) for w in weights]
        (first, x, y), *rest = zip(weights, [self.x, *outputs[:-1]], outputs, strict=True)
        dot, maximum = np.dot, np.maximum

        def call():
            dot(first, x, out=y)
            for w, before, after in rest:
                maximum(before, 0, out=before)
                dot(w, before, out=after)

        self.call, self.y = call, outputs[-1].copy


class OnnxRuntime:
    """quantize_dynamic's int8 matrices, input and output bound to memory that stays."""

    def __init__(self, weights):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(quantized_onnx(weights), options, providers=["CPUExecutionProvider"])
        self.x = np.zeros((1, weights[0].shape[1]), np.float32)
        source = onnxruntime.OrtValue.ortvalue_from_numpy(self.x)
        target = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, len(weights[-1])), np.float32))
        binding = session.io_binding()
        binding.bind_ortvalue_input("x0", source)
        binding.bind_ortvalue_output(f"y{len(weights) - 1}", target)
        x = self.x

        def call():
            source.update_inplace(x)
            session.run_with_iobinding(binding)

        self.call, self.y = call, lambda: target.numpy()[0]


class LiteRT:
    """Dynamic-range quantization: float input, int8 weights with a scale for each row."""

    def __init__(self, weights):
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=dynamic_range_model(weights), num_threads=1)
        interpreter.allocate_tensors()
        source = interpreter.get_input_details()[0]["index"]
        target = interpreter.get_output_details()[0]["index"]
        self.x = x = np.zeros((1, weights[0].shape[1]), np.float32)
        self.result = None

        def call():
            interpreter.set_tensor(source, x)
            interpreter.invoke()
            self.result = interpreter.get_tensor(target)

        self.call, self.y = call, lambda: self.result[0]


def quantized_onnx(weights):
    """An .onnx model of matrix products with their weights in int8 and their inputs quantized as they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    helper, last = onnx.helper, len(weights) - 1
    nodes = []
    for index in range(len(weights)):
        nodes.append(helper.make_node("MatMul", [f"x{index}", f"w{index}"], [f"y{index}"]))
        if index < last:
            nodes.append(helper.make_node("Relu", [f"y{index}"], [f"x{index + 1}"]))
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x0", onnx.TensorProto.FLOAT, [1, weights[0].shape[1]])],
        [helper.make_tensor_value_info(f"y{last}", onnx.TensorProto.FLOAT, [1, len(weights[last])])],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(w.T), f"w{index}") for index, w in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        quantize_dynamic(path, path, weight_type=QuantType.QInt8)
        return path.read_bytes()


def dynamic_range_model(weights):
    """A .tflite model as the converter's dynamic-range quantization makes it, from the schema that LiteRT ships."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name, shape, kind, buffer=0, scale=None):
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, list(shape), kind, buffer
        if scale is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = scale, np.zeros(len(scale), np.int64)
            made.quantization.quantizedDimension = 0
        return made

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers = 3, [schema.BufferT()]
    graph.tensors, graph.operators = [tensor("x", (1, weights[0].shape[1]), schema.TensorType.FLOAT32)], []
    for index, w in enumerate(weights):
        scale = np.abs(w).max(axis=1) / 127
        buffer = schema.BufferT()
        buffer.data = np.rint(w / scale[:, None]).astype(np.int8).view(np.uint8).ravel()
        model.buffers.append(buffer)
        graph.tensors.append(tensor(f"w{index}", w.shape, schema.TensorType.INT8, index + 1, scale.astype(np.float32)))
        graph.tensors.append(tensor(f"y{index}", (1, len(w)), schema.TensorType.FLOAT32))
        layer = schema.OperatorT()
        layer.opcodeIndex = 0
        layer.inputs, layer.outputs = [2 * index, 2 * index + 1, -1], [2 * index + 2]
        layer.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        layer.builtinOptions = schema.FullyConnectedOptionsT()
        layer.builtinOptions.asymmetricQuantizeInputs = True
        if index < len(weights) - 1:
            layer.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU
        graph.operators.append(layer)
    graph.inputs, graph.outputs = [0], [2 * len(weights)]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 9
    model.operatorCodes, model.subgraphs = [code], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


ENGINES = {"numpy": NumPy, "onnxruntime": OnnxRuntime, "litert": LiteRT}


class Worker:
    """The commands. networks: an .npz file with the matrices of network n as "n.0", "n.1", ..., its input as "n.x"."""

    def __init__(self):
        self.engines = {}

    def open(self, networks):
        """Build every network in every engine."""
        failed = {}
        with np.load(networks) as arrays:
            names = sorted({key.split(".")[0] for key in arrays.files})
            for network in names:
                n_layers = sum(key.startswith(f"{network}.") for key in arrays.files) - 1
                weights = [arrays[f"{network}.{index}"] for index in range(n_layers)]
                for engine, kind in ENGINES.items():
                    try:
                        made = kind(weights)
                    except Exception as error:  # said in a line; the other engines go on
                        failed[engine] = f"{type(error).__name__}: {error}".splitlines()[0]
                        continue
                    made.x.flat[:] = arrays[f"{network}.x"]
                    self.engines[engine, network] = made
        return failed

    def output(self, engine, network):
        """What the network gives for its input."""
        made = self.engines[engine, network]
        made.call()
        return made.y().tolist()

    def time(self, engine, network, n_calls):
        """Microseconds per call, over n_calls in a row."""
        call = self.engines[engine, network].call
        start = time.perf_counter_ns()
        for _ in range(n_calls):
            call()
        return (time.perf_counter_ns() - start) / n_calls / 1000


if __name__ == "__main__":
    pin(int(sys.argv[1]) if len(sys.argv) > 1 else None)
    worker = Worker()
    serve({"open": worker.open, "output": worker.output, "time": worker.time})
