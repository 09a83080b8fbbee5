"""The teacher is fetched once, and takes any number of frames."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from streamkws.errors import MissingExtraError
from streamkws.voices import environment, fetch


def test_the_teacher_is_made_to_take_any_number_of_frames(tmp_path):
    import onnxruntime

    weights = np.random.default_rng(0).standard_normal((96, 1, 76, 32)).astype(np.float32)
    shapes = {"in_shape": [-1, 1, 76, 32], "out_shape": [-1, 1, 1, 96]}
    constants = [numpy_helper.from_array(np.array(shape, np.int64), name) for name, shape in shapes.items()]
    nodes = [
        helper.make_node("Reshape", ["input_1", "in_shape"], ["image"]),
        helper.make_node("Conv", ["image", "weights"], ["columns"], strides=[8, 1]),
        helper.make_node("Reshape", ["columns", "out_shape"], ["embedding"]),
    ]
    inputs = [helper.make_tensor_value_info("input_1", TensorProto.FLOAT, ["batch", 76, 32, 1])]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 1, 1, 96])]
    graph = helper.make_graph(
        nodes, "fixed", inputs, outputs, [*constants, numpy_helper.from_array(weights, "weights")]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7), tmp_path / "a.onnx")
    subprocess.run([sys.executable, "-c", fetch.ANY_LENGTH, tmp_path / "a.onnx", tmp_path / "b.onnx"], check=True)
    fixed, free = (onnxruntime.InferenceSession(str(tmp_path / name)) for name in ("a.onnx", "b.onnx"))
    mel = np.random.default_rng(1).standard_normal((1, 100, 32, 1)).astype(np.float32)
    wanted = [fixed.run(None, {"input_1": mel[:, 8 * k : 8 * k + 76]})[0].ravel() for k in range(4)]
    heard = free.run(None, {"input_1": mel})[0].reshape(96, -1).T
    np.testing.assert_allclose(heard, wanted, rtol=1e-4, atol=1e-4)


def test_both_networks_are_written_and_only_once(tmp_path, monkeypatch):
    commands = []

    def run_tool(name, command, folder=None):
        commands.append(command)
        if "download" in command:
            assert command[-1] == fetch.WHEEL
            place = Path(command[command.index("-d") + 1])
            with zipfile.ZipFile(place / "openwakeword-0.5.1-py3-none-any.whl", "w") as wheel:
                wheel.writestr(f"{fetch.MODELS}/melspectrogram.onnx", "mel")
                wheel.writestr(f"{fetch.MODELS}/embedding_model.onnx", "fixed")
        else:
            Path(command[-1]).write_text("any length of " + Path(command[-2]).read_text())
        return ""

    monkeypatch.setattr(fetch, "run_tool", run_tool)
    monkeypatch.setattr(fetch.Environment, "python", lambda self: Path(sys.executable))
    for _ in range(2):
        fetch.fetch_teacher(tmp_path / "teacher")
        assert len(commands) == 2
    files = {path.name: path.read_text() for path in (tmp_path / "teacher").iterdir()}
    assert files == {"melspectrogram.onnx": "mel", "embedding.onnx": "any length of fixed"}


def test_a_tool_that_is_missing_or_fails_is_one_line(tmp_path):
    message = "It cannot be installed: expected the command no-such-tool, found none"
    with pytest.raises(MissingExtraError, match=f"^{message}$"):
        environment.run_tool("It", ["no-such-tool"])
    script = "import sys; sys.exit('notice\\nERROR: No matching distribution\\nbye')"
    with pytest.raises(MissingExtraError, match=r"^It cannot be installed: ERROR: No matching distribution$"):
        environment.run_tool("It", [sys.executable, "-c", script])
    with pytest.raises(MissingExtraError, match=r"^It cannot be installed: exit code 3$"):
        environment.run_tool("It", [sys.executable, "-c", "raise SystemExit(3)"])


def test_an_environment_is_made_once_for_its_requirements(tmp_path, monkeypatch):
    commands = []

    def run_tool(name, command, folder=None):
        commands.append(command)
        (tmp_path / "tool" / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / "tool" / "bin" / "python").touch()
        return ""

    monkeypatch.setattr(environment, "run_tool", run_tool)
    for requirements, n_commands in ((("a==1",), 2), (("a==1",), 2), (("a==2",), 4)):
        python = environment.Environment("Tool", tmp_path / "tool", requirements).python()
        assert python == tmp_path / "tool" / "bin" / "python" and len(commands) == n_commands
    assert commands[-1][-1] == "a==2"
