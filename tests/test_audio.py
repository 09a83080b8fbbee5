"""audio: the gate for samples, the resampler, files of every kind and in every state of repair."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkws.audio import (
    SAMPLE_RATE,
    AudioFile,
    Resampler,
    as_float,
    as_int16,
    audio_files,
    read_audio,
    valid_samples,
)
from streamkws.errors import AudioError, MissingExtraError


def sweep(rate: int = SAMPLE_RATE, seconds: float = 2.0, n_channels: int = 1) -> npt.NDArray[np.float64]:
    """A rising tone in a little noise; every channel at a level of its own."""
    t = np.arange(round(rate * seconds)) / rate
    tone = 0.4 * np.sin(2 * np.pi * (200 + 200 * t) * t) + 0.02 * np.random.default_rng(0).normal(size=t.size)
    return tone if n_channels == 1 else np.stack([tone / (1 + c) for c in range(n_channels)], axis=1)


def listen(path: Path) -> tuple[npt.NDArray[np.float32], str]:
    """Return the samples that a file gives, and the error it ends with."""
    samples = np.zeros(0, np.float32)
    try:
        with AudioFile(path) as audio:
            for block in audio:
                samples = np.append(samples, as_float(block))
    except AudioError as error:
        return samples, str(error)
    return samples, ""


def heard(path: Path) -> tuple[int, str]:
    """Return how many samples a file gives, and the error it ends with."""
    samples, error = listen(path)
    return len(samples), error


# -- valid_samples


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("n", [0, 1, 160])
def test_good_samples_are_not_copied(dtype: type, n: int) -> None:
    samples = np.zeros(n, dtype)
    assert valid_samples(samples) is samples


def test_float64_becomes_float32() -> None:
    checked = valid_samples(np.array([0.1, -1.0]))
    assert checked.dtype == np.float32
    assert np.array_equal(checked, np.array([0.1, -1.0], np.float32))
    assert valid_samples([]).shape == (0,)
    assert valid_samples([0.25, -0.5]).tolist() == [0.25, -0.5]


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", ">f4", "<f8", ">f8"])
def test_any_layout_comes_out_as_compiled_code_takes_it(dtype: str) -> None:
    samples = np.arange(20).astype(dtype)
    read_only = np.frombuffer(samples.tobytes(), dtype)
    for view, expected in [(samples[::2], range(0, 20, 2)), (samples[::-1], range(19, -1, -1)), (read_only, range(20))]:
        checked = valid_samples(view)
        assert checked.flags.carray
        assert checked.dtype.isnative
        assert checked.tolist() == list(expected)


@pytest.mark.parametrize(
    ("samples", "came"),
    [
        (np.zeros((2, 160), np.float32), "(2, 160) float32"),
        (np.zeros((160, 1), np.int16), "(160, 1) int16"),
        (np.float32(0.5), "() float32"),
        (np.zeros(3, np.int32), "(3,) int32"),
        (np.zeros(3, np.uint8), "(3,) uint8"),
        (np.zeros(3, np.float16), "(3,) float16"),
        (np.zeros(3, np.complex64), "(3,) complex64"),
        ([1, 2, 3], "(3,) int64"),
        ([[1.0], [1.0, 2.0]], "list"),
        ("audio", "() <U5"),
        (b"\0\0", "() |S2"),
        (None, "() object"),
    ],
)
def test_other_types_and_shapes_are_refused(samples: Any, came: str) -> None:
    with pytest.raises(AudioError) as error:
        valid_samples(samples)
    assert str(error.value) == f"expected (n,) int16 or float32 samples, got {came}"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_samples_are_refused(dtype: type, value: float) -> None:
    samples = np.zeros(160, dtype)
    samples[[17, 20, 159]] = value
    with pytest.raises(AudioError) as error:
        valid_samples(samples)
    assert str(error.value) == "expected finite samples, got 3 NaN or infinite ones, the first at 17"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_int16_values_as_floats_are_refused(dtype: type) -> None:
    for samples in (np.array([0, -23145], dtype), np.array([23145, 5], dtype)):
        with pytest.raises(AudioError) as error:
            valid_samples(samples)
        assert str(error.value) == ("expected float samples in [-1, 1], got up to 23145; int16 audio goes in as int16")
    with pytest.raises(AudioError, match=r"got up to 1e\+300; int16"):
        valid_samples(np.array([1e300]))


def test_overshoot_is_let_through() -> None:
    assert valid_samples(np.array([1.3, -1.3], np.float32)).tolist() == pytest.approx([1.3, -1.3])


# -- Resampler


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 44100, 48000, 96000, 192000])
def test_a_tone_keeps_its_frequency_level_and_length(rate: int) -> None:
    t = np.arange(rate) / rate
    resampler = Resampler(rate)
    out = np.concatenate([resampler.push(np.sin(2 * np.pi * 1000 * t).astype(np.float32)), resampler.flush()])
    assert len(out) == SAMPLE_RATE
    expected = np.sin(2 * np.pi * 1000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    assert np.abs(out - expected)[1000:-1000].max() < 1e-3


def test_what_16_khz_cannot_hold_is_filtered_out() -> None:
    t = np.arange(48000) / 48000
    assert np.abs(Resampler(48000).push(np.sin(2 * np.pi * 11000 * t).astype(np.float32)))[1000:].max() < 1e-3


@settings(max_examples=40, deadline=None)
@given(
    rate=st.sampled_from([8000, 16000, 22050, 44100, 48000]),
    n_channels=st.sampled_from([1, 2, 9]),
    cuts=st.lists(st.integers(0, 4000), max_size=30),
)
def test_every_cut_gives_the_same_bits(rate: int, n_channels: int, cuts: list[int]) -> None:
    audio = np.random.default_rng(1).normal(size=(4000, n_channels)).astype(np.float32)
    whole = Resampler(rate, n_channels)
    expected = np.concatenate([whole.push(audio), whole.flush()])
    pieces = Resampler(rate, n_channels)
    parts = [pieces.push(part) for part in np.split(audio, sorted(cuts))]
    assert np.array_equal(np.concatenate([*parts, pieces.flush()]), expected)


def test_one_sample_at_a_time_gives_the_same_bits() -> None:
    audio = np.random.default_rng(2).normal(size=(3000, 2)).astype(np.float32)
    whole = Resampler(44100, 2)
    expected = np.concatenate([whole.push(audio), whole.flush()])
    pieces = Resampler(44100, 2)
    parts = [pieces.push(audio[i : i + 1]) for i in range(len(audio))]
    assert np.array_equal(np.concatenate([*parts, pieces.flush()]), expected)
    assert len(expected) == round(3000 * 16000 / 44100)


def test_flushed_is_as_new() -> None:
    audio = np.random.default_rng(3).normal(size=5000).astype(np.float32)
    resampler = Resampler(48000)
    first = np.concatenate([resampler.push(audio), resampler.flush()])
    assert np.array_equal(np.concatenate([resampler.push(audio), resampler.flush()]), first)
    assert len(Resampler(48000).flush()) == 0


def test_channels_are_averaged() -> None:
    audio = np.array([[0.5, -0.25], [1.0, 1.0]], np.float32)
    assert Resampler(16000, 2).push(audio).tolist() == [0.125, 1.0]
    assert Resampler(16000, 3).push(np.array([[3, 6, 9]], np.int16) * 1000).tolist() == pytest.approx([6000 / 32768])
    assert Resampler(16000, 1).push(audio[:, :1]).tolist() == [0.5, 1.0]


@pytest.mark.parametrize("rate", [16000, 48000])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_channels_that_cancel_are_heard_alone(rate: int, noise: float) -> None:
    """One of two channels inverted, as by a cable: their mean was silence."""
    left = sweep(rate, 3.0).astype(np.float32)
    hiss = (noise * np.random.default_rng(1).normal(size=left.size)).astype(np.float32)
    inverted = np.stack([0.5 * left, hiss - left], axis=1)
    inverted[:, 0] *= 2
    resampler, plain = Resampler(rate, 2), Resampler(rate)
    heard_mono = np.concatenate([resampler.push(inverted), resampler.flush()])
    expected = np.concatenate([plain.push(left), plain.flush()])
    later = slice(round(0.3 * SAMPLE_RATE), len(expected) - 400)
    difference = np.minimum(np.abs(heard_mono - expected), np.abs(heard_mono + expected))[later]
    assert np.abs(heard_mono[later]).max() > 0.3 and difference.max() < 0.01
    pieces = [resampler.push(piece) for piece in np.array_split(inverted, 37)]
    assert np.array_equal(np.concatenate([*pieces, resampler.flush()]), heard_mono)
    stereo = np.stack([left, 0.7 * np.roll(left, 5)], axis=1)  # wide, and no channel inverted
    assert np.array_equal(resampler.push(stereo), Resampler(rate, 2).push(stereo))


def test_silence_does_not_change_what_is_heard_alone() -> None:
    left = sweep(16000, 1.0).astype(np.float32)
    pair = np.stack([left, -left], 1)
    mono = Resampler(16000, 2).push(np.concatenate([pair, np.zeros((16000, 2), np.float32), pair]))
    assert np.array_equal(np.abs(mono[-16000:]), np.abs(left))


def test_the_mean_comes_back_where_channels_no_longer_cancel() -> None:
    left = sweep(16000, 2.0).astype(np.float32)
    mono = Resampler(16000, 2).push(np.concatenate([np.stack([left, -left], 1), np.stack([left, left], 1)]))
    assert np.array_equal(mono[-20000:], left[-20000:])


@pytest.mark.parametrize("rate", [0, -16000, 999, 1_000_001])
def test_impossible_rates_are_refused(rate: int) -> None:
    with pytest.raises(AudioError, match=f"^expected a sample rate of 1000 to 1000000 Hz, got {rate}$"):
        Resampler(rate)


def test_wrong_channels_are_refused() -> None:
    with pytest.raises(AudioError, match=r"^expected at least 1 channel, got 0$"):
        Resampler(16000, 0)
    for block, came in [
        (np.zeros(160, np.float32), r"\(160,\) float32"),
        (np.zeros((160, 3), np.float32), r"\(160, 3\) float32"),
        (np.zeros((160, 2)), r"\(160, 2\) float64"),
        (np.zeros((1, 160, 2), np.int16), r"\(1, 160, 2\) int16"),
    ]:
        with pytest.raises(AudioError, match=rf"^expected \(n, 2\) int16 or float32 samples, got {came}$"):
            Resampler(48000, 2).push(block)


def test_int16_is_scaled_exactly() -> None:
    assert as_float(np.array([-32768, 0, 1, 32767], np.int16)).tolist() == [-1.0, 0.0, 1 / 32768, 32767 / 32768]


def test_every_int16_survives_the_way_to_float_and_back() -> None:
    samples = np.arange(-32768, 32768).astype(np.int16)
    there = as_float(samples)
    back = as_int16(there)
    assert back.dtype == np.int16 and np.array_equal(back, samples)
    assert np.array_equal(as_int16(samples.astype(np.float32), 1), samples)


def test_floats_are_rounded_and_clipped() -> None:
    assert as_int16(np.array([-2.0, -1.0, 1.0, 2.0], np.float32)).tolist() == [-32768, -32768, 32767, 32767]
    assert as_int16(np.array([-1.5, -0.5, 0.5, 0.6, 1.5, 40000]), 1).tolist() == [-2, 0, 0, 1, 2, 32767]
    assert as_int16(np.array([2.5 / 32768, 3.5 / 32768], np.float32)).tolist() == [2, 4]


# -- folders


def test_audio_files_of_a_folder(tmp_path: Path) -> None:
    names = ["b.wav", "a/z.OPUS", "a/b/c.oga", "a-b/d.mp3", "c.flac", "e.ogg"]
    for name in [*names, "notes.txt", ".hidden.wav", ".cache/f.wav", "a/.git/g.flac", "h.wav.part"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert audio_files(tmp_path) == sorted(tmp_path / name for name in names)
    assert audio_files(str(tmp_path / "a")) == [tmp_path / "a/b/c.oga", tmp_path / "a/z.OPUS"]
    assert audio_files(tmp_path / "a" / ".git") == [tmp_path / "a/.git/g.flac"], "a folder that was asked for"


def test_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/1.wav", "b/2.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    errors: list[OSError] = []
    assert audio_files(tmp_path, errors.append) == audio_files(tmp_path) == [tmp_path / "b/2.wav"]
    assert [(error.filename, error.strerror) for error in errors] == [(str(tmp_path / "a"), "Permission denied")]


# -- files that are well


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "misnamed.mp3", "misnamed.raw", "no_suffix"])
def test_16_bit_16_khz_mono_comes_as_it_is(tmp_path: Path, name: str) -> None:
    samples = (sweep() * 20000).astype(np.int16)
    kind = {"a.flac": "FLAC", "a.aiff": "AIFF"}.get(name, "WAV")
    soundfile.write(tmp_path / name, samples, SAMPLE_RATE, format=kind, subtype="PCM_16")
    with AudioFile(tmp_path / name, block_samples=1000) as audio:
        assert (audio.name, audio.duration_s, audio.rate, audio.n_channels) == (str(tmp_path / name), 2.0, 16000, 1)
        blocks = list(audio)
    assert {len(block) for block in blocks} == {1000}
    assert np.array_equal(np.concatenate(blocks), samples)
    assert np.array_equal(read_audio(tmp_path / name), samples / np.float32(32768))


@pytest.mark.parametrize(
    ("name", "subtype", "rate", "n_channels"),
    [
        ("a.wav", "PCM_U8", 8000, 1),
        ("a.wav", "ULAW", 8000, 2),
        ("a.wav", "PCM_24", 48000, 2),
        ("a.wav", "FLOAT", 16000, 1),
        ("a.wav", "DOUBLE", 192000, 1),
        ("a.wav", "PCM_16", 22050, 6),
        ("a.flac", "PCM_24", 44100, 2),
        ("a.flac", "PCM_16", 11025, 1),
        ("a.ogg", "VORBIS", 16000, 1),
        ("a.ogg", "VORBIS", 44100, 2),
        ("a.ogg", "OPUS", 48000, 2),
        ("a.mp3", "MPEG_LAYER_III", 44100, 2),
        ("a.mp3", "MPEG_LAYER_III", 16000, 1),
    ],
)
def test_every_format_rate_and_channel_count(
    tmp_path: Path, name: str, subtype: str, rate: int, n_channels: int
) -> None:
    source = sweep(rate, 1.5, n_channels)
    soundfile.write(tmp_path / name, source, rate, subtype=subtype)
    expected = soxr.resample(source.mean(axis=1) if n_channels > 1 else source, rate, SAMPLE_RATE)
    samples = read_audio(tmp_path / name)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(1.5 * SAMPLE_RATE, abs=1)
    n = min(len(samples), len(expected))
    assert np.corrcoef(samples[:n], expected[:n])[0, 1] > 0.98
    for block_samples in (333, 100_000):
        with AudioFile(tmp_path / name, block_samples) as audio:
            assert audio.duration_s == pytest.approx(1.5, abs=1e-3)
            assert np.array_equal(np.concatenate([as_float(block) for block in audio]), samples)


def test_files_without_a_sample_give_no_block(tmp_path: Path) -> None:
    for name in ("a.wav", "a.ogg"):
        soundfile.write(tmp_path / name, np.zeros(0), SAMPLE_RATE)
        with AudioFile(tmp_path / name) as audio:
            assert audio.duration_s == 0
            assert list(audio) == []
        assert read_audio(tmp_path / name).shape == (0,)


def test_silence_and_clipping_are_audio(tmp_path: Path) -> None:
    clipped = np.clip(sweep() * 10, -1, 32767 / 32768)
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "clipped.wav", clipped, SAMPLE_RATE)
    assert not read_audio(tmp_path / "silent.wav").any()
    assert np.abs(read_audio(tmp_path / "clipped.wav") - clipped).max() < 1e-4


@pytest.fixture(scope="module")
def vbr_mp3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four quiet seconds and four loud ones, 16 kHz, with a variable bit rate and a Xing header."""
    path = tmp_path_factory.mktemp("mp3") / "vbr.mp3"
    audio = 0.3 * np.random.default_rng(4).normal(size=8 * SAMPLE_RATE).clip(-1, 1)
    audio[: 4 * SAMPLE_RATE] *= 1e-4
    with soundfile.SoundFile(
        path, "w", SAMPLE_RATE, 1, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5
    ) as file:
        file.write(audio)
    return path


