"""Budgets are kept to, and intervals are those of the textbooks."""

import numpy as np
import pytest

from kws_train.evaluate.det import DetCurve, det_curve, poisson_interval, wilson_interval
from kws_train.evaluate.traces import posterior_trace


def test_the_lowest_threshold_is_taken_from_which_on_the_budget_is_kept():
    # At .4 it is kept by luck: at .5 two keywords no longer shade each other.
    curve = DetCurve(
        np.array([0.3, 0.4, 0.5, 0.6, 0.7]),
        n_false=np.array([9, 2, 3, 2, 0]),
        n_missed=np.array([0, 1, 1, 2, 5]),
        hours=2.0,
        n_words=10,
    )
    assert curve.at_budget(1.0).threshold == 0.6
    assert curve.at_budget(1.0).miss_rate == 0.2
    assert curve.at_budget(0.1).threshold == 0.7
    assert curve.at_budget(5.0).threshold == 0.3


def test_a_stream_some_seconds_short_of_an_hour_has_room_for_a_false_alarm_per_hour():
    levels, n_false, n_missed = np.array([0.5, 0.7, 0.9]), np.array([2, 1, 0]), np.array([0, 1, 2])
    curve = DetCurve(levels, n_false, n_missed, hours=0.9994, n_words=2)
    assert curve.at_budget(1.0).threshold == 0.7
    half = DetCurve(levels, n_false, n_missed, hours=0.5, n_words=2)
    assert half.at_budget(1.0).threshold == 0.9


def test_a_budget_that_no_threshold_keeps_gets_the_highest():
    curve = DetCurve(np.array([0.9, 1.0]), np.array([4, 3]), np.array([0, 1]), hours=1.0, n_words=2)
    point = curve.at_budget(0.5)
    assert (point.threshold, point.fa_per_hour, point.budget) == (1.0, 3.0, 0.5)


def test_a_budget_of_false_alarms_in_speech_leaves_out_keywords_taken_for_another():
    curve = DetCurve(
        np.array([0.3, 0.5, 0.7]),
        n_false=np.array([9, 5, 4]),
        n_missed=np.array([0, 1, 5]),
        hours=2.0,
        n_words=10,
        n_confused=np.array([4, 4, 3]),
    )
    point = curve.at_budget(0.5, in_speech=True)
    assert (point.threshold, point.speech_fa_per_hour, point.confused_rate) == (0.5, 0.5, 0.4)
    assert point.fa_per_hour == 2.5
    assert curve.at_budget(0.5).threshold == 0.7


def test_intervals_are_those_of_the_textbooks():
    assert poisson_interval(0) == (0.0, pytest.approx(3.689, abs=1e-3))
    assert poisson_interval(10) == pytest.approx((4.795, 18.390), abs=1e-3)
    assert wilson_interval(5, 10) == (
        pytest.approx(0.2366, abs=1e-4),
        pytest.approx(0.7634, abs=1e-4),
    )
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_a_sweep_tries_the_default_and_one_beyond_all_that_was_reached(pitch, tones):
    trace = posterior_trace(pitch, tones.samples)
    curve = det_curve([trace], [tones], default=0.5)
    assert 0.5 in curve.thresholds
    assert (curve.n_missed[-1], curve.n_false[-1]) == (8, 0)
    assert curve.at_threshold(0.5).miss_rate == pytest.approx(2 / 8)
    assert (curve.n_words, curve.hours) == (8, pytest.approx(tones.duration_s / 3600))
