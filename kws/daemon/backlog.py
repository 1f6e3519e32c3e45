"""Audio that waits to be processed: bounded, in order, with the gaps between.

When it is full, the older half is dropped at once: a few long gaps leave more words whole than many
short ones, and each gap costs the stages a new beginning.
"""

from collections import deque
from typing import NamedTuple

from kws.audio import SAMPLE_RATE_HZ

__all__ = ["Backlog", "Piece"]

_PIECE_COST_SAMPLES = 64
"""What a piece takes beside its samples; it bounds memory however small the pieces are."""


class Piece(NamedTuple):
    """Some audio, or the news that some is missing."""

    start_sample: int
    """Where it begins, counted from the source's first sample; what was dropped counts too."""
    audio: bytes
    """Mono s16le; empty if there is only a gap to tell of."""
    is_after_gap: bool
    """True if something is missing just before it."""


class Backlog:
    """A queue of pieces; when it is full, the older half is dropped.

    Parameters
    ----------
    most_s : float
        Audio it may hold, in seconds.
    drops : bool
        False never drops: whoever appends asks `is_full` first.

    Attributes
    ----------
    n_received, n_dropped : int
        Samples, since the beginning.
    """

    def __init__(self, most_s: float, *, drops: bool = True) -> None:
        self.most_s = most_s
        self._drops = drops
        self.n_received = 0
        self.n_dropped = 0
        self._n_waiting = 0
        self._half = b""
        self._is_gap = False
        self._pieces: deque[Piece] = deque()

    @property
    def waiting_s(self) -> float:
        """Seconds of audio that wait."""
        return self._n_waiting / SAMPLE_RATE_HZ

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self._pieces

    @property
    def is_full(self) -> bool:
        """Whether the next piece may push the oldest out."""
        return self._cost() >= self.most_s * SAMPLE_RATE_HZ

    def append(self, data: bytes) -> int:
        """Add audio as it was read; return how many of the oldest samples had to go.

        Parameters
        ----------
        data : bytes
            Mono s16le; half a sample at its end waits for the other half.
        """
        data = self._half + data
        n_samples = len(data) // 2
        self._half = data[2 * n_samples :]
        if not n_samples:
            return 0
        piece = Piece(self.n_received, data[: 2 * n_samples], is_after_gap=False)
        self.n_received += n_samples
        self._n_waiting += n_samples
        self._pieces.append(piece)
        n_before = self.n_dropped
        if self._drops and self._cost() > self.most_s * SAMPLE_RATE_HZ:
            while self._cost() > self.most_s * SAMPLE_RATE_HZ / 2 and len(self._pieces) > 1:
                self._drop()
        return self.n_dropped - n_before

    def gap(self) -> None:
        """Note that audio is missing here: the source is closed, or muted."""
        self._half = b""
        self._pieces.append(Piece(self.n_received, b"", is_after_gap=True))

    def take(self) -> Piece | None:
        """Remove and return the oldest piece; None if nothing waits."""
        if not self._pieces:
            return None
        piece = self._pieces.popleft()
        self._n_waiting -= len(piece.audio) // 2
        if self._is_gap:
            self._is_gap = False
            piece = piece._replace(is_after_gap=True)
        return piece

    def _drop(self) -> None:
        n_samples = len(self._pieces.popleft().audio) // 2
        self._n_waiting -= n_samples
        self.n_dropped += n_samples
        self._is_gap = True

    def _cost(self) -> int:
        return self._n_waiting + _PIECE_COST_SAMPLES * len(self._pieces)
