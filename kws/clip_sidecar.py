"""The JSON file beside each recorded clip: its event, and where in the clip that is."""

import msgspec

from kws.errors import FormatError
from kws.events import Detection, NearMiss

__all__ = ["WORD_S", "ClipSidecar", "read_sidecar"]

WORD_S = 0.6
"""Length of a word whose start is unknown."""


class _ClipTimes(msgspec.Struct, frozen=True):
    start_s: float
    duration_s: float = 0.0


class ClipSidecar(msgspec.Struct, frozen=True):
    """The keys of the file that are read again.

    Attributes
    ----------
    event : Detection or NearMiss
    clip : object
        With `start_s`, when in the source the clip begins, and `duration_s`.
    peak : float or None
        The greatest smoothed posterior of a detection.
    time : str
        When, RFC 3339 in UTC.
    """

    event: Detection | NearMiss
    clip: _ClipTimes
    peak: float | None = None
    time: str = ""

    @property
    def kind(self) -> str:
        """`detection` or `near_miss`."""
        return "detection" if isinstance(self.event, Detection) else "near_miss"

    @property
    def score(self) -> float:
        """The greatest smoothed posterior that is known."""
        return self.event.score if self.peak is None else self.peak

    @property
    def word_s(self) -> tuple[float, float]:
        """Start and end of the word in the clip, seconds."""
        event, shift_s = self.event, self.clip.start_s
        start_s = event.end_s - WORD_S if event.start_s is None else event.start_s
        return max(0.0, start_s - shift_s), max(0.1, event.end_s - shift_s)


def read_sidecar(content: bytes) -> ClipSidecar:
    """Read the file.

    Raises
    ------
    FormatError
        If it is not one that the daemon has written.
    """
    try:
        return msgspec.json.decode(content, type=ClipSidecar)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(
            f"The JSON file beside a clip must be that of the daemon. Received: {error}. "
            f"Remove it, or record the clip again."
        ) from error
