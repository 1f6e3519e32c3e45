"""The bundled statistics of many speakers, which the enrolled one is told from.

Made by `kws_export.speakers`. The score of a speaker is Fisher's linear discriminant: the precision
of anybody's words around their own mean, times the difference of the speaker from everybody.
"""

import functools
import zipfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from kws.errors import ModelError
from kws.manifest import SpeakerCheck
from kws.speaker import N_STATISTICS

__all__ = [
    "SPEAKER_THRESHOLD",
    "SpeakerStatistics",
    "read_speaker_statistics",
    "speaker_check",
    "speaker_path",
]

SPEAKER_THRESHOLD = 0.4
"""Least score of the enrolled speaker: about one in twenty of each is wrong there."""

Array: TypeAlias = npt.NDArray[Any]


class SpeakerStatistics(NamedTuple):
    """The content of the file; of words as `kws.speaker.word_statistics` describes them."""

    mean: Array
    """[shape=(N_STATISTICS,)]"""
    scale: Array
    """[shape=(N_STATISTICS,)]: standard deviation of all speakers."""
    precision: Array
    """[shape=(N_STATISTICS, N_STATISTICS)]: inverse covariance of one speaker's, standardised."""


def speaker_path() -> Path:
    """Return the bundled file."""
    return Path(str(files("kws.models"))) / "speakers.npz"


@functools.cache
def read_speaker_statistics(path: Path | None = None) -> SpeakerStatistics:
    """Read the file, by default the bundled one.

    Raises
    ------
    ModelError
        If it is missing or damaged.
    """
    path = path or speaker_path()
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            found = SpeakerStatistics(
                *(stored[name].astype(np.float64) for name in SpeakerStatistics._fields)
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(path, str(error)) from error
    shapes = [one.shape for one in found]
    if shapes != [(N_STATISTICS,), (N_STATISTICS,), (N_STATISTICS, N_STATISTICS)]:
        raise _damaged(path, f"shapes {shapes}")
    return found


def speaker_check(words: Sequence[Array], statistics: SpeakerStatistics) -> SpeakerCheck:
    """Return the check of a speaker.

    Parameters
    ----------
    words : sequence of float [shape=(N_STATISTICS,)]
        Of recordings of one word by the speaker.
    statistics : SpeakerStatistics
    """
    centre = (np.mean(words, axis=0) - statistics.mean) / statistics.scale
    direction = statistics.precision @ centre
    weights = direction / (centre @ direction) / statistics.scale
    return SpeakerCheck(
        weights=tuple(np.round(weights, 6).tolist()),
        bias=round(float(-statistics.mean @ weights), 6),
        threshold=SPEAKER_THRESHOLD,
    )


def _damaged(path: Path, problem: str) -> ModelError:
    return ModelError(
        f"Verification of the speaker needs the statistics that come with kws. Received: {path} "
        f"({problem}). Install kws again."
    )
