"""List audio files; read them as 16 kHz mono int16."""

from pathlib import Path

import numpy as np
import soundfile
import soxr

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError, FormatError
from kws.features import Samples

__all__ = ["AUDIO_SUFFIXES", "audio_files", "audio_matching", "duration_s", "read_samples"]

AUDIO_SUFFIXES = (".flac", ".ogg", ".opus", ".wav")
"""Files with these endings, in upper or lower case, are audio."""


def audio_files(folder: Path, pattern: str = "**/*", *, optional: bool = False) -> list[Path]:
    """Return the audio files in a folder whose paths match a pattern, sorted by path.

    Parameters
    ----------
    folder : Path
        A folder, or a single file.
    pattern : str
        Of `Path.glob`, relative to `folder`; by default every file below it.
    optional : bool
        True: an empty list is a valid answer.

    Raises
    ------
    ConfigError
        If there are none and that is not `optional`.
    """
    found = [folder] if folder.is_file() else sorted(folder.glob(pattern))
    paths = [path for path in found if path.suffix.lower() in AUDIO_SUFFIXES]
    if not paths and not optional:
        raise ConfigError(
            f"A data folder must hold audio ({', '.join(AUDIO_SUFFIXES)}). Received: "
            f"{folder} with none. Unpack the data there, or name another folder."
        )
    return paths


def audio_matching(root: Path, pattern: str) -> list[Path]:
    """Return the audio files of a folder below `root`, or those that a glob pattern matches.

    Parameters
    ----------
    root : Path
    pattern : str
        An entry of a recipe's `noise`: a folder such as `esc10`, or a pattern such as `esc10/1-*`.

    Raises
    ------
    ConfigError
        If there are none.
    """
    if (root / pattern).is_dir():
        return audio_files(root / pattern)
    paths = audio_files(root, pattern, optional=True)
    if not paths:
        raise ConfigError(
            f"`noise` must name folders of audio, or patterns of files. Received: {pattern}, which "
            f"nothing below {root} matches. Correct the recipe's `[data]`, or unpack the data "
            f"there."
        )
    return paths


def read_samples(
    path: Path,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    least_s: float | None = None,
    most_s: float | None = None,
) -> Samples:
    """Read an audio file, or part of it, as int16, mono, 16 kHz.

    Channels are averaged; other sample rates are resampled with soxr.

    Parameters
    ----------
    path : Path
    start_s, end_s : float
        The part to read; times beyond the file's ends are clipped to it.
    least_s, most_s : float, optional
        Permitted duration of the whole file.

    Returns
    -------
    int16 [shape=(n,)]

    Raises
    ------
    FormatError
        If the file is not audio, is empty, or is shorter or longer than permitted.
    """
    try:
        with soundfile.SoundFile(path) as file:
            rate_hz, n_frames = file.samplerate, file.frames
            _check_length(path, n_frames / rate_hz, least_s=least_s, most_s=most_s)
            first = min(n_frames, max(0, round(start_s * rate_hz)))
            last = n_frames if end_s is None else min(n_frames, round(end_s * rate_hz))
            if first:
                file.seek(first)
            samples = file.read(max(0, last - first), dtype="int16", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise _not_audio(path, error) from error
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1).astype(np.int16)
    return mono if rate_hz == RATE_HZ else soxr.resample(mono, rate_hz, RATE_HZ)


def duration_s(path: Path) -> float:
    """Return how long an audio file is, from its header.

    Raises
    ------
    FormatError
        If the file is not audio, or is empty.
    """
    try:
        with soundfile.SoundFile(path) as file:
            seconds: float = file.frames / file.samplerate
    except (soundfile.SoundFileError, OSError) as error:
        raise _not_audio(path, error) from error
    _check_length(path, seconds, least_s=None, most_s=None)
    return seconds


def _check_length(
    path: Path, seconds: float, *, least_s: float | None, most_s: float | None
) -> None:
    if not seconds:
        raise FormatError(f"An audio file must hold samples. Received: none in {path}. Remove it.")
    low_s, high_s = least_s or 0.0, float("inf") if most_s is None else most_s
    if not low_s <= seconds <= high_s:
        raise FormatError(
            f"A word's clip must last {low_s} to {high_s:g} s. Received: {seconds:g} s in {path}. "
            f"Cut it, or move it to other data."
        )


def _not_audio(path: Path, error: Exception) -> FormatError:
    return FormatError(f"An audio file must be readable. Received: {path} ({error}). Remove it.")
