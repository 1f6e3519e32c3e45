"""The interface of text-to-speech engines, and the audio processing that they share."""

import hashlib
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import soxr

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ

__all__ = ["Line", "VoiceEngine", "digest_files", "normalize_peak", "pitch_ratio", "raise_pitch"]

_PEAK = 20_000


class Line(msgspec.Struct, frozen=True):
    """A text to speak and how to speak it: with the engine, all that a clip's sound depends on.

    Attributes
    ----------
    text : str
        With punctuation, which engines turn into pauses and intonation.
    voice : str
        As `VoiceEngine.draw_voice` names it.
    speed : float
        Relative to the voice's own: 2 is twice as fast.
    semitones : float
        Pitch relative to the voice's own.
    """

    text: str
    voice: str
    speed: float = 1.0
    semitones: float = 0.0


class VoiceEngine(Protocol):
    """A text-to-speech engine. Instances are pickled for worker processes.

    Attributes
    ----------
    name : str
        Such as `kokoro`.
    version : str
        Of the library and its models: changes whenever the sound of a line changes.
    n_voices : int
        Distinct voices; engines with more of them are drawn more often.
    """

    name: str
    version: str
    n_voices: int

    def draw_voice(self, random: np.random.Generator, /) -> str:
        """Return the name of a random voice, or of a blend of voices."""
        ...

    def speak(self, line: Line, /) -> Samples:
        """Synthesise a line; return int16 samples at 16 kHz with a fixed peak, possibly none."""
        ...


def normalize_peak(wave: npt.NDArray[Any]) -> Samples:
    """Return a wave as int16 samples with a fixed peak."""
    peak = float(np.abs(wave.astype(np.float64)).max(initial=0.0))
    scaled = wave * (_PEAK / peak) if peak else wave
    return np.asarray(scaled, np.int16)


def raise_pitch(wave: npt.NDArray[Any], *, rate_hz: int, semitones: float) -> Samples:
    """Resample to 16 kHz a wave spoken slower, so that its pitch rises and its speed is restored.

    Pitch and formants rise together, as of a smaller speaker, which varies a single voice.

    Parameters
    ----------
    wave : float [shape=(n,)]
        Spoken at `2 ** (-semitones / 12)` times the intended speed.
    rate_hz : int
        Its sample rate.
    semitones : float
        Rise of the pitch.

    Returns
    -------
    int16 [shape=(m,)]
        At 16 kHz, with a fixed peak.
    """
    return normalize_peak(soxr.resample(wave, rate_hz * pitch_ratio(semitones), RATE_HZ))


def pitch_ratio(semitones: float) -> float:
    """Return the frequency ratio of an interval."""
    return float(2 ** (semitones / 12))


def digest_files(*paths: Path) -> str:
    """Return a short digest of the contents of files, for `VoiceEngine.version`."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]
