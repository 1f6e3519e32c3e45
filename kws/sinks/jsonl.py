"""Events as JSON lines, for other programs."""

import io
from typing import TextIO

from kws.events import Event, to_json

__all__ = ["JsonLines"]


class JsonLines:
    """Write each event as one line of JSON, at once.

    Parameters
    ----------
    stream : text stream
        Written to and flushed, never closed. It is switched to UTF-8, the encoding of JSON,
        whatever the locale.
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
            If the reader of the stream has closed it.
        """
        self._stream.write(to_json(event) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Do nothing: each line is flushed, and the stream belongs to the caller."""
