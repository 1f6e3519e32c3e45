"""Clips of labelled words, cut at pauses."""

import numpy as np

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ

__all__ = ["cut_word"]

_BEFORE_S, _AFTER_S = 0.25, 0.3
_BLOCK_S = 0.02


def cut_word(samples: Samples, word_s: tuple[float, float]) -> Samples:
    """Cut out a word at the quietest points shortly before its start and after its end."""
    start, end = (round(at * RATE_HZ) for at in word_s)
    before, after = round(_BEFORE_S * RATE_HZ), round(_AFTER_S * RATE_HZ)
    first = _quietest_sample(samples, max(0, start - before), start)
    return samples[first : _quietest_sample(samples, end, min(len(samples), end + after))]


def _quietest_sample(samples: Samples, start: int, end: int) -> int:
    """Return the middle of the quietest 20 ms of a range of samples."""
    size = round(_BLOCK_S * RATE_HZ)
    if end - start < 2 * size:
        return start
    n = (end - start) // size
    blocks = samples[start : start + n * size].reshape(n, size).astype(np.float64)
    return start + int(np.square(blocks).mean(axis=1).argmin()) * size + size // 2
