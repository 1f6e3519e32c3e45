"""Standard input: raw 16 kHz mono s16le, or a WAV that somebody piped in."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import cast

import numpy as np

from kws.audio import SAMPLE_RATE_HZ, Converter, Samples
from kws.errors import AudioError, ConfigError, FormatError
from kws.sources.riff import Readable, read_frames, read_header
from kws.sources.soundfile_ import sniff
from kws.sources.source import Source, chunk_samples, cut

__all__ = ["StdinSource"]

_RECORD = "arecord -q -t raw -f S16_LE -r 16000 -c 1 | kws listen --input -"


class StdinSource(Source):
    """What is piped in, handed on as it comes; it can be iterated once.

    Raises
    ------
    ConfigError
        If standard input is a terminal or closed.
    """

    name = "standard input"

    def __init__(self, *, chunk_ms: int) -> None:
        stdin = sys.stdin
        if stdin is None or stdin.closed or stdin.isatty():
            what = "a terminal" if stdin is not None and not stdin.closed else "none"
            raise ConfigError(
                f"With `--input -` audio must come through a pipe. Received: {what}. "
                f"Run `{_RECORD}`."
            )
        self._n_samples = chunk_samples(chunk_ms)
        self._stream = _Stream(cast(Readable, stdin.buffer))
        # A pipe left non-blocking by the process before us would look as if it had ended.
        with contextlib.suppress(io.UnsupportedOperation):
            os.set_blocking(stdin.fileno(), True)

    def __iter__(self) -> Iterator[Samples]:
        return cut(self._read_samples(), n_samples=self._n_samples)

    def close(self) -> None:
        """Do nothing: standard input belongs to the process."""

    def _read_samples(self) -> Iterator[Samples]:
        head = self._stream.peek(4)
        if head == b"RIFF":
            header = read_header(self._stream, name=self.name)
            frames = read_frames(self._stream, header, name=self.name)
            return Converter(header.rate_hz, name=self.name).stream(frames)
        if kind := sniff(head):
            raise FormatError(
                f"Standard input must be raw {SAMPLE_RATE_HZ} Hz mono s16le, or WAV. Received: "
                f"{kind}. Give the file's path instead of -, or decode it: "
                f"`ffmpeg -i - -f s16le -ar 16000 -ac 1 - | kws listen --input -`."
            )
        return self._read_raw()

    def _read_raw(self) -> Iterator[Samples]:
        n_samples = 0
        rest = b""
        while block := self._stream.read1(2 * self._n_samples):
            data = rest + block
            n_whole = len(data) - len(data) % 2
            yield np.frombuffer(data[:n_whole], "<i2").astype(np.int16)
            n_samples += n_whole // 2
            rest = data[n_whole:]
        if rest:
            raise FormatError(
                f"Standard input must end on a whole 16-bit sample. Received: 1 byte after "
                f"{n_samples} samples ({n_samples / SAMPLE_RATE_HZ:.3f} s). All whole ones were "
                f"used; check that it is s16le: `{_RECORD}`."
            )
        if not n_samples:
            raise FormatError(
                f"Standard input must carry audio. Received: nothing before its end. Check the "
                f"program that feeds it: `{_RECORD}`."
            )


class _Stream:
    """A byte stream whose first bytes can be looked at, however slowly they arrive."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._ahead = b""

    def peek(self, n_bytes: int) -> bytes:
        while len(self._ahead) < n_bytes:
            block = self._read1(n_bytes - len(self._ahead))
            if not block:
                break
            self._ahead += block
        return self._ahead[:n_bytes]

    def read1(self, n_bytes: int, /) -> bytes:
        if self._ahead:
            block, self._ahead = self._ahead[:n_bytes], self._ahead[n_bytes:]
            return block
        return self._read1(n_bytes)

    def _read1(self, n_bytes: int) -> bytes:
        try:
            return self._stream.read1(n_bytes)
        except OSError as error:
            raise AudioError(
                f"Standard input must stay readable. Received: {error.strerror}. Check the "
                f"program that feeds it: `{_RECORD}`."
            ) from error
