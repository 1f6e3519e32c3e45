"""A bounded queue of audio that waits to be processed, with marks where audio is missing.

When it is full, the older half is dropped at once: a few long gaps cut fewer words than many short
ones, and the models are reset after each gap.
"""

from collections import deque
from typing import NamedTuple

from kws.audio import SAMPLE_RATE_HZ

__all__ = ["AudioBlock", "Backlog"]

_BLOCK_COST_SAMPLES = 64
"""Memory of a block beside its samples; it bounds the queue however short the blocks are."""


class AudioBlock(NamedTuple):
    """Consecutive samples, or the mark of a gap."""

    start_sample: int
    """Number of the first sample in the source, dropped samples included."""
    audio: bytes
    """Mono s16le; empty for the mark of a gap alone."""
    is_after_gap: bool
    """Whether audio is missing just before this block."""


class Backlog:
    """A queue of blocks; when it is full, the older half is dropped.

    Parameters
    ----------
    max_s : float
        Capacity in seconds of audio.
    drops : bool
        False never drops: the caller of `append` checks `is_full` first.

    Attributes
    ----------
    n_received, n_dropped : int
        Samples, since the start.
    """

    def __init__(self, max_s: float, *, drops: bool = True) -> None:
        self.max_s = max_s
        self._drops = drops
        self.n_received = 0
        self.n_dropped = 0
        self._n_waiting = 0
        self._half = b""
        self._is_gap = False
        self._blocks: deque[AudioBlock] = deque()

    @property
    def waiting_s(self) -> float:
        """Seconds of audio in the queue."""
        return self._n_waiting / SAMPLE_RATE_HZ

    @property
    def is_empty(self) -> bool:
        """Whether the queue has no block."""
        return not self._blocks

    @property
    def is_full(self) -> bool:
        """Whether the next block may displace the oldest."""
        return self._cost() >= self.max_s * SAMPLE_RATE_HZ

    def append(self, data: bytes) -> int:
        """Append audio as it was read; return the number of samples dropped for it.

        Parameters
        ----------
        data : bytes
            Mono s16le; half a sample at its end is kept for the next call.
        """
        data = self._half + data
        n_samples = len(data) // 2
        self._half = data[2 * n_samples :]
        if not n_samples:
            return 0
        block = AudioBlock(self.n_received, data[: 2 * n_samples], is_after_gap=False)
        self.n_received += n_samples
        self._n_waiting += n_samples
        self._blocks.append(block)
        n_before = self.n_dropped
        if self._drops and self._cost() > self.max_s * SAMPLE_RATE_HZ:
            while self._cost() > self.max_s * SAMPLE_RATE_HZ / 2 and len(self._blocks) > 1:
                self._drop()
        return self.n_dropped - n_before

    def mark_gap(self) -> None:
        """Append the mark of a gap: the source was closed."""
        self._half = b""
        self._blocks.append(AudioBlock(self.n_received, b"", is_after_gap=True))

    def take(self) -> AudioBlock | None:
        """Remove and return the oldest block; None if the queue is empty."""
        if not self._blocks:
            return None
        block = self._blocks.popleft()
        self._n_waiting -= len(block.audio) // 2
        if self._is_gap:
            self._is_gap = False
            block = block._replace(is_after_gap=True)
        return block

    def _drop(self) -> None:
        n_samples = len(self._blocks.popleft().audio) // 2
        self._n_waiting -= n_samples
        self.n_dropped += n_samples
        self._is_gap = True

    def _cost(self) -> int:
        return self._n_waiting + _BLOCK_COST_SAMPLES * len(self._blocks)
