"""The bundled statistics of many speakers, which the enrolled one is told from.

Made by `kws_export.speakers`. The score of a speaker is Fisher's linear discriminant: the precision
of anybody's words around their own mean, times the difference of the speaker from everybody.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from kws.commands.bundled_data import bundled_file, read_bundled
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
    return bundled_file("speakers.npz")


@functools.cache
def read_speaker_statistics(path: Path | None = None) -> SpeakerStatistics:
    """Read the file, by default the bundled one.

    Raises
    ------
    ModelError
        If it is missing or damaged.
    """
    return read_bundled(
        path or speaker_path(), _decoded, what="Verification of the speaker needs the file"
    )


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


def _decoded(stored: Any) -> SpeakerStatistics:
    found = SpeakerStatistics(
        *(stored[name].astype(np.float64) for name in SpeakerStatistics._fields)
    )
    shapes = [one.shape for one in found]
    if shapes != [(N_STATISTICS,), (N_STATISTICS,), (N_STATISTICS, N_STATISTICS)]:
        raise ValueError(f"shapes {shapes}")
    return found
