"""List audio files; read them as 16 kHz mono int16."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import soundfile
import soxr

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.audio_files import audio_below, decode, ffmpeg_reads, is_for_ffmpeg, not_audio
from kws.errors import ConfigError, FormatError

__all__ = [
    "audio_files",
    "audio_matching",
    "duration_s",
    "log_left_out",
    "read_samples",
    "readable",
]

log = logging.getLogger("kws.data")

_N_LOGGED = 5


def audio_files(folder: Path, pattern: str = "**/*", *, optional: bool = False) -> list[Path]:
    """Return the audio files in a folder whose paths match a pattern, sorted by path.

    Files whose names are not UTF-8 are left out, with a warning.

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
    paths, left_out = audio_below(folder, pattern)
    log_left_out(left_out)
    if not paths and not optional:
        raise ConfigError(
            f"A data folder must hold audio (WAV, FLAC, MP3, M4A or another kind). Received: "
            f"{folder} with none. Unpack the data there, or name another folder."
        )
    return paths


def readable(paths: Iterable[Path]) -> list[Path]:
    """Return the files that can be read as audio; the others are left out, with a warning.

    Of a file that libsndfile reads, only the header is checked.
    """
    good: list[Path] = []
    left_out: dict[Path, str] = {}
    for path in paths:
        try:
            duration_s(path)
            good.append(path)
        except FormatError as error:
            left_out[path] = str(error)
    log_left_out(left_out)
    return good


def log_left_out(left_out: Mapping[Path, str], *, listed: Path | None = None) -> None:
    """Warn of files that are left out: the first five with the reason, the others by number.

    Parameters
    ----------
    left_out : mapping of Path to str
    listed : Path, optional
        The file that lists them all.
    """
    where = f", see {listed}" if listed else ""
    for reason in list(left_out.values())[:_N_LOGGED]:
        log.warning("left out: %s", reason)
    if len(left_out) > _N_LOGGED:
        log.warning("left out: %d more%s", len(left_out) - _N_LOGGED, where)


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

    Channels are averaged; other sample rates are resampled with soxr. What libsndfile cannot read
    is decoded by ffmpeg, where that is installed.

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
    part = (start_s, end_s)
    limits = {"least_s": least_s, "most_s": most_s}
    if is_for_ffmpeg(path):
        return _by_ffmpeg(path, part, limits)
    try:
        return _by_libsndfile(path, part, limits)
    except (soundfile.SoundFileError, OSError) as error:
        return _by_ffmpeg(path, part, limits, after=error)


def duration_s(path: Path) -> float:
    """Return how long an audio file is, from its header; what ffmpeg reads is decoded.

    Raises
    ------
    FormatError
        If the file is not audio, or is empty.
    """
    if is_for_ffmpeg(path):
        return len(_by_ffmpeg(path)) / RATE_HZ
    try:
        with soundfile.SoundFile(path) as file:
            seconds: float = file.frames / file.samplerate
    except (soundfile.SoundFileError, OSError) as error:
        return len(_by_ffmpeg(path, after=error)) / RATE_HZ
    _check_length(path, seconds)
    return seconds


def _by_libsndfile(
    path: Path, part: tuple[float, float | None], limits: Mapping[str, float | None]
) -> Samples:
    start_s, end_s = part
    with soundfile.SoundFile(path) as file:
        rate_hz, n_frames = file.samplerate, file.frames
        _check_length(path, n_frames / rate_hz, **limits)
        first = min(n_frames, max(0, round(start_s * rate_hz)))
        last = n_frames if end_s is None else min(n_frames, round(end_s * rate_hz))
        if first:
            file.seek(first)
        samples = file.read(max(0, last - first), dtype="int16", always_2d=True)
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1).astype(np.int16)
    return mono if rate_hz == RATE_HZ else soxr.resample(mono, rate_hz, RATE_HZ)


def _by_ffmpeg(
    path: Path,
    part: tuple[float, float | None] = (0.0, None),
    limits: Mapping[str, float | None] | None = None,
    *,
    after: Exception | None = None,
) -> Samples:
    """Decode by ffmpeg; `after` is libsndfile's error for a file that it should have read."""
    start_s, end_s = max(0.0, part[0]), part[1]
    if after and not ffmpeg_reads(path):
        raise not_audio(path, str(after)) from after
    length_s = None if end_s is None else max(0.0, end_s - start_s)
    decoded = decode(path, start_s=start_s, length_s=length_s)
    samples = np.frombuffer(decoded, "<i2").astype(np.int16)
    if part == (0.0, None):
        _check_length(path, len(samples) / RATE_HZ, **(limits or {}))
    return samples


def _check_length(
    path: Path, seconds: float, *, least_s: float | None = None, most_s: float | None = None
) -> None:
    if not seconds:
        raise FormatError(f"An audio file must hold samples. Received: none in {path}. Remove it.")
    low_s, high_s = least_s or 0.0, float("inf") if most_s is None else most_s
    if not low_s <= seconds <= high_s:
        raise FormatError(
            f"A word's clip must last {low_s} to {high_s:g} s. Received: {seconds:g} s in {path}. "
            f"Cut it, or move it to other data."
        )
