"""What ships: the models hear the shipped recording, whose voices were picked among those they hear, word by word."""

import json
from pathlib import Path

import pytest

import streamkws
from streamkws import detect, load_model, shipped_models
from streamkws.model_file import model_path
from streamkws.new.training import pack_path
from streamkws.training.pack import read_pack

PACKAGE = Path(streamkws.__file__).parent
KEYWORDS = ("alexa", "computer", "jarvis", "smart mirror", "snowboy", "view glass")
WIDTHS = ("f32", "w8a8", "w4a8")


def test_every_width_ships_with_its_card():
    names = {f"wakewords.{bits}" for bits in WIDTHS}
    assert set(shipped_models()) == {"backbone.f32", *names}
    for name in shipped_models():
        path = model_path(name)
        assert f"# {name}" in path.with_name(f"{name}.md").read_text()
    for name in names:
        assert load_model(name).keywords == KEYWORDS


def test_the_backbone_ships_with_its_pack_and_knows_no_word_that_is_judged_by():
    backbone, pack = load_model("backbone.f32"), read_pack(pack_path())
    assert pack.frontend == backbone.config.frontend
    assert not {*KEYWORDS, "hey savant", "hey chatterbox"} & {*backbone.keywords}
    assert pack_path().stat().st_size <= 10_000_000
    assert pack.hours(judges=True) > 0.5 and pack.hours(judges=False) > 1
    assert {one.set_name for one in pack.stretches} == {*pack.sources}
    card = model_path("backbone.f32").with_name("backbone.f32.md").read_text()
    assert all(source in card for source in pack.sources.values())


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_models_hear_each_keyword_of_the_demo_once_and_nothing_else(bits):
    hits = list(detect(PACKAGE / "demo.flac", load_model(f"wakewords.{bits}")))
    truth = json.loads((PACKAGE / "demo.json").read_text())
    spoken = truth["keywords"] if isinstance(truth, dict) else truth
    assert [hit.keyword for hit in hits] == [word["keyword"] for word in spoken]
    for hit, word in zip(hits, spoken, strict=True):
        assert word["start"] < hit.end < word["end"] + 0.3
        assert hit.score >= load_model(f"wakewords.{bits}").thresholds[hit.keyword]


def test_4_bits_make_the_file_a_sixth():
    sizes = {bits: model_path(f"wakewords.{bits}").stat().st_size for bits in WIDTHS}
    assert sizes["w4a8"] <= 0.16 * sizes["f32"]
    model = load_model("wakewords.w4a8")
    assert model.stored_bytes <= 0.15 * model.float_bytes
    assert model.resident_bytes <= 0.2 * model.float_bytes
