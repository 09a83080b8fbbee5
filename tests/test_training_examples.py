"""Examples from a synthesized corpus: balanced, labelled, and the same for the same number."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from synthetic_corpus import KEYWORDS, write_part

from streamkws.corpus import read_segments
from streamkws.errors import AudioError, ConfigError
from streamkws.frontend import FrontEnd, FrontEndConfig
from streamkws.training import recordings
from streamkws.training.augment import AugmentConfig
from streamkws.training.data import DataConfig
from streamkws.training.examples import ExampleMaker

FRONTEND = FrontEndConfig(n_mels=20, window="hann", energy_floor=1e-9)
DATA = DataConfig(
    negatives={"speech": 1.0, "words": 1.0, "hiss": 0.5},
    impulse_responses="rooms",
    noise=("hiss",),
    auxiliary=("words",),
)
PLAIN = AugmentConfig(
    speed_share=0, n_vtlp=1, room_share=0, equalizer_share=0, bandlimit_share=0, noise_share=0, peak_min_db=-6,
    peak_max_db=-6, overdrive_share=0, context_share=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus") / "train"
    write_part(root, 1)
    return root


def maker(part, data=DATA, augmentation=None, seed=1):
    return ExampleMaker(part, KEYWORDS, data, augmentation or AugmentConfig(), FRONTEND, seed)


@pytest.fixture(scope="module")
def examples(part):
    one = maker(part)
    return [one.make(index) for index in range(150)]


def test_examples_have_their_shapes(examples):
    for example in examples:
        assert example.features.shape == (208, 20) and example.features.dtype == np.float32
        assert np.isfinite(example.features).all()
        assert example.targets.shape == example.onset.shape == example.first.shape == (5,)
        assert set(example.targets) <= {-1, 0, 1}
        assert (example.onset <= example.first).all() and (example.first < 200).all()


def test_examples_are_mixed_as_asked(examples):
    targets = np.stack([example.targets for example in examples])
    assert 0.38 < (targets[:, :2] == 1).any(1).mean() < 0.62
    assert (targets[:, :2] == 1).sum(1).max() == 1
    assert (targets[:, 2:] == 1).any() and (targets[:, 2:] == -1).any()


def test_an_example_depends_on_its_number_and_the_seed_alone(part, examples):
    again = maker(part)
    for index in (7, 3, 100):
        np.testing.assert_array_equal(again.make(index).features, examples[index].features)
        np.testing.assert_array_equal(again.make(index).targets, examples[index].targets)
    assert not np.array_equal(maker(part, seed=2).make(7).features, examples[7].features)


def test_a_keyword_lies_inside_and_its_region_is_where_its_energy_is(part):
    one = maker(part, replace(DATA, keyword_share=0.99, partial_share=0.0), PLAIN)
    inside = 0
    for index in range(40):
        example = one.make(index)
        present = np.flatnonzero(example.targets[:2] == 1)
        if present.size == 0:
            continue
        inside += 1
        onset, middle = int(example.onset[present[0]]), int(example.first[present[0]])
        end = 2 * middle - onset
        assert onset >= 8 and end <= 208 - 8 - 28
        loud = np.flatnonzero(example.features.max(1) > example.features.max() - 4)
        assert onset - 5 <= loud.min() and loud.max() <= end + 5
    assert inside > 35


def test_onsets_follow_the_speed(part):
    fast = replace(PLAIN, speed_share=1.0, speed_min=0.75, speed_max=1.25)
    one = maker(part, replace(DATA, keyword_share=0.99, partial_share=0.0), fast)
    late = []
    for index in range(40):
        example = one.make(index)
        present = np.flatnonzero(example.targets[:2] == 1)
        loud = np.flatnonzero(example.features.max(1) > example.features.max() - 4)
        late += [int(loud.min() - example.onset[output]) for output in present]
    assert len(late) > 35 and max(map(abs, late)) <= 12


def test_a_room_holds_its_direct_path(part):
    sound = maker(part, augmentation=replace(PLAIN, room_share=1.0)).perturbation
    for seed in range(5):
        response = np.fft.irfft(sound._gains(np.random.default_rng(seed)))
        assert response[0] == pytest.approx(1.0, abs=0.01)
        assert np.abs(response[24:]).max() > 1e-3  # and reverberation


def test_part_of_a_keyword_is_no_keyword(part):
    one = maker(part, replace(DATA, keyword_share=0.0, partial_share=0.99), PLAIN)
    examples = [one.make(index) for index in range(30)]
    assert not any((example.targets[:2] != 0).any() for example in examples)
    lengths = [np.sum(example.features.max(1) > example.features.max() - 4) for example in examples]
    assert np.median(lengths) < 36  # of some 60 frames


def test_noise_is_heard(part):
    quiet = maker(part, augmentation=PLAIN)
    noisy = maker(part, augmentation=replace(PLAIN, noise_share=1.0, snr_min_db=0, snr_max_db=0))
    for index in range(5):
        floors = [np.percentile(one.make(index).features, 10) for one in (quiet, noisy)]
        assert floors[1] > floors[0]


@pytest.mark.parametrize("device", ["resonance", "suppression", "compressor", "saturation", "codec"])
def test_devices_change_the_sound_and_neither_labels_nor_what_no_device_touches(device, part):
    name = f"{device}_share"
    plain, other = maker(part, augmentation=PLAIN), maker(part, augmentation=replace(PLAIN, **{name: 1.0}))
    for index in range(3):
        before, after = plain.make(index), other.make(index)
        assert np.isfinite(after.features).all() and after.features.shape == before.features.shape
        assert np.abs(after.features - before.features).mean() > 0.01
        np.testing.assert_array_equal(after.targets, before.targets)
        np.testing.assert_array_equal(after.onset, before.onset)
    rarely = maker(part, augmentation=replace(PLAIN, **{name: 1e-9}))
    assert not np.array_equal(rarely.make(0).features, other.make(0).features)


def test_durations_are_those_of_the_words(part):
    durations = maker(part).durations_s()
    assert durations.keys() == set(KEYWORDS)
    assert all(0.5 < value < 0.75 for value in durations.values())


def test_clips_of_unknown_speakers_count_as_speakers_of_ten_takes(part):
    folder = part / "wakewords" / "down"
    clip = soundfile.read(folder / "p001.flac")[0]
    added = [folder / f"p{index:03d}.flac" for index in range(2, 13)]
    for path in added:
        soundfile.write(path, clip, 16000)
    try:
        groups = {group[0].speaker: len(group) for group in maker(part).by_speaker[1]}
        assert {name: n for name, n in groups.items() if name.startswith("p")} == {"p0": 10, "p1": 2}
    finally:
        for path in added:
            path.unlink()


def test_recordings_are_left_out_by_name(part):
    named = sorted(f"{path.parent.name}/{path.name}" for path in (part / "wakewords").glob("*/*"))
    one = maker(part, replace(DATA, exclude=("down/p0*", named[0])))
    assert len(maker(part).clips) - len(one.clips) == sum(name.startswith("down/p0") for name in named) + 1 >= 2
    assert not any(clip.speaker.startswith("p") and clip.keyword == KEYWORDS.index("down") for clip in one.clips)


def test_labels_and_kinds_of_sets(part):
    assert recordings.auxiliary_labels([part], ("words",)) == ("words/high", "words/low", "words/mid")
    assert read_segments(part / "words").single_words
    assert not read_segments(part / "speech").single_words


def test_more_parts_are_trained_on_together(part, tmp_path):
    for name, seed in (("train", 1), ("dev", 2), ("test", 3)):
        write_part(tmp_path / name, seed)
    shutil.rmtree(tmp_path / "dev" / "speech")
    row = "0.flac,0,12000,deep,s,made\n"
    with (tmp_path / "dev" / "words" / "segments.csv").open("a") as table:
        table.write(row)
    one = maker(tmp_path / "train", replace(DATA, also_train=("dev",)))
    alone = maker(tmp_path / "train")
    assert len(one.clips) == 2 * len(alone.clips) and len(one.perturbation.rooms) == 2 * len(alone.perturbation.rooms)
    assert [len(groups) for groups in one.by_speaker] == [2 * len(groups) for groups in alone.by_speaker]
    speech, words, _ = one.negatives
    assert len(speech.files) == 2 and len(words.files) == 2
    assert [segment.file for segment in words.segments] == [0] * 4 + [1] * 5
    theirs = read_segments(tmp_path / "dev" / "words")
    np.testing.assert_array_equal(words.files[1], theirs.files[0])
    assert "words/deep" in one.outputs and one.n_outputs == alone.n_outputs + 1
    assert one.make(0).targets.shape == (6,)


def test_keywords_alone_of_another_part(part, tmp_path):
    for name, seed in (("train", 1), ("dev", 2)):
        write_part(tmp_path / name, seed)
    one = maker(tmp_path / "train", replace(DATA, also_keywords=("dev",)))
    alone = maker(tmp_path / "train")
    assert len(one.clips) == 2 * len(alone.clips) and one.outputs == alone.outputs
    assert [len(groups) for groups in one.by_speaker] == [2 * len(groups) for groups in alone.by_speaker]
    assert [len(given.files) for given in one.negatives] == [len(given.files) for given in alone.negatives]
    assert len(one.perturbation.rooms) == len(alone.perturbation.rooms)
    both = maker(tmp_path / "train", replace(DATA, also_train=("dev",), also_keywords=("dev",)))
    assert len(both.clips) == 2 * len(alone.clips)


def test_a_set_outside_the_corpus(part, tmp_path):
    shutil.copytree(part / "words", tmp_path / "words")
    shutil.copytree(part / "hiss", tmp_path / "rain")
    outside = f"{tmp_path}/words"
    data = DataConfig(
        negatives={"words": 1.0, outside: 1.0, f"{tmp_path}/rain": 1.0},
        impulse_responses="rooms",
        noise=(f"{tmp_path}/rain",),
        auxiliary=("words", outside),
    )
    one = maker(part, data)
    assert [given.name for given in one.negatives] == list(data.negatives)
    assert one.perturbation.noises == one.negatives[2:]
    labels = [label.removeprefix(f"{tmp_path}/") for label in one.outputs]
    assert labels == ["words/high", "words/low", "words/mid"] * 2 and one.n_outputs == 2 + 6
    present = (np.stack([one.make(index).targets for index in range(150)]) == 1).any(0)
    assert present.all()
    with pytest.raises(ConfigError, match=r"expected a set of long files with .*none"):
        maker(part, replace(DATA, negatives={"speech": 1.0, "hiss": 1.0, f"{tmp_path}/none": 1.0}))


def test_unusable_impulse_responses_are_named(part, tmp_path):
    shutil.copytree(part, tmp_path / "part")
    bad = tmp_path / "part" / "rooms" / "bad.wav"
    bad.write_text("no audio")
    with pytest.raises(AudioError, match=r"bad.wav: cannot be read as an impulse response"):
        maker(tmp_path / "part")
    soundfile.write(bad, np.zeros(100), 8000)
    with pytest.raises(AudioError, match=r"expected an impulse response at 16000 Hz, got 8000 Hz: .*bad.wav"):
        maker(tmp_path / "part")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"negatives": {}}, "expected data.negatives to give sets a share"),
        ({"crop_s": 3.0}, "expected data.crop_s in 0.5..2.0 seconds, got 3.0"),
        ({"keyword_share": 0.95}, "keyword_share . data.partial_share below 1"),
        ({"word_pair_share": 2.0}, "expected data.word_pair_share in 0..1, got 2.0"),
        ({"min_tail_s": 1.5}, "expected data.min_tail_s from 0 to half of crop_s, got 1.5"),
    ],
)
def test_settings_out_of_range(settings, text):
    with pytest.raises(ConfigError, match=text):
        replace(DATA, **settings)


def test_features_are_the_runtimes_own(part):
    one = maker(part, replace(DATA, keyword_share=0.0, partial_share=0.0, negatives={"speech": 1.0}), PLAIN)
    heard = []
    push = FrontEnd.push
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrontEnd, "push", lambda self, samples: heard.append(samples) or push(self, samples))
        example = one.make(0)
    assert heard[0].dtype == np.int16 and np.abs(heard[0]).max() == pytest.approx(32767 * 10 ** (-6 / 20), rel=0.02)
    np.testing.assert_array_equal(example.features, FrontEnd(FRONTEND).push(heard[0])[:208])


def is_silent(example):
    """Which frames of an example are digital silence."""
    return example.features.max(1) < np.log(FRONTEND.energy_floor) + 0.01


def test_the_swapped_halves_of_a_keyword_are_no_keyword(part):
    whole = maker(part, replace(DATA, keyword_share=0.99, partial_share=0.0), PLAIN)
    one = maker(part, replace(DATA, keyword_share=0.0, partial_share=0.99, swapped_share=1.0), PLAIN)
    examples = [one.make(index) for index in range(30)]
    assert not any((example.targets[:2] != 0).any() for example in examples)
    lengths = [
        np.median([np.sum(made.features.max(1) > made.features.max() - 4) for made in group])
        for group in (examples, [whole.make(index) for index in range(30)])
    ]
    assert 0.8 * lengths[1] < lengths[0] < 1.3 * lengths[1]  # both halves are there
    up_first = 0
    for example in examples:  # the chirps rise or fall: in swapped halves the band jumps back in between
        loud = np.flatnonzero(example.features.max(1) > example.features.max() - 3)
        bands = example.features[loud].argmax(1)
        up_first += int(np.abs(np.diff(bands)).max() >= 4)
    assert up_first > 20


def test_a_piece_of_speech_alone_is_as_long_as_a_word(part):
    data = replace(DATA, negatives={"speech": 1.0}, keyword_share=0.0, partial_share=0.0)
    one = maker(part, replace(data, alone_share=1.0), replace(PLAIN, cut_share=0.0))
    lengths = []
    for index in range(40):
        example = one.make(index)
        assert not (example.targets[:2] != 0).any()
        loud = np.flatnonzero(example.features.max(1) > example.features.max() - 7)
        lengths.append((loud.max() - loud.min()) / 100)
    assert 0.2 < min(lengths) and max(lengths) < 1.4
    plain = maker(part, data, PLAIN)
    stretches = [plain.make(index).features for index in range(10)]
    assert min(np.mean(one.max(1) > one.max() - 9) for one in stretches) > 0.9


@pytest.mark.parametrize("partial", [False, True])
def test_what_is_cut_begins_or_ends_with_the_word_and_the_rest_is_silence(part, partial):
    share = {"keyword_share": 0.0 if partial else 0.99, "partial_share": 0.99 if partial else 0.0}
    noisy = replace(PLAIN, noise_share=1.0, snr_min_db=10, snr_max_db=10)
    plain = maker(part, replace(DATA, **share), noisy)
    one = maker(part, replace(DATA, **share), replace(noisy, cut_share=1.0))
    begun = ended = 0
    for index in range(60):
        before, example = plain.make(index), one.make(index)
        np.testing.assert_array_equal(example.targets, before.targets)
        np.testing.assert_array_equal(example.onset, before.onset)
        silent = is_silent(example)
        assert not is_silent(before).any()
        begun += bool(silent[0])
        ended += bool(silent[-1])
        present = np.flatnonzero(example.targets[:2] == 1)
        if present.size:
            onset, middle = int(example.onset[present[0]]), int(example.first[present[0]])
            end = 2 * middle - onset
            assert not silent[onset + 2 : end - 6].any()  # the word stays, but for its last 25 ms
            assert silent[0] or onset < 18 or silent[end + 18 :].all()
    assert begun > 15 and ended > 30


def test_negatives_are_cut_too(part):
    one = maker(
        part, replace(DATA, keyword_share=0.0, partial_share=0.0), replace(PLAIN, noise_share=1.0, cut_share=1.0)
    )
    silent = [is_silent(one.make(index)) for index in range(40)]
    assert sum(frames.any() for frames in silent) > 30 and not any(frames.all() for frames in silent)


def test_quiet_examples_are_not_drowned_by_their_own_floor(part):
    data = replace(DATA, keyword_share=0.99, partial_share=0.0)
    for peak_db in (-30, -60):
        one = maker(part, data, replace(PLAIN, peak_min_db=peak_db, peak_max_db=peak_db))
        heard = [one.make(index).features for index in range(20)]
        contrast = [float(np.percentile(each.max(1), 97) - np.percentile(each.max(1), 20)) for each in heard]
        assert np.median(contrast) > 3


def test_no_word_that_counts_is_cut_away(part):
    data = replace(DATA, negatives={"words": 1.0}, keyword_share=0.0, partial_share=0.0, word_pair_share=1.0)
    one = maker(part, data, replace(PLAIN, cut_share=1.0))
    n_words = 0
    for index in range(60):
        example = one.make(index)
        for output in np.flatnonzero(example.targets[2:] == 1) + 2:
            onset, middle = int(example.onset[output]), int(example.first[output])
            assert not is_silent(example)[onset + 3 : max(onset + 4, 2 * middle - onset - 6)].all()
            n_words += 1
    assert n_words > 60


def test_a_microphones_floor_lies_where_it_is_asked_for(part):
    data = replace(DATA, keyword_share=0.99, partial_share=0.0)
    plain = maker(part, data, PLAIN)
    for floor_db in (15, 35):
        one = maker(part, data, replace(PLAIN, floor_share=1.0, floor_min_db=floor_db, floor_max_db=floor_db))
        below = []
        for index in range(20):
            before, example = plain.make(index), one.make(index)
            np.testing.assert_array_equal(example.targets, before.targets)
            power = np.exp(example.features).sum(1)
            floor = power[: max(4, int(example.onset.max()) - 10)]  # what comes before the word
            below.append(10 * np.log10(power.max() / np.median(floor)))
        assert abs(np.median(below) - floor_db) < 8, floor_db


def test_what_is_excluded_can_be_a_set_of_negatives(part):
    share = {"keyword_share": 0.0, "partial_share": 0.0, "noise": ()}
    data = replace(DATA, negatives={"excluded": 1.0}, exclude=("*/p0*",), **share)
    one = maker(part, data, PLAIN)
    excluded = one.negatives[0].segments
    assert excluded and {segment.speaker for segment in excluded} == {""}
    assert len(excluded) + len(one.clips) == len(maker(part).clips)
    examples = [one.make(index) for index in range(20)]
    assert all(not example.targets[:2].any() for example in examples)
    assert sum(example.features.max() > 0 for example in examples) > 15
    with pytest.raises(ConfigError, match=r"expected data.exclude to name recordings in .*found none"):
        maker(part, replace(data, exclude=("*/nobody*",)))
    with pytest.raises(ConfigError, match=r"beside data\.negatives\.excluded"):
        replace(data, exclude=())
