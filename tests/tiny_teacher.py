"""A teacher of the shapes of Google's speech embedding that computes next to nothing."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save_network(path, source, target, input_shape, nodes, constants):
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    inputs = [helper.make_tensor_value_info(source, TensorProto.FLOAT, input_shape)]
    outputs = [helper.make_tensor_value_info(target, TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7), path)


def write_teacher(folder):
    """Write its two networks.

    Band b of a frame is b + 1 times its mean absolute sample; an embedding's number d is d / 100 times the last band 0.
    """
    means = np.full((1, 1, 400), 1 / 400)
    nodes = [
        helper.make_node("Abs", ["input"], ["loud"]),
        helper.make_node("Unsqueeze", ["loud"], ["channel"], axes=[1]),
        helper.make_node("Conv", ["channel", "means"], ["frames"], strides=[160]),
        helper.make_node("Unsqueeze", ["frames"], ["column"], axes=[3]),
        helper.make_node("Mul", ["column", "bands"], ["output"]),
    ]
    constants = {"means": means, "bands": np.arange(1, 33)}
    save_network(folder / "melspectrogram.onnx", "input", "output", [1, "samples"], nodes, constants)
    last = np.zeros((96, 1, 76, 32))
    last[:, 0, 75, 0] = np.arange(96) / 100
    nodes = [
        helper.make_node("Transpose", ["input_1"], ["image"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["image", "last"], ["embedding"], strides=[8, 1]),
    ]
    save_network(folder / "embedding.onnx", "input_1", "embedding", [1, "frames", 32, 1], nodes, {"last": last})
