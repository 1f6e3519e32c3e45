"""Windows of vectors have their answers where they should be."""

import numpy as np
import pytest

from kws_train.fit.vector_windows import VectorBatches, VectorData, VectorFit, scene_windows

SIZE, N_SCENE, END = 5, 40, 31
STRIDED = VectorFit(
    batches=1,
    window=30,
    n_context=12,
    first_answer=2,
    n_answer=6,
    n_shifts=1,
    n_keyword=4,
    n_other=8,
    noise=0.0,
)


@pytest.fixture
def data():
    """Scenes and speech whose values are their index in time."""
    scenes = np.tile(np.arange(N_SCENE, dtype=np.float16)[:, None], (6, 1, SIZE))
    background = np.tile(np.arange(1000, 1400, dtype=np.float16)[:, None], (1, SIZE))
    labels = np.repeat([0, 1], 3)
    return VectorData(
        scenes=scenes, labels=labels, weights=np.ones(6), word_end=END, background=background
    )


def test_windows_hold_the_answer_and_only_it_counts(data):
    scenes, shifts = np.array([0, 5, 4]), np.array([0, 1, 2])
    x, wanted = scene_windows(data, scenes, shifts, VectorFit(), n_labels=2, stride=1)
    assert x.shape == (3, 27, SIZE)
    for row, marks, label in zip(x[..., 0], wanted, (0, 1, 1), strict=True):
        assert marks[:, 1 - label].sum() == 0
        counted = row[marks[:, label] > 0].tolist()
        expected = range(END + 1, END + 7) if label else row[13:].tolist()
        assert counted == list(expected)


def test_an_output_of_several_vectors_counts_by_the_last_of_them(data):
    x, wanted = scene_windows(
        data, np.array([0, 5]), np.array([0, 0]), STRIDED, n_labels=2, stride=3
    )
    assert (x.shape, wanted.shape) == ((2, 30, SIZE), (2, 10, 2))
    last = x[..., 2::3, 0]
    other, keyword = (row[marks.max(axis=1) > 0] for row, marks in zip(last, wanted, strict=True))
    assert other.tolist() == [row for row in last[0] if row - x[0, 0, 0] >= 12]
    assert keyword.tolist() == [row for row in last[1] if END + 2 <= row < END + 8]
    assert len(keyword) == 2


def test_moments_that_are_mined_lie_where_outputs_count(data):
    batches = VectorBatches(data, STRIDED, n_labels=2, stride=3, seed=1)
    batches.hard = np.array([200])
    x, wanted = batches[0]
    n_hard = round(STRIDED.hard_share * STRIDED.n_other)
    first = STRIDED.n_keyword + round(STRIDED.confusable_share * STRIDED.n_other)
    for window, marks in zip(
        x[first : first + n_hard], wanted[first : first + n_hard], strict=True
    ):
        (at,) = np.flatnonzero(window[:, 0] == 1200)
        assert at >= STRIDED.n_context
        assert marks[-1].tolist() == [0, 1][::-1]


def test_a_mask_replaces_vectors_in_a_row_and_values_side_by_side(data):
    settings = VectorFit(**{**_fields(STRIDED), "longest_mask": 8, "widest_mask": 2})
    plain = VectorBatches(data, STRIDED, n_labels=2, stride=3, seed=1)[0][0]
    masked = VectorBatches(data, settings, n_labels=2, stride=3, seed=1)[0][0]
    assert masked.shape == plain.shape
    changed = masked != plain
    assert 0.05 < changed.mean() < 0.5
    assert (changed.all(axis=2).sum(axis=1) <= 8).all()


def _fields(settings):
    return {name: getattr(settings, name) for name in settings.__struct_fields__}
