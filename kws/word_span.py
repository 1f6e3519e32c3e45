"""Where a word is within a recording of it: the span that is loud."""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["PHRASE_PAUSE_FRAMES", "WORD_PAUSE_FRAMES", "word_span"]

WORD_PAUSE_FRAMES = 16
"""Longest pause within a word, at 10 ms."""
PHRASE_PAUSE_FRAMES = 60
"""Longest pause between the words of a phrase, likewise."""


def word_span(
    levels: npt.NDArray[Any], *, pause_frames: int = WORD_PAUSE_FRAMES
) -> tuple[int, int]:
    """Return the span of a word, [start, end) in frames, from the level of each frame.

    It grows from the loudest frame over the frames in the upper 60 % of the range, across short
    pauses.

    Parameters
    ----------
    levels : float [shape=(k,)]
        Logarithmic.
    pause_frames : int
        The longest pause within a word.
    """
    smooth = np.convolve(np.pad(levels, 2, mode="edge"), np.ones(5) / 5, "valid")
    low = np.percentile(smooth, 10)
    loud = np.flatnonzero(smooth > low + 0.4 * (smooth.max() - low))
    if not len(loud):
        return 0, 0
    breaks = np.flatnonzero(np.diff(loud) > pause_frames)
    at = int(np.searchsorted(loud, int(smooth.argmax())))
    first = max((b + 1 for b in breaks if b < at), default=0)
    last = min((b for b in breaks if b >= at), default=len(loud) - 1)
    return int(loud[first]), int(loud[last]) + 1
