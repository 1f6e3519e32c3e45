"""Training of a network on vectors of a front end: a head takes a minute or two on one core.

Batches hold windows of scenes with a keyword, windows of other words, and windows of long speech
and noise. Of a keyword's window the best average just after its end counts, of any other window the
worst average (max-pooling, Sun et al. 2016), each with a focal loss. In the second half of the
training a third of the windows are around what the network takes for a keyword so far.
"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from kws_train.data.front_ends import Vectors
from kws_train.fit.vector_windows import (
    VectorBatches,
    VectorData,
    VectorFit,
    validation_windows,
)
from kws_train.networks.embedding_head import embedding_head
from kws_train.networks.spotting import Spotting

__all__ = ["pooled_focal_loss", "train_on_vectors", "worst_moments"]


def train_on_vectors(
    training: VectorData,
    validation: VectorData,
    *,
    n_labels: int,
    settings: VectorFit,
    seed: int,
    network: Callable[..., Spotting] = embedding_head,
    history: Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Spotting:
    """Train a network; the same data, settings and seed give the same weights.

    Parameters
    ----------
    training, validation : VectorData
    n_labels : int
        `_unknown_`, which comes first, and the keywords.
    settings : VectorFit
    seed : int
    network : callable
        Makes the untrained network of a number of labels and a `size` of vectors; by default a
        head.
    history : Path, optional
        The .csv of losses per epoch to write.
    callbacks : sequence of keras.callbacks.Callback
    """
    keras.utils.set_random_seed(seed)
    model = network(n_labels, size=training.background.shape[1])
    stride = model.time_stride
    batches = VectorBatches(training, settings, n_labels=n_labels, stride=stride, seed=seed)
    rate = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate, settings.epochs * settings.batches
    )
    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=lambda wanted, logits: pooled_focal_loss(
            wanted, logits, gamma=settings.gamma, n_smoothing=settings.n_smoothing
        ),
    )
    fixed = validation_windows(validation, settings, n_labels=n_labels, stride=stride)
    result = model.fit(
        batches,
        epochs=settings.epochs,
        validation_data=fixed,
        validation_batch_size=256,
        shuffle=False,
        callbacks=[_HardNegatives(batches, settings), *callbacks],
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


def worst_moments(
    model: Spotting, background: Vectors, *, n: int, piece: int, apart: int
) -> npt.NDArray[np.int64]:
    """Return the indices of the vectors whose outputs are most like a keyword.

    Parameters
    ----------
    model : Spotting
    background : float16 [shape=(m, size)]
    n : int
        The most that are returned.
    piece : int
        Vectors that the network is run over at a time; a multiple of its stride.
    apart : int
        Outputs from one to the next, at least.
    """
    stride = model.time_stride
    n_pieces = -(-len(background) // piece)
    padded = np.zeros((n_pieces * piece, background.shape[1]), np.float16)
    padded[: len(background)] = background
    logits = model.predict(padded.reshape(n_pieces, piece, -1), batch_size=32, verbose=0)
    logits = logits.reshape(len(padded) // stride, -1)[: len(background) // stride]
    scores = logits[:, 1:].max(axis=1) - logits[:, 0]
    tops = scores.copy()
    for shift in range(1, apart):
        tops[shift:] = np.maximum(tops[shift:], scores[:-shift])
        tops[:-shift] = np.maximum(tops[:-shift], scores[shift:])
    peaks = np.flatnonzero(scores >= tops)
    return peaks[np.argsort(-scores[peaks], kind="stable")[:n]] * stride + stride - 1


class _HardNegatives(keras.callbacks.Callback):
    """Mines moments of the background every third epoch from the middle on."""

    def __init__(self, batches: VectorBatches, settings: VectorFit) -> None:
        super().__init__()
        self._batches, self._settings = batches, settings

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        first = self._settings.epochs // 2
        if self._settings.n_hard and epoch >= first and (epoch - first) % 3 == 0:
            self._batches.hard = worst_moments(
                self.model,
                self._batches.data.background,
                n=self._settings.n_hard,
                piece=self._settings.piece,
                apart=self._settings.apart,
            )


def _write_history(path: Path, losses: dict[str, Sequence[float]]) -> None:
    rows = zip(losses["loss"], losses["val_loss"], strict=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("epoch", "loss", "val_loss"))
        writer.writerows((i, *row) for i, row in enumerate(rows))
