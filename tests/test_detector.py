import copy
import gc
import pickle
import threading
from dataclasses import replace

import numpy as np
import pytest
from conftest import KEYWORDS, random_model, run_python, speechlike
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkws import AudioError, BatchDetector, ConfigError, Detector, detect, load_model, posteriors
from streamkws.audio import read_audio
from streamkws.cli.demo import PACKAGE
from streamkws.detector import TAIL_S, within


@pytest.fixture(scope="module")
def samples():
    return speechlike(60000)


def all_hits(model, samples, lengths=(), **options):
    """Detections of samples fed in blocks of these lengths, then the rest at once."""
    detector = Detector(model, **options)
    hits, start = [], 0
    for length in lengths:
        hits += detector.push(samples[start : start + length])
        start += length
    return hits + detector.push(samples[start:]) + detector.flush()


def test_the_detector_equals_its_three_stages(model, samples):
    frames = model.new_front_end().push(np.concatenate([samples, np.zeros(round(TAIL_S * 16000), np.float32)]))
    state, smoother = model.new_state(), model.new_smoother()
    state.hear_silence()
    staged = smoother.push(state.push(frames)) + smoother.flush()
    assert staged
    assert all_hits(model, samples) == within(staged, samples.size / 16000)


@pytest.mark.parametrize("bits", [(32, 32), (8, 8), (4, 8)])
def test_a_stream_begins_as_after_a_long_silence(bits, samples):
    model = random_model() if bits == (32, 32) else random_model().quantize(*bits)
    begun = np.concatenate([np.zeros(400, np.float32), samples[:16000]])  # no frame is half silence, half sound
    steps = posteriors(begun, model)
    waited = posteriors(np.concatenate([np.zeros(32000, np.float32), begun]), model)
    n_smoothed = model.config.smoother.smoothing_steps
    assert np.array_equal(steps[n_smoothed:], waited[-len(steps) :][n_smoothed:])
    assert len(np.unique(steps)) > 20


@pytest.mark.parametrize("bits", ["f32", "w8a8", "w4a8"])
def test_a_keyword_is_heard_at_the_very_end_and_at_the_very_start(bits):
    model = load_model(f"wakewords.{bits}")
    audio = read_audio(PACKAGE / "demo.flac")
    detector = Detector(model, history_s=0)
    hits = detector.push(audio) + detector.flush()
    assert len(hits) >= 4
    for hit in hits:
        start, end = round((hit.start - 0.2) * 16000), round((hit.end - 0.05) * 16000)
        detector.reset()
        early = detector.push(audio[max(0, start) : end])
        late = detector.flush()
        assert hit.keyword in [one.keyword for one in early + late]
        assert all(one.start <= one.end <= one.peak <= detector.heard_s for one in early + late)


def test_what_follows_a_flush_is_another_stream_on_the_same_clock(model, samples):
    detector = Detector(model, history_s=4)
    detector.push(samples[:20000])
    detector.flush()
    assert detector.flush() == [] and detector.heard_s == 20000 / 16000
    assert np.array_equal(detector.audio(0, 1.25), np.rint(samples[:20000] * 32768).astype(np.int16))
    after = detector.push(samples) + detector.flush()
    expected = [(hit.keyword, hit.score, pytest.approx(hit.peak + 1.25)) for hit in all_hits(model, samples)]
    assert [(hit.keyword, hit.score, hit.peak) for hit in after] == expected
    assert detector.heard_s == 80000 / 16000


def test_the_end_of_nothing_completes_nothing(model):
    detector = Detector(model, thresholds=1e-6)
    assert detector.flush() == [] and detector.push(np.zeros(0, np.int16)) == []


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 5000), max_size=40))
def test_any_cut_of_the_samples_gives_the_same_detections_bit_for_bit(lengths):
    model, samples = random_model().quantize(4, 8), speechlike(60000)
    assert all_hits(model, samples, lengths) == all_hits(model, samples)


