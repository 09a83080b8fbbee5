"""traces: what is kept of a recording is what the API says."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from tones import RATE, tones, tones_model

from streamkws.audio import read_audio
from streamkws.detector import Detector, detect, posteriors
from streamkws.errors import AudioError, ConfigError
from streamkws.evaluation import traces
from streamkws.evaluation.traces import trace

SPOKEN = ("low tone", "high tone", "low tone")


@pytest.fixture(scope="module")
def model():
    return tones_model()


@pytest.fixture
def path(tmp_path):
    """A recording of three tones."""
    soundfile.write(tmp_path / "a.wav", tones(*SPOKEN), RATE)
    return tmp_path / "a.wav"


class TestTrace:
    def test_is_what_the_api_says(self, model, path):
        heard = trace(path, Detector(model))
        samples, clock = read_audio(path), model.config.clock
        levels = posteriors(samples, model)
        assert np.array_equal(heard.posteriors, levels)
        assert heard.steps_s.tolist() == [clock.end_s(step) for step in range(len(levels))]
        assert np.array_equal(heard.frames, model.new_front_end().push(samples))
        assert heard.mel_s == pytest.approx((0, len(heard.frames) / 100))
        assert heard.detections == tuple(detect(path, model))
        assert [hit.keyword for hit in heard.detections] == list(SPOKEN)
        assert (heard.start_s, heard.end_s) == (0, len(samples) / RATE)
        assert heard.thresholds == model.thresholds
        assert heard.mel_hz[0] < 100 and heard.mel_hz[-1] > 7000

    def test_waveform_keeps_its_extremes(self, model, path):
        heard = trace(path, Detector(model))
        samples = read_audio(path)
        per_column = -(-len(samples) // len(heard.low))
        assert traces.N_COLUMNS <= len(heard.low) <= 2 * traces.N_COLUMNS
        for column in (0, 100, len(heard.low) - 1):
            part = samples[column * per_column : (column + 1) * per_column]
            assert (heard.low[column], heard.high[column]) == (part.min(), part.max())
            middle_s = (column * per_column + (len(part) - 1) / 2) / RATE
            assert heard.wave_s[column] == pytest.approx(middle_s)

    def test_a_long_recording_is_thinned_and_keeps_its_peaks(self, model, path, monkeypatch):
        whole = trace(path, Detector(model))
        monkeypatch.setattr(traces, "N_COLUMNS", 25)
        thin = trace(path, Detector(model))
        for kind in ("low", "frames", "posteriors"):
            assert 25 <= len(getattr(thin, kind)) <= 50
        n = -(-len(whole.posteriors) // len(thin.posteriors))
        assert n > 4
        expected = [whole.posteriors[i : i + n].max(axis=0) for i in range(0, len(whole.posteriors), n)]
        assert np.array_equal(thin.posteriors, expected)
        assert thin.steps_s[1] == pytest.approx(whole.steps_s[n : 2 * n].mean())
        assert thin.low.min() == whole.low.min() and thin.high.max() == whole.high.max()
        assert thin.detections == whole.detections

    @pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 2.0), (1.3, 2.9), (2.0, None), (0.5, 99.0)])
    def test_a_part_is_heard_as_in_the_whole(self, model, path, start_s, end_s):
        whole, part = trace(path, Detector(model)), trace(path, Detector(model), start_s, end_s)
        last_s = min(end_s or 99, whole.end_s)
        assert (part.start_s, part.end_s) == (start_s, last_s)
        shown = (whole.steps_s >= start_s) & (whole.steps_s < last_s)
        assert np.array_equal(part.steps_s, whole.steps_s[shown])
        assert np.array_equal(part.posteriors, whole.posteriors[shown])
        assert part.mel_s == pytest.approx((start_s, min(last_s, whole.mel_s[1])), abs=0.0101)
        assert part.wave_s[0] == pytest.approx(start_s, abs=0.005)
        assert part.detections == tuple(hit for hit in whole.detections if start_s <= hit.peak <= last_s)

    def test_progress(self, model, path):
        calls = []
        trace(path, Detector(model), progress=lambda *call: calls.append(call))
        duration_s = len(tones(*SPOKEN)) / RATE
        assert calls[-1] == (duration_s, duration_s)
        assert calls == sorted(calls)

    def test_damaged_recording_is_kept_up_to_the_damage(self, model, path):
        path.write_bytes(path.read_bytes()[:-20000])
        heard = trace(path, Detector(model))
        assert "cut off" in heard.trouble
        assert [hit.keyword for hit in heard.detections] == list(SPOKEN)

    @pytest.mark.parametrize(
        ("start_s", "end_s", "text"),
        [
            (-1, None, "expected 0 <= start < end in seconds, got -1 and inf"),
            (2, 1, "expected 0 <= start < end in seconds, got 2 and 1"),
            (float("nan"), None, "expected 0 <= start < end in seconds, got nan and inf"),
            (60, None, r"expected a start and an end with posteriors between them, .* up to 5.20 s, got 60 and inf s"),
            (1.0001, 1.0002, "which come every 0.01 s"),
        ],
    )
    def test_limits_that_cannot_be(self, model, path, start_s, end_s, text):
        with pytest.raises(ConfigError, match=text):
            trace(path, Detector(model), start_s, end_s)

    @pytest.mark.parametrize("n_samples", [0, 1, 399])
    def test_too_short(self, model, n_samples):
        text = rf"expected at least 0.025 s of audio, which the first posterior needs, got {n_samples / RATE:.3f} s"
        with pytest.raises(AudioError, match=text):
            trace(np.zeros(n_samples, np.float32), Detector(model))
