"""Heads learn words from vectors; losses are as they should be."""

import csv

import numpy as np
import pytest

from kws_train.fit.vector_windows import VectorData, VectorFit

pytestmark = pytest.mark.slow

SIZE, N_SCENE, END = 96, 40, 31
SMALL = {"epochs": 4, "batches": 30, "n_keyword": 16, "n_other": 48}


@pytest.fixture(scope="module")
def training(tensorflow):
    from kws_train.fit import vector_training

    return vector_training


def data(*, n=120, seed=1, n_labels=2):
    """Words are two patterns in turn, close to their end; other words are in the other order."""
    random = np.random.default_rng(seed)
    patterns = np.random.default_rng(9).normal(0, 2.5, (n_labels, 2, SIZE))
    scenes = random.normal(0, 1, (n * n_labels, N_SCENE, SIZE))
    labels = np.repeat(np.arange(n_labels), n)
    for scene, label in zip(scenes, labels, strict=True):
        first, second = patterns[label] if label else patterns[1, ::-1]
        scene[END - 6 : END - 3] += first
        scene[END - 3 : END + 1] += second
    background = random.normal(0, 1, (3000, SIZE))
    for at in random.integers(3000 - 8, size=60):
        background[at : at + 3] += patterns[1, int(random.integers(2))]
    return VectorData(
        scenes=scenes.astype(np.float16),
        labels=labels,
        weights=np.ones(len(labels)),
        word_end=END,
        background=background.astype(np.float16),
    )


def trained(training, tmp_path, *, seed=1):
    return training.train_on_vectors(
        data(),
        data(seed=2),
        n_labels=2,
        settings=VectorFit(**SMALL),
        seed=seed,
        history=tmp_path / "history.csv",
    )


def test_a_head_tells_a_word_from_the_same_sounds_in_another_order(training, tmp_path):
    model = trained(training, tmp_path)
    unseen = data(seed=3)
    logits = model.predict(unseen.scenes.astype(np.float32), verbose=0)
    scores = (logits[..., 1] - logits[..., 0])[:, END - 1 : END + 7].max(axis=1)
    right = (scores > 0) == (unseen.labels == 1)
    assert right.mean() > 0.9
    with (tmp_path / "history.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert float(rows[-1]["val_loss"]) < float(rows[0]["val_loss"])


def test_the_same_seed_gives_the_same_head(training, tmp_path):
    first, again, other = (trained(training, tmp_path, seed=seed) for seed in (1, 1, 2))
    same = [
        np.array_equal(a, b) for a, b in zip(first.get_weights(), again.get_weights(), strict=True)
    ]
    assert all(same)
    assert not np.array_equal(first.get_weights()[0], other.get_weights()[0])


def test_of_a_keyword_the_best_output_counts_and_of_others_the_worst(training):
    logits = np.log(
        np.array([[[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], [[0.9, 0.1], [0.6, 0.4], [0.1, 0.9]]])
    ).astype(np.float32)
    wanted = np.zeros((2, 3, 2), np.float32)
    wanted[0, 1:, 1] = 1
    wanted[1, :2, 0] = 1
    loss = np.asarray(training.pooled_focal_loss(wanted, logits, gamma=2.0))
    assert loss == pytest.approx([-(0.2**2) * np.log(0.8), -(0.4**2) * np.log(0.6)], rel=1e-4)


def test_averages_of_posteriors_count_as_the_decision_makes_them(training):
    p = np.array([[0.9, 0.1, 0.5, 0.7]], np.float32)
    logits = np.log(np.stack([1 - p, p], axis=-1))
    wanted = np.zeros((1, 4, 2), np.float32)
    wanted[0, 1:3, 1] = 1  # averages that end there: of 0.9 and 0.1, of 0.1 and 0.5
    loss = np.asarray(training.pooled_focal_loss(wanted, logits, gamma=1.0, n_smoothing=2))
    assert loss == pytest.approx([-0.5 * np.log(0.5)], rel=1e-4)


def test_the_worst_moments_lie_apart_in_order_of_their_score(training):
    background = np.zeros((1300, SIZE), np.float16)
    for at, height in ((40, 3), (41, 2), (600, 5), (1290, 4)):
        background[at, 0] = height

    class First:
        time_stride = 1

        def predict(self, x, **_):
            return np.stack([np.zeros(x.shape[:2]), x[..., 0]], axis=-1)

    assert training.worst_moments(First(), background, n=3, piece=512, apart=3).tolist() == [
        600,
        1290,
        40,
    ]


def test_moments_of_a_network_with_a_stride_are_the_last_vectors_of_outputs(training):
    background = np.zeros((1000, SIZE), np.float16)
    background[[599, 602, 899], 0] = 4, 5, 3

    class Third:
        time_stride = 3

        def predict(self, x, **_):
            last = x[:, 2::3, 0]
            return np.stack([np.zeros(last.shape), last], axis=-1)

    moments = training.worst_moments(Third(), background, n=2, piece=300, apart=3)
    assert moments.tolist() == [602, 899]
