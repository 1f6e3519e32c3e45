"""Folders of what is computed once and kept for other runs, under the user's cache."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from kws.errors import ConfigError
from kws_train.atomic import replacing

__all__ = ["cache_folder", "kept_file"]

_REMEDY = "name another folder in XDG_CACHE_HOME"


def cache_folder(name: str) -> Path:
    """Return the folder of one kind of kept files: $XDG_CACHE_HOME/kws/NAME or in ~/.cache/kws."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kws" / name


@contextmanager
def kept_file(
    path: Path, *, what: str, folder: Path | None = None, remedy: str = _REMEDY
) -> Iterator[BinaryIO]:
    """Open a file to keep; it is written whole or not at all.

    Parameters
    ----------
    path : Path
    what : str
        What it holds, for the error: `Bands`.
    folder : Path, optional
        The folder that the error names; by default that of the file.
    remedy : str
        The end of the error.

    Raises
    ------
    ConfigError
        If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as begun, begun.open("wb") as file:
            yield file
    except OSError as error:
        raise ConfigError(
            f"{what} must go to a folder that can be written to. Received: "
            f"{folder or path.parent} ({error.strerror}). Free some space, or {remedy}."
        ) from error