def test_one_sample_at_a_time_gives_the_same_detections(model, samples):
    assert all_hits(model, samples[:30000], [1] * 30000) == all_hits(model, samples[:30000])


def test_int16_samples_give_the_same_as_the_float_ones_they_stand_for(model, samples):
    pcm = (samples * 32767).astype(np.int16)
    assert all_hits(model, pcm) == all_hits(model, pcm.astype(np.float32) / 32768)


def test_reset_equals_a_new_detector(model, samples):
    detector = Detector(model)
    detector.push(samples[:34567])
    detector.reset()
    assert detector.push(samples) + detector.flush() == all_hits(model, samples)


def test_two_threads_sharing_a_model_equal_two_runs_one_after_the_other(model):
    streams = [speechlike(80000, seed) for seed in (1, 2)]
    results = [None, None]

    def run(index):
        results[index] = all_hits(model, streams[index], [160] * 400)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [all_hits(model, stream) for stream in streams]


def test_detect_takes_any_iterable_of_blocks(model, samples):
    assert list(detect([samples[:100], samples[100:]], model)) == all_hits(model, samples)


def test_a_threshold_for_all_or_for_one_keyword(model, samples):
    everything = all_hits(model, samples, thresholds=1e-6)
    assert {hit.keyword for hit in everything} == set(KEYWORDS)  # all are above it from the start, and rise
    assert len(all_hits(model, samples, thresholds=0.9)) < len(everything)
    silenced = all_hits(model, samples, thresholds={"alexa": 1.0})
    assert [hit for hit in silenced if hit.keyword != "alexa"] == [
        hit for hit in all_hits(model, samples) if hit.keyword != "alexa"
    ]


def test_the_same_code_as_plain_python_gives_the_same(model):
    samples = speechlike(16000)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from conftest import *; from streamkws import Detector;"
        "detector = Detector(random_model().quantize(4, 8));"
        "hits = detector.push(speechlike(16000)) + detector.flush();"
        "print([(hit.keyword, hit.peak, round(hit.score, 4)) for hit in hits])"
    )
    hits = all_hits(model, samples)
    assert hits
    assert run_python(script, NUMBA_DISABLE_JIT="1") == str(
        [(hit.keyword, hit.peak, round(hit.score, 4)) for hit in hits]
    )


def test_only_the_wanted_keywords(model, samples):
    wanted = all_hits(model, samples, keywords=["snowboy"])
    assert wanted == [hit for hit in all_hits(model, samples) if hit.keyword == "snowboy"]
    assert Detector(model, keywords=["snowboy"], thresholds={"alexa": 0.9}).thresholds == {"snowboy": 0.6}


def test_levels_are_the_last_smoothed_posteriors(model, samples):
    detector = Detector(model)
    detector.push(samples)
    assert np.array_equal(detector.levels(), posteriors(samples, model)[-1])


def test_detections_lie_within_the_audio_and_name_their_stream(model, samples):
    for hit in all_hits(model, samples):
        assert 0 <= hit.start < hit.end <= hit.peak <= samples.size / 16000
        assert hit.score >= model.thresholds[hit.keyword]
        assert hit.stream == 0


def test_a_refused_block_changes_nothing(model, samples):
    detector = Detector(model)
    detector.push(samples[:20000])
    bad = samples[20000:30000].copy()
    bad[77] = np.nan
    with pytest.raises(AudioError, match="NaN"):
        detector.push(bad)
    with pytest.raises(AudioError, match="int16 or float32"):
        detector.push(np.zeros((10, 2), np.float32))
    first = Detector(model).push(samples[:20000])
    assert first + detector.push(samples[20000:]) + detector.flush() == all_hits(model, samples)


@pytest.mark.parametrize("keywords", [["hal"], "hal"])
def test_an_unknown_keyword_lists_the_known_ones(model, keywords):
    with pytest.raises(ConfigError, match="unknown keyword 'hal'; the model knows: alexa, smart mirror, snowboy"):
        Detector(model, keywords=keywords)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 9000), max_size=12))
