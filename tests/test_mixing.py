"""Noise at a signal-to-noise ratio, and rooms: against naive sums, and the same for every recording each time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy_corpus import add_noise, write_corpus

from streamkws.corpus import NegativeFile, Recording, read_corpus
from streamkws.mixing import (
    PADDING_RMS,
    PADDING_SAMPLES,
    NoiseBank,
    RoomBank,
    in_room,
    max_frame_energy,
    mix,
    noise_gain,
)


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path)


@pytest.fixture
def noisy_corpus(corpus):
    return add_noise(corpus)


def naive_max_frame_energy(samples):
    frames = [samples[i : i + 2048] for i in range(0, len(samples) - 2047, 2048)] or [samples]
    return max(sum(float(x) ** 2 for x in frame) for frame in frames)


@pytest.mark.parametrize("n_samples", [1, 2047, 2048, 5000])
@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 10.0])
def test_mix_holds_the_ratio(n_samples, snr_db):
    random = np.random.default_rng(n_samples)
    speech = (0.05 * random.standard_normal(n_samples)).astype(np.float32)
    noise = (0.3 * random.standard_normal(n_samples)).astype(np.float32)
    added = mix(speech, noise, snr_db).astype(np.float64) - speech
    ratio = naive_max_frame_energy(speech) / naive_max_frame_energy(added)
    assert 10 * math.log10(ratio) == pytest.approx(snr_db, abs=1e-3)
    assert max_frame_energy(speech) == pytest.approx(naive_max_frame_energy(speech))


def test_mix_scales_down_what_would_clip():
    speech = np.ones(4096, dtype=np.float32)
    noise = np.where(np.arange(4096) % 2, 0.1, -0.1).astype(np.float32)
    mixed = mix(speech, noise, 0.0)
    assert mixed.dtype == np.float32
    assert np.array_equal(np.unique(mixed), [0, 1])  # 1 + 1 and 1 - 1, halved


def test_mix_leaves_silence_alone():
    speech, silence = np.full(3000, 0.5, dtype=np.float32), np.zeros(3000, dtype=np.float32)
    assert np.array_equal(mix(speech, silence, 10.0), speech)
    assert np.array_equal(mix(silence, speech, 10.0), silence)


def test_noise_runs_from_end_to_end_and_is_the_same_every_time(noisy_corpus):
    listed = read_corpus(noisy_corpus, ["go"])
    bank = NoiseBank.read(listed.negatives, seed=0)
    assert sorted(len(stretch) for stretch in bank.stretches) == [16000, 30000, 50000]
    recording = listed.recordings[0]
    samples = soundfile.read(recording.path, dtype="float32")[0] * np.float32(0.1)
    clean, noisy = (bank.over_recording(recording, samples, snr_db) for snr_db in (None, 10.0))
    assert np.array_equal(clean[16000:-16000], samples)
    for padding in (clean[:16000], clean[-16000:]):
        assert 20 * math.log10(np.sqrt(np.mean(padding.astype(np.float64) ** 2))) == pytest.approx(-70, abs=0.2)
    added = noisy.astype(np.float64) - clean
    assert np.sqrt(np.mean(added[:16000] ** 2)) > 10 * PADDING_RMS
    assert max_frame_energy(clean) / max_frame_energy(added.astype(np.float32)) == pytest.approx(10, rel=1e-3)

    again = NoiseBank(bank.stretches, seed=0)
    assert np.array_equal(again.over_recording(recording, samples, 10.0), noisy)
    other_seed = NoiseBank(bank.stretches, seed=1)
    assert not np.array_equal(other_seed.over_recording(recording, samples, 10.0), noisy)
    other = listed.recordings[1]
    assert not np.array_equal(bank.over_recording(other, samples, 10.0), noisy)


def test_each_segment_gets_noise_of_its_own(noisy_corpus):
    listed = read_corpus(noisy_corpus, ["go"])
    bank = NoiseBank.read(listed.negatives, seed=0)
    talk = next(negative for negative in listed.negatives if negative.set_name == "talk")
    assert talk.segments == ((0, 96000), (96000, 250000))
    samples = np.random.default_rng(2).uniform(-0.1, 0.1, 300000).astype(np.float32)
    samples[96000:] *= 0.1
    noisy = bank.over_negative(talk, samples, 10.0)
    for start, end in talk.segments:
        added = (noisy[start:end].astype(np.float64) - samples[start:end]).astype(np.float32)
        assert max_frame_energy(samples[start:end]) / max_frame_energy(added) == pytest.approx(10, rel=1e-3)
    assert np.array_equal(noisy[250000:], samples[250000:])
    assert np.array_equal(bank.over_negative(talk, samples, None), samples)


def test_digital_silence_among_the_noise_is_not_drawn(noisy_corpus):
    recording = read_corpus(noisy_corpus, ["go"]).recordings[0]
    silence, hiss = np.zeros(50000, dtype=np.float32), np.full(50000, 0.1, dtype=np.float32)
    speech = np.full(4800, 0.5, dtype=np.float32)
    for seed in range(10):
        noisy = NoiseBank((silence, hiss), seed).over_recording(recording, speech, 10.0)
        assert noisy[8000] > 0.05


def test_noise_is_known_by_its_label_or_by_its_source(noisy_corpus):
    table = "file,start,end,label,speaker,source\n0.wav,0,30000,rain,,1.wav\n0.wav,30000,80000,noise,,running_tap.wav\n"
    (noisy_corpus / "hum_noise" / "segments.csv").write_text(table)
    bank = NoiseBank.read(read_corpus(noisy_corpus, ["go"]).negatives, seed=0)
    lengths = {label: len(stretch) for label, stretch in zip(bank.labels, bank.stretches, strict=True)}
    assert lengths == {"": 16000, "rain": 30000, "running_tap": 50000}
    rain = bank.only(["rain", "hail"])
    assert (rain.labels, [len(stretch) for stretch in rain.stretches], rain.seed) == (("rain",), [30000], 0)


def test_a_room_keeps_the_level_and_delays_nothing():
    samples = np.zeros(16000, dtype=np.float32)
    samples[4000:4100] = 0.5
    response = np.zeros(3000, dtype=np.float32)
    response[[200, 1000]] = -0.8, 0.4
    heard = in_room(samples, response)
    assert max_frame_energy(heard) == pytest.approx(max_frame_energy(samples), rel=1e-5)
    reference = np.convolve(samples, response[200:])[:16000]
    assert heard == pytest.approx(reference * heard[4000] / reference[4000], abs=1e-6)
    assert np.flatnonzero(np.abs(heard) > 1e-3)[0] == 4000


def test_a_room_does_not_clip():
    samples = np.full(4096, 0.9, dtype=np.float32)
    response = np.array([1.0, -0.99], dtype=np.float32)  # all but the first sample nearly vanishes
    heard = in_room(samples, response)
    assert heard[0] == np.abs(heard).max() == 1
    assert not in_room(np.zeros(10, dtype=np.float32), response).any()


def test_a_recording_always_has_the_same_room(corpus):
    listed = read_corpus(corpus, ["go"])
    bank = RoomBank(tuple(np.full(1, n, dtype=np.float32) for n in range(1, 9)))
    drawn = [int(bank.draw(recording)[0]) for recording in listed.recordings]
    assert drawn == [int(bank.draw(recording)[0]) for recording in listed.recordings]
    assert len(set(drawn)) > 1
    assert len(RoomBank.read(corpus, 0).responses) == 1


@pytest.mark.parametrize("snr_db", [-2.0, 10.0, 25.0])
def test_noise_gain_meets_the_rule_of_the_loudest_frames(snr_db):
    rng = np.random.default_rng(1)
    speech = np.zeros(32000, np.float32)
    speech[10240:12288] = rng.standard_normal(2048)  # one loud frame decides, not the mean
    noise = rng.standard_normal(32000).astype(np.float32) * 0.01
    noise = noise * np.float32(noise_gain(speech, noise, snr_db))
    measured = 10 * np.log10(max_frame_energy(speech) / max_frame_energy(noise))
    assert measured == pytest.approx(snr_db, abs=1e-3)


def test_noise_gain_of_silence_is_zero():
    assert noise_gain(np.zeros(4096, np.float32), np.ones(4096, np.float32), 0.0) == 0.0
    assert noise_gain(np.ones(4096, np.float32), np.zeros(4096, np.float32), 0.0) == 0.0
    assert max_frame_energy(np.full(10, 2.0, np.float32)) == 40.0


def test_what_would_clip_keeps_its_shape():
    """The sum is scaled down as a whole: no sample is cut off."""
    speech, noise = np.array([0.9, 0.5, 0.2], np.float32), np.array([0.9, 0.1, -0.2], np.float32)
    gain = noise_gain(speech, noise, 0.0)
    mixed = speech + gain * noise
    assert mixed.max() > 1
    np.testing.assert_allclose(mix(speech, noise, 0.0), mixed / mixed.max(), rtol=1e-6)


def test_noise_starts_anywhere_in_its_recording_also_at_its_last_place():
    bank = NoiseBank((np.array([1, 2, 3], np.float32),))
    drawn = {tuple(bank._draw(np.random.default_rng(seed), 2)) for seed in range(50)}
    assert drawn == {(1, 2), (2, 3)}


def test_padding_and_segments_have_noise_of_their_own():
    bank = NoiseBank((np.random.default_rng(0).standard_normal(100_000).astype(np.float32),))
    recording = Recording(Path("a.wav"), "wakewords/a/a.wav", "a", "")
    padded = bank.over_recording(recording, np.zeros(100, np.float32), None)
    assert not np.array_equal(padded[:PADDING_SAMPLES], padded[-PADDING_SAMPLES:])
    negative = NegativeFile(Path("t.wav"), "talk/t.wav", "talk", ((0, 4000), (4000, 8000)))
    noisy = bank.over_negative(negative, np.tile(np.linspace(-0.5, 0.5, 4000, dtype=np.float32), 2), 10.0)
    assert not np.array_equal(noisy[:4000], noisy[4000:])
