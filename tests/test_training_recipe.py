"""A recipe is read strictly: what is not understood is an error that names what is."""

from dataclasses import replace

import pytest

from streamkws.errors import ConfigError
from streamkws.training.fake_quant import QuantizationConfig
from streamkws.training.recipe import ExportConfig, HiddenLayer, TrainingConfig
from streamkws.training.recipe_file import load_recipe, recipe_text

MINIMAL = """
[model]
keywords = ["a", "b"]
layers = [{ outputs = 8, taps = 3 }, { outputs = 8, taps = 2, dilation = 2, residual = true }]
[data]
negatives = { speech = 1 }
"""
QUANTIZED = MINIMAL + "[quantization]\n"
OWN = MINIMAL.replace("taps = 3", "taps = 3, weight_bits = 8, activation_bits = 6")
FLOAT = MINIMAL.replace("taps = 3", "taps = 3, weight_bits = 32, activation_bits = 32")


def read(tmp_path, text):
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    return load_recipe(path)


EXTENDING = """
extends = "../tiny.toml"
[data]
negatives = { words = 2 }
[training]
steps = 7
"""


def extending(tmp_path, text, below=MINIMAL):
    """A recipe in a folder beside the one it extends."""
    (tmp_path / "tiny.toml").write_text(below)
    (tmp_path / "more").mkdir(exist_ok=True)
    path = tmp_path / "more" / "mine.toml"
    path.write_text(text)
    return path


def test_a_recipe_extends_another(tmp_path):
    path = extending(tmp_path, EXTENDING, MINIMAL + "[training]\nsteps = 5\nbatch = 3\n")
    recipe = load_recipe(path)
    assert recipe.name == "mine" and recipe.model.keywords == ("a", "b")
    assert recipe.data.negatives == {"speech": 1.0, "words": 2.0}
    assert (recipe.training.steps, recipe.training.batch) == (7, 3)
    one = tmp_path / "mine2.toml"
    one.write_text('extends = "more/mine.toml"\nmodel.keywords = ["c"]\n')
    assert load_recipe(one) == replace(recipe, name="mine2", model=replace(recipe.model, keywords=("c",)))


def test_a_quantized_recipe_drops_the_widths_of_the_one_it_extends(tmp_path):
    below = MINIMAL + "[export]\nbits = [[8, 8]]\nthreshold_confidence = 0.5\n"
    recipe = load_recipe(extending(tmp_path, EXTENDING + "[quantization]\n", below))
    assert recipe.quantization == QuantizationConfig() and recipe.export.threshold_confidence == 0.5
    with pytest.raises(ConfigError, match=r"expected no export\.bits"):
        load_recipe(extending(tmp_path, EXTENDING + "[quantization]\n[export]\nbits = [[4, 8]]\n", below))
    rounding = MINIMAL + "[export]\nrounding_examples = 7\n"
    assert load_recipe(extending(tmp_path, EXTENDING, rounding)).export.rounding_examples == 7
    quantized = load_recipe(extending(tmp_path, EXTENDING + "[quantization]\n", rounding))
    assert quantized.export == ExportConfig()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('extends = "../none.toml"', "cannot read recipe .*none.toml"),
        ("extends = 3", "expected extends to be the path of a recipe, got 3"),
        ('extends = "mine.toml"', "mine.toml extends itself"),
        ('extends = "../tiny.toml"\nexport = 3', r"expected \[export\] to be a section"),
    ],
)
def test_what_cannot_be_extended(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said):
        load_recipe(extending(tmp_path, text))


def test_a_copied_recipe_is_the_same_without_the_one_it_extends(tmp_path):
    pytest.importorskip("tomli_w")
    path, copy = extending(tmp_path, EXTENDING), tmp_path / "run" / "recipe.toml"
    copy.parent.mkdir()
    copy.write_text(recipe_text(path))
    assert load_recipe(copy) == load_recipe(path)
    assert recipe_text(tmp_path / "tiny.toml") == MINIMAL