def test_mp3_without_a_length_is_read_to_its_end(tmp_path: Path, vbr_mp3: Path) -> None:
    data = vbr_mp3.read_bytes()
    assert data.count(b"Xing") == 1
    path = tmp_path / "no_xing.mp3"
    path.write_bytes(data.replace(b"Xing", bytes(4)))
    with AudioFile(path) as audio:
        assert audio.duration_s is None
        n = sum(len(block) for block in audio)
    assert n >= 8 * SAMPLE_RATE
    assert soundfile.info(path).frames < 0.9 * n, "libsndfile knows better now: reading through a pipe can go"


def test_mp3_is_the_same_for_every_block_length(vbr_mp3: Path) -> None:
    whole = read_audio(vbr_mp3)
    assert len(whole) == 8 * SAMPLE_RATE
    with AudioFile(vbr_mp3, block_samples=777) as audio:
        assert np.array_equal(np.concatenate(list(audio)), whole)


def test_mp3_behind_a_long_tag(tmp_path: Path, vbr_mp3: Path) -> None:
    n = 300_000  # a cover
    size = bytes([n >> 21 & 127, n >> 14 & 127, n >> 7 & 127, n & 127])
    (tmp_path / "tagged.mp3").write_bytes(b"ID3\x04\0\0" + size + bytes(n) + vbr_mp3.read_bytes())
    assert np.array_equal(read_audio(tmp_path / "tagged.mp3"), read_audio(vbr_mp3))


