"""The last audio of a source, from which clips are cut; samples are numbered as in the events."""

from dataclasses import dataclass, replace
from datetime import datetime

from kws.events import Detection, NearMiss, Peak

__all__ = ["AudioBuffer", "Clip", "PendingClip"]


@dataclass(frozen=True)
class PendingClip:
    """A clip whose last sample has not arrived yet."""

    event: Detection | NearMiss
    time: datetime
    first_sample: int
    last_sample: int
    peak: float | None = None


@dataclass(frozen=True)
class Clip:
    """A clip to be written."""

    event: Detection | NearMiss
    time: datetime
    start_sample: int
    audio: bytes
    peak: float | None


class AudioBuffer:
    """The last audio of a source, and its pending clips.

    Parameters
    ----------
    n_kept : int
        Samples kept by `trim`.

    Attributes
    ----------
    pending : list of PendingClip
    """

    def __init__(self, n_kept: int) -> None:
        self._n_kept = n_kept
        self.pending: list[PendingClip] = []
        self.restart(0)

    @property
    def end_sample(self) -> int:
        """Number of the sample after the last."""
        return self._start_sample + len(self._audio) // 2

    def restart(self, start_sample: int) -> None:
        """Discard the audio; the next sample has this number."""
        self._start_sample = start_sample
        self._audio = bytearray()

    def append(self, audio: bytes) -> None:
        """Append s16le, mono."""
        self._audio += audio

    def trim(self) -> None:
        """Discard all but the last `n_kept` samples."""
        n_over = len(self._audio) // 2 - self._n_kept
        if n_over > 0:
            del self._audio[: 2 * n_over]
            self._start_sample += n_over

    def add_peak(self, peak: Peak) -> None:
        """Add a peak to the pending clip of its detection."""
        fields = peak.fields() | {"peak": None}
        for i, one in enumerate(self.pending):
            if one.event.fields() | {"peak": None} == fields:
                self.pending[i] = replace(one, peak=peak.peak)

    def cut(self, one: PendingClip) -> Clip:
        """Return the part of a clip that is in the buffer."""
        start = max(0, one.first_sample - self._start_sample)
        stop = max(start, one.last_sample - self._start_sample)
        audio = bytes(memoryview(self._audio)[2 * start : 2 * stop])
        return Clip(one.event, one.time, self._start_sample + start, audio, one.peak)
