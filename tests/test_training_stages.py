"""The stages of a recipe as they are read: what each changes, needs and is named after."""

from dataclasses import replace
from pathlib import Path

import pytest

from streamkws.errors import ConfigError
from streamkws.model_file import load_model
from streamkws.training.recipe_file import load_recipe
from streamkws.training.stages import Chain, load_stage, read_chain

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "models" / "wakewords.toml"
RUN = Path("runs") / "tiny"
HELD_OUT = Path("runs") / "tiny-held-out"
STAGED = """
[model]
keywords = ["a", "b"]
layers = [{ outputs = 8, taps = 3 }]
[data]
also_keywords = ["dev"]
negatives = { speech = 1 }
[training]
steps = 40
batch = 8
pool = 64
[export.provenance]
licence = "none"
[sources]
wakewords = ["us (CC0)", "you (CC BY)"]
speech = "you (CC BY)"
words = "nobody"
[[stages]]
name = "teacher"
kind = "fetch"
[[stages]]
name = "speakers"
kind = "voices"
speakers = 3
more = true
[[stages]]
name = "labels"
data.teacher = "teacher"
[[stages]]
name = "member"
extends = "labels"
data.also_keywords = []
training.seed = 2
[[stages]]
name = "distilled"
data.aligner = "member"
data.synthetic = "speakers"
training = { start_from = "labels", ensemble = ["member", "runs/other"], seed = 3 }
[[stages]]
name = "found"
kind = "mine"
models = ["member", "labels"]
sets = ["speakers"]
[[stages]]
name = "mined"
data.negatives = { found = 0.5 }
training.start_from = "distilled"
"""


def chain_of(tmp_path, text=STAGED, held_out="") -> Chain:
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    return read_chain(path, held_out)


def test_a_stage_changes_what_is_shared_and_names_earlier_stages(tmp_path):
    chain = chain_of(tmp_path)
    assert list(chain.recipes) == ["labels", "member", "distilled", "mined"]
    labels, member = chain.recipes["labels"], chain.recipes["member"]
    assert (labels.data.teacher, member.data.teacher) == ("runs/tiny/teacher",) * 2
    assert (labels.data.also_keywords, member.data.also_keywords) == (("dev",), ())
    assert replace(member.training, seed=1) == labels.training and labels.training.steps == 40
    distilled = chain.recipes["distilled"]
    assert distilled.data.aligner == "runs/tiny/member/model.safetensors"
    assert distilled.data.synthetic == "runs/tiny/speakers" and distilled.data.teacher == ""
    assert distilled.training.start_from == "runs/tiny/labels"
    assert distilled.training.ensemble == ("runs/tiny/member", "runs/other")
    assert chain.recipes["mined"].data.negatives == {"speech": 1.0, "runs/tiny/found": 0.5}
    assert chain.resolved("found")["mine"] == {
        "models": ["runs/tiny/member/model.safetensors", "runs/tiny/labels/model.safetensors"],
        "sets": ["runs/tiny/speakers"],
    }
    assert [recipe.name for recipe in chain.recipes.values()] == [
        "tiny-labels",
        "tiny-member",
        "tiny-distilled",
        "tiny",
    ]


def test_what_a_stage_needs(tmp_path):
    chain = chain_of(tmp_path)
    assert chain.stages["distilled"].needs == ("speakers", "member", "labels")
    assert chain.needed_by("labels") == ["teacher", "labels"]
    assert chain.needed_by("distilled") == ["teacher", "speakers", "labels", "member", "distilled"]
    assert chain.needed_by("mined") == list(chain.stages)
    with pytest.raises(ConfigError, match=r"expected a stage of teacher, speakers, labels, .*, got 'x'"):
        chain.needed_by("x")


def test_provenance_is_told_from_the_stages(tmp_path):
    provenance = chain_of(tmp_path).recipes["mined"].export.provenance
    assert provenance == {
        "name": "tiny",
        "recipe": "tiny.toml",
        "data": "us (CC0), you (CC BY); taught by Google's speech embedding (Apache-2.0); "
        "3 speakers synthesized by Kokoro-82M (Apache-2.0); negatives made by numpy and espeak-ng",
        "training": "labels (40 steps of 8 examples, seed 1), then distilled (40 steps of 8 examples, an ensemble of "
        "2, seed 3), then mined (40 steps of 8 examples, seed 1); with the help of member (40 steps of 8 examples, "
        "seed 2)",
        "licence": "none",
    }
    assert "synthesized" not in chain_of(tmp_path).recipes["labels"].export.provenance["data"]
    held_out = chain_of(tmp_path, held_out="dev").recipes["mined"].export.provenance
    assert held_out["name"] == "tiny-held-out" and held_out["training"].endswith(
        "; without dev's recordings of the keywords"
    )


