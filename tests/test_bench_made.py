"""What the benches make: speakers, a teacher that takes any number of frames, an hour that holds no keyword."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from onnx import TensorProto, helper, numpy_helper

from streamkws import Detector, load_model
from streamkws.training.dataset import read_segments, read_synthetic

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models" / "wakewords.w4a8.safetensors"


class Inline:
    """A pool that works here."""

    def __init__(self, n_processes):
        assert n_processes == 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    imap_unordered = staticmethod(map)


class Speaker:
    """Says a keyword and another word, and one more word, and fails after the fifth file."""

    made = ()

    def speaker(self, number, kind):
        if len(self.made) == 5:
            raise KeyboardInterrupt
        self.made.append((number, kind))
        samples = np.zeros(30000, np.int16)
        if kind == "more":
            return samples[:12000] + np.int16(7), [("other", 2000, 9000)]
        samples[4800:14000] = samples[18800:28000] = 1000 + number
        return samples, [("snowboy", 4800, 14000), ("other", 18800, 28000)]


def test_synthesis_goes_on_where_it_stood(bench_module, tmp_path, monkeypatch):
    synthesize = bench_module("synthesize")
    monkeypatch.setattr(synthesize.multiprocessing, "Pool", Inline)
    monkeypatch.setattr(synthesize, "_synthesizer", Speaker())
    monkeypatch.setattr(Speaker, "made", [])
    with pytest.raises(KeyboardInterrupt):
        synthesize.synthesize(tmp_path / "made", 5, 1, ("", "more"))
    monkeypatch.setattr(Speaker, "made", [])
    synthesize.synthesize(tmp_path / "made", 5, 1, ("", "more"))
    assert Speaker.made == [(2, "more"), (3, ""), (3, "more"), (4, ""), (4, "more")]
    with (tmp_path / "made" / "segments.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["speaker"] for row in rows] == [f"k{n:04d}" for n in range(5) for _ in range(3)]
    clips, negatives = read_synthetic(tmp_path / "made", ("snowboy",))
    assert len(clips) == 5 and len(negatives.files) == 10
    assert clips[2].samples.max() == 1002 and soundfile.info(tmp_path / "made" / "k0004.flac").samplerate == 16000
    monkeypatch.setattr(Speaker, "made", [])
    synthesize.synthesize(tmp_path / "once", 2, 1, ("",))
    assert Speaker.made == [(0, ""), (1, "")]
    synthesize.synthesize(tmp_path / "once", 2, 1, ("", "accent"))
    assert Speaker.made[2:] == [(0, "accent"), (1, "accent")]
    clips, _ = read_synthetic(tmp_path / "once", ("snowboy",))
    assert [clip.speaker for clip in clips] == ["k0000", "k0001"] * 2  # one speaker, in two accents


def test_an_accent_replaces_some_sounds_in_one_way_each(bench_module):
    synthesize = bench_module("synthesize")
    tapped = [{"t(?!ʃ)": "ʈ"}, {"ɚ": "əɾ", "ɹ": "ɾ"}]
    assert synthesize.accented("smˈɑːɹt mˈɪɹɚ", tapped) == "smˈɑːɾʈ mˈɪɾəɾ"
    assert synthesize.accented("kəmpjˈuːɾɚ", tapped) == "kəmpjˈuːʈəɾ"  # an American's tapped t is a t
    assert synthesize.accented("dʒˈɑːɹvɪs", [{"dʒ": "tʃ"}, {"v": "b"}]) == "tʃˈɑːɹbɪs"
    drawn = [synthesize.accent(np.random.default_rng(seed)) for seed in range(300)]
    assert all(drawn)
    ways = [way for _, ways in synthesize.SOUNDS for way in ways]
    assert all(any(way in changes for changes in drawn) for way in ways)
    for changes in drawn:
        order = [[way in ways for _, ways in synthesize.SOUNDS].index(True) for way in changes]
        assert order == sorted(set(order))  # one way of each at most


def test_confusable_phrases_are_none_of_the_keywords(bench_module):
    synthesize = bench_module("synthesize")
    assert load_model(MODEL).keywords == synthesize.KEYWORDS
    phrases = [phrase.lower() for phrase in synthesize.MORE_CONFUSABLE]
    assert len(set(phrases)) == len(phrases) > 240
    assert not any(keyword in phrase for keyword in synthesize.KEYWORDS for phrase in phrases)


def test_the_teacher_is_made_to_take_any_number_of_frames(bench_module, tmp_path):
    import onnxruntime

    fetch = bench_module("fetch_teacher")
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


@pytest.fixture
def listening(bench_module):
    return bench_module("listening")


def test_made_sounds_are_the_same_each_time_and_differ(bench_module, listening):
    for kind in ("music", "noise"):
        first, second = listening.pieces(kind, 2)
        again = next(listening.pieces(kind, 1))
        assert first.shape == (30 * 16000,) and first.dtype == np.float32
        np.testing.assert_array_equal(first, again)
        assert 0.009 < np.abs(first).max() < 0.71 and np.abs(first - second).max() > 0.01
    phrases = [phrase.lower() for phrase in listening.NEAR]
    assert len(set(phrases)) == len(phrases) and not {*phrases} & {
        p.lower() for p in bench_module("synthesize").MORE_CONFUSABLE
    }
    assert not any(keyword in phrase for keyword in load_model(MODEL).keywords for phrase in phrases)
    assert not {word for keyword in load_model(MODEL).keywords for word in keyword.split()} & set(listening.WORDS)


@pytest.fixture
def mine(bench_module):
    return bench_module("mine")


def write_set(folder, rows):
    """A set that is the demo alone, with segments (start, end, label) in seconds."""
    folder.mkdir()
    samples, rate = soundfile.read(ROOT / "streamkws" / "demo.flac", dtype="int16")
    soundfile.write(folder / "a.flac", samples, rate)
    lines = [f"a.flac,{round(start * rate)},{round(end * rate)},{label},," for start, end, label in rows]
    (folder / "segments.csv").write_text("\n".join(["file,start,end,label,speaker,source", *lines]) + "\n")
    return samples


def detector(score):
    """Of the shipped model, with one threshold."""
    model = load_model(MODEL)
    return Detector(model.with_settings(thresholds=dict.fromkeys(model.keywords, score)))


def test_what_models_hear_is_kept_with_what_is_around_it(mine, tmp_path):
    samples = write_set(tmp_path / "talk", [(0, 29.9, "other")])
    name, segments = mine.mine((tmp_path, tmp_path / "talk", [str(MODEL), str(MODEL)], 0.7))
    hits = detector(0.7).push(samples)
    assert name == "talk.flac" and [label for _, _, label in segments] == [f"talk: {hit.keyword}" for hit in hits]
    kept, rate = soundfile.read(tmp_path / name, dtype="int16")
    assert rate == 16000 and kept.size == len(hits) * 64000 and len(hits) == 6
    for index, (hit, (start, end, _)) in enumerate(zip(hits, segments, strict=True)):
        heard_at = index * 64000 + 48000
        assert (start, end) == (heard_at - 21600, heard_at + 4800)
        around = np.pad(samples, (48000, 16000))[round(hit.peak * rate) :][:64000]
        np.testing.assert_allclose(kept[index * 64000 :][:64000], around, atol=1)


def test_keywords_are_not_mined(mine, tmp_path):
    first, *others = detector(0.7).push(write_set(tmp_path / "talk", [(0, 29.9, "other")]))
    write_set(tmp_path / "words", [(0, 29.9, "other"), (first.peak - 1.2, first.peak + 0.2, first.keyword)])
    _, segments = mine.mine((tmp_path, tmp_path / "words", [str(MODEL)], 0.7))
    assert [label for _, _, label in segments] == [f"words: {hit.keyword}" for hit in others]


def test_hours_are_mined_once_each(mine, tmp_path, monkeypatch):
    demo, _ = soundfile.read(ROOT / "streamkws" / "demo.flac", dtype="float32")
    seeds = []
    monkeypatch.setattr(mine, "pieces", lambda kind, n, seed: seeds.append((kind, n, seed)) or [demo])
    monkeypatch.setattr(mine, "MINUTES", {"music": 15})
    monkeypatch.setattr(mine.multiprocessing, "Pool", Inline)
    command = [
        "mine.py",
        str(tmp_path / "mined"),
        "--models",
        str(MODEL),
        "--score",
        "0.7",
        "--processes",
        "1",
        "--foreign",
        "0",
        "--hours",
    ]
    for n_hours in ("1", "2"):
        monkeypatch.setattr(sys, "argv", [*command, n_hours])
        assert mine.main() == 0
    assert seeds == [("music", 30, mine.FIRST_SEED), ("music", 30, mine.FIRST_SEED + 1)]
    one = read_segments(tmp_path / "mined")
    assert len(one.files) == 2 and len(one.segments) == 12 and not one.single_words


def test_numbers_in_other_languages_fill_their_pieces(mine, monkeypatch):
    said = []

    def spoken(rng, text, language):
        said.append((text, language))
        if language == "kl":
            raise subprocess.CalledProcessError(-11, "espeak-ng")
        return np.full(100_000, 0.5, np.float32)

    monkeypatch.setattr(mine, "spoken", spoken)
    monkeypatch.setattr(mine, "languages", lambda: ["ar", "kl"])
    pieces = list(mine.sounds(Path("foreign0003"), ("snowboy",)))
    assert len(pieces) == 120 and {kind for kind, _ in pieces} == {"foreign"}
    for _, piece in pieces:
        assert piece.shape == (30 * 16000,) and piece.min() > 0 and 0.009 < piece.max() < 0.71
    assert {language for _, language in said} == {"ar", "kl"}
    assert all(0 < int(number) < 10_000 for text, _ in said for number in text.split())


def test_languages_are_not_english(mine):
    found = mine.languages()
    assert {"ar", "de", "hi"} <= set(found) and not any(name.startswith("en") for name in found)


def test_mining_says_what_is_wrong(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mine.py", str(tmp_path), "--models", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match=r"mine\.py: "):
        mine.main()
    monkeypatch.setattr(sys, "argv", ["mine.py", str(tmp_path), "--sets", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match=r"mine\.py: expected a set of long files"):
        mine.main()


def test_what_fires_is_counted_with_its_place(listening, monkeypatch):
    demo, rate = soundfile.read(ROOT / "streamkws" / "demo.flac", dtype="float32")
    assert rate == 16000
    monkeypatch.setitem(listening.MAKERS, "music", lambda rng, n: demo)
    model = load_model(MODEL)
    heard = listening.alarms([model], "music", 1.0)[model.name]
    assert len(heard) == 12 and heard[0].split(" at ")[0] in model.keywords  # six in each of two pieces
    assert listening.alarms_in_silence(model, 0.1) == 0


def test_the_figures_are_told(listening):
    names = listening.MODELS
    results = {
        "alarms": {kind: {name: [] for name in names} for kind in listening.MINUTES},
        "silence": dict.fromkeys(names, 0),
        "keywords": {name: [listening.N_TIMES, listening.N_TIMES // 2] for name in names},
        "delays": {name: {"seconds": [0.1, 0.2, 0.3], "n": 4} for name in names},
    }
    results["alarms"]["noise"][names[-1]] = ["alexa at 3.0 s (0.9000)"]
    text = listening.told(results)
    assert "| detections in 15 min of made noise | 0 | 0 | 1 |" in text
    assert "| from the end of a keyword to its detection, median | 200 ms | 200 ms | 200 ms |" in text
    assert "said by the voices of the near words, heard | 75% | 75% | 75% |" in text
    assert "3 of 4 clean recordings" in text and "What fired: wakewords.w4a8, noise: 1 alexa." in text
