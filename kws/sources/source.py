"""The interface of every source, the base of those read with poll(2), and cutting into chunks."""

import contextlib
import select
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.errors import AudioError, DeviceError
from kws.platforms import require_posix

__all__ = [
    "STALL_S",
    "PolledSource",
    "Readable",
    "Source",
    "chunk_samples",
    "cut",
    "require_pipes",
    "unreadable",
]

STALL_S = 3.0
"""Default of `stall_s`: seconds without audio after which a live source counts as broken."""


class Readable(Protocol):
    """A byte stream, as `io.BufferedReader` is."""

    def read1(self, n: int, /) -> bytes:
        """Return up to `n` bytes as soon as there are any, or none at the end."""


class Source(ABC):
    """Audio as int16, mono, 16 kHz; a context manager that closes itself.

    Attributes
    ----------
    name : str
        Name for messages.
    duration_s : float or None
        Length, where it is known before the end: that of a file.
    live : bool
        True for a microphone, command or port: it has no end of its own, and may be closed and
        opened again after a DeviceError.
    """

    name: str
    duration_s: float | None = None
    live: bool = False

    @property
    def dropped_chunks(self) -> int:
        """Number of losses of audio that was not read in time; only live sources lose any."""
        return 0

    @abstractmethod
    def __iter__(self) -> Iterator[Samples]:
        """Yield int16 chunks [shape=(n,)] of the configured length; the last may be shorter.

        Raises
        ------
        AudioError
            If something is wrong with the audio, after every sample before it was yielded.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the file or the device; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class PolledSource(Source):
    """A source read during the iteration; unread audio waits in the kernel.

    `close` may be called from any thread: it interrupts a wait.

    Parameters
    ----------
    name : str
        Name for messages.
    chunk_ms : int
        Length of a chunk.
    """

    live = True

    def __init__(self, name: str, *, chunk_ms: int) -> None:
        self.name = name
        self._n_samples = chunk_samples(chunk_ms)
        self._closed = False
        self._in_use = threading.Lock()
        self._wake_reader, self._wake_writer = socket.socketpair()

    def __iter__(self) -> Iterator[Samples]:
        return cut(self._read(), n_samples=self._n_samples)

    def close(self) -> None:
        """Release everything and end the iteration, in whichever thread it runs."""
        if self._closed:
            return
        self._closed = True
        self._wake_writer.send(b"!")
        with self._in_use:
            self._release()
            self._wake_reader.close()
            self._wake_writer.close()

    def _wait(self, *descriptors: int, timeout_s: float | None) -> list[int]:
        """Return the readable descriptors; none at the timeout, or after `close`.

        Call it, and read, within `_using`.
        """
        poll = select.poll()
        for descriptor in (self._wake_reader.fileno(), *descriptors):
            poll.register(descriptor, select.POLLIN)
        timeout_ms = None if timeout_s is None else max(0, round(1000 * timeout_s))
        ready = [descriptor for descriptor, _ in poll.poll(timeout_ms)]
        return [] if self._closed else ready

    @contextlib.contextmanager
    def _using(self) -> Iterator[bool]:
        """Keep `close` from releasing anything meanwhile; yield whether the source is open."""
        with self._in_use:
            yield not self._closed

    @abstractmethod
    def _read(self) -> Iterator[Samples]:
        """Yield samples as they arrive, until the source is closed."""

    @abstractmethod
    def _release(self) -> None:
        """Close what was opened; no other thread uses it."""


def require_pipes(what: str) -> None:
    """Check that this system can wait for audio from other programs.

    Raises
    ------
    DeviceError
        On Windows, which waits for no pipe.
    """
    remedy = "Give a microphone, or a file in WAV, FLAC, Ogg or MP3."
    require_posix(what, error=DeviceError, remedy=remedy)


def chunk_samples(chunk_ms: int) -> int:
    """Return the number of samples in a chunk of `chunk_ms`."""
    return SAMPLE_RATE_HZ * chunk_ms // 1000


def cut(blocks: Iterable[Samples], *, n_samples: int) -> Iterator[Samples]:
    """Cut blocks of any lengths into chunks of `n_samples`, each as soon as it is full.

    Raises
    ------
    AudioError
        Whatever `blocks` raises, after the last, shorter chunk was yielded.
    """
    rest = np.zeros(0, np.int16)
    failure: AudioError | None = None
    try:
        for block in blocks:
            rest = np.concatenate((rest, block)) if len(rest) else block
            n_whole = len(rest) - len(rest) % n_samples
            for start in range(0, n_whole, n_samples):
                yield rest[start : start + n_samples]
            rest = rest[n_whole:]
    except AudioError as error:
        failure = error
    if len(rest):
        yield rest
    if failure:
        raise failure


def unreadable(name: str, error: OSError) -> AudioError:
    """Return the error for an input that the operating system fails to read."""
    return AudioError(
        f"{name} cannot be read: {error.strerror}. Check the disk or the connection, and copy the "
        f"file again."
    )
