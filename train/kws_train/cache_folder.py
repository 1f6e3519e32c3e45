"""Folders of what is computed once and kept for other runs, under the user's cache."""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(name: str) -> Path:
    """Return the folder of one kind of kept files: $XDG_CACHE_HOME/kws/NAME or in ~/.cache/kws."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kws" / name
