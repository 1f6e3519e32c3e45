"""What every source is, and how its audio is cut into chunks."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

import numpy as np

from kws.audio import SAMPLE_RATE_HZ, Samples
from kws.errors import AudioError

__all__ = ["Source", "chunk_samples", "cut"]


class Source(ABC):
    """Audio from somewhere, as int16, mono, 16 kHz; a context manager that closes itself.

    Attributes
    ----------
    name : str
        What it is, for people.
    duration_s : float or None
        Length, where it is known before the end: that of a file.
    live : bool
        True for a microphone: it has no end of its own, and after a DeviceError it may be closed
        and opened again.
    """

    name: str
    duration_s: float | None = None
    live: bool = False

    @property
    def dropped_chunks(self) -> int:
        """How often audio was lost because nobody took it in time; only live sources lose any."""
        return 0

    @abstractmethod
    def __iter__(self) -> Iterator[Samples]:
        """Yield int16 chunks [shape=(n,)] of the length asked for; the last one may be shorter.

        Raises
        ------
        AudioError
            If something is wrong with the audio, after every sample before it was yielded.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the file or the device; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def chunk_samples(chunk_ms: int) -> int:
    """Return how many samples a chunk of `chunk_ms` has."""
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