def test_a_batch_equals_as_many_detectors(lengths):
    model = random_model().quantize(4, 8)
    streams = np.stack([speechlike(40000, seed) for seed in range(3)])
    batch, hits, start = BatchDetector(model, n_streams=3), [], 0
    for length in [*lengths, streams.shape[1]]:
        hits += batch.push(streams[:, start : start + length])
        start += length
    hits += batch.flush()
    for index, stream in enumerate(streams):
        mine = [replace(hit, stream=0) for hit in hits if hit.stream == index]
        assert mine == all_hits(model, stream)
    batch.reset()
    again = batch.push(streams) + batch.flush()
    assert sorted(again, key=repr) == sorted(hits, key=repr)


def test_a_batch_refuses_what_does_not_fit_and_feeds_no_stream(model):
    with pytest.raises(ConfigError, match="expected at least 1 stream, got 0"):
        BatchDetector(model, 0)
    batch = BatchDetector(model, 2)
    with pytest.raises(AudioError, match=r"expected blocks of shape \(2, n\), got \(3, 5\)"):
        batch.push(np.zeros((3, 5), np.float32))
    blocks = np.stack([speechlike(30000), np.full(30000, np.nan, np.float32)])
    with pytest.raises(AudioError, match="NaN"):
        batch.push(blocks)
    assert batch.push(np.zeros((2, 0), np.float32)) == batch.flush() == []


def test_the_last_seconds_are_kept_however_they_came(model, samples):
    pcm = (samples * 32767).astype(np.int16)
    detector = Detector(model, history_s=2.0)
    for start in range(0, 45000, 7000):
        detector.push(pcm[start : start + 7000])
    assert detector.heard_s == pytest.approx(49000 / 16000)
    assert np.array_equal(detector.audio(1.5, 3.0), pcm[24000:48000])
    assert detector.audio(3.0, 3.0).size == 0
    detector.push(pcm[49000:].astype(np.float32) / 32768)
    assert np.array_equal(detector.audio(60000 / 16000 - 2, 60000 / 16000), pcm[28000:])
    for start, end in ((1.5, 3.0), (3.0, 4.0), (3.0, 2.5), (float("nan"), 3.0)):
        with pytest.raises(AudioError, match=r"expected a stretch"):
            detector.audio(start, end)
    detector.reset()
    detector.push(pcm[:16000])
    assert np.array_equal(detector.audio(-0.5, 0.25), pcm[:4000])  # before the start is the start


def test_history_of_none_of_too_much_and_of_clipped_floats(model):
    detector = Detector(model, history_s=0)
    detector.push(np.zeros(1600, np.int16))
    with pytest.raises(AudioError, match=r"within 0\.10 to 0\.10 s"):
        detector.audio(0.0, 0.1)
    with pytest.raises(ConfigError, match="history_s"):
        Detector(model, history_s=-1)
    loud = Detector(model)
    loud.push(np.array([1.0, -1.0, 1.5, -1.5, 0.5], np.float32))
    assert loud.audio(0, 5 / 16000).tolist() == [32767, -32768, 32767, -32768, 16384]


def test_after_a_loss_the_clock_goes_on_and_nothing_half_heard_is_left(model, samples):
    detector = Detector(model)
    before = detector.push(samples[:20000]) + detector.lost(8000)
    after = detector.push(samples[20000:]) + detector.flush()
    assert before == all_hits(model, samples[:20000])
    begin = 28000 / 16000
    fresh = all_hits(model, samples[20000:])
    assert fresh
    assert [(hit.keyword, hit.score) for hit in after] == [(hit.keyword, hit.score) for hit in fresh]
    for name in ("start", "end", "peak"):
        assert [getattr(hit, name) for hit in after] == pytest.approx([getattr(hit, name) + begin for hit in fresh])
    assert not detector.audio(20000 / 16000, begin).any()
    assert np.abs(detector.audio(begin, begin + 0.5) - 32768 * samples[20000:28000]).max() <= 0.5
    detector.lost(10**9)  # longer than what is kept
    assert not detector.audio(detector.heard_s - 4, detector.heard_s).any()
    with pytest.raises(AudioError, match="got -1"):
        detector.lost(-1)
    detector.reset()
    assert detector.push(samples) + detector.flush() == all_hits(model, samples)


