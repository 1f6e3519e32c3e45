"""Events as JSON lines, for programs."""

import io
from typing import TextIO

from kws.events import Event, to_json

__all__ = ["JsonLines"]


class JsonLines:
    """Write each event as one line of JSON, at once.

    Parameters
    ----------
    stream : text stream
        Written to and flushed, never closed. It is switched to UTF-8, which JSON is in whatever
        the locale says.
    """

    def __init__(self, stream: TextIO) -> None:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", newline="\n")
        self._stream = stream

    def send(self, event: Event) -> None:
        """Write the event.

        Raises
        ------
        BrokenPipeError
            If nobody reads the stream any more.
        """
        self._stream.write(to_json(event) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Do nothing: each line is already out, and the stream is the caller's."""
