"""Files of numbers that come with kws beside the models."""

import zipfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kws.errors import ModelError

__all__ = ["bundled_file", "read_bundled"]

_Content = TypeVar("_Content")


def bundled_file(name: str) -> Path:
    """Return the path of a file that comes with kws."""
    return Path(str(files("kws.models"))) / name


def read_bundled(path: Path, decode: Callable[[Any], _Content], *, what: str) -> _Content:
    """Read a .npz.

    Parameters
    ----------
    path : Path
    decode : callable
        Takes the arrays by name; raises ValueError or KeyError where they do not fit together.
    what : str
        What the file is needed for, for the error.

    Raises
    ------
    ModelError
        If it is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return decode(stored)
    except (OSError, ValueError, KeyError, EOFError, IndexError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{what} that comes with kws. Received: {path} ({error}). Install kws again."
        ) from error
