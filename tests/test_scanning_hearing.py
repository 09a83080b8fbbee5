"""Pieces of long files give the detections of the whole file, bit for bit."""

import numpy as np
import pytest
import soundfile
from conftest import random_model, refused, speechlike
from hypothesis import given, settings
from hypothesis import strategies as st
from tones import RATE, tones, tones_model

from streamkws import Detector, Resampler, detect
from streamkws.audio import AudioFile
from streamkws.scanning import entries
from streamkws.scanning.hearing import LOOK_BACK, Heard, Piece, hear, joined
from streamkws.scanning.listing import Recording

FILES = {
    "mono.wav": (16000, 1, "PCM_16"),
    "mono.flac": (16000, 1, "PCM_16"),
    "call.wav": (8000, 2, "ULAW"),
    "old.wav": (11025, 1, "PCM_U8"),
    "radio.wav": (44100, 1, "FLOAT"),
    "radio.flac": (48000, 2, "PCM_24"),
}
"""Names, rates, channels and subtypes of files that are cut."""


def write(path, samples, rate, channels, subtype):
    if rate != RATE:
        import soxr

        samples = soxr.resample(samples, RATE, rate)
    both = samples if channels == 1 else np.stack([samples, samples * np.float32(0.5)], axis=1)
    soundfile.write(path, both, rate, subtype=subtype)
    return str(path)


def cut(detector, recording, cuts):
    """What is heard in pieces, and in how many of them it could not be shown to be exact."""
    pieces = [hear(detector, Piece(recording, *ends)) for ends in zip([0, *cuts], [*cuts, None], strict=True)]
    assert not any(piece.error for piece in pieces), pieces
    return joined(pieces), sum(not piece.is_exact for piece in pieces)


def long_talk(n_words=40, seed=0):
    """Tones with silences of random length between them, now and then so short that one is in the other's refractory
    period."""
    rng = np.random.default_rng(seed)
    words = [tones(str(rng.choice(("low tone", "high tone")))) for _ in range(n_words)]
    return np.concatenate([word[: rng.integers(RATE, word.size)] for word in words])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """For each name a path, and what detect hears in it."""
    folder = tmp_path_factory.mktemp("long")
    audio, model = long_talk(), tones_model()
    paths = {name: write(folder / name, audio, *how) for name, how in FILES.items()}
    return {name: (path, list(detect(path, model))) for name, path in paths.items()}


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_cut_gives_the_same_detections(name, files, data):
    path, wanted = files[name]
    detector = Detector(tones_model(), history_s=0)
    step = detector.model.config.step_samples
    n_steps = int(soundfile.info(path).duration * RATE) // step
    cuts = data.draw(st.lists(st.integers(1, n_steps - 1).map(lambda n: n * step), unique=True, max_size=6).map(sorted))
    heard, n_inexact = cut(detector, Recording(path, path), cuts)
    assert len(wanted) > 10 and n_inexact == 0
    assert heard.hits == wanted
    assert heard.audio_s == pytest.approx(soundfile.info(path).duration, abs=0.01)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 5), place=st.integers(1, 999), threshold=st.sampled_from((0.3, 0.6, 0.8)))
def test_where_detections_are_dense_it_is_exact_or_not_claimed(seed, place, threshold, tmp_path_factory):
    """Random posteriors wait and rise all the time: a piece that claims to be exact is."""
    model = random_model().quantize(4, 8)
    path = str(tmp_path_factory.mktemp("dense") / "dense.wav")
    soundfile.write(path, speechlike(30 * RATE, seed), RATE)
    detector = Detector(model, threshold, history_s=0)
    wanted = list(detect(path, model, threshold))
    step = model.config.step_samples
    cuts = [30 * RATE * place // 1000 // step * step]
    cuts = [at for at in cuts if at]
    heard, n_inexact = cut(detector, Recording(path, path), cuts)
    assert len(wanted) > 5
    if not n_inexact:
        assert heard.hits == wanted


def test_a_keyword_that_never_falls_is_not_claimed(tmp_path):
    model = tones_model()
    time_s = np.arange(120 * RATE) / RATE
    path = tmp_path / "tone.wav"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 300 * time_s), RATE)
    detector = Detector(model, history_s=0)
    late = hear(detector, Piece(Recording("a", str(path)), 100 * RATE))
    assert max(LOOK_BACK) * detector.memory_samples < 100 * RATE
    assert late == Heard(is_exact=False, decode_s=late.decode_s, compute_s=late.compute_s)
    early = hear(detector, Piece(Recording("a", str(path)), 5 * RATE))  # its hearing begins where the file does
    assert early.is_exact and early.hits == []


