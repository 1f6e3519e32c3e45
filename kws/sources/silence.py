"""Digital silence: samples that are all the same but for a dither, as no working microphone gives.

A microphone that is muted in the mixer, a wrong slot on an I2S bus, and some drivers after a resume
give zeros, or another constant, and never stop. A converter on the way may add one bit of dither;
the noise of a microphone in the quietest room is above it.
"""

import numpy as np

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ

__all__ = ["CHECK_MUTED", "SilenceWatch", "is_digital_silence"]

CHECK_MUTED = (
    "Unmute the microphone: `alsamixer`, F6 for the card, F4 for capture, space bar; or set "
    "another `device` or `channel`"
)
"""What to check, for messages."""
_DITHER = 2


class SilenceWatch:
    """Find where a stream falls silent for some time, and where sound comes back.

    Parameters
    ----------
    limit_s : float
        Seconds of digital silence that count; 0 turns the watch off.

    Attributes
    ----------
    is_silent : bool
        Whether the last `limit_s` and more were digital silence.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_samples = limit_s * SAMPLE_RATE_HZ
        self.reset()

    def reset(self) -> None:
        """Begin a new stream."""
        self._n_silent = self._low = self._high = 0
        self._half = b""
        self.is_silent = False

    def process(self, data: bytes, /) -> bool:
        """Consume s16le at 16 kHz; return whether `is_silent` has changed."""
        data = self._half + data
        n = len(data) // 2
        self._half = data[2 * n :]
        if not self._limit_samples or not n:
            return False
        samples = np.frombuffer(data, "<i2", n)
        low, high = int(samples.min()), int(samples.max())
        if self._n_silent and max(high, self._high) - min(low, self._low) <= _DITHER:
            self._low, self._high = min(low, self._low), max(high, self._high)
            self._n_silent += n
        else:  # a block that is silent in itself begins a silence
            self._low, self._high = low, high
            self._n_silent = n if high - low <= _DITHER else 0
        before, self.is_silent = self.is_silent, self._n_silent >= self._limit_samples
        return self.is_silent != before


def is_digital_silence(samples: Samples, /) -> bool:
    """Return whether int16 samples [shape=(n,)] are the same but for a dither."""
    return int(samples.max(initial=-32_768)) - int(samples.min(initial=32_767)) <= _DITHER