def test_what_a_source_dropped_is_lost_to_the_detector(model, samples):
    class Chopped:
        dropped = 300  # when it was listened to before

        def __iter__(self):
            yield samples[:20000]
            self.dropped += 5000
            yield samples[25000:]

    direct = Detector(model)
    expected = direct.push(samples[:20000]) + direct.lost(5000) + direct.push(samples[25000:]) + direct.flush()
    assert list(detect(Chopped(), model)) == expected


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda detector: pickle.loads(pickle.dumps(detector)),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_goes_on_by_itself_from_what_was_heard(copied, model, samples):
    half = len(samples) // 2 + 77
    whole = all_hits(model, samples)
    original = Detector(model)
    before = original.push(samples[:half])
    other = copied(original)
    assert other.push(speechlike(30000, seed=5)) is not None  # which the original must not hear
    assert before + original.push(samples[half:]) + original.flush() == whole
    original.reset()
    original.push(samples[:half])
    other = copied(original)
    stretch = original.audio(0.5, 1.0)
    del original
    gc.collect()
    assert np.array_equal(other.audio(0.5, 1.0), stretch)
    assert before + other.push(samples[half:]) + other.flush() == whole


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_share_the_model(copied, model):
    assert copied(Detector(model)).model is model
    assert copied(model) is model


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_batch_and_each_stage_can_be_copied_too(copied, model, samples):
    batch = BatchDetector(model, 2)
    rows = np.stack([samples, speechlike(60000, seed=3)])
    batch.push(rows[:, :30000])
    other = copied(batch)
    expected = batch.push(rows[:, 30000:]) + batch.flush()
    assert expected
    del batch
    gc.collect()
    assert other.push(rows[:, 30000:]) + other.flush() == expected
    front_end, state, smoother = model.new_front_end(), model.new_state(), model.new_smoother()
    smoother.push(state.push(front_end.push(samples[:30000])))
    others = copied(front_end), copied(state), copied(smoother)
    ours = smoother.smooth(state.push(front_end.push(samples[30000:])))
    front_end, state, smoother = others
    assert np.array_equal(smoother.smooth(state.push(front_end.push(samples[30000:]))), ours)
    for stage in (front_end, smoother):
        assert not any(array.flags.writeable for array in stage.tables)


def test_native_memory_itself_is_never_copied(model):
    native = Detector(model)._native[0]
    for copied in COPIES.values():
        with pytest.raises(TypeError, match="native memory can be neither copied nor pickled"):
            copied(native)


def test_other_thresholds_and_keywords_while_it_runs(model, samples):
    half = 30000
    detector = Detector(model)
    before = detector.push(samples[:half])
    detector.reconfigure(0.3, ["snowboy"])
    assert detector.thresholds == {"snowboy": 0.3}
    after = detector.push(samples[half:]) + detector.flush()
    assert before == Detector(model).push(samples[:half])
    assert after and {hit.keyword for hit in after} == {"snowboy"}
    low = Detector(model, 0.3, ["snowboy"])
    low.push(samples[:half])
    assert [hit for hit in low.push(samples[half:]) + low.flush() if hit.peak > half / 16000 + 0.5] == [
        hit for hit in after if hit.peak > half / 16000 + 0.5
    ]
    detector.reconfigure()
    assert detector.thresholds == Detector(model).thresholds
    detector.reset()
    assert detector.push(samples) + detector.flush() == all_hits(model, samples)
    for wrong in ({"hal": 0.5}, {"snowboy": 0.0}, 2.0):
        with pytest.raises(ConfigError):
            detector.reconfigure(wrong)
    assert detector.thresholds == Detector(model).thresholds