def test_a_stretch_is_heard_as_a_recording_of_its_own(tmp_path):
    model, audio = tones_model(), long_talk()
    for name, how in (("a.flac", FILES["mono.flac"]), ("a.ogg", (16000, 1, "VORBIS"))):
        path = write(tmp_path / name, audio, *how)
        with AudioFile(path) as file:
            samples = np.concatenate(list(file))
        stretch = samples[int(10.5 * RATE) : int(22.5 * RATE)]
        heard = hear(Detector(model), Piece(Recording("x", path, 10.5, 12.0)))
        wanted = list(detect(stretch, model))
        assert len(wanted) > 3 and heard.audio_s == 12.0
        assert [(hit.keyword, hit.score, hit.peak) for hit in heard.hits] == [
            (hit.keyword, hit.score, hit.peak + 10.5) for hit in wanted
        ]
    beyond = hear(Detector(model), Piece(Recording("x", path, 1000.0, 12.0)))
    assert beyond.error == "expected audio from 1000 s on, got none" and not beyond.hits


def test_a_damaged_file_gives_what_comes_before_the_damage(tmp_path):
    model = tones_model()
    path = write(tmp_path / "a.flac", long_talk(), *FILES["mono.flac"])
    data = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(data[: len(data) // 2])
    heard = hear(Detector(model), Piece(Recording(path, path)))
    wanted = []
    with pytest.raises(ValueError) as error:
        wanted.extend(detect(path, model))
    assert str(error.value) == f"{path}: {heard.error}"
    printed = []
    with pytest.raises(ValueError):
        for hit in detect(path, model):
            printed.append(hit)
    assert heard.hits == printed and len(printed) > 3


@pytest.mark.parametrize("rate", entries.PERIODS)
def test_the_periods_are_those_of_the_resampler_that_is_installed(rate):
    assert entries.entry_period(rate, 1) == entries.PERIODS[rate]


def test_a_wrong_period_and_a_rate_without_one_are_not_entered(monkeypatch):
    entries.entry_period.cache_clear()
    monkeypatch.setitem(entries.PERIODS, 8000, 832)
    assert entries.entry_period(8000, 1) == 0
    assert entries.entry_period(13_000, 1) == 0
    assert entries.entry_period(16_000, 1) == 1 and entries.entry_period(16_000, 2) == 800
    entries.entry_period.cache_clear()


def test_a_mixer_settles_when_the_channels_do_not_cancel():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((16_000, 1)).astype(np.float32)
    opposite, alike = np.hstack([one, -one]), np.hstack([one, 0 * one])
    resampler = Resampler(RATE, 2)
    resampler.push(opposite)
    assert not resampler.is_settled
    resampler.push(alike)
    assert resampler.is_settled


def test_what_cannot_be_entered_is_not_cut(tmp_path):
    audio = long_talk()
    for name, how, is_cut in (
        ("a.flac", (16000, 1, "PCM_16"), True),
        ("a.ogg", (16000, 1, "VORBIS"), False),
        ("a.wav", (8000, 1, "MS_ADPCM"), False),
        ("b.wav", (13000, 1, "PCM_16"), False),
    ):
        with AudioFile(write(tmp_path / name, audio, *how)) as file:
            cuts = entries.even_cuts(file, 3, audio.size, 320)
        assert len(cuts) == (2 if is_cut else 0), name
        assert all(at % 320 == 0 for at in cuts)


def test_a_first_frame_is_where_the_samples_begin(tmp_path):
    audio = long_talk()
    for name, how in (("a.wav", (16000, 1, "PCM_16")), ("a.ogg", (16000, 1, "VORBIS"))):
        path = write(tmp_path / name, audio, *how)
        with AudioFile(path) as file:
            whole = np.concatenate(list(file))
        for first in (1, 3999, 4000, 100_001, whole.size):
            with AudioFile(path) as file:
                file.first_frame = first
                assert np.array_equal(np.concatenate([whole[:0], *file]), whole[first:]), (name, first)


def test_join_begins_with_a_step(model):
    detector = Detector(model)
    step = model.config.step_samples
    message = refused(lambda: detector.join(np.zeros(step, np.int16), step + 1))
    assert message == f"expected samples from a multiple of {step} on, got 1"
    assert refused(lambda: detector.join(np.zeros(step, np.int16), 0)).endswith(f"got -{step}")


def test_join_is_exact_after_so_much_silence_and_not_before():
    quiet = Detector(tones_model())
    step = quiet.model.config.step_samples
    n = -(-quiet.memory_samples // step)
    silence = np.zeros(n * step, np.int16)
    assert quiet.join(silence, 100 * n * step) and quiet.heard_s == 100 * n * step / RATE
    assert not quiet.join(silence[: (n // 2) * step], 100 * n * step)
    assert quiet.join(silence[:step], step)  # a stream's own beginning
