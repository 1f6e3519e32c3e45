"""Training of a head on vectors of the speech embedding, in a minute or two on one core.

Batches hold windows of scenes with a keyword, windows of other words, and windows of long speech
and noise. Of a keyword's window the best average just after its end counts, of any other window the
worst average (max-pooling, Sun et al. 2016), each with a focal loss. In the second half of the
training a third of the windows are around what the head takes for a keyword so far.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import keras
import msgspec
import numpy as np
import numpy.typing as npt
from keras import ops

from kws_train.data.vector_cache import Vectors
from kws_train.networks.architectures import Spotting
from kws_train.networks.embedding_head import N_CONTEXT_VECTORS, embedding_head

__all__ = ["HeadData", "HeadFit", "pooled_focal_loss", "train_head", "worst_moments"]

Array: TypeAlias = npt.NDArray[np.float32]

_FIRST_ANSWER, _N_ANSWER = 1, 6  # after the word's end; one of so many averages has to answer
_PIECE = 512  # vectors scored at a time


class HeadFit(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the training of a head.

    Attributes
    ----------
    epochs, batches : int
    learning_rate : float
        Of Adam, at the beginning; a cosine lowers it to zero.
    n_keyword, n_other : int
        Windows of a batch with and without a keyword.
    window : int
        Vectors of a window.
    noise : float
        Standard deviation of what is added to the standardised vectors.
    confusable_share, hard_share : float
        Of the windows without a keyword: scenes of other words; in the second half, moments that
        the head takes for a keyword.
    n_hard : int
        Moments that are drawn from.
    gamma : float
        Of the focal loss.
    n_smoothing : int
        Outputs whose mean posterior counts; the decision averages eight (docs/experiments.md).
    """

    epochs: int = 9
    batches: int = 100
    learning_rate: float = 2e-3
    n_keyword: int = 64
    n_other: int = 192
    window: int = 27
    noise: float = 0.6
    confusable_share: float = 0.05
    hard_share: float = 1 / 3
    n_hard: int = 1500
    gamma: float = 2.0
    n_smoothing: int = 6


@dataclass(frozen=True)
class HeadData:
    """Vectors to train or validate a head on.

    Attributes
    ----------
    scenes : float16 [shape=(n, k, size)]
        Scenes around words.
    labels : int [shape=(n,)]
        Of each scene; 0: no keyword.
    weights : float [shape=(n,)]
        How often a scene is drawn, relative to others of its label.
    word_end : int
        The first vector of each scene that ends after its word.
    background : float16 [shape=(m, size)]
        Speech and noise without keywords, one after another.
    """

    scenes: Vectors
    labels: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    word_end: int
    background: Vectors


def train_head(
    training: HeadData,
    validation: HeadData,
    *,
    n_labels: int,
    settings: HeadFit,
    seed: int,
    history: Path | None = None,
) -> Spotting:
    """Train a head; the same data, settings and seed give the same weights.

    Parameters
    ----------
    training, validation : HeadData
    n_labels : int
        `_unknown_`, which comes first, and the keywords.
    settings : HeadFit
    seed : int
    history : Path, optional
        The .csv of losses per epoch to write.
    """
    keras.utils.set_random_seed(seed)
    model = embedding_head(n_labels, size=training.background.shape[1])
    batches = _Batches(training, settings, n_labels=n_labels, seed=seed)
    rate = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate, settings.epochs * settings.batches
    )
    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=lambda wanted, logits: pooled_focal_loss(
            wanted, logits, gamma=settings.gamma, n_smoothing=settings.n_smoothing
        ),
    )
    fixed = _validation_windows(validation, settings, n_labels=n_labels)
    result = model.fit(
        batches,
        epochs=settings.epochs,
        validation_data=fixed,
        validation_batch_size=256,
        shuffle=False,
        callbacks=[_HardNegatives(batches, settings)],
        verbose=0,
    )
    if history:
        _write_history(history, result.history)
    return model


def pooled_focal_loss(wanted: Any, logits: Any, *, gamma: float, n_smoothing: int = 1) -> Any:
    """Return the loss of each window.

    Parameters
    ----------
    wanted : float32 [shape=(batch, outputs, labels)]
        One-hot label of a window at the outputs that count, zero at the others.
    logits : float32 [shape=(batch, outputs, labels)]
    gamma : float
        A window of probability p has the loss -(1 - p)^gamma log p (Lin et al. 2017).
    n_smoothing : int
        Outputs, the one that counts and those before it, whose mean is its probability.
    """
    p = ops.softmax(logits)
    p = sum(p[:, i : i + p.shape[1] - n_smoothing + 1] for i in range(n_smoothing)) / n_smoothing
    log_p = ops.log(p + 1e-7)
    wanted = wanted[:, n_smoothing - 1 :]
    label = ops.max(wanted, axis=1)
    counts = ops.max(wanted, axis=2)
    log_right = ops.sum(log_p * label[:, None, :], axis=2)
    best = ops.max(ops.where(counts > 0, log_right, -1e9), axis=1)
    worst = ops.min(ops.where(counts > 0, log_right, 0.0), axis=1)
    chosen = ops.where(label[:, 0] > 0, worst, best)
    return -((1 - ops.exp(chosen)) ** gamma) * chosen