def test_mp3_abandoned_midway_leaves_no_thread(vbr_mp3: Path) -> None:
    before = threading.active_count()
    with AudioFile(vbr_mp3) as audio:
        next(iter(audio))
    assert threading.active_count() == before


REST = "heard was what is behind it"


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF024])
def test_wav_from_a_pipe_whose_header_cannot_know_the_length(tmp_path: Path, size: int) -> None:
    path = tmp_path / "streamed.wav"
    soundfile.write(path, sweep(), SAMPLE_RATE)
    data = bytearray(path.read_bytes())
    at = data.index(b"data")
    data[at + 4 : at + 8] = size.to_bytes(4, "little")
    path.write_bytes(data)
    assert heard(path) == (2 * SAMPLE_RATE, "")


@pytest.mark.skipif(os.name != "posix", reason="heard through a pipe")
@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("stated", [0, 36])
def test_wav_whose_recorder_was_cut_off_before_it_wrote_the_length(tmp_path: Path, rate: int, stated: int) -> None:
    """Nothing was heard, and not a word said."""
    soundfile.write(tmp_path / "whole.wav", sweep(rate), rate, subtype="PCM_24")
    data = bytearray((tmp_path / "whole.wav").read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4], data[4:8] = bytes(4), stated.to_bytes(4, "little")
    (tmp_path / "cut.wav").write_bytes(data)
    samples, trouble = listen(tmp_path / "cut.wav")
    assert trouble == f"{tmp_path / 'cut.wav'}: cut off: its header says that there is no audio; {REST}"
    assert np.array_equal(samples, read_audio(tmp_path / "whole.wav"))


