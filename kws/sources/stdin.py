"""Standard input: raw PCM or a WAV from a pipe."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import cast

from kws.arrays import Samples
from kws.errors import AudioError, ConfigError
from kws.sources.pcm import Layout, read_pcm
from kws.sources.source import Readable, Source, chunk_samples, cut

__all__ = ["StdinSource"]

_RECORD = "arecord -q -t raw -f S16_LE -r 16000 -c 1 | kws listen --input -"


class StdinSource(Source):
    """Audio piped into standard input; can be iterated once.

    Raises
    ------
    ConfigError
        If standard input is a terminal or closed.
    """

    name = "standard input"

    def __init__(self, *, chunk_ms: int, layout: Layout | None = None) -> None:
        stdin = sys.stdin
        if stdin is None or stdin.closed or stdin.isatty():
            what = "a terminal" if stdin is not None and not stdin.closed else "none"
            raise ConfigError(
                f"With `--input -` audio must come through a pipe. Received: {what}. "
                f"Run `{_RECORD}`."
            )
        self._layout = layout or Layout()
        self._n_samples = chunk_samples(chunk_ms)
        self._stream = _Stream(cast(Readable, stdin.buffer))
        # A pipe left non-blocking by the process before us would look as if it had ended.
        with contextlib.suppress(io.UnsupportedOperation, AttributeError):  # not on Windows
            os.set_blocking(stdin.fileno(), True)

    def __iter__(self) -> Iterator[Samples]:
        return cut(self._read_samples(), n_samples=self._n_samples)

    def close(self) -> None:
        """Do nothing: standard input belongs to the process."""

    def _read_samples(self) -> Iterator[Samples]:
        return read_pcm(
            self._stream,
            self._layout,
            name=self.name,
            decode="Decode it: `ffmpeg -i FILE -f s16le -ar 16000 -ac 1 - | kws listen -`. FLAC, "
            "Ogg and MP3 can be given as FILE in place of -.",
            check=f"`{_RECORD}`",
        )


class _Stream:
    """Standard input, with AudioError in place of OSError."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream

    def read1(self, n_bytes: int, /) -> bytes:
        """Return up to `n_bytes` as soon as there are any, or none at the end."""
        try:
            return self._stream.read1(n_bytes)
        except OSError as error:
            raise AudioError(
                f"Standard input cannot be read: {error.strerror}. Check the program that feeds "
                f"it: `{_RECORD}`."
            ) from error