def test_a_minimal_recipe_has_defaults(tmp_path):
    recipe = read(tmp_path, MINIMAL)
    assert recipe.name == "tiny"
    assert recipe.model.layers == (HiddenLayer(8, 3), HiddenLayer(8, 2, 2, True))
    assert recipe.data.negatives == {"speech": 1.0}
    assert recipe.training == TrainingConfig() and recipe.export == ExportConfig()
    assert recipe.quantization is None


def widths(recipe):
    """Bits of every layer: w4a8, ..."""
    return [layer.bits for layer in recipe.model.to_model_config({}, recipe.quantization).layers]


def test_layers_get_their_widths_from_the_section_unless_they_have_their_own(tmp_path):
    recipe = read(tmp_path, QUANTIZED)
    assert recipe.quantization == QuantizationConfig()
    assert widths(recipe) == ["w4a8"] * 3
    assert recipe.model.to_model_config({}).bits == "f32"
    section = "[quantization]\nweights = 3\nlast_weights = 8\n"
    assert widths(read(tmp_path, OWN + section)) == ["w8a6", "w3a8", "w8a8"]
    assert widths(read(tmp_path, FLOAT + section)) == ["f32", "w3a8", "w8a8"]
    assert widths(read(tmp_path, OWN + "[quantization]\nweights = 32\nactivations = 32\n")) == ["w8a6", "f32", "f32"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "spped = 1\n" + MINIMAL,
            "unknown key 'spped' in .*tiny.toml; known: name, extends, stages, model, data, augment, training",
        ),
        (
            MINIMAL + "[training]\nsteps_ = 3\n",
            "unknown key training.steps_; known: start_from, steps, max_minutes, batch",
        ),
        (MINIMAL.replace("taps = 3", "tabs = 3"), r"unknown key model.layers\[0\].tabs; known: outputs, taps"),
        (MINIMAL.replace("outputs = 8, taps = 3", "taps = 3"), r"expected model.layers\[0\].outputs, found none"),
        (MINIMAL.split("[data]")[0], "expected data.negatives, found none"),
        (MINIMAL + '[training]\nsteps = "many"\n', "expected training.steps to be int, got 'many'"),
        (MINIMAL + "[training]\nsteps = true\n", "expected training.steps to be int, got True"),
        (MINIMAL + "[training]\nsteps = 0\n", "expected training.steps of at least 1, got 0"),
        (MINIMAL + "[training]\nreuse = 0.5\n", "expected training.reuse of at least 1, got 0.5"),
        (MINIMAL + "[training]\npool = 3\n", "expected training.pool >= batch, got 3 and 64"),
        (MINIMAL + "[training]\nensemble_heard = 1.5\n", "expected training.ensemble_heard in 0..1, got 1.5"),
        (MINIMAL + "[training]\naverage_decay = 1.0\n", "expected training.average_decay in 0..1, got 1.0"),
        (MINIMAL + "[training]\nframe_weight = -1\n", "expected training.frame_weight >= 0, got -1.0"),
        (MINIMAL.replace('["a", "b"]', '["a", "a"]'), "expected model.keywords to name keywords, each once"),
        (MINIMAL.replace('["a", "b"]', '"a"'), "expected model.keywords to be a list, got 'a'"),
        ("model = 3\n", r"expected \[model\] to be a section"),
        ("[model]\nkeywords = ['a']\nlayers = []\n", "expected at least one layer in model.layers"),
        ("[model]\nkeywords = ['a']\nlayers = 3\n", "expected model.layers to be a list"),
        ("[model]\nkeywords = ['a']\nlayers = [3]\n", r"expected model.layers\[0\] to be a table, got 3"),
        (MINIMAL + "[export]\nbits = [[8, 9]]\n", r"expected export.bits to be pairs of 2 to 8 bits, got \(8, 9\)"),
        (MINIMAL + "[export]\nrounding_examples = -1\n", "expected export.rounding_examples >= 0, got -1"),
        (
            QUANTIZED + "[export]\nrounding_examples = 9\n",
            r"expected no export.rounding_examples beside \[quantization\], whose model is written in the widths",
        ),
        (MINIMAL + "[export]\nbits = [4]\n", "expected export.bits to be pairs of 2 to 8 bits, got 4"),
        (MINIMAL + "[export]\nnoise_snrs_db = ['10']\n", "expected export.noise_snrs_db to be numbers of dB, got '10'"),
        (MINIMAL + "[export]\nearly_stopping = 1\n", "expected export.early_stopping to be bool, got 1"),
        (MINIMAL + "[export]\ntarget_fa_per_h = -1\n", "expected export.target_fa_per_h >= 0, got -1.0"),
        (
            MINIMAL + "[export]\nthreshold_confidence = 0.4\n",
            "expected export.threshold_confidence of 0.5 to 0.999, or 0, got 0.4",
        ),
        (MINIMAL + "[export]\nlowest_threshold = 1\n", "expected export.lowest_threshold from 0 to below 1, got 1.0"),
        ("model = = 3\n", "expected a recipe in TOML, .*tiny.toml is not"),
        (QUANTIZED + "bits = 4\n", "unknown key quantization.bits; known: weights, activations, last_weights"),
        (QUANTIZED + "weights = 9\n", "expected quantization.weights of 2 to 8 or 32 bits, got 9"),
        (QUANTIZED + "activations = 0\n", "expected quantization.activations of 2 to 8 or 32 bits, got 0"),
        (QUANTIZED + "last_weights = 1\n", "expected quantization.last_weights of 2 to 8 or 32 bits, got 1"),
        (
            QUANTIZED + "weights = 32\n",
            "expected quantization.weights and quantization.activations both 32 or neither, got 32 and 8",
        ),
        (
            QUANTIZED + "last_activations = 32\n",
            "expected quantization.last_weights and quantization.last_activations both 32 or neither, got 4 and 32",
        ),
        (QUANTIZED + "start_share = 1.5\n", "expected quantization.start_share in 0..1, got 1.5"),
        (QUANTIZED + 'gradient = "none"\n', "expected quantization.gradient of identity, ranges, got 'none'"),
        (
            QUANTIZED + 'activation_ranges = "static"\n',
            "expected quantization.activation_ranges = \"frame\", got 'static', a baseline for experiments",
        ),
        (
            QUANTIZED + "weights = 32\nactivations = 32\n",
            r"expected \[quantization\] to quantize a layer, got 32 bits in all",
        ),
        (
            QUANTIZED + "freeze_share = 0\n",
            "expected training.start_from beside freeze_share = 0, found none: batch normalization would be frozen",
        ),
        (
            QUANTIZED + 'weight_ranges = "matrix"\n',
            'expected training.start_from beside weight_ranges = "matrix", found none',
        ),
        (
            QUANTIZED + "[export]\nbits = [[8, 8]]\n",
            r"expected no export.bits beside \[quantization\], whose model is written in the widths",
        ),
        ("quantization = 4\n" + MINIMAL, r"expected \[quantization\] to be a section"),
        (OWN, r"expected a \[quantization\] section for model.layers\[0\].weight_bits, found none"),
        (
            OWN.replace("weight_bits = 8", "weight_bits = 9"),
            r"expected model.layers\[0\].weight_bits of 2 to 8 or 32 bits, got 9",
        ),
        (
            OWN.replace("weight_bits = 8, ", ""),
            r"expected model.layers\[0\].weight_bits of 2 to 8 or 32 bits, got 0",
        ),
        (
            FLOAT.replace("activation_bits = 32", "activation_bits = 8"),
            r"expected model.layers\[0\].weight_bits and model.layers\[0\].activation_bits both 32 or neither, "
            "got 32 and 8",
        ),
    ],
)
def test_wrong_recipes(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read recipe .*none.toml: No such file"):
        load_recipe(tmp_path / "none.toml")
