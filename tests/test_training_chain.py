"""A recipe with stages, from an empty folder to models: interrupted, continued, skipped, refused."""

import inspect
import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from synthetic_corpus import KEYWORDS, chirp, write_part, write_set

from streamkws.cli import main
from streamkws.errors import ConfigError
from streamkws.model_file import load_model
from streamkws.training import chain as chain_module
from streamkws.training import loop
from streamkws.training.chain import run_chain, stage_table
from streamkws.training.stages import read_chain

STAGED = """
name = "chirps"
[model]
keywords = ["go up", "down"]
n_mels = 20
layers = [{ outputs = 8, taps = 5 }, { outputs = 8, taps = 3, dilation = 4, residual = true }]
[data]
also_keywords = ["dev"]
synthetic = "speakers"
aligner = "aligner"
impulse_responses = "rooms"
noise = ["hiss"]
negatives = { speech = 1, hiss = 0.3 }
[training]
steps = 4
batch = 8
pool = 32
reuse = 8
validate_steps = 0
log_steps = 2
[export]
bits = [[4, 8]]
rounding_examples = 4
[[stages]]
name = "teacher"
kind = "fetch"
[[stages]]
name = "speakers"
kind = "voices"
speakers = 2
accents = true
[[stages]]
name = "aligner"
data.aligner = ""
data.also_keywords = []
[[stages]]
name = "labels"
[[stages]]
name = "member"
data.also_keywords = []
training.seed = 2
[[stages]]
name = "distilled"
training.start_from = "labels"
training.ensemble = ["member"]
training.steps = 6
[[stages]]
name = "found"
kind = "mine"
models = ["distilled", "member"]
sets = ["speakers"]
hours = 3
[[stages]]
name = "mined"
extends = "distilled"
training.start_from = "distilled"
data.negatives = { found = 0.5 }
"""
NAMES = ["teacher", "speakers", "aligner", "labels", "member", "distilled", "found", "mined"]


class Tools:
    """What stands in for streamkws.voices: each tool writes a small set at once, and notes how it was called."""

    def __init__(self):
        self.calls = []
        self.fails = ""

    def fetch_teacher(self, folder):
        self.calls.append(("fetch", str(folder)))

    def synthesize(self, folder, *, n_speakers, accents=False, more=False, keywords=(), show):
        self.calls.append(("voices", str(folder), n_speakers, accents, more, keywords))
        if self.fails == "voices":
            raise KeyboardInterrupt
        for count in range(1, 41):
            show("synthesizing", count, 40)
        words = [chirp(400, 1500), chirp(1800, 500), np.random.default_rng(1).standard_normal(16000) * 0.1]
        write_tool_set(folder, words, [*KEYWORDS, "other"])

    def mine(self, folder, *, models, sets=(), hours=30, show):
        self.calls.append(("mine", str(folder), models, sets, hours))
        assert all(load_model(model).keywords == KEYWORDS for model in models)
        write_tool_set(folder, [np.random.default_rng(2).standard_normal(30000) * 0.1], ["hour: down"])

    def modules(self):
        return {
            "streamkws.voices.fetch": types.SimpleNamespace(fetch_teacher=self.fetch_teacher),
            "streamkws.voices.speakers": types.SimpleNamespace(synthesize=self.synthesize),
            "streamkws.voices.mining": types.SimpleNamespace(mine=self.mine),
        }


def write_tool_set(folder, parts, labels):
    """As write_set, in the folder that the stage has made."""
    write_set(Path(folder) / "new", ["0.flac"] * len(parts), parts, labels)
    for path in (Path(folder) / "new").iterdir():
        path.replace(Path(folder) / path.name)
    (Path(folder) / "new").rmdir()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    write_part(root / "train", 1)
    write_part(root / "dev", 2)
    return root


@pytest.fixture
def tools(monkeypatch):
    made = Tools()
    for name, module in made.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory, corpus):
    """A folder where all stages were run, interrupted in a tool and while a network trained, and the tools' calls."""
    folder, tools = tmp_path_factory.mktemp("chain"), Tools()
    (folder / "chirps.toml").write_text(STAGED)
    n_steps = 0

    def interrupted(*arguments):
        nonlocal n_steps
        n_steps += 1
        if n_steps == 14:  # the second step of "distilled"
            raise KeyboardInterrupt
        step(*arguments)

    step = loop.optimizer_step
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, module in tools.modules().items():
            patch.setitem(sys.modules, name, module)
        patch.setattr(loop, "optimizer_step", interrupted)
        tools.fails = "voices"
        with pytest.raises(KeyboardInterrupt):
            run_chain(read_chain("chirps.toml"), corpus)
        assert states(read_chain("chirps.toml")) == ["done", "begun"] + ["to do"] * 6
        tools.fails = ""
        with pytest.raises(KeyboardInterrupt):
            run_chain(read_chain("chirps.toml"), corpus)
        assert states(read_chain("chirps.toml")) == ["done"] * 5 + ["begun", "to do", "to do"]
        run_chain(read_chain("chirps.toml"), corpus)
    return folder, tools.calls


