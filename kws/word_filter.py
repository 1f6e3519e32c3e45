"""A word from a few recordings: a linear filter over vectors of the speech embedding.

The filter is Fisher's linear discriminant between windows that end with the word and windows of
speech in general: w = C^-1 (m - mu), with m the mean window of the recordings, mu and C the mean
and the covariance of windows of background speech. Speech is taken as stationary, so that C is
made of one block for each lag (block Toeplitz). Scores are in standard deviations of speech.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "Speech",
    "WordFilter",
    "WordFilters",
    "rate_levels",
    "scores_of",
    "speech_statistics",
]

Vectors: TypeAlias = npt.NDArray[np.float32]

_SHRINKAGE = 0.2  # of the covariance to a multiple of the identity
_TAIL = 0.03  # of the peaks of all seconds, which the rate is extrapolated from
_FEWEST_IN_TAIL = 10


class Speech(NamedTuple):
    """Statistics of windows of background speech."""

    mean: Vectors
    """[shape=(size,)]"""
    lags: Vectors
    """[shape=(n, size, size)]: covariance of a vector with the one `lag` vectors before it."""


class WordFilter(NamedTuple):
    """A filter over the last `k` vectors of a stream."""

    weights: Vectors
    """[shape=(k, size)], oldest first."""
    bias: float


def speech_statistics(utterances: Sequence[Vectors], *, n_lags: int) -> Speech:
    """Return mean and covariances of speech.

    Parameters
    ----------
    utterances : sequence of float32 [shape=(n, size)]
        Vectors of continuous speech.
    n_lags : int
        Length of the longest window, in vectors.
    """
    everything = np.concatenate(utterances)
    mean = everything.mean(axis=0)
    centred = [one - mean for one in utterances]
    size = everything.shape[1]
    lags = np.zeros((n_lags, size, size), np.float32)
    for lag in range(n_lags):
        long = [one for one in centred if len(one) > lag]
        if not long:
            break
        late = np.concatenate([one[lag:] for one in long])
        early = np.concatenate([one[: len(one) - lag] for one in long])
        lags[lag] = late.T @ early / len(late)
    return Speech(mean, lags)


class WordFilters:
    """The filters for a word that any of its recordings make.

    Parameters
    ----------
    windows : float32 [shape=(n, k, size)]
        Vectors that end with the word, of each recording; `k` at most the lags of `speech`.
    speech : Speech
    """

    def __init__(self, windows: Vectors, speech: Speech) -> None:
        n, self._k, _ = windows.shape
        self._speech = speech
        self._windows = (windows - speech.mean).reshape(n, -1).astype(np.float64)
        self._directions = np.linalg.solve(_covariance(speech, self._k), self._windows.T).T

    def of(self, chosen: Sequence[int]) -> WordFilter:
        """Return the filter of some recordings; over speech it gives mean 0 and deviation 1."""
        weights = self._directions[list(chosen)].mean(axis=0)
        weights = weights / np.sqrt(weights @ self._windows[list(chosen)].mean(axis=0))
        shaped = weights.reshape(self._k, -1).astype(np.float32)
        return WordFilter(shaped, -float((shaped @ self._speech.mean).sum()))


def scores_of(word: WordFilter, vectors: Vectors) -> Vectors:
    """Return the score after each vector of a stream, float32 [shape=(n,)].

    As in a stream that begins with average speech, vectors before the first are 0.
    """
    k = len(word.weights)
    parts = vectors @ word.weights.T
    scores = np.full(len(vectors), word.bias, np.float32)
    for i in range(min(k, len(vectors))):
        scores[i:] += parts[: len(vectors) - i, k - 1 - i]
    return scores


def rate_levels(
    peaks: npt.NDArray[Any], *, hours: float, rates: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Return the levels that peaks exceed so many times per hour.

    The rate of peaks above a level falls exponentially: a line is fitted to its logarithm over the
    upper 3 % of the peaks.

    Parameters
    ----------
    peaks : float [shape=(n,)]
        The highest score of each second of background speech.
    hours : float
    rates : sequence of float
        Per hour, each above 0.
    """
    top = np.sort(peaks)[::-1][: max(_FEWEST_IN_TAIL, round(len(peaks) * _TAIL))]
    per_hour = (np.arange(len(top)) + 0.5) / hours
    slope, level = np.polyfit(np.log(per_hour), top, 1)
    return np.asarray(level + slope * np.log(np.asarray(rates)), np.float64)


def _covariance(speech: Speech, k: int) -> npt.NDArray[np.float64]:
    """Return the shrunk covariance of windows of `k` vectors."""
    size = len(speech.mean)
    blocks = np.empty((k, size, k, size))
    for i in range(k):
        for j in range(k):
            block = speech.lags[abs(i - j)]
            blocks[i, :, j] = block if i >= j else block.T
    matrix = blocks.reshape(k * size, k * size)
    diagonal = matrix.diagonal().mean()
    matrix[np.diag_indices(len(matrix))] += _SHRINKAGE * diagonal
    return matrix
