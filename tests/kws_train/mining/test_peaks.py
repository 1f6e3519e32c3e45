"""Peaks of scores: one per moment, of the highest keyword, apart from one another."""

import numpy as np
import pytest

from kws_train.evaluate.traces import Trace
from kws_train.mining.peaks import find_peaks


@pytest.fixture
def trace(manifest):
    """Return a trace with triangles of 100 ms about (second, column, height)."""

    def make(*peaks, n_outputs=500):
        smoothed = np.zeros((n_outputs, 2), np.float32)
        for at_s, column, height in peaks:
            top = round(at_s / 0.02)
            for i in range(-5, 6):
                smoothed[top + i, column] = height * (1 - abs(i) / 5)
        return Trace(manifest, smoothed, 1, n_outputs * 0.02)

    return make


def test_each_rise_is_one_candidate_of_the_keyword_that_is_highest(trace):
    found = find_peaks(
        trace((2.0, 0, 0.9), (2.1, 1, 0.6), (5.0, 1, 0.5), (7.0, 0, 0.2), (8.0, 0, 0.05)),
        {"go": 0.8, "stop": 0.8},
    )
    assert [(one.keyword, round(one.score, 2), one.kind) for one in found] == [
        ("go", 0.9, "detection"),
        ("stop", 0.5, "near_miss"),
        ("go", 0.2, "peak"),
    ]
    assert [one.end_s for one in found] == pytest.approx([2.0, 5.0, 7.0], abs=0.1)


def test_rises_are_kept_apart_and_the_higher_one_stays(trace):
    found = find_peaks(trace((2.0, 0, 0.5), (2.5, 0, 0.7), (3.5, 0, 0.6)), {"go": 0.8})
    assert [one.score for one in found] == pytest.approx([0.7, 0.6])


def test_a_keyword_that_is_not_wanted_is_no_candidate(trace):
    assert find_peaks(trace((2.0, 1, 0.9)), {"go": 0.8}) == []