@pytest.fixture
def copy(finished, tmp_path, monkeypatch):
    """A copy of that folder, and the working directory."""
    shutil.copytree(finished[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def states(chain):
    """The third column of the table of stages."""
    lines = [line.split() for line in stage_table(chain).replace("to do", "to_do").splitlines()]
    assert [line[0] for line in lines] == ["stage", *chain.stages]
    return [line[2].replace("to_do", "to do") for line in lines[1:]]


def steps_of(folder):
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_every_stage_runs_once_and_an_interrupted_one_continues(finished):
    folder, calls = finished
    root = folder / "runs" / "chirps"
    assert sorted(path.name for path in root.iterdir()) == sorted(NAMES)
    assert calls == [
        ("fetch", "runs/chirps/teacher"),
        ("voices", "runs/chirps/speakers", 2, True, False, KEYWORDS),
        ("voices", "runs/chirps/speakers", 2, True, False, KEYWORDS),
        (
            "mine",
            "runs/chirps/found",
            ["runs/chirps/distilled/model.safetensors", "runs/chirps/member/model.safetensors"],
            ["runs/chirps/speakers"],
            3,
        ),
    ]
    assert steps_of(root / "labels") == [2, 4]
    assert steps_of(root / "distilled") == [3, 5]  # continued after the first step, from there on in twos
    assert "aligner/model.safetensors" in (root / "mined" / "recipe.toml").read_text()


def test_finished_stages_are_skipped(finished, corpus, tools, monkeypatch, capsys):
    monkeypatch.chdir(finished[0])
    monkeypatch.setattr(chain_module, "train_network", None)
    run_chain(read_chain("chirps.toml"), corpus)
    run_chain(read_chain("chirps.toml"), corpus, until="member")
    assert tools.calls == []
    assert "stage mined: done\n" in capsys.readouterr().err


def test_the_last_stage_is_exported_with_its_provenance(finished, corpus, tools, monkeypatch, capsys):
    monkeypatch.chdir(finished[0])
    assert main(["train", "chirps.toml", "--corpus", str(corpus), "--export", "out"]) == 0
    assert capsys.readouterr().out.endswith("out/chirps.f32.safetensors\nout/chirps.w4a8.safetensors\n")
    provenance = load_model("out/chirps.w4a8.safetensors").config.provenance
    assert provenance["name"] == "chirps" and provenance["recipe"] == "chirps.toml"
    assert provenance["training"].startswith("labels (4 steps of 8 examples, seed 1), then distilled (6 steps")


def test_the_command_runs_and_lists_a_stage(finished, corpus, tools, monkeypatch, capsys):
    monkeypatch.chdir(finished[0])
    assert main(["train", "chirps.toml", "--list", "--stage", "distilled"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split(maxsplit=3) == ["distilled", "train", "done", "speakers, aligner, labels, member"]
    assert main(["train", "chirps.toml", "--stage", "nothing"]) == 2
    assert "expected a stage of teacher, speakers, " in capsys.readouterr().err
    Path("plain.toml").write_text("[model]\n")
    assert main(["train", "plain.toml", "--list"]) == 2
    assert "expected a recipe with [[stages]], plain.toml has none" in capsys.readouterr().err


def test_a_stage_without_a_network_cannot_be_exported(finished, tools, monkeypatch, capsys):
    monkeypatch.chdir(finished[0])
    assert main(["train", "chirps.toml", "--stage", "found", "--export", "out"]) == 2
    message = "expected a stage with a network to export (aligner, labels, member, distilled, mined), got 'found'"
    assert capsys.readouterr().err == f"streamkws: {message}\n" and tools.calls == []


def test_the_tools_take_what_stages_give():
    from streamkws.voices import fetch_teacher, mine, synthesize

    inspect.signature(fetch_teacher).bind("folder")
    voices = {"n_speakers": 2, "accents": True, "more": True, "keywords": KEYWORDS, "show": print}
    inspect.signature(synthesize).bind("folder", **voices)
    given = {"models": ["a"], "sets": ["b"], "hours": 1, "foreign_hours": 1, "show": print}
    inspect.signature(mine).bind("folder", **given)


def test_holding_dev_out_trains_the_stages_that_heard_it(finished, corpus, tools, monkeypatch):
    monkeypatch.chdir(finished[0])
    chain = read_chain("chirps.toml", "dev")
    assert states(chain) == ["done"] * 3 + ["to do", "done"] + ["to do"] * 3
    run_chain(chain, corpus, until="labels")
    assert states(chain) == ["done"] * 5 + ["to do"] * 3
    assert not (Path("runs") / "chirps-held-out" / "member").exists()
    assert "also_keywords = []" in (Path("runs") / "chirps-held-out" / "labels" / "recipe.toml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "stage", "message"),
    [
        ("seed = 2", "seed = 3", "member", "training.seed was 2, is 3"),
        ("speakers = 2\naccents = true", "speakers = 2", "speakers", "voices.accents was true, is not given"),
        ("hours = 3", "hours = 4", "found", "mine.hours was 3, is 4"),
        ("steps = 6", "steps = 5", "distilled", "training.steps was 6, is 5"),
    ],
)
def test_a_stage_whose_recipe_changed_is_refused_before_anything_runs(
    finished, corpus, tools, monkeypatch, old, new, stage, message
):
    monkeypatch.chdir(finished[0])
    Path("changed.toml").write_text(STAGED.replace(old, new))
    chain = read_chain("changed.toml")
    with pytest.raises(
        ConfigError,
        match=rf"runs/chirps/{stage} was made by another recipe \({message}\); --fresh --stage {stage} starts it anew",
    ):
        run_chain(chain, corpus)
    assert states(chain)[NAMES.index(stage)] == "changed"


def test_a_stage_can_be_started_anew_and_then_what_needs_it_is_refused(copy, corpus, tools):
    Path("chirps.toml").write_text(STAGED.replace("seed = 2", "seed = 3"))
    chain = read_chain("chirps.toml")
    (chain.folder("member") / "old.txt").write_text("old")
    run_chain(chain, corpus, fresh=True, until="member")
    assert not (chain.folder("member") / "old.txt").exists() and not tools.calls
    assert states(chain) == ["done"] * 5 + ["changed", "changed", "changed"]
    with pytest.raises(ConfigError, match=r"distilled was made by another recipe \(member is another\)"):
        run_chain(chain, corpus)


def test_starting_anew_with_a_part_held_out_leaves_what_is_shared(copy, corpus, tools, monkeypatch):
    chain = read_chain("chirps.toml", "dev")
    ran = []
    monkeypatch.setattr(chain_module, "_run_stage", lambda chain, name, corpus: ran.append(name))
    run_chain(chain, corpus, fresh=True)
    assert ran == ["labels", "distilled", "found", "mined"]
    assert states(read_chain("chirps.toml")) == ["done"] * 8 and Path("runs/chirps/member/checkpoint.pt").exists()
    ran.clear()
    run_chain(read_chain("chirps.toml"), corpus, fresh=True)
    assert ran == NAMES and not Path("runs/chirps/member/checkpoint.pt").exists()


def test_a_tool_tells_how_far_it_is(copy, corpus, tools, capsys):
    run_chain(read_chain("chirps.toml"), corpus, fresh=True, until="speakers")
    lines = [line for line in capsys.readouterr().err.splitlines() if "files" in line]
    assert lines == [f"synthesizing: {count} of 40 files" for count in range(4, 41, 4)]


def test_a_path_that_is_not_there_is_told_before_anything_runs(corpus, tools, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = STAGED.replace('training.start_from = "distilled"', 'training.start_from = "my/old.f32.safetensors"')
    assert text != STAGED
    Path("chirps.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"expected training.start_from to be there, found no my/old"):
        run_chain(read_chain("chirps.toml"), corpus)
    assert not tools.calls and not Path("runs").exists()


def test_a_damaged_mark_is_refused(copy, corpus, tools):
    chain = read_chain("chirps.toml")
    (chain.folder("teacher") / "stage.json").write_text("{")
    with pytest.raises(ConfigError, match=r"teacher/stage.json is damaged; --fresh starts the stage anew"):
        run_chain(chain, corpus)


def test_what_learned_from_a_stage_started_anew_is_refused_though_no_setting_changed(copy, corpus, tools):
    chain = read_chain("chirps.toml")
    run_chain(chain, corpus, fresh=True, until="member")
    assert states(chain) == ["done"] * 5 + ["changed"] * 3
    assert Path("runs/chirps/distilled/checkpoint.pt").exists()
    with pytest.raises(ConfigError, match=r"distilled was made by another recipe \(member is another\)"):
        run_chain(chain, corpus)


def test_a_shared_stage_is_not_started_anew_with_a_part_held_out(copy, corpus, tools):
    chain = read_chain("chirps.toml", "dev")
    with pytest.raises(ConfigError, match=r"runs/chirps/member is the original recipe's; start it anew without"):
        run_chain(chain, corpus, fresh=True, until="member")
    assert Path("runs/chirps/member/checkpoint.pt").exists()


def test_only_what_a_stage_made_is_deleted(copy, corpus, tools):
    chain = read_chain("chirps.toml")
    Path("runs/chirps/labels/stage.json").unlink()
    for until in ("", "labels"):
        with pytest.raises(ConfigError, match=r"runs/chirps/labels has no stage.json, so no stage made it"):
            run_chain(chain, corpus, fresh=True, until=until)
    assert Path("runs/chirps/labels/checkpoint.pt").exists() and Path("runs/chirps/teacher/stage.json").exists()


@pytest.mark.parametrize("name", ["..", ".", "../x", "a/b", "", "-a", "a\\u0000", "/tmp"])
def test_names_stay_inside_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in (STAGED.replace('"chirps"', f'"{name}"'), STAGED.replace('name = "member"', f'name = "{name}"')):
        Path("bad.toml").write_text(text)
        with pytest.raises(ConfigError, match=r"expected a (recipe|stage)'s name of letters, digits, spaces"):
            read_chain("bad.toml")
