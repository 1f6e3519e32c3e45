"""A WAV file."""

from collections.abc import Iterator
from pathlib import Path

from kws.audio import Converter, Samples
from kws.errors import AudioError
from kws.sources.riff import read_frames, read_header, unreadable
from kws.sources.source import Source, chunk_samples, cut

__all__ = ["WavSource"]


class WavSource(Source):
    """A WAV file, read in blocks; every iteration begins at its start.

    Raises
    ------
    FormatError
        If its header is not one of a WAV that kws reads.
    AudioError
        If it cannot be opened, or soxr is needed and missing.
    """

    def __init__(self, path: Path, *, chunk_ms: int) -> None:
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
            self._converter = Converter(self._header.rate_hz, name=self.name)
        except AudioError:
            self._file.close()
            raise
        n_bytes = n_file_bytes - self._start
        if self._header.n_bytes is not None:
            n_bytes = min(n_bytes, self._header.n_bytes)
        self.duration_s = n_bytes // self._header.frame_bytes / self._header.rate_hz

    def __iter__(self) -> Iterator[Samples]:
        self._file.seek(self._start)
        frames = read_frames(self._file, self._header, name=self.name)
        return cut(self._converter.stream(frames), n_samples=self._n_samples)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()
