"""What a synthetic voice is to the rest: something that says a line."""

import hashlib
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import soxr

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.features import Samples

__all__ = ["Backend", "Line", "digest_of", "interval", "levelled", "raised"]

_PEAK = 20_000


class Line(msgspec.Struct, frozen=True):
    """All that decides how one clip sounds, but for the backend itself.

    Attributes
    ----------
    text : str
        With the punctuation to be heard as pauses and melody.
    voice : str
        As `Backend.draw_voice` names it.
    speed : float
        1 is the voice's own; 2 is twice as fast.
    semitones : float
        Pitch above the voice's own.
    """

    text: str
    voice: str
    speed: float = 1.0
    semitones: float = 0.0


class Backend(Protocol):
    """Something that speaks. Has to survive pickling, for work in processes.

    Attributes
    ----------
    name : str
        Such as `kokoro`.
    version : str
        Changes with whatever changes its sound: of the library, and of its models.
    n_voices : int
        That can be told apart; those with more are heard more.
    """

    name: str
    version: str
    n_voices: int

    def draw_voice(self, random: np.random.Generator, /) -> str:
        """Return the name of one of its voices, or of a blend of them."""
        ...

    def speak(self, line: Line, /) -> Samples:
        """Say a line; return int16 samples at 16 kHz, its peak at a fixed level, maybe none."""
        ...


def levelled(wave: npt.NDArray[Any]) -> Samples:
    """Bring the peak to one level, as int16."""
    peak = float(np.abs(wave.astype(np.float64)).max(initial=0.0))
    scaled = wave * (_PEAK / peak) if peak else wave
    return np.asarray(scaled, np.int16)


def raised(wave: npt.NDArray[Any], *, rate_hz: int, semitones: float) -> Samples:
    """Bring to 16 kHz what was said slower by the interval that it is to be raised by.

    Pitch and formants rise together, as if the speaker were smaller: one voice serves for several.

    Parameters
    ----------
    wave : float [shape=(n,)]
        Spoken at a speed of `2 ** (-semitones / 12)` times the one wanted.
    rate_hz : int
        Its sample rate.
    """
    return levelled(soxr.resample(wave, rate_hz * interval(semitones), RATE_HZ))


def interval(semitones: float) -> float:
    """Return the ratio of frequencies."""
    return float(2 ** (semitones / 12))


def digest_of(*paths: Path) -> str:
    """Return a short digest of files' contents, for `Backend.version`."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]