def test_holding_a_part_out_trains_anew_only_what_that_changes(tmp_path):
    chain = chain_of(tmp_path, held_out="dev")
    assert all(recipe.data.also_keywords == () for recipe in chain.recipes.values())
    assert {name: chain.folder(name) for name in chain.stages} == {
        "teacher": RUN / "teacher",
        "speakers": RUN / "speakers",
        "labels": HELD_OUT / "labels",
        "member": RUN / "member",
        "distilled": HELD_OUT / "distilled",
        "found": HELD_OUT / "found",
        "mined": HELD_OUT / "mined",
    }
    assert chain.recipes["distilled"].training.start_from == "runs/tiny-held-out/labels"
    alike = chain_of(tmp_path, STAGED.replace("training.seed = 2", ""), "dev")
    assert alike.folder("labels") == alike.folder("member") == RUN / "member"


@pytest.mark.parametrize(("text", "part"), [(STAGED, "train"), (STAGED.replace('also_keywords = ["dev"]', ""), "dev")])
def test_a_part_that_is_not_trained_on_cannot_be_held_out(tmp_path, text, part):
    with pytest.raises(ConfigError, match=f"expected stage 'mined' to train on {part}, which is to be held out"):
        chain_of(tmp_path, text, part)


def test_the_fingerprint_of_a_stage_follows_from_what_it_is_made_of(tmp_path):
    before = chain_of(tmp_path)
    others = {
        ("steps = 40", "steps = 41"): {"labels", "member", "distilled", "found", "mined"},
        ("speakers = 3", "speakers = 4"): {"speakers", "distilled", "found", "mined"},
        ('keywords = ["a", "b"]', 'keywords = ["a", "c"]'): {*before.stages} - {"teacher"},
        ("training.seed = 2", "training.seed = 4"): {"member", "distilled", "found", "mined"},
        ('licence = "none"', 'licence = "some"'): set(),
        ("[data]", '[data]\ncorpus = "elsewhere"'): set(),
    }
    for (old, new), changed in others.items():
        assert old in STAGED
        after = chain_of(tmp_path, STAGED.replace(old, new))
        assert {name for name in before.stages if before.fingerprint(name) != after.fingerprint(name)} == changed


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "labels"', 'name = "speakers"', "to have a name of its own, got 'speakers'"),
        ('name = "labels"', "", "to have a name of its own, got None"),
        ('name = "labels"', 'name = "../labels"', r"expected a stage's name of letters, .*, got '\.\./labels'"),
        ('name = "labels"', 'name = "teacher"', "to have a name of its own, got 'teacher'"),
        ('"fetch"', '"pray"', "expected stage 'teacher' to be of kind train, fetch, voices, mine, got 'pray'"),
        ('kind = "fetch"', 'kind = "fetch"\nfrom = "x"', "unknown key stage 'teacher'.from"),
        ("speakers = 3", "", "expected stage 'speakers'.speakers, found none"),
        ("training.seed = 2", "trainings.seed = 2", "unknown key 'trainings' in stage 'member'; known: name, kind"),
        ("training.seed = 2", "training.seeds = 2", "stage 'member': unknown key training.seeds"),
        (
            'extends = "labels"',
            'extends = "mined"',
            "expected stage 'member' to extend an earlier stage that trains, got",
        ),
        (
            'start_from = "labels"',
            'start_from = "lables"',
            r"stage 'distilled': expected training.start_from to name an earlier stage \(labels, member\) or a path",
        ),
        ('start_from = "labels"', 'start_from = "mined"', "training.start_from to name an earlier stage"),
        (
            'start_from = "labels"',
            'start_from = "speakers"',
            "expected training.start_from to name a stage of kind 'train', 'speakers' is of 'voices'",
        ),
        ('aligner = "member"', 'aligner = "wakewords.f32"', "expected data.aligner to name an earlier stage"),
        ("[sources]", "[sources]\nx = 3", r"expected \[sources\] of .*tiny.toml to give each set a text"),
    ],
)
def test_wrong_stages(tmp_path, old, new, message):
    assert old in STAGED
    with pytest.raises(ConfigError, match=message):
        chain_of(tmp_path, STAGED.replace(old, new, 1))


