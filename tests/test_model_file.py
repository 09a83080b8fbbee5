import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import random_model, speechlike
from safetensors.numpy import load_file, save_file

from streamkws import ModelFileError, load_model, posteriors, save_model
from streamkws.model_file import model_path, shipped_models


@pytest.mark.parametrize("widths", [None, (8, 8), (4, 8), (3, 8), (5, 8), ([32, 4, 8, 2], [32, 8, 8, 8])])
def test_a_model_comes_back_as_it_was(widths, tmp_path):
    model = random_model() if widths is None else random_model().quantize(*widths)
    path = save_model(model, tmp_path / "m.safetensors")
    again = load_model(path)
    assert again.config == model.config
    samples = speechlike(20000)
    assert np.array_equal(posteriors(samples, again), posteriors(samples, model))
    assert save_model(again, tmp_path / "n.safetensors").read_bytes() == path.read_bytes()


def test_a_file_from_before_weight_errors_loads(tmp_path):
    path = edited(tmp_path, drop_settings=["weight_errors"])
    assert "weight_errors" not in header_of(path)["config"]
    old, new = load_model(path), load_model(tmp_path / "good.safetensors")
    assert len(new.config.weight_errors) == 4
    assert old.config == replace(new.config, weight_errors=())


def test_shipped_models_say_what_quantization_changed():
    for name in shipped_models():
        config = load_model(name).config
        assert len(config.weight_errors) == (0 if config.is_float else len(config.layers))


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as failure:
        save_model(random_model(), tmp_path / "no" / "m.safetensors")
    assert failure.value.filename == str(tmp_path / "no" / "m.safetensors")


def test_a_failed_save_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "m.safetensors"
    folder.mkdir()
    with pytest.raises(OSError) as failure:
        save_model(random_model(), folder)
    assert failure.value.filename == str(folder)
    assert list(tmp_path.iterdir()) == [folder]


def test_shipped_models_load_by_name():
    for name in shipped_models():
        assert load_model(name).name == name
    if shipped_models():
        assert load_model("wakewords").name == "wakewords.w4a8"
        assert model_path("wakewords.f32").name == "wakewords.f32.safetensors"


def test_an_unknown_name_lists_the_shipped_ones():
    with pytest.raises(ModelFileError, match="unknown model 'nonesuch': neither a file nor a shipped model; shipped: "):
        load_model("nonesuch")


def header_of(path):
    """The streamkws entry of a file's metadata."""
    data = path.read_bytes()
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    assert list(metadata) == ["streamkws"]
    return json.loads(metadata["streamkws"])


def edited(tmp_path, tensors=None, drop=(), header=None, config=None, drop_settings=(), bits=4):
    """A file of the random model, w4a8 unless said, with some tensors, settings or the whole header changed."""
    model = random_model() if bits == 32 else random_model().quantize(bits, 8)
    good = save_model(model, tmp_path / "good.safetensors")
    contents = {k: v for k, v in {**load_file(good), **(tensors or {})}.items() if k not in drop}
    if header is None:
        old = header_of(good)
        settings = {**old["config"], **(config or {})}
        header = json.dumps({**old, "config": {k: v for k, v in settings.items() if k not in drop_settings}})
    bad = tmp_path / "bad.safetensors"
    save_file(contents, bad, {"streamkws": header})
    return bad


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(ModelFileError, match="no such model file"):
        load_model(tmp_path / "none.safetensors")


def test_a_directory_is_said(tmp_path):
    with pytest.raises(ModelFileError, match="expected a model file, got a directory"):
        load_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100, b"RIFF____WAVE"])
def test_a_file_that_is_no_safetensors_is_said(content, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="damaged, truncated or not a safetensors file"):
        load_model(path)


