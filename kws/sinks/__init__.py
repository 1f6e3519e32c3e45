"""Where events go: one sink a file.

- `text`: a line to read for each detection.
- `jsonl`: a JSON object on a line for each event.
- `hooks`: the user's commands, run on a detection.
- `recording`: the audio around a detection, kept in a folder.

A sink takes events from one thread and never delays it for long.
"""

from typing import Protocol

from kws.events import Event

__all__ = ["Sink"]


class Sink(Protocol):
    """Something that takes events."""

    def send(self, event: Event) -> None:
        """Take one event; return at once."""

    def close(self) -> None:
        """Finish what was sent. No event comes after."""
