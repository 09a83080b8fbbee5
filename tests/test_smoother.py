import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from naive import detections

from streamkws import ConfigError, Detection, PosteriorSmoother, SmootherConfig
from streamkws.smoother import StepClock

CLOCK = StepClock(first_end_samples=560, step_samples=320, sample_rate=16000)
NAMES = ("alexa", "snowboy")


def smoother(thresholds=None, wanted=None, **settings):
    return PosteriorSmoother(SmootherConfig(**settings), NAMES, CLOCK, thresholds, {"alexa": 0.4}, wanted)


def column(values):
    """Posteriors of "alexa", with "snowboy" silent."""
    return np.stack([values, np.zeros(len(values))], axis=1).astype(np.float32)


def test_a_peak_gives_one_detection_with_its_times():
    values = np.zeros(60)
    values[40:45] = 0.2, 0.8, 0.9, 0.7, 0.1
    hits = smoother(smoothing_steps=1, patience_steps=2).push(column(values))
    end = (560 + 42 * 320) / 16000
    assert hits == [Detection("alexa", pytest.approx(0.9), pytest.approx(end - 0.4), end, end)]


def test_smoothing_averages_and_moves_the_end_back_to_the_middle_of_its_window():
    values = np.zeros(60)
    values[40:45] = 1
    (hit,) = smoother(smoothing_steps=5, patience_steps=1, thresholds={"alexa": 0.9}).push(column(values))
    assert hit.score == 1
    assert hit.peak == CLOCK.end_s(44)
    assert hit.end == CLOCK.end_s(42)


def test_the_first_steps_are_averaged_over_what_has_come():
    smoothed = smoother(smoothing_steps=4).smooth(column(np.array([0.4, 0.8, 0.0, 0.0, 0.0])))
    np.testing.assert_allclose(smoothed[:, 0], [0.4, 0.6, 0.4, 0.3, 0.2], rtol=1e-6)


def test_the_refractory_period_and_falling_below_the_threshold_come_before_a_second_detection():
    values = np.full(100, 0.9)
    assert len(smoother(smoothing_steps=1, refractory_steps=10).push(column(values))) == 1
    values[50] = 0.1
    assert len(smoother(smoothing_steps=1, refractory_steps=10).push(column(values))) == 2
    assert len(smoother(smoothing_steps=1, refractory_steps=60).push(column(values))) == 1


@settings(deadline=None, max_examples=80)
@given(
    arrays(np.float32, st.tuples(st.integers(0, 60), st.just(2)), elements=st.sampled_from([0, 0.25, 0.5, 0.75, 1])),
    st.integers(1, 4),
    st.integers(0, 4),
    st.integers(0, 12),
    st.lists(st.integers(0, 9), max_size=8),
)
def test_any_cut_of_the_posteriors_gives_what_the_naive_rule_gives(posteriors, smoothing, patience, refractory, cuts):
    config = SmootherConfig(smoothing, patience, refractory)
    one = PosteriorSmoother(config, NAMES, CLOCK, {"alexa": 0.5, "snowboy": 0.6}, near=0.25)
    hits, start = [], 0
    for length in [*cuts, len(posteriors)]:
        hits += one.push(posteriors[start : start + length])
        start += length
    hits += one.flush()
    for near in (None, 0.25):
        found = [(NAMES.index(hit.keyword), hit.peak, hit.score) for hit in hits if hit.near == bool(near)]
        rule = detections(posteriors, config, (0.5, 0.6), near)
        assert sorted(found) == [(k, CLOCK.end_s(peak), score) for k, peak, _, score in rule]


def test_a_near_miss_is_given_once_it_has_passed_and_only_where_it_is_asked_for():
    values = np.zeros(60)
    values[10:14] = 0.2, 0.4, 0.3, 0.3  # a near miss of 0.4
    values[30:34] = 0.3, 0.4, 0.8, 0.3  # on its way to a detection
    values[40:44] = 0.3  # in the refractory period
    settings = {"smoothing_steps": 1, "patience_steps": 2, "refractory_steps": 20}
    clock, names = CLOCK, NAMES
    one = PosteriorSmoother(SmootherConfig(**settings), names, clock, {"alexa": 0.5}, near=0.25)
    assert one.push(column(values[:14])) == []
    first, second = one.push(column(values[14:]))
    assert (first.near, first.score, first.peak) == (True, pytest.approx(0.4), clock.end_s(11))
    assert (second.near, second.score) == (False, pytest.approx(0.8))
    assert [hit.near for hit in smoother(**settings).push(column(values))] == [False]
    one.reset()
    one.push(column(values[:13]))
    (last,) = one.flush()
    assert last.near and last.score == pytest.approx(0.4)
    one.push(column(values[:13]))
    one.set_thresholds({"alexa": 0.2})  # which is below near: there is none any more
    assert not any(hit.near for hit in one.push(column(values[:30])))


@pytest.mark.parametrize("near", [0, -1, 1.5, "much", True])
def test_near_is_a_posterior(near):
    with pytest.raises(ConfigError, match="expected a score above 0 and at most 1 for 'near'"):
        PosteriorSmoother(SmootherConfig(), NAMES, CLOCK, near=near)


def test_reset_equals_a_new_smoother():
    one = smoother(smoothing_steps=3)
    one.push(column(np.full(20, 0.9)))
    one.reset()
    values = column(np.array([0.1, 0.9, 0.9, 0.9, 0.2, 0.1, 0.1, 0.1, 0.1]))
    assert one.push(values) == smoother(smoothing_steps=3).push(values)


def test_only_wanted_keywords_are_detected():
    both = np.ones((20, 2), np.float32)
    assert {hit.keyword for hit in smoother().push(both)} == set(NAMES)
    assert {hit.keyword for hit in smoother(wanted=["snowboy"]).push(both)} == {"snowboy"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"thresholds": {"alexa": 0}}, "expected a threshold above 0 and at most 1 for 'alexa', got 0"),
        ({"thresholds": {"alexa": 1.5}}, "expected a threshold above 0 and at most 1 for 'alexa', got 1.5"),
        ({"thresholds": {"alexa": float("nan")}}, "expected a threshold above 0 and at most 1 for 'alexa', got nan"),
        ({"thresholds": {"hal": 0.5}}, "unknown keyword 'hal'; the model knows: alexa, snowboy"),
        ({"wanted": ["hal"]}, "unknown keyword 'hal'; the model knows: alexa, snowboy"),
        ({"smoothing_steps": 0}, "expected smoothing_steps >= 1, patience_steps >= 0 and refractory_steps >= 0"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, text):
    with pytest.raises(ConfigError, match=text):
        smoother(**arguments)


def test_posteriors_of_another_shape_are_refused():
    with pytest.raises(ConfigError, match=r"expected posteriors of shape \(S, 2\), got \(5, 3\)"):
        smoother().push(np.zeros((5, 3), np.float32))
