"""Trigger level: a detection counts once its posterior has stayed at the threshold for long enough.

wyoming-openwakeword counts activations: blocks of 80 ms whose score reaches the threshold.
"""

import numpy as np

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.events import Detection
from kws.spotter import Spotter

__all__ = ["Trigger"]

_BLOCK_SAMPLES = SAMPLE_RATE_HZ * 80 // 1000


class Trigger:
    """Run a spotter, and hold its detections back until they are confirmed.

    Parameters
    ----------
    spotter : Spotter
        Used by this object alone.
    level : int
        Blocks of 80 ms in which the smoothed posterior is at its threshold, the one of the
        detection included. 1 passes detections on at once. Phrases of a CTC model, which have no
        posterior of their own, are passed on at once too.
    """

    def __init__(self, spotter: Spotter, *, level: int = 1) -> None:
        self._spotter = spotter
        self._level = level
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        self._spotter.reset()
        self._rest = np.zeros(0, np.int16)
        self._rising: list[tuple[Detection, int]] = []

    def process(self, samples: Samples, /) -> list[Detection]:
        """Consume samples; return the detections that they confirm, oldest first."""
        if self._level == 1:
            return self._spotter.process(samples)
        samples = np.concatenate((self._rest, samples))
        n_whole = len(samples) - len(samples) % _BLOCK_SAMPLES
        self._rest = samples[n_whole:]
        blocks = samples[:n_whole].reshape(-1, _BLOCK_SAMPLES)
        return [one for block in blocks for one in self._process_block(block)]

    def flush(self) -> list[Detection]:
        """End the stream: return what is still detected, and start a new one.

        A detection that the end leaves unconfirmed is dropped.
        """
        if self._level == 1:
            return self._spotter.flush()
        n_missing = -len(self._rest) % _BLOCK_SAMPLES
        confirmed = self.process(np.zeros(n_missing, np.int16)) if n_missing else []
        self.reset()
        return confirmed

    def _process_block(self, block: Samples) -> list[Detection]:
        detected = self._spotter.process(block)
        posteriors, thresholds = self._spotter.posteriors, self._spotter.thresholds
        confirmed, rising = [], []
        for detection, n_before in [*self._rising, *((one, 0) for one in detected)]:
            keyword = detection.keyword
            is_new = n_before == 0
            if keyword not in posteriors:
                confirmed.append(detection)
            elif is_new or posteriors[keyword] >= thresholds[keyword]:
                if n_before + 1 >= self._level:
                    confirmed.append(detection)
                else:
                    rising.append((detection, n_before + 1))
        self._rising = rising
        return confirmed
