"""Sinks: the destinations of events.

- `text`: a line of text for each detection.
- `jsonl`: a JSON object on a line for each event.
- `hooks`: running the user's commands on events.
- `hook`: the checked settings and the state of one hook.
- `hook_command`: the command, sound player and user of a hook, checked at the start.
- `process_group`: a command in a process group of its own.
- `clip_recorder`: recording the audio around detections and near misses.
- `clip_buffer`: the last audio of a source, from which clips are cut.
- `clip_encoders`: encoders of clips, WAV and FLAC.
- `clip_folder`: the folder of clips, within limits of count, age and bytes.

A sink gets its events from one thread and never delays it for long.
"""

from typing import Protocol

from kws.events import Event

__all__ = ["Sink"]


class Sink(Protocol):
    """A destination of events."""

    def send(self, event: Event) -> None:
        """Accept one event; return at once."""

    def close(self) -> None:
        """Finish the events sent. None is sent afterwards."""
