"""Events: detections, near misses, peaks, the end of a file, states of the daemon.

Every event is one JSON object with its kind under `event`. The field order is part of the contract.
Fields that are not set are left out; an unknown `start_s` is null.
"""

from datetime import datetime
from typing import Any, Literal, Self

import msgspec
from msgspec.structs import replace

__all__ = [
    "Detection",
    "End",
    "Event",
    "NearMiss",
    "Peak",
    "StateChange",
    "from_json",
    "rfc3339",
    "to_json",
]


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event"):
    """Immutable, and tagged with its kind."""


class _Spotted(_Event, frozen=True, kw_only=True):
    """A keyword at a place in the stream."""

    keyword: str
    score: float
    start_s: float | None
    end_s: float
    model: str
    source: str | None = None
    speaker: float | None = None

    def fields(self) -> dict[str, Any]:
        """Return the fields that are set by name, as in JSON; an unknown `start_s` is None."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        del fields["event"]
        return fields

    def shifted(self, by_s: float) -> Self:
        """Return the same event in a stream that began `by_s` seconds earlier."""
        start_s = None if self.start_s is None else round(self.start_s + by_s, 3)
        return replace(self, start_s=start_s, end_s=round(self.end_s + by_s, 3))

    def until(self, last_s: float) -> Self:
        """Return the same event with no time after `last_s` seconds."""
        start_s = None if self.start_s is None else min(self.start_s, last_s)
        return replace(self, start_s=start_s, end_s=min(self.end_s, last_s))


class Detection(_Spotted, frozen=True, kw_only=True, tag="detection"):
    """A keyword was detected.

    Attributes
    ----------
    keyword : str
        The label, or the phrase, that was detected.
    score : float
        The smoothed posterior at the moment of detection, 0..1: just above the threshold. How far
        it rose is known later: see `Peak`.
    start_s : float or None
        Estimated start of the word, in seconds from the first sample of the stream: the onset of
        the speech that the word ends. None where that says nothing: within running speech, or
        without a gate. A model of phrases knows the start of an utterance.
    end_s : float
        Estimated end of the word: the moment of detection less the model's usual delay.
    model : str
        Name of the model.
    source : str or None
        Name of the source; set by the daemon, which may have several.
    speaker : float or None
        How like the enrolled speaker it was said: about 1 by that speaker, about 0 by others. Only
        of models that verify the speaker.
    """


class Peak(_Spotted, frozen=True, kw_only=True, tag="peak"):
    """The smoothed posterior of a detection has fallen again; its greatest value is known.

    It comes after its detection, with the same fields, typically by 100 to 300 ms.

    Attributes
    ----------
    keyword, score, start_s, end_s, model, source, speaker
        As in the `Detection`.
    peak : float
        The greatest smoothed posterior from the detection until it fell below the threshold, 0..1.
        For a model of phrases, the score.
    """

    peak: float


class NearMiss(_Spotted, frozen=True, kw_only=True, tag="near_miss"):
    """A keyword's smoothed posterior rose close to its threshold, and fell without a detection.

    For a model of phrases: an utterance whose most probable phrase stayed below the threshold. For
    a model that verifies the speaker also: a word above the threshold, said by somebody else.

    Attributes
    ----------
    keyword : str
    score : float
        The greatest smoothed posterior of the rise, or the posterior of the phrase, 0..1.
    start_s, end_s
        Of the word, as for a detection at that moment.
    model : str
    source : str or None
        As in `Detection`.
    speaker : float or None
        As in `Detection`, where that is why it is none.
    """


class End(_Event, frozen=True, kw_only=True, tag="end"):
    """A finite source has ended.

    Attributes
    ----------
    audio_s : float
        Seconds of audio processed.
    detections : int
        Detections made.
    cpu_s : float
        CPU seconds spent on the audio, all stages.
    source : str or None
        Name of the source; set by the daemon.
    """

    audio_s: float
    detections: int
    cpu_s: float
    source: str | None = None


class StateChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The state of the daemon, or of one of its sources, has changed.

    Attributes
    ----------
    event : str
        `start` and `stop`: of the daemon. `listening`: first audio of a source. `stalled`: no more
        audio from a source. `silent`: only digital silence from a source. `recovered`: audio, or
        sound, again. `error`: any other failure, such as a
        refused configuration.
    time : str
        When, RFC 3339 in UTC.
    source : str or None
        Name of the source; None: the daemon as a whole.
    detail : str or None
        What happened, as text.
    """

    event: Literal["start", "listening", "silent", "stalled", "recovered", "error", "stop"]
    time: str
    source: str | None = None
    detail: str | None = None


Event = Detection | End | NearMiss | Peak | StateChange
_KINDS: dict[str, type[Event]] = {
    "detection": Detection,
    "end": End,
    "near_miss": NearMiss,
    "peak": Peak,
}


def rfc3339(moment: datetime) -> str:
    """Format a time in UTC as in events and logs: `2026-01-31T12:00:00.000Z`."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_json(event: Event) -> str:
    """Return `event` as one line of JSON, without the newline."""
    return msgspec.json.encode(event).decode()


def from_json(line: str | bytes) -> Event:
    """Return the event that `to_json` wrote.

    Raises
    ------
    msgspec.DecodeError
        If it is not JSON, or not an event.
    """
    kind = msgspec.json.decode(line, type=_Kind).event
    return msgspec.json.decode(line, type=_KINDS.get(kind, StateChange))


class _Kind(msgspec.Struct):
    """As much of an event as tells its kind."""

    event: str