def worst_moments(model: Spotting, background: Vectors, *, n: int) -> npt.NDArray[np.int64]:
    """Return the indices of the outputs that are most like a keyword, at most one each 0.4 s."""
    n_pieces = -(-len(background) // _PIECE)
    padded = np.zeros((n_pieces * _PIECE, background.shape[1]), np.float32)
    padded[: len(background)] = background
    logits = model.predict(padded.reshape(n_pieces, _PIECE, -1), batch_size=32, verbose=0)
    logits = logits.reshape(len(padded), -1)[: len(background)]
    scores = logits[:, 1:].max(axis=1) - logits[:, 0]
    tops = scores.copy()
    for shift in (1, 2):
        tops[shift:] = np.maximum(tops[shift:], scores[:-shift])
        tops[:-shift] = np.maximum(tops[:-shift], scores[shift:])
    peaks = np.flatnonzero(scores >= tops)
    return peaks[np.argsort(-scores[peaks], kind="stable")[:n]]


class _Batches(keras.utils.PyDataset):
    """Batches of windows; each has its own random generator."""

    def __init__(
        self, data: HeadData, settings: HeadFit, *, n_labels: int, seed: int, **options: Any
    ) -> None:
        super().__init__(**options)
        self.hard: npt.NDArray[np.int64] | None = None
        self.data, self._settings = data, settings
        self._n_labels, self._seed, self._epoch = n_labels, seed, 0
        self._others = np.flatnonzero(data.labels == 0)
        self._keyword_scenes = [
            np.flatnonzero(data.labels == label) for label in range(1, n_labels)
        ]

    def __len__(self) -> int:
        return self._settings.batches

    def on_epoch_end(self) -> None:
        self._epoch += 1

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        settings, data = self._settings, self.data
        random = np.random.default_rng([self._seed, self._epoch, index])
        scenes = self._draw_scenes(random)
        windows, wanted = _scene_windows(
            data,
            scenes,
            random.integers(3, size=len(scenes)),
            window=settings.window,
            n_labels=self._n_labels,
        )
        n_background = settings.n_keyword + settings.n_other - len(scenes)
        ends = random.integers(settings.window, len(data.background), size=n_background)
        if self.hard is not None and len(self.hard):
            n_hard = round(settings.hard_share * settings.n_other)
            moments = self.hard[random.integers(len(self.hard), size=n_hard)]
            late = random.integers(1, settings.window - N_CONTEXT_VECTORS, size=n_hard)
            ends[:n_hard] = np.clip(moments + late, settings.window, len(data.background))
        more, unwanted = _background_windows(
            data.background, ends, window=settings.window, n_labels=self._n_labels
        )
        x = np.concatenate((windows, more))
        x += settings.noise * random.standard_normal(x.shape, np.float32)
        return x, np.concatenate((wanted, unwanted))

    def _draw_scenes(self, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draw scenes of keywords, equally many of each, and some of other words."""
        settings = self._settings
        n_each = np.bincount(
            np.arange(settings.n_keyword) % len(self._keyword_scenes),
            minlength=len(self._keyword_scenes),
        )
        groups = list(zip(self._keyword_scenes, n_each, strict=True))
        if len(self._others):
            groups.append((self._others, round(settings.confusable_share * settings.n_other)))
        drawn = [
            random.choice(
                among, size=n, p=self.data.weights[among] / self.data.weights[among].sum()
            )
            for among, n in groups
        ]
        return np.concatenate(drawn)


class _HardNegatives(keras.callbacks.Callback):
    """Mines moments of the background every third epoch from the middle on."""

    def __init__(self, batches: _Batches, settings: HeadFit) -> None:
        super().__init__()
        self._batches, self._settings = batches, settings

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        first = self._settings.epochs // 2
        if epoch >= first and (epoch - first) % 3 == 0:
            background = self._batches.data.background
            self._batches.hard = worst_moments(self.model, background, n=self._settings.n_hard)


def _scene_windows(
    data: HeadData,
    scenes: npt.NDArray[np.int64],
    shifts: npt.NDArray[np.int64],
    *,
    window: int,
    n_labels: int,
) -> tuple[Array, Array]:
    """Cut windows out of scenes; of a keyword, the outputs from its end on count, else all."""
    first_answer = data.word_end + _FIRST_ANSWER
    starts = np.minimum(first_answer + _N_ANSWER - window + shifts, data.scenes.shape[1] - window)
    rows = starts[:, None] + np.arange(window)
    x = data.scenes[scenes[:, None], rows].astype(np.float32)
    labels = data.labels[scenes]
    answers = (rows >= first_answer) & (rows < first_answer + _N_ANSWER)
    warm = np.arange(window)[None] >= N_CONTEXT_VECTORS
    counts = np.where(labels[:, None] > 0, answers, warm)
    return x, counts[..., None] * np.eye(n_labels, dtype=np.float32)[labels][:, None]


def _background_windows(
    background: Vectors, ends: npt.NDArray[np.int64], *, window: int, n_labels: int
) -> tuple[Array, Array]:
    rows = ends[:, None] - window + np.arange(window)
    wanted = np.zeros((len(ends), window, n_labels), np.float32)
    wanted[:, N_CONTEXT_VECTORS:, 0] = 1
    return background[rows].astype(np.float32), wanted


def _validation_windows(data: HeadData, settings: HeadFit, *, n_labels: int) -> tuple[Array, Array]:
    """Return windows of all scenes, and three times as many of the background."""
    window = settings.window
    scenes = np.arange(len(data.labels))
    x, wanted = _scene_windows(data, scenes, scenes % 3, window=window, n_labels=n_labels)
    ends = np.linspace(window, len(data.background), 3 * len(scenes)).astype(np.int64)
    more, unwanted = _background_windows(data.background, ends, window=window, n_labels=n_labels)
    return np.concatenate((x, more)), np.concatenate((wanted, unwanted))


def _write_history(path: Path, losses: dict[str, Sequence[float]]) -> None:
    rows = zip(losses["loss"], losses["val_loss"], strict=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("epoch", "loss", "val_loss"))
        writer.writerows((i, *row) for i, row in enumerate(rows))
