"""A WAV file."""

from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from kws.audio import Converter, Frames, Samples
from kws.errors import AudioError, FormatError
from kws.sources.riff import read_frames, read_header, unreadable
from kws.sources.source import Source, chunk_samples, cut

__all__ = ["WavSource"]

# Recorders fill their files up to whole blocks.
_MOST_PADDING_BYTES = 4096


class WavSource(Source):
    """A WAV file, read in blocks; every iteration begins at its start.

    Raises
    ------
    FormatError
        If its header is not one of a WAV that kws reads.
    AudioError
        If it cannot be opened, or soxr is needed and missing.
    """

    def __init__(self, path: Path, *, chunk_ms: int, channel: int | None = None) -> None:
        self.name = str(path)
        self._n_samples = chunk_samples(chunk_ms)
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise unreadable(self.name, error) from error
        try:
            n_file_bytes = path.stat().st_size
            self._header = read_header(self._file, name=self.name, n_file_bytes=n_file_bytes)
            self._start = self._file.tell()
            self._n_promised_bytes = self._header.n_bytes or None
            if self._holds_more_than_promised():
                self._header = replace(self._header, n_bytes=None)
            self._converter = Converter(self._header.rate_hz, name=self.name, channel=channel)
        except AudioError:
            self._file.close()
            raise
        n_bytes = n_file_bytes - self._start
        if self._header.n_bytes is not None:
            n_bytes = min(n_bytes, self._header.n_bytes)
        self.duration_s = n_bytes // self._header.frame_bytes / self._header.rate_hz

    def __iter__(self) -> Iterator[Samples]:
        self._file.seek(self._start)
        return cut(self._converter.stream(self._read_frames()), n_samples=self._n_samples)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def _holds_more_than_promised(self) -> bool:
        """Whether what follows the samples is more of them: no chunk, no tag and no padding.

        A recorder that is killed leaves the length it wrote last.
        """
        if self._header.n_bytes is None:
            return False
        try:
            self._file.seek(self._start + self._header.n_bytes + self._header.n_bytes % 2)
            behind = self._file.read(_MOST_PADDING_BYTES + 1)
        except OSError as error:
            raise unreadable(self.name, error) from error
        is_marked = behind.startswith(b"ID3") or all(0x20 <= byte < 0x7F for byte in behind[:4])
        return len(behind) > _MOST_PADDING_BYTES and not is_marked and any(behind)

    def _read_frames(self) -> Iterator[Frames]:
        n_frames = 0
        for block in read_frames(self._file, self._header, name=self.name):
            n_frames += len(block)
            yield block
        if self._header.n_bytes is None and self._n_promised_bytes is not None:
            n_promised = self._n_promised_bytes // self._header.frame_bytes
            rate_hz = self._header.rate_hz
            raise FormatError(
                f"A WAV must hold only the samples its header promises. Received: {n_frames} "
                f"instead of {n_promised} samples ({n_frames / rate_hz:.3f} instead of "
                f"{n_promised / rate_hz:.3f} s) in {self.name}. All of them were used; mend its "
                f"header: `ffmpeg -ignore_length 1 -i in.wav out.wav`."
            )
