"""Detections as lines of text: time, keyword and score."""

import io
from collections.abc import Collection
from typing import TextIO

from kws.events import Detection, End, Event, NearMiss, Peak

__all__ = ["Text", "describe"]


class Text:
    """Print a line for each detection, at once; ignore other events.

    ::

          12.34 -   12.81 s  stop     0.97

    Parameters
    ----------
    stream : text stream
        Written to and flushed, never closed. Characters that its encoding lacks are escaped.
    keywords : collection of str
        All possible keywords; their column is as wide as the longest.
    """

    def __init__(self, stream: TextIO, *, keywords: Collection[str] = ()) -> None:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        self._stream = stream
        self._width = max(map(len, keywords), default=12)

    def send(self, event: Event) -> None:
        """Print the event.

        Raises
        ------
        BrokenPipeError
            If the reader of the stream has closed it.
        """
        if isinstance(event, Detection):
            start = "" if event.start_s is None else f"{event.start_s:.2f} - "
            self._stream.write(
                f"{start:>11}{event.end_s:7.2f} s  "
                f"{event.keyword:<{self._width}}  {event.score:.2f}\n"
            )
            self._stream.flush()

    def close(self) -> None:
        """Do nothing: each line is flushed, and the stream belongs to the caller."""


def describe(event: Event) -> str:
    """Return a line of text for an event of the daemon."""
    where = event.source or "daemon"
    if isinstance(event, Detection | NearMiss | Peak):
        span = "-".join(str(at) for at in (event.start_s, event.end_s) if at is not None)
        what = {Detection: "", NearMiss: "near miss of ", Peak: "peak of "}[type(event)]
        score = event.peak if isinstance(event, Peak) else event.score
        return f"{where}: {what}{event.keyword} {score:.2f}, {span} s"
    if isinstance(event, End):
        return f"{where}: ended after {event.audio_s:.1f} s, {event.detections} detections"
    return " ".join(filter(None, (f"{where}: {event.event}", event.time, event.detail)))
