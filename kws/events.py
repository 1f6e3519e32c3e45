"""What the spotter says: a keyword was heard; a file has ended.

Every event is one JSON object with its kind under `event`; the field order is part of the contract.
"""

import msgspec

__all__ = ["Detection", "End", "Event", "to_json"]


class Detection(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="detection"):
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
    """

    keyword: str
    score: float
    start_s: float
    end_s: float
    model: str


class End(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="end"):
    """A finite source has ended.

    Attributes
    ----------
    audio_s : float
        Seconds of audio heard.
    detections : int
        Detections made.
    cpu_s : float
        CPU seconds spent on the audio, all stages.
    """

    audio_s: float
    detections: int
    cpu_s: float


Event = Detection | End


def to_json(event: Event) -> str:
    """Return `event` as one line of JSON, without the newline."""
    return msgspec.json.encode(event).decode()
