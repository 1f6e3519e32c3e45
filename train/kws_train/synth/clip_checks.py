"""Is a clip what it should be? By voice activity, by length, and by what a recogniser hears."""

import difflib
import functools
from typing import Any, Protocol

import numpy as np

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.config import GateSettings
from kws.errors import ConfigError
from kws.features import Samples
from kws.gate import BLOCK_MS, Gate
from kws_train.optional import load_library

__all__ = ["MARGIN_S", "Reader", "Whisper", "fault_of", "reads_as", "trimmed"]

MARGIN_S = 0.06
"""What `trimmed` leaves before the first and after the last sound."""

_FAINT_DB = 45.0  # below the loudest 10 ms
_LEAST_VOICED_S = 0.06
_SHORTEST_S = 0.1
_LONGEST_S = 2.0  # of a word; each further letter of a long phrase has _LETTER_S
_LETTER_S = 0.15
_PAD_S = 0.3
_LIKE = 0.6


class Reader(Protocol):
    """Something that writes down what is said. Has to survive pickling."""

    name: str
    """Of the recogniser and its model."""

    def read(self, samples: Samples, /) -> str:
        """Return the words it hears in int16 samples at 16 kHz."""
        ...


class Whisper:
    """faster-whisper (MIT): Whisper as a reader.

    Parameters
    ----------
    model : str
        A size such as `tiny`, which is downloaded at its first use, or a folder.
    language : str
        Such as `en`.

    Raises
    ------
    ConfigError
        If faster-whisper is not installed, or the model cannot be had.
    """

    def __init__(self, model: str = "tiny", *, language: str = "en") -> None:
        self.name = f"whisper-{model}-{language}"
        self._model, self._language = model, language
        _open(model)

    def read(self, samples: Samples, /) -> str:
        """See `Reader`."""
        wave = np.pad(samples, int(_PAD_S * RATE_HZ)).astype(np.float32) / 32768
        segments, _ = _open(self._model).transcribe(
            wave, language=self._language, beam_size=1, condition_on_previous_text=False
        )
        return " ".join(segment.text for segment in segments)


def trimmed(samples: Samples) -> Samples:
    """Cut the silence at both ends, but for `MARGIN_S`, which is filled up where it is missing.

    Nothing within is cut, however long a pause. `kws_train.data.speech_span` finds a word in
    background noise; this keeps every audible sound of a clip without any.
    """
    hop = RATE_HZ // 100
    n_frames = len(samples) // hop
    if not n_frames or not samples.any():
        return samples[:0]
    power = np.mean(
        samples[: n_frames * hop].reshape(n_frames, hop).astype(np.float64) ** 2, axis=1
    )
    loud = np.flatnonzero(power > power.max() * 10 ** (-_FAINT_DB / 10))
    margin = int(MARGIN_S * RATE_HZ)
    start, end = int(loud[0]) * hop, (int(loud[-1]) + 1) * hop
    before, after = min(start, margin), min(len(samples) - end, margin)
    return np.pad(samples[start - before : end + after], (margin - before, margin - after))


def fault_of(samples: Samples, *, text: str) -> str | None:
    """Return what is wrong with a clip: `empty`, `too short` or `too long`; None if nothing is.

    Parameters
    ----------
    samples : int16 [shape=(n,)]
        At 16 kHz, trimmed.
    text : str
        What is said: long phrases may last longer.
    """
    seconds = len(samples) / RATE_HZ
    if _voiced_s(samples) < _LEAST_VOICED_S:
        return "empty"
    if seconds < _SHORTEST_S + 2 * MARGIN_S:
        return "too short"
    return "too long" if seconds > max(_LONGEST_S, _LETTER_S * len(text)) else None


def reads_as(heard: str, text: str) -> bool:
    """Say whether what a recogniser heard may well be a text: their letters agree by 60 %."""
    one, other = ("".join(filter(str.isalnum, each.casefold())) for each in (heard, text))
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio() >= _LIKE


def _voiced_s(samples: Samples) -> float:
    """Return how long voice activity is found; the ends are padded, for the detector to settle."""
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
            f"Connect once, for it to be downloaded, or do without `--read-back`."
        ) from error