def wav_of(path: Path, kind: str, subtype: str = "PCM_16") -> tuple[bytearray, slice]:
    """Write a sweep as another kind of wav; return its bytes, and where the length of its audio stands."""
    settings = {"RIFX": {"format": "WAV", "endian": "BIG"}, "RF64": {"format": "RF64"}}[kind]
    soundfile.write(path, sweep(), SAMPLE_RATE, subtype=subtype, **settings)
    data = bytearray(path.read_bytes())
    assert data[:4] == kind.encode()
    at = data.index(b"data") + 4 if kind == "RIFX" else data.index(b"ds64") + 16
    return data, slice(at, at + (4 if kind == "RIFX" else 8))


@pytest.mark.parametrize("kind", ["RIFX", "RF64"])
def test_other_kinds_of_wav_that_are_cut(tmp_path: Path, kind: str) -> None:
    """They were taken for whole."""
    path = tmp_path / "a.wav"
    data, _ = wav_of(path, kind)
    assert heard(path) == (32000, "")
    path.write_bytes(data[: len(data) - 16000])
    n_heard, trouble = heard(path)
    n_missing = len(data) - path.stat().st_size
    assert 23900 < n_heard <= 24000
    assert trouble == f"{path}: cut off: {n_missing} of its 64000 bytes of audio are missing"


