"""Detections as lines to read: when, which keyword, how sure."""

import io
from collections.abc import Collection
from typing import TextIO

from kws.events import Detection, End, Event, NearMiss

__all__ = ["Text", "describe"]


class Text:
    """Print a line for each detection, at once; other events are left to the command.

    ::

          12.34 -   12.81 s  stop     0.97

    Parameters
    ----------
    stream : text stream
        Written to and flushed, never closed. Characters that its encoding lacks are escaped.
    keywords : collection of str
        Those that may come; their column is as wide as the longest.
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
            If nobody reads the stream any more.
        """
        if isinstance(event, Detection):
            self._stream.write(
                f"{event.start_s:8.2f} - {event.end_s:7.2f} s  "
                f"{event.keyword:<{self._width}}  {event.score:.2f}\n"
            )
            self._stream.flush()

    def close(self) -> None:
        """Do nothing: each line is already out, and the stream is the caller's."""


def describe(event: Event) -> str:
    """Return an event of the daemon in a line."""
    where = event.source or "daemon"
    if isinstance(event, Detection):
        return f"{where}: {event.keyword} {event.score:.2f}, {event.start_s}-{event.end_s} s"
    if isinstance(event, NearMiss):
        return f"{where}: nearly {event.keyword} {event.score:.2f}, {event.start_s}-{event.end_s} s"
    if isinstance(event, End):
        return f"{where}: ended after {event.audio_s:.1f} s, {event.detections} detections"
    return " ".join(filter(None, (f"{where}: {event.event}", event.time, event.detail)))