def test_every_truncation_is_said(tmp_path):
    whole = save_model(random_model().quantize(4, 8), tmp_path / "m.safetensors").read_bytes()
    for n in range(0, len(whole), len(whole) // 23):
        (tmp_path / "cut.safetensors").write_bytes(whole[:n])
        with pytest.raises(ModelFileError, match="damaged"):
            load_model(tmp_path / "cut.safetensors")


def test_flipped_bytes_load_or_are_said(tmp_path):
    """No damage may raise anything but ModelFileError."""
    whole = bytearray(save_model(random_model().quantize(4, 8), tmp_path / "m.safetensors").read_bytes())
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[rng.integers(0, min(5000, len(whole)))] ^= 1 << rng.integers(0, 8)
        (tmp_path / "d.safetensors").write_bytes(damaged)
        try:
            load_model(tmp_path / "d.safetensors")
        except ModelFileError:
            refused += 1
    assert refused > 50


def test_a_foreign_file_is_said(tmp_path):
    save_file({"x": np.zeros(3)}, tmp_path / "m.safetensors")
    with pytest.raises(ModelFileError, match="expected a streamkws model, got a safetensors file of another kind"):
        load_model(tmp_path / "m.safetensors")


def test_a_newer_file_is_said(tmp_path):
    with pytest.raises(ModelFileError, match="of version 1 or older, got version 7: update streamkws"):
        load_model(edited(tmp_path, header='{"version": 7}'))


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("{", "damaged model file: Expecting property name"),
        ("[1]", "damaged model file: expected a version number, got None"),
        ('{"version": "x"}', "damaged model file: expected a version number, got 'x'"),
        ('{"version": 1}', "expected a configuration object, got NoneType"),
        ('{"version": 1, "config": {}}', "expected a list of layers in the configuration"),
        ("[" * 100_000, "nested too deeply"),
        (
            '{"version": 1, "config": {"weight_errors": [[' + "9" * 9999 + ", 0]]}}",
            "damaged model file: Exceeds the limit",
        ),
    ],
)
def test_a_damaged_header_is_said(header, text, tmp_path):
    with pytest.raises(ModelFileError, match=text):
        load_model(edited(tmp_path, header=header))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"surprise": 1}, "expected the settings .* in ModelConfig, got"),
        ({"frontend": 3}, "expected the settings .* in FrontEndConfig, got int"),
        ({"frame_stride": "two"}, "expected int for frame_stride in ModelConfig, got 'two'"),
        ({"frame_stride": True}, "expected int for frame_stride in ModelConfig, got True"),
        ({"keywords": ["a", "b"]}, "expected 2 outputs of the last layer for 2 keywords with sigmoid, got 3"),
        ({"keywords": 5}, "expected a list of keywords, got 5"),
        ({"thresholds": []}, "expected dict.str, float. for thresholds in ModelConfig, got "),
        ({"durations_s": [1]}, "expected dict.str, float. for durations_s in ModelConfig, got .1"),
        ({"provenance": 5}, "expected an object of provenance in the configuration, got 5"),
        ({"weight_errors": 5}, "expected a list of weight_errors, two numbers a layer, got 5"),
        ({"weight_errors": None}, "expected a list of weight_errors, two numbers a layer, got None"),
        ({"weight_errors": [0.1] * 4}, "expected a list of weight_errors, two numbers a layer, got .0.1, 0.1, "),
        ({"weight_errors": [["0.1", 0.2]] * 4}, "expected a list of weight_errors, two numbers a layer, got ..'0.1', "),
        ({"weight_errors": [[0.1, 0.2]] * 3}, "expected two weight_errors for each of 4 layers, got "),
        ({"weight_errors": [[0.1, 0.2, 0.3]] * 4}, "expected two weight_errors for each of 4 layers, got "),
        ({"weight_errors": [[0.1, -0.2]] * 4}, "expected finite weight_errors of at least 0, got "),
        ({"weight_errors": [[0.1, float("nan")]] * 4}, "expected finite weight_errors of at least 0, got "),
        ({"weight_errors": [[0.1, 10**400]] * 4}, "expected finite weight_errors of at least 0, got "),
    ],
)
def test_settings_that_do_not_fit_are_said(changes, text, tmp_path):
    with pytest.raises(ModelFileError, match=text):
        load_model(edited(tmp_path, config=changes))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"drop": ["layers.1.lo"]}, "expected a tensor layers.1.lo, got features, "),
        ({"tensors": {"layers.0.bias": np.zeros(3, np.float32)}}, r"expected layers.0.bias of shape \(24,\) float32"),
        ({"tensors": {"layers.0.bias": np.zeros(24)}}, r"got \(24,\) float64"),
        ({"tensors": {"layers.0.bias": np.full(24, np.nan, np.float32)}}, "expected finite weights"),
        ({"tensors": {"frontend.mel_limits": np.full((20, 2), 999, np.int32)}}, "expected mel filters within the spec"),
    ],
)
def test_tensors_that_do_not_fit_are_said(changes, text, tmp_path):
    with pytest.raises(ModelFileError, match=text):
        load_model(edited(tmp_path, **changes))


