"""Types of arrays, with their shapes and units."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kws.errors import FormatError

__all__ = ["AnySamples", "Frames", "PcmFrames", "Samples", "check_samples"]

Samples: TypeAlias = npt.NDArray[np.int16]
"""Mono PCM at 16 kHz [shape=(n,)]."""
AnySamples: TypeAlias = npt.NDArray[Any] | bytes | bytearray | memoryview
"""Samples as users have them: int16, floats in -1..1, or bytes of s16le [shape=(n,)]."""
PcmFrames: TypeAlias = npt.NDArray[np.float32]
"""One value per channel, on the scale of int16 [shape=(n, n_channels)]; mixed down [shape=(n,)]."""
Frames: TypeAlias = npt.NDArray[np.floating[Any]]
"""Feature frames, oldest first [shape=(k, n_features)]."""


def check_samples(samples: npt.NDArray[Any]) -> None:
    """Check that samples are one-dimensional int16, before their features are computed.

    Raises
    ------
    FormatError
        If they are not.
    """
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise FormatError(
            f"Samples must be one-dimensional int16. Received: {samples.ndim}-dimensional "
            f"{samples.dtype}. Convert them to 16-bit mono first."
        )
