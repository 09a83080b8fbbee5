"""bench/accuracy/listening.py: what fires is counted, and the figures are told."""

from pathlib import Path

import pytest
import soundfile

from streamkws import load_model
from streamkws.voices import sounds

ROOT = Path(__file__).parent.parent


@pytest.fixture
def listening(bench_module):
    return bench_module("bench.accuracy.listening")


def test_what_fires_is_counted_with_its_place(listening, monkeypatch):
    demo, rate = soundfile.read(ROOT / "streamkws" / "demo.flac", dtype="float32")
    assert rate == 16000
    monkeypatch.setitem(sounds.MAKERS, "music", lambda rng, n: demo)
    model = load_model("wakewords")
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
    text = listening.report(results)
    assert "| detections in 15 min of made noise | 0 | 0 | 1 |" in text
    assert "| from the end of a keyword to its detection, median | 200 ms | 200 ms | 200 ms |" in text
    assert "said by the voices of the near words, heard | 75% | 75% | 75% |" in text
    assert "3 of 4 clean recordings" in text and "What fired: wakewords.w4a8, noise: 1 alexa." in text
