"""Which candidates come first: what is unsure, unlike the others, and not labelled yet."""

import numpy as np
import pytest

from kws.mined.word_embedding import pack_vectors
from kws_train.mining.peaks import Peak
from kws_train.mining.select import select, uncertainty

THRESHOLDS = {"go": 0.6}


def peak(score, vector):
    unit = np.array(vector, np.float32) / np.linalg.norm(vector)
    return Peak(
        keyword="go",
        score=score,
        kind="peak",
        start_s=0.0,
        end_s=0.5,
        embedding=pack_vectors(unit[None]),
    )


def test_what_is_nearest_to_the_threshold_comes_first():
    scores = [0.99, 0.1, 0.58, 0.3, 0.8]
    peaks = [peak(score, np.eye(5)[i]) for i, score in enumerate(scores)]
    assert select(peaks, thresholds=THRESHOLDS, n=5) == [2, 3, 4, 1, 0]


@pytest.mark.parametrize(
    ("score", "threshold", "expected"),
    [(0.6, 0.6, 1.0), (0.3, 0.6, 0.5), (0.8, 0.6, 0.5), (1.0, 0.6, 0.05), (0.0, 0.6, 0.05)],
)
def test_uncertainty_falls_linearly_from_the_threshold_to_either_end(score, threshold, expected):
    assert uncertainty(score, threshold) == pytest.approx(expected)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_threshold_at_an_end_is_no_division_by_zero(threshold):
    assert uncertainty(threshold, threshold) == 1.0
    assert uncertainty(0.5, threshold) == pytest.approx(0.5)


def test_another_sound_comes_before_more_of_the_same():
    peaks = [peak(0.60, [1, 0.0]), peak(0.59, [1, 0.2]), peak(0.30, [0, 1.0])]
    assert select(peaks, thresholds=THRESHOLDS, n=3) == [0, 2, 1]


def test_of_what_sounds_alike_there_are_three():
    jingles = [peak(0.5, [1, 0.001 * i]) for i in range(10)]
    chosen = select([*jingles, peak(0.2, [0, 1])], thresholds=THRESHOLDS, n=10)
    assert len(chosen) == 4
    assert 10 in chosen


def test_what_is_like_labelled_clips_comes_later_and_in_the_end_not_at_all():
    peaks = [peak(0.60, [1, 0]), peak(0.35, [0, 1])]
    labelled = [peaks[0].embedding]
    assert select(peaks, thresholds=THRESHOLDS, labelled=labelled, n=2) == [1, 0]
    assert select(peaks, thresholds=THRESHOLDS, labelled=labelled * 3, n=2) == [1]


def test_embeddings_of_another_network_are_passed_over():
    peaks = [peak(0.60, [1, 0])]
    assert select(peaks, thresholds=THRESHOLDS, labelled=[b"\x7f\0\0"], n=1) == [0]


def test_of_nothing_nothing_is_chosen():
    assert select([], thresholds=THRESHOLDS, labelled=[b"\x7f\0"], n=3) == []