def test_muted_it_gives_nothing_and_goes_on(model, samples):
    detector, plain = Detector(model, history_s=4), Detector(model, history_s=4)
    first = detector.push(samples[:20000])
    assert first == plain.push(samples[:20000])
    detector.mute()
    assert plain.push(samples[20000:40000])
    for start in range(20000, 40000, 160):
        assert detector.push(samples[start : start + 160]) == []
    assert detector.heard_s == plain.heard_s and np.array_equal(detector.audio(0, 2.5), plain.audio(0, 2.5))
    with pytest.raises(AudioError):
        detector.push(np.array([np.nan], np.float32))
    detector.unmute()
    later = detector.push(samples[40000:]) + detector.flush()
    fresh = all_hits(model, samples[40000:])
    assert [(hit.keyword, hit.score) for hit in later] == [(hit.keyword, hit.score) for hit in fresh]
    assert [hit.peak for hit in later] == [pytest.approx(hit.peak + 2.5) for hit in fresh]
    detector.unmute()  # it is not muted
    assert copy.deepcopy(detector).push(samples) == detector.push(samples)
    detector.mute()
    detector.push(samples)
    assert copy.deepcopy(detector).push(samples) == [] and detector.flush() == []
    detector.reset()
    assert detector.push(samples) + detector.flush() == all_hits(model, samples)


def test_what_was_rising_and_is_no_longer_listened_for_is_forgotten(model, samples):
    hit = all_hits(model, samples)[0]
    detector, n = Detector(model), 0
    while not (detector.stages[0].smoother.state.phases == 1).any():
        detector.push(samples[n : n + 160])
        n += 160
    rising = int(np.flatnonzero(detector.stages[0].smoother.state.phases == 1)[0])
    others = [keyword for k, keyword in enumerate(KEYWORDS) if k != rising]
    for change in ({"keywords": others}, {"thresholds": 0.5, "keywords": others}):
        other = copy.deepcopy(detector)
        other.reconfigure(**change)
        later = other.push(samples[n : n + 1600]) + other.flush()
        assert KEYWORDS[rising] not in [one.keyword for one in later if one.peak <= hit.peak + 0.05]
    assert hit in detector.push(samples[n:])


def test_a_batch_heeds_a_muted_stream(model, samples):
    batch = BatchDetector(model, 2)
    batch.detectors[0].mute()
    hits = batch.push(np.stack([samples, samples]))
    assert hits and {hit.stream for hit in hits} == {1}
    batch.detectors[0].unmute()
    assert {hit.stream for hit in batch.push(np.stack([samples, samples])) + batch.flush()} == {0, 1}


def test_the_end_of_a_stream_leaves_clock_and_history_alone(model, samples):
    detector, seen = Detector(model, history_s=1), set()
    detector.push(samples)
    stop = threading.Event()

    def look():
        while not stop.is_set():
            seen.add(detector.heard_s)

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(50):
        detector.flush()
        detector.push(np.zeros(0, np.int16))
    before = detector.audio(detector.heard_s - 1, detector.heard_s)
    detector.flush()
    stop.set()
    thread.join()
    assert seen == {samples.size / 16000}
    assert np.array_equal(before, detector.audio(detector.heard_s - 1, detector.heard_s))


@pytest.mark.parametrize("n", [-1, 1.5, 2**63])
def test_a_number_of_lost_samples_is_one(model, n):
    with pytest.raises(AudioError, match="expected a number of lost samples"):
        Detector(model).lost(n)


def test_thresholds_may_be_numbers_of_numpy(model, samples):
    expected = all_hits(model, samples, thresholds=0.5)
    assert all_hits(model, samples, thresholds=np.float32(0.5)) == expected
    assert model.with_settings(thresholds={"alexa": np.float32(0.5)}).thresholds == {"alexa": 0.5}