@pytest.mark.parametrize("name", ["n_inputs", "n_outputs", "taps", "dilation", "weight_bits", "activation_bits"])
def test_a_fraction_for_a_size_is_said_and_reaches_no_kernel(name, tmp_path):
    """A dilation of 1.9 once loaded, and the kernels wrote outside their memory."""
    good = save_model(random_model().quantize(4, 8), tmp_path / "good.safetensors")
    layers = header_of(good)["config"]["layers"]
    layers[1][name] += 0.9
    with pytest.raises(ModelFileError, match=rf"expected int for {name} in LayerConfig, got \d+\.9"):
        load_model(edited(tmp_path, config={"layers": layers}))


def with_layer(changes):
    """Changes to the first layer of a configuration."""
    return lambda config: config["layers"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (with_layer({"dilation": 10**30}), "expected a layer that holds at most 65536 frames, got 4"),
        (with_layer({"dilation": 1 << 33}), "expected a layer that holds at most 65536 frames, got "),
        (with_layer({"n_inputs": 33_000, "dilation": 10_000}), "expected 20 inputs in layer 0, got 33000"),
        (lambda config: config.update(frame_stride=1 << 33), "expected frame_stride of 1 to 1000, got 8589934592"),
        (lambda config: config["smoother"].update(refractory_steps=1 << 63), "expected at most 100000 steps in the sm"),
        (lambda config: config["frontend"].update(n_mels=1 << 40), "expected 1 to 1024 mel bands, got "),
        (lambda config: config["layers"][-1].update(dilation=10**30), "a layer that holds at most 65536 frames"),
        (with_layer({"dilation": 10_000}), "expected layers that hear at most 600 s back, got "),
        (lambda config: config["thresholds"].update(alexa="x"), "expected a threshold above 0 .* for 'alexa', got 'x'"),
        (lambda config: config["thresholds"].update(alexa=7), "expected a threshold above 0 and at most 1 .* got 7"),
        (lambda config: config["thresholds"].update(alexa=0), "expected a threshold above 0 and at most 1 .* got 0"),
        (lambda config: config["thresholds"].update(alexa=True), "expected a threshold .* got True"),
        (lambda config: config["thresholds"].update(alexa=float("nan")), "expected a threshold .* got nan"),
        (
            lambda config: config["durations_s"].update(alexa=1e9),
            "expected a duration in seconds above 0 and at most 60",
        ),
        (lambda config: config["provenance"].update(name=5), "expected provenance to be text, got 5 for 'name'"),
        (
            lambda config: config.update(keywords=["a\x1b[2J", "b", "c"]),
            "expected keywords of printable characters, got ",
        ),
        (lambda config: config.update(keywords=["a\nb", "b", "c"]), "expected keywords of printable characters"),
        (lambda config: config.update(keywords=[" ", "b", "c"]), "expected keywords of printable characters, got ' '"),
    ],
)
def test_no_number_of_a_file_is_larger_than_it_may_be(change, text, tmp_path):
    """Each was once a MemoryError, an OverflowError or a TypeError, here or in the first push."""
    good = save_model(random_model().quantize(4, 8), tmp_path / "good.safetensors")
    config = header_of(good)["config"]
    change(config)
    with pytest.raises(ModelFileError, match=text):
        load_model(edited(tmp_path, config=config))


@pytest.mark.parametrize("bits", [32, 8, 4])
@pytest.mark.parametrize("value", [1e38, -1e38])
def test_no_model_answers_nan(bits, value, tmp_path):
    """Weights that are finite, and whose sums are not: such a model once loaded and answered NaN."""
    model = random_model() if bits == 32 else random_model().quantize(bits, 8)
    save_model(model, tmp_path / "good.safetensors")
    names = ["layers.1.weights"] if bits == 32 else ["layers.1.lo", "layers.1.step"]
    for name in (*names, "features", "frontend.mel_weights"):
        tensor = load_file(tmp_path / "good.safetensors")[name].copy()
        tensor.flat[1] = value
        with pytest.raises(ModelFileError, match=r"expected (values|mel filters) of at most|got NaN or infinite ones"):
            load_model(edited(tmp_path, bits=bits, tensors={name: tensor}))


def test_what_is_bounded_is_finite_whatever_is_heard():
    """The loudest sounds that are let in, at the bound: still no NaN."""
    rng = np.random.default_rng(0)
    loud = [64.0 * np.sign(rng.standard_normal(8000)), 64.0 * np.ones(8000), np.zeros(8000)]
    for model in (random_model(), random_model().quantize(8, 8), random_model().quantize(2, 2)):
        for samples in loud:
            frames = model.new_front_end().push(samples.astype(np.float32))
            assert np.abs(frames).max() < 200
            assert np.isfinite(posteriors(samples.astype(np.float32), model)).all()
