"""Clips of candidates: which part of a recording they are, and how they are written."""

from pathlib import Path

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.errors import ConfigError

__all__ = ["clip_span_s", "write_clip"]

_BEFORE_S, _AFTER_S = 1.5, 1.0


def clip_span_s(word_s: tuple[float, float]) -> tuple[float, float]:
    """Return start and end of the clip of a word, in seconds of its recording."""
    start_s, end_s = word_s
    return max(0.0, start_s - _BEFORE_S), end_s + _AFTER_S


def write_clip(path: Path, samples: Samples) -> None:
    """Write int16 samples as FLAC, atomically.

    Raises
    ------
    ConfigError
        If soundfile is not installed.
    OSError
        If the file cannot be written.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package without its C library
        raise ConfigError(
            f"Clips of labels are FLAC, which needs the package soundfile. Received: {error}. Run "
            f"`pip install 'kws[files]'`."
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    try:
        soundfile.write(unfinished, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
        unfinished.replace(path)
    except soundfile.SoundFileError as error:  # such as a full disk
        raise OSError(f"{path} could not be written: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