@pytest.mark.parametrize("listed", ["stages = []", "stages = 3", "stages = [3]"])
def test_a_recipe_has_a_list_of_stages(tmp_path, listed):
    with pytest.raises(ConfigError, match=r"expected \[\[stages\]\] in .*tiny.toml"):
        chain_of(tmp_path, listed + STAGED.split("[[stages]]")[0])


def test_a_chain_trains_something(tmp_path):
    with pytest.raises(ConfigError, match=r'expected a stage of kind "train" in .*tiny.toml, found none'):
        chain_of(tmp_path, STAGED.split('[[stages]]\nname = "labels"')[0])


def test_recipes_with_and_without_stages(tmp_path):
    chain = chain_of(tmp_path)
    assert load_stage(chain.path, "labels") == chain.recipes["labels"]
    with pytest.raises(ConfigError, match="expected a stage of labels, member, distilled, mined, got 'found'"):
        load_stage(chain.path, "found")
    with pytest.raises(ConfigError, match=r"expected a recipe without stages, .*tiny.toml has some"):
        load_recipe(chain.path)
    plain = tmp_path / "plain.toml"
    plain.write_text(STAGED.split("[sources]")[0])
    assert read_chain(plain) is None and load_stage(plain, "labels") == load_recipe(plain)


def test_the_shipped_recipe_is_the_shipped_network(monkeypatch):
    monkeypatch.chdir(ROOT)  # its paths begin there
    chain = read_chain(SHIPPED)
    last = chain.trained[-1]
    assert chain.name == "wakewords" and chain.needed_by(last) == list(chain.stages)  # nothing is made in vain
    config = chain.recipes[last].model.to_model_config({})
    assert len(config.keywords) == 6 and [layer.n_inputs for layer in config.layers] == [40] + [96] * 8
    assert config.layers[-1].activation == "sigmoid" and config.layers[-1].n_outputs == 6
    for recipe in chain.recipes.values():
        assert recipe.export.bits == ((8, 8), (4, 8)) and recipe.data.also_keywords == ("dev",)
        assert recipe.model == chain.recipes[last].model and set(recipe.data.noise) <= set(recipe.data.negatives)
        files = {
            path for path in (recipe.training.start_from, *recipe.training.ensemble) if path.endswith(".safetensors")
        }
        assert files
        for path in (recipe.data.aligner, *files):
            start = load_model(path)
            assert start.keywords == config.keywords and start.config.layers == config.layers
            assert start.config.frontend == config.frontend
        corpus_sets = {name for name in recipe.data.negatives if "/" not in name} - {"synthetic", "excluded"}
        assert corpus_sets <= set(chain.sources)
    provenance = chain.recipes[last].export.provenance
    assert provenance["recipe"] == "models/wakewords.toml" and "LibriSpeech (CC BY 4.0)" in provenance["data"]
    assert provenance["training"].startswith(f"near_before.f32.safetensors, then {last} (")


def test_the_held_out_models_differ_in_what_they_hear_alone():
    shipped, held_out = read_chain(SHIPPED), read_chain(SHIPPED, "dev")
    anew = [name for name in held_out.stages if held_out.folder(name).parts[1] == "wakewords-held-out"]
    assert anew == shipped.trained
    for name, recipe in shipped.recipes.items():
        without = held_out.recipes[name]
        assert without.data == replace(recipe.data, also_keywords=()) and without.training == recipe.training
    assert held_out.recipes[shipped.trained[-1]].name == "wakewords-held-out"


def test_a_list_of_stages_to_extend_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"stage 'more' to extend an earlier stage that trains, got \['labels'\]"):
        chain_of(tmp_path, STAGED + '[[stages]]\nname = "more"\nextends = ["labels"]\n')


@pytest.mark.parametrize("name", ["carry_over", "from_scratch"])
def test_where_the_shipped_network_comes_from_never_heard_dev(name):
    chain = read_chain(ROOT / "bench" / "research" / f"{name}.toml", "" if name == "carry_over" else "dev")
    for recipe in chain.recipes.values():
        data = recipe.data
        assert (data.train, data.also_train, data.also_keywords, data.validation) == ("train", (), (), "dev")
        assert set(data.noise) <= set(data.negatives)
    recipe = chain.recipes[chain.trained[-1]]
    corpus_sets = {name for name in recipe.data.negatives if "/" not in name and name != "synthetic"}
    assert corpus_sets <= set(chain.sources)
