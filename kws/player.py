"""Which program here plays a sound file."""

import shutil

__all__ = ["find_player"]

_PLAYERS = (["pw-play"], ["paplay"], ["aplay", "-q"])


def find_player() -> list[str] | None:
    """Return the first of pw-play, paplay and aplay that is there, with its options."""
    return next((words for words in _PLAYERS if shutil.which(words[0])), None)
