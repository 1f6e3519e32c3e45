"""What kws says: a keyword was heard; a file has ended; the daemon hears, or no longer does.

Every event is one JSON object with its kind under `event`; the field order is part of the contract.
What is None is left out.
"""

from datetime import datetime
from typing import Literal

import msgspec

__all__ = [
    "Detection",
    "End",
    "Event",
    "NearMiss",
    "StateChange",
    "from_json",
    "rfc3339",
    "to_json",
]


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event"):
    """Immutable, and tagged with its kind."""


class _Heard(_Event, frozen=True, kw_only=True):
    keyword: str
    score: float
    start_s: float
    end_s: float
    model: str
    source: str | None = None


class Detection(_Heard, frozen=True, kw_only=True, tag="detection"):
    """A keyword was heard.

    Attributes
    ----------
    keyword : str
        The label that fired.
    score : float
        The smoothed posterior at the moment of detection, 0..1.
    start_s, end_s : float
        Where the word lies, in seconds from the first sample of the stream. `end_s` is the moment
        of detection less the model's usual delay; `start_s` is `end_s` less the usual length of
        its words, and never before the end of the detection before it.
    model : str
        Name of the model that fired.
    source : str or None
        Which source it was heard on; set by the daemon, which may have several.
    """


class NearMiss(_Heard, frozen=True, kw_only=True, tag="near_miss"):
    """A keyword's smoothed posterior rose far, and fell again without a detection.

    Attributes
    ----------
    keyword : str
    score : float
        The highest that the smoothed posterior came, 0..1.
    start_s, end_s : float
        Where the word would lie, as with a detection at that moment.
    model : str
    source : str or None
        As in `Detection`.
    """


class End(_Event, frozen=True, kw_only=True, tag="end"):
    """A finite source has ended.

    Attributes
    ----------
    audio_s : float
        Seconds of audio heard.
    detections : int
        Detections made.
    cpu_s : float
        CPU seconds spent on the audio, all stages.
    source : str or None
        Which source it was; set by the daemon.
    """

    audio_s: float
    detections: int
    cpu_s: float
    source: str | None = None


class StateChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The daemon, or one of its sources, is in another state.

    Attributes
    ----------
    event : str
        `start` and `stop`: of the daemon. `listening`: the first audio of a source has come.
        `stalled`: a source gives none any more. `recovered`: it does again. `error`: anything else
        that went wrong, such as a configuration that was refused.
    time : str
        When, RFC 3339 in UTC.
    source : str or None
        Which source; None is the daemon as a whole.
    detail : str or None
        What happened, for people.
    """

    event: Literal["start", "listening", "stalled", "recovered", "error", "stop"]
    time: str
    source: str | None = None
    detail: str | None = None


Event = Detection | End | NearMiss | StateChange
_KINDS: dict[str, type[Event]] = {"detection": Detection, "end": End, "near_miss": NearMiss}


def rfc3339(moment: datetime) -> str:
    """Return a moment of UTC as events and logs tell it: `2026-01-31T12:00:00.000Z`."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_json(event: Event) -> str:
    """Return `event` as one line of JSON, without the newline."""
    return msgspec.json.encode(event).decode()


def from_json(line: str | bytes) -> Event:
    """Return the event that `to_json` wrote.

    Raises
    ------
    msgspec.DecodeError
        If it is no JSON, or no event.
    """
    kind = msgspec.json.decode(line, type=_Kind).event
    return msgspec.json.decode(line, type=_KINDS.get(kind, StateChange))


class _Kind(msgspec.Struct):
    """As much of an event as tells its kind."""

    event: str
