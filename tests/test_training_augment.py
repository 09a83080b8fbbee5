"""The perturbations do what they say, measured on signals whose answer is known."""

import numpy as np
import pytest

from streamkws.errors import ConfigError
from streamkws.frontend import FrontEndConfig, mel_filters
from streamkws.training import augment
from streamkws.training.augment import AugmentConfig


def tone(hz, n=16000, level=1.0):
    return (level * np.sin(2 * np.pi * hz * np.arange(n) / 16000)).astype(np.float32)


def peak_hz(samples):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size)))
    return np.argmax(spectrum) * 16000 / samples.size


def test_speed_moves_a_tone_and_keeps_its_level():
    samples = tone(1000.0, 48000)
    faster = augment.filter_and_resample(samples, None, 48000, 40000)
    assert faster.shape == (40000,) and faster.dtype == np.float32
    assert peak_hz(faster) == pytest.approx(1200.0, abs=1)
    assert np.abs(faster[1000:-1000]).max() == pytest.approx(1.0, abs=0.01)


def test_slower_makes_the_spectrum_longer_with_silence_above():
    slower = augment.filter_and_resample(tone(1200.0, 48000), None, 48000, 54000)
    assert slower.size == 54000
    assert peak_hz(slower) == pytest.approx(1200.0 * 48000 / 54000, abs=1)


def test_speed_lengths_are_fast_to_transform_and_in_range():
    lengths = augment.speed_lengths(48000, 0.85, 1.18)
    assert 48000 in lengths and lengths.size > 10
    speeds = 48000 / lengths
    assert speeds.min() >= 0.85 and speeds.max() <= 1.18
    for length in lengths:
        rest = int(length)
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        assert rest == 1 and length % 2 == 0


def test_a_room_adds_no_delay_and_unit_energy():
    response = np.zeros(9000, np.float32)
    response[700] = -0.9  # the direct path, inverted
    response[700 + 1600] = -0.45
    spectrum = augment.room_spectrum(response, 48000)
    click = np.zeros(30000, np.float32)
    click[5000] = 1.0
    heard = augment.filter_and_resample(click, np.float32(1) + np.float32(0.5) * spectrum, 48000, 48000)
    assert np.argmax(heard) == 5000 and heard[5000] == pytest.approx(1.0, abs=1e-4)
    assert heard[6600] == pytest.approx(0.5, abs=1e-4)  # the only reflection has the tail's whole energy
    heard[[5000, 6600]] = 0
    assert np.abs(heard).max() < 1e-4


def test_warped_filters_move_the_peak_and_leave_factor_one_alone():
    filters = mel_filters(FrontEndConfig(n_mels=40))
    np.testing.assert_array_equal(augment.warped_filters(filters, 1.0), filters)
    up, down = augment.warped_filters(filters, 1.15), augment.warped_filters(filters, 0.85)
    bins = np.arange(257)
    centre = [float((f[25] * bins).sum() / f[25].sum()) for f in (down, filters, up)]
    assert centre[0] / centre[1] == pytest.approx(1 / 0.85, rel=0.02)
    assert centre[2] / centre[1] == pytest.approx(1 / 1.15, rel=0.02)
    for warped in (up, down):
        assert warped.shape == filters.shape and warped.dtype == np.float32 and warped.min() >= 0


def test_vtlp_factors_hold_exactly_one():
    assert 1.0 in augment.vtlp_factors(AugmentConfig())
    assert augment.vtlp_factors(AugmentConfig(n_vtlp=1)) == (1.0,)
    assert len(augment.vtlp_factors(AugmentConfig(n_vtlp=4))) == 4


def test_coloured_noise_falls_as_asked():
    noise = augment.coloured_noise(np.random.default_rng(2), 1 << 17, 2.0)
    power = np.abs(np.fft.rfft(noise)) ** 2
    hz = np.fft.rfftfreq(noise.size, 1 / 16000)
    octaves = [power[(hz > low) & (hz < 2 * low)].mean() for low in (250, 500, 1000)]
    assert np.diff(10 * np.log10(octaves)) == pytest.approx([-6.0, -6.0], abs=1.0)
    assert noise.std() == pytest.approx(1.0, abs=1e-3)


def test_the_equalizers_hats_add_up_to_one():
    np.testing.assert_allclose(augment.equalizer_basis(501).sum(0), 1.0, atol=1e-5)


