"""Quality checks of synthetic clips: voice activity, duration, and speech recognition."""

import difflib
import functools
from typing import Any, Protocol

import numpy as np

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.config import GateSettings
from kws.errors import ConfigError
from kws.gate import BLOCK_MS, Gate
from kws_train.optional import load_library

__all__ = ["MARGIN_S", "Transcriber", "Whisper", "find_defect", "matches_text", "trim_silence"]

MARGIN_S = 0.06
"""Silence that `trim_silence` keeps before the first and after the last sound."""

_SILENCE_DB = 45.0  # below the loudest 10 ms
_MIN_VOICED_S = 0.06
_MIN_S = 0.1
_MAX_S, _MAX_LETTER_S = 2.0, 0.15  # of a clip; of long phrases, per letter
_PAD_S = 0.3
_MIN_SIMILARITY = 0.6


class Transcriber(Protocol):
    """A speech recogniser. Instances are pickled for worker processes."""

    name: str
    """Of the recogniser and its model; part of the names of cached transcripts."""

    def transcribe(self, samples: Samples, /) -> str:
        """Return the transcript of int16 samples at 16 kHz."""
        ...


class Whisper:
    """Whisper by faster-whisper (MIT).

    Parameters
    ----------
    model : str
        A size such as `tiny`, downloaded at its first use, or a folder.
    language : str
        Such as `en`.

    Raises
    ------
    ConfigError
        If faster-whisper is not installed, or the model cannot be loaded.
    """

    def __init__(self, model: str = "tiny", *, language: str = "en") -> None:
        self.name = f"whisper-{model}-{language}"
        self._model, self._language = model, language
        _open(model)

    def transcribe(self, samples: Samples, /) -> str:
        """See `Transcriber`."""
        wave = np.pad(samples, int(_PAD_S * RATE_HZ)).astype(np.float32) / 32768
        segments, _ = _open(self._model).transcribe(
            wave, language=self._language, beam_size=1, condition_on_previous_text=False
        )
        return " ".join(segment.text for segment in segments)


def trim_silence(samples: Samples) -> Samples:
    """Trim silence at both ends to `MARGIN_S`; pad with zeros where there is less.

    Pauses within the clip are kept. A silent clip becomes empty.
    """
    hop = RATE_HZ // 100
    n_frames = len(samples) // hop
    if not n_frames or not samples.any():
        return samples[:0]
    power = np.mean(
        samples[: n_frames * hop].reshape(n_frames, hop).astype(np.float64) ** 2, axis=1
    )
    loud = np.flatnonzero(power > power.max() * 10 ** (-_SILENCE_DB / 10))
    margin = int(MARGIN_S * RATE_HZ)
    start, end = int(loud[0]) * hop, (int(loud[-1]) + 1) * hop
    before, after = min(start, margin), min(len(samples) - end, margin)
    return np.pad(samples[start - before : end + after], (margin - before, margin - after))


def find_defect(samples: Samples, *, text: str) -> str | None:
    """Return the defect of a clip, `empty`, `too short` or `too long`, or None.

    Parameters
    ----------
    samples : int16 [shape=(n,)]
        At 16 kHz, trimmed.
    text : str
        The spoken text: long texts may last longer.
    """
    seconds = len(samples) / RATE_HZ
    if _voiced_s(samples) < _MIN_VOICED_S:
        return "empty"
    if seconds < _MIN_S + 2 * MARGIN_S:
        return "too short"
    return "too long" if seconds > max(_MAX_S, _MAX_LETTER_S * len(text)) else None


def matches_text(transcript: str, text: str) -> bool:
    """Return whether a transcript matches a text: their letters agree by 60 %."""
    one, other = ("".join(filter(str.isalnum, each.casefold())) for each in (transcript, text))
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio() >= _MIN_SIMILARITY


def _voiced_s(samples: Samples) -> float:
    """Return the duration of voice activity; padding lets the detector settle."""
    gate = Gate(GateSettings(hangover_ms=0), sample_rate_hz=RATE_HZ)
    verdicts = gate.process(np.pad(samples, int(_PAD_S * RATE_HZ)))
    return sum(verdicts) * BLOCK_MS / 1000


@functools.cache
def _open(model: str) -> Any:
    library = load_library("faster_whisper", purpose="Reading clips back", package="kws[read-back]")
    try:
        return library.WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=1)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"Reading clips back needs the Whisper model `{model}`. Received: {error}. "
            f"Connect to the internet once to download it, or leave out `--read-back`."
        ) from error
