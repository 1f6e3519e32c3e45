"""FLAC, Ogg, Opus, MP3, AIFF and other files that libsndfile reads, by the package soundfile."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kws.arrays import PcmFrames, Samples
from kws.audio import Converter
from kws.config import Channel
from kws.errors import AudioError, FormatError
from kws.sources.byte_formats import sniff
from kws.sources.source import Source, chunk_samples, cut, unreadable

__all__ = ["SoundFileSource"]

_BLOCK_FRAMES = 16_384
# libsndfile gives the largest 64-bit number for an unknown length.
_UNKNOWN_FRAMES = 1 << 62
_UNKNOWN_FORMAT = "Format not recognised"


class SoundFileSource(Source):
    """An audio file other than a WAV of PCM, read in blocks; every iteration begins at its start.

    Raises
    ------
    FormatError
        If soundfile is missing, or libsndfile cannot read the file.
    AudioError
        If it cannot be opened, or soxr is needed and missing.
    """

    def __init__(self, path: Path, *, chunk_ms: int, channel: Channel = None) -> None:
        self.name = str(path)
        self._n_samples = chunk_samples(chunk_ms)
        self._soundfile = _import(path)
        try:
            self._bytes = path.open("rb")
        except OSError as error:
            raise unreadable(self.name, error) from error
        try:
            # By descriptor: given a name, soundfile trusts its ending rather than the content.
            self._file = self._soundfile.SoundFile(self._bytes.fileno(), closefd=False)
            self._converter = Converter(self._file.samplerate, name=self.name, channel=channel)
        except self._soundfile.LibsndfileError as error:
            self._bytes.close()
            raise FormatError(
                f"The input must be a whole audio file (WAV, FLAC, Ogg, MP3, AIFF). "
                f"Received: {path} ({_problem(error, path)}). Copy it again, or if it is "
                f"audio of another kind convert it: `ffmpeg -i INPUT -ar 16000 -ac 1 out.wav`."
            ) from error
        except AudioError:
            self.close()
            raise
        self._n_frames = self._file.frames if self._file.frames < _UNKNOWN_FRAMES else None
        if self._n_frames is not None:
            self.duration_s = self._n_frames / self._file.samplerate

    def __iter__(self) -> Iterator[Samples]:
        return cut(self._converter.stream(self._read_frames()), n_samples=self._n_samples)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()
        self._bytes.close()

    def _read_frames(self) -> Iterator[PcmFrames]:
        n_frames = 0
        block = np.empty((_BLOCK_FRAMES, self._file.channels), np.float32)
        reason = None
        while reason is None:
            n_read, reason = self._read_into(block, rewind=not n_frames)
            if not n_read:
                break
            n_frames += n_read
            yield block[:n_read] * np.float32(32_768)
        if reason is None and n_frames != self._n_frames and self._n_frames is not None:
            reason = "it ends early"
        if reason or not n_frames:
            raise self._broken(reason or "it holds none", n_frames=n_frames)

    def _read_into(self, block: PcmFrames, *, rewind: bool) -> tuple[int, str | None]:
        """Return the number of frames read, and the reason of a failure or None."""
        # A failed read does not return how many frames it decoded: NaN marks the rest.
        block.fill(np.nan)
        try:
            if rewind:
                self._rewind()
            return len(self._file.read(out=block)), None
        except self._soundfile.LibsndfileError as error:
            n_read = int(np.argmax(np.append(np.isnan(block).any(axis=1), True)))
            return n_read, _reason(error)

    def _rewind(self) -> None:
        """Go to the first sample; GSM in a WAV cannot be sought in, and is opened anew."""
        if self._file.seekable():
            self._file.seek(0)
        else:
            self._file.close()
            self._bytes.seek(0)
            self._file = self._soundfile.SoundFile(self._bytes.fileno(), closefd=False)

    def _broken(self, reason: str, *, n_frames: int) -> FormatError:
        promised = "" if self._n_frames is None else f" of {self._n_frames}"
        return FormatError(
            f"An audio file must hold all the samples it promises. Received: {n_frames}{promised} "
            f"samples ({n_frames / self._file.samplerate:.3f} s) in {self.name} ({reason}). "
            f"All of them were used; copy or record it again."
        )


def _import(path: Path) -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package without its C library
        raise FormatError(
            f"The input must be WAV unless soundfile is there to read other files. "
            f"Received: {path}, which does not begin as a WAV. Run `pip install 'kws[files]'`."
        ) from error
    return soundfile


def _problem(error: Any, path: Path) -> str:
    """Return the reason of libsndfile, with the name of a format that it does not know."""
    reason = _reason(error)
    with path.open("rb") as file:
        kind = sniff(file.read(12))
    return f"{kind}: {reason}" if kind and reason == _UNKNOWN_FORMAT else reason


def _reason(error: Any) -> str:
    reason: str = error.error_string
    return reason.removeprefix("Error : ").rstrip(".")