@pytest.mark.skipif(os.name != "posix", reason="heard through a pipe")
@pytest.mark.parametrize("kind", ["RIFX", "RF64"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
def test_other_kinds_of_wav_without_a_length(tmp_path: Path, kind: str, subtype: str) -> None:
    """Nothing was heard, and not a word said."""
    path = tmp_path / "a.wav"
    data, length = wav_of(path, kind, subtype)
    whole = listen(path)[0]
    data[length] = bytes(len(data[length]))
    path.write_bytes(data)
    samples, trouble = listen(path)
    assert trouble == f"{path}: cut off: its header says that there is no audio; {REST}"
    assert np.array_equal(samples[: len(whole)], whole) and len(samples) - len(whole) < 100  # chunks behind the audio


@pytest.mark.parametrize("subtype", ["MS_ADPCM", "IMA_ADPCM", "GSM610"])
def test_wav_of_blocks_without_a_length_ends(tmp_path: Path, subtype: str) -> None:
    """libsndfile gives samples of such a file without end where the length is unknown."""
    soundfile.write(tmp_path / "a.wav", sweep(), 16000, subtype=subtype)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4], data[4:8] = bytes(4), bytes(4)
    (tmp_path / "a.wav").write_bytes(data)
    assert heard(tmp_path / "a.wav")[0] < 40000


def test_wav_with_a_length_of_its_file_and_none_of_its_audio(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sweep(), 16000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = bytes(4)
    (tmp_path / "a.wav").write_bytes(data)
    assert heard(tmp_path / "a.wav") == (
        32000,
        f"{tmp_path / 'a.wav'}: cut off: its header says that there is no audio; {REST}",
    )
    data[place : place + 4] = bytes(4)
    (tmp_path / "a.wav").write_bytes(bytes(data[: place + 4]) + b"TAG" + b"x" * 125)
    assert heard(tmp_path / "a.wav") == (0, "")


def test_wav_that_holds_no_audio_and_something_else_is_empty(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    data = bytearray((tmp_path / "none.wav").read_bytes()) + b"LIST\x04\0\0\0INFO"
    data[4:8] = (len(data) - 8).to_bytes(4, "little")
    (tmp_path / "none.wav").write_bytes(data)
    assert heard(tmp_path / "none.wav") == (0, "")


def test_flac_without_a_length(tmp_path: Path) -> None:
    path = tmp_path / "streamed.flac"
    soundfile.write(path, sweep(), SAMPLE_RATE)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)  # STREAMINFO's 36 bits of total samples
    path.write_bytes(data)
    with AudioFile(path) as audio:
        assert audio.duration_s is None
        assert sum(len(block) for block in audio) == 2 * SAMPLE_RATE


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sweep(), SAMPLE_RATE)
    os.mkfifo(tmp_path / "pipe")
    data = (tmp_path / "a.wav").read_bytes()
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writer.start()
    assert np.array_equal(read_audio(tmp_path / "pipe"), read_audio(tmp_path / "a.wav"))
    writer.join()


def test_long_files_are_not_held_in_memory(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as file:
        for _ in range(40):
            file.write(np.zeros(60 * SAMPLE_RATE, np.int16))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(len(block) for block in AudioFile(path)) == 40 * 60 * SAMPLE_RATE
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < 20e6  # the file is 77 MB of samples


def test_a_file_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, sweep(), SAMPLE_RATE)
    audio = AudioFile(path)
    assert len(list(audio)) == 8
    with pytest.raises(AudioError) as error:
        list(audio)
    assert str(error.value) == f"{path}: expected an open file, got a closed one; it can be read once"


@pytest.mark.parametrize("rate", [16000, 48000])
def test_close_ends_an_iteration(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", sweep(rate), rate)
    audio = AudioFile(tmp_path / "a.wav")
    blocks = iter(audio)
    next(blocks)
    audio.close()
    audio.close()
    assert list(blocks) == []


# -- files that are not


@contextmanager
def nobody() -> Iterator[None]:
    """Be a user without rights; root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_paths_that_cannot_be_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    soundfile.write(secret, sweep(), SAMPLE_RATE)
    for path, reason in [
        (tmp_path / "missing.wav", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (secret / "below", "Not a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / "a\0b", "embedded null byte"),
    ]:
        assert heard(path) == (0, f"{path}: {reason}")
        with pytest.raises(AudioError):
            read_audio(path)
    secret.chmod(0)
    with nobody():
        assert heard(secret) == (0, f"{secret}: Permission denied")


def test_a_read_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, sweep(), SAMPLE_RATE)

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fstat", broken)
    with pytest.raises(AudioError) as error:
        AudioFile(path)
    monkeypatch.undo()
    assert str(error.value) in (f"{path}: Input/output error", f"{path}: [Errno 5] Input/output error")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.raw", "a"])
def test_empty_files_and_text(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    assert heard(path) == (0, f"{path}: expected audio, got an empty file")
    path.write_text("This is no audio.\n" * 1000)
    cannot = f"{path}: cannot be read as wav, flac, ogg or mp3 (libsndfile: Format not recognised)"
    assert heard(path) == (0, cannot)
    path.write_bytes(np.random.default_rng(5).integers(0, 128, 20000, np.uint8).tobytes())
    assert heard(path) == (0, cannot)
    assert capfd.readouterr().err == ""


def test_a_file_that_ends_in_its_header(tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3"):
        path = tmp_path / name
        soundfile.write(path, sweep(), SAMPLE_RATE)
        path.write_bytes(path.read_bytes()[:30])
        n, error = heard(path)
        assert n == 0
        assert error.startswith(f"{path}: cannot be read as wav, flac, ogg or mp3 (libsndfile: ")
        assert "does not exist" not in error
    assert error.endswith("(libsndfile: no audio in it)")


@pytest.mark.parametrize("name", ["a.wav", "a.aiff"])
def test_cut_wav(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    soundfile.write(path, sweep(), SAMPLE_RATE)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 16000])
    length = 64008 if name == "a.aiff" else 64000  # an SSND chunk has 8 bytes before its samples
    assert heard(path) == (24000, f"{path}: cut off: 16000 of its {length} bytes of audio are missing")
    with pytest.raises(AudioError, match="cut off"):
        read_audio(path)
    path.write_bytes(data)
    assert heard(path) == (32000, "")


def test_wav_with_chunks_around_its_audio(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, sweep(), SAMPLE_RATE)
    data = path.read_bytes()
    at = data.index(b"data")
    odd = b"note" + (3).to_bytes(4, "little") + b"abc\0"
    path.write_bytes(data[:at] + odd + data[at:] + odd)
    assert heard(path) == (32000, "")
    path.write_bytes((data[:at] + odd + data[at:])[:-10])
    assert heard(path) == (31995, f"{path}: cut off: 10 of its 64000 bytes of audio are missing")


def test_cut_flac(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, sweep(), SAMPLE_RATE)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    n, error = heard(path)
    assert 0.6 * SAMPLE_RATE < n < SAMPLE_RATE * 1.1
    assert error.startswith(f"{path}: damaged at {n / SAMPLE_RATE:.2f} s of 2.00 s (libsndfile: flac decoder ")


@pytest.mark.parametrize("rate", [16000, 48000])
def test_damaged_flac_gives_what_is_before_the_damage(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, sweep(rate), rate)
    good = read_audio(path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = np.random.default_rng(6).integers(0, 256, 2000, np.uint8).tobytes()
    path.write_bytes(data)
    samples, error = listen(path)
    n = len(samples)
    assert 0.5 * SAMPLE_RATE < n < 1.1 * SAMPLE_RATE
    assert error.startswith(f"{path}: damaged at {n / SAMPLE_RATE:.2f} s of 2.00 s (libsndfile: ")
    n -= 400  # the resampler makes the last ones without what followed them
    assert np.array_equal(samples[:n], good[:n])


def test_cut_ogg(tmp_path: Path) -> None:
    for subtype in ("VORBIS", "OPUS"):
        path = tmp_path / "a.ogg"
        soundfile.write(path, sweep(seconds=6), SAMPLE_RATE, subtype=subtype)
        data = path.read_bytes()
        assert heard(path)[1] == ""
        path.write_bytes(data[: data.rindex(b"OggS")])
        n, error = heard(path)
        assert 0 < n < 6 * SAMPLE_RATE
        assert error == f"{path}: cut off: its last page is missing"


def test_damaged_ogg(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, sweep(seconds=10), SAMPLE_RATE)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = bytes(300)
    path.write_bytes(data)
    n, error = heard(path)
    assert 0 < n < 10 * SAMPLE_RATE
    assert error == f"{path}: damaged: {10 - n / SAMPLE_RATE:.2f} s of its 10.00 s cannot be decoded"


def test_cut_mp3(tmp_path: Path, vbr_mp3: Path) -> None:
    path = tmp_path / "cut.mp3"
    data = vbr_mp3.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    n, error = heard(path)
    assert SAMPLE_RATE < n < 7.5 * SAMPLE_RATE
    at_a_frame = f"{path}: damaged: {8 - n / SAMPLE_RATE:.2f} s of its 8.00 s cannot be decoded"
    within = f"{path}: damaged at {n / SAMPLE_RATE:.2f} s of 8.00 s (libsndfile: Unspecified internal error)"
    assert error in (at_a_frame, within)


@pytest.mark.parametrize(("value", "text"), [(np.nan, "nan"), (-np.inf, "-inf"), (20000.0, "20000")])
@pytest.mark.parametrize("rate", [16000, 48000])
def test_float_files_with_unusable_samples(tmp_path: Path, value: float, text: str, rate: int) -> None:
    path = tmp_path / "a.wav"
    audio = sweep(rate, 2.0, 2)
    audio[rate:, 1] = value
    soundfile.write(path, audio, rate, subtype="FLOAT")
    n, error = heard(path)
    assert n == pytest.approx(SAMPLE_RATE, abs=1)
    assert error == f"{path}: expected finite samples in [-1, 1], got {text} at 1.00 s of 2.00 s"


def test_float_files_with_unusable_samples_in_both_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.array([[np.inf, -np.inf]] * 10), 16000, subtype="FLOAT")
    assert heard(path) == (0, f"{path}: expected finite samples in [-1, 1], got inf at 0.00 s of 0.00 s")


def test_a_header_with_an_impossible_rate(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, sweep(), 7)
    assert heard(path) == (0, f"{path}: expected a sample rate of 1000 to 1000000 Hz, got 7")


# -- what is imported


def test_soundfile_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, sweep(), SAMPLE_RATE)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingExtraError, match=r"^reading audio files needs soundfile: pip install soundfile$"):
        AudioFile(path)
    monkeypatch.delitem(sys.modules, "soundfile")
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=no_library), *sys.meta_path])
    with pytest.raises(MissingExtraError, match=r"^reading audio files needs the sndfile library: apt install libsndf"):
        AudioFile(path)


def no_library(name: str, path: Any, target: Any = None) -> None:
    """Fail as soundfile does where its library is not installed."""
    if name == "soundfile":
        raise OSError("sndfile library not found")


def test_the_import_loads_no_audio_library() -> None:
    code = "import streamkws.sources, sys; print(sorted({'soundfile', 'soxr', 'sounddevice'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