def test_masks_fill_with_the_mean_and_stay_within_their_widths():
    config = AugmentConfig(n_time_masks=1, time_mask_frames=12, n_frequency_masks=1, frequency_mask_bands=6)
    fill = np.arange(40, dtype=np.float32) - 1000
    features = np.zeros((50, 200, 40), np.float32)
    augment.mask_features(np.random.default_rng(3), features, fill, config)
    masked = features < -100
    rows, bands = masked.all(2).sum(1), masked.all(1).sum(1)
    assert 0 < rows.max() <= 12 and 0 < bands.max() <= 6
    np.testing.assert_array_equal(features[masked], np.broadcast_to(fill, features.shape)[masked])


def test_another_tempo_keeps_both_ends_and_never_runs_backwards():
    positions = augment.tempo_positions(np.random.default_rng(0), 5, 90, 0.3)
    assert positions.shape == (5, 90) and positions.dtype == np.float32
    np.testing.assert_allclose(positions[:, 0], 0)
    np.testing.assert_allclose(positions[:, -1], 89, rtol=1e-5)
    assert (np.diff(positions) > 0).all()
    assert np.abs(positions - np.arange(90)).max() > 2
    np.testing.assert_allclose(augment.tempo_positions(np.random.default_rng(0), 1, 90, 0.0)[0], np.arange(90), 1e-5)


def test_tempos_spread_as_asked():
    slopes = np.diff(augment.tempo_positions(np.random.default_rng(0), 400, 401, 0.3), axis=1)[:, 9::20]
    assert np.log(slopes).std(axis=1).mean() == pytest.approx(0.3, abs=0.02)


def test_features_are_read_between_frames():
    features = np.arange(12, dtype=np.float32).reshape(1, 6, 2)
    read = augment.at_positions(features, np.array([[0.0, 0.5, 2.25, 3.0, 4.0, 5.0]], np.float32))
    np.testing.assert_allclose(read[0, :, 0], [0.0, 1.0, 4.5, 6.0, 8.0, 10.0])


def test_speech_region_finds_the_word_in_noise():
    rng = np.random.default_rng(4)
    samples = rng.standard_normal(48000) * 30
    samples[20000:30000] += tone(300, 10000) * 5000
    samples[41000:41300] += 9000  # a click is louder, but has less energy
    start, end = augment.speech_region(samples.astype(np.int16))
    assert abs(start - 20000) < 1200 and abs(end - 30000) < 1200


def test_speech_region_bridges_a_pause_and_takes_flat_clips_whole():
    samples = np.random.default_rng(5).standard_normal(48000) * 10
    samples[16000:20000] += tone(300, 4000) * 5000
    samples[22000:26000] += tone(500, 4000) * 3000  # "smart" and "mirror"
    start, end = augment.speech_region(samples.astype(np.int16))
    assert start < 16200 and end > 25800
    assert augment.speech_region(np.zeros(16000, np.int16)) == (0, 16000)
    assert augment.speech_region(np.zeros(100, np.int16)) == (0, 100)


def test_faded_rises_from_zero_and_copies():
    samples = np.full(1000, 100, np.int16)
    faded = augment.faded(samples)
    assert faded[0] == faded[-1] == 0 and faded[500] == 100 and samples[0] == 100


def test_pick_follows_the_shares():
    rng = np.random.default_rng(6)
    counts = np.bincount([augment.pick(rng, [3.0, 0.0, 1.0]) for _ in range(4000)], minlength=3)
    assert counts[1] == 0 and counts[0] / counts[2] == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"room_share": 1.5}, "expected augment.room_share in 0..1, got 1.5"),
        ({"recorded_share": 0.7, "babble_share": 0.6}, "recorded_share . augment.babble_share of at most 1"),
        ({"speed_min": 1.1}, "expected 0.5 <= speed_min <= 1"),
        ({"vtlp_max": 0.9}, "expected 0.5 <= vtlp_min <= 1 <= vtlp_max"),
        ({"snr_min_db": 30.0}, "expected augment.snr_min_db <= augment.snr_max_db"),
        ({"room_share": 1.5}, "expected augment.room_share in 0..1, got 1.5"),
        ({"shift_frames": -1}, "expected augment.shift_frames >= 0, got -1"),
    ],
)
def test_settings_out_of_range(settings, text):
    with pytest.raises(ConfigError, match=text):
        AugmentConfig(**settings)
