"""Detections as lines of text: time, keyword and score."""

import io
from collections.abc import Collection
from typing import TextIO

from kws.events import Detection, End, Event, NearMiss

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
            self._stream.write(
                f"{event.start_s:8.2f} - {event.end_s:7.2f} s  "
                f"{event.keyword:<{self._width}}  {event.score:.2f}\n"
            )
            self._stream.flush()

    def close(self) -> None:
        """Do nothing: each line is flushed, and the stream belongs to the caller."""


def describe(event: Event) -> str:
    """Return a line of text for an event of the daemon."""
    where = event.source or "daemon"
    if isinstance(event, Detection):
        return f"{where}: {event.keyword} {event.score:.2f}, {event.start_s}-{event.end_s} s"
    if isinstance(event, NearMiss):
        return f"{where}: nearly {event.keyword} {event.score:.2f}, {event.start_s}-{event.end_s} s"
    if isinstance(event, End):
        return f"{where}: ended after {event.audio_s:.1f} s, {event.detections} detections"
    return " ".join(filter(None, (f"{where}: {event.event}", event.time, event.detail)))
