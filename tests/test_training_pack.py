"""Packs of features: what comes back of them, and what examples are made of it."""

import numpy as np
import pytest

from streamkws import ConfigError
from streamkws.frontend import FrontEnd, FrontEndConfig
from streamkws.training.augment import AugmentConfig
from streamkws.training.pack import Stretch, read_pack, write_pack
from streamkws.training.packed import PackedSpeech

CONFIG = FrontEndConfig(n_mels=40, window="hann", low_hz=60.0, high_hz=7600.0, energy_floor=1e-9)


def log_mel(seed, seconds=4, gain=0.1):
    rng = np.random.default_rng(seed)
    t = np.arange(16000 * seconds) / 16000
    sound = gain * np.sin(2 * np.pi * 300 * t * (1 + 0.2 * np.sin(3 * t))) + gain / 20 * rng.standard_normal(t.size)
    return np.array(FrontEnd(CONFIG).push(sound.astype(np.float32)), np.float16)


@pytest.fixture
def path(tmp_path):
    stretches = [Stretch(log_mel(seed), "tones", judges=seed == 2) for seed in range(3)]
    write_pack(tmp_path / "some.pack", stretches, CONFIG, {"tones": "made (public domain)"})
    return tmp_path / "some.pack"


def test_a_pack_comes_back_nearly_as_it_was_and_small(path):
    pack = read_pack(path)
    assert pack.frontend == CONFIG and pack.sources == {"tones": "made (public domain)"}
    assert [one.judges for one in pack.stretches] == [False, False, True]
    assert pack.hours(judges=True) == pytest.approx(pack.hours(judges=False) / 2)
    for seed, one in enumerate(pack.stretches):
        before = log_mel(seed)[: len(one.features)]
        assert len(one.features) % 8 == 0 and len(log_mel(seed)) - len(one.features) < 8
        error = one.features.astype(float) - before.astype(float)
        assert np.sqrt(np.mean(error**2)) < 0.4  # nats of power: 1.7 dB
    raw = sum(one.features.size for one in pack.stretches)
    assert path.stat().st_size < raw  # less than a byte a value, tables included


def test_what_is_no_pack_is_refused_in_a_line(path, tmp_path):
    whole = path.read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("text", b"hello"), ("none", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match="expected a pack of features"):
            read_pack(tmp_path / name)
    damaged = bytearray(whole)
    damaged[-len(whole) // 3] ^= 255
    (tmp_path / "damaged").write_bytes(bytes(damaged))
    with pytest.raises(ConfigError):
        read_pack(tmp_path / "damaged")
    with pytest.raises(ConfigError):
        read_pack(tmp_path / "missing")


def test_examples_keep_the_levels_that_were_asked_for(path):
    quiet = AugmentConfig(peak_min_db=-40.0, peak_max_db=-40.0, noise_share=0.0, equalizer_share=0.0)
    loud = AugmentConfig(peak_min_db=-10.0, peak_max_db=-10.0, noise_share=0.0, equalizer_share=0.0)
    noise = [np.random.default_rng(0).standard_normal(16000 * 20).astype(np.float32) * 1000]
    for config, expected in ((quiet, -40.0), (loud, -10.0)):
        packed = PackedSpeech(read_pack(path), config, CONFIG, [], noise)
        features = packed.draw(np.random.default_rng(1), 208)
        assert features.shape == (208, 40) and features.dtype == np.float32
        level = np.logaddexp.reduce(features, axis=1).max() - packed.full_scale
        assert level * 10 / np.log(10) == pytest.approx(expected, abs=0.5)


def test_noise_fills_what_was_quiet_and_draws_repeat(path):
    config = AugmentConfig(peak_min_db=-10.0, peak_max_db=-10.0, noise_share=1.0, equalizer_share=0.0)
    noise = [np.random.default_rng(0).standard_normal(16000 * 20).astype(np.float32) * 1000]
    packed = PackedSpeech(read_pack(path), config, CONFIG, [], noise)
    one, again, other = (packed.draw(np.random.default_rng(seed), 208) for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert one.min() > np.log(CONFIG.energy_floor)


def test_only_a_pack_of_the_same_front_end_is_used(path):
    other = FrontEndConfig(n_mels=40, window="hann", low_hz=80.0, high_hz=7600.0, energy_floor=1e-9)
    with pytest.raises(ConfigError, match="front end"):
        PackedSpeech(read_pack(path), AugmentConfig(), other, [], [])
