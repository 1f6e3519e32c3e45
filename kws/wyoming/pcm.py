"""The audio of a client: raw PCM of any rate, width and channels as 16 kHz mono, piece by piece."""

from collections import deque
from collections.abc import Iterator

import numpy as np

from kws.arrays import Samples
from kws.audio import (
    SAMPLE_RATE_HZ,
    Encoding,
    Resampler,
    down_mix,
    from_pcm,
    to_int16,
)
from kws.wyoming.events import AudioFormat

__all__ = ["PcmStream", "Timeline"]

_ENCODINGS: dict[int, Encoding] = {1: "u8", 2: "s16", 3: "s24", 4: "s32"}
_PIECES_A_SECOND = 10
_MOST_TIMES = 256


class PcmStream:
    """Convert one stream of raw PCM; the result does not depend on how it is cut into chunks.

    Parameters
    ----------
    audio : AudioFormat
        Little endian; unsigned for a width of 1 as in WAV, signed otherwise.

    Raises
    ------
    AudioError
        If it is not 16 kHz and soxr is missing.
    """

    def __init__(self, audio: AudioFormat) -> None:
        self._encoding = _ENCODINGS[audio.width]
        self._n_channels = audio.channels
        self._frame_bytes = audio.width * audio.channels
        self._piece_bytes = max(1, audio.rate // _PIECES_A_SECOND) * self._frame_bytes
        self._is_plain = (audio.rate, audio.width, audio.channels) == (SAMPLE_RATE_HZ, 2, 1)
        self._resampler = None if audio.rate == SAMPLE_RATE_HZ else Resampler(audio.rate)
        self._rest = b""

    def pieces(self, payload: bytes) -> Iterator[Samples]:
        """Convert a chunk, in pieces of up to 100 ms.

        Parameters
        ----------
        payload : bytes
            May end within a frame; the next chunk continues it.

        Yields
        ------
        int16 [shape=(m,)]
            Mono at 16 kHz; `m` may be 0.
        """
        data = self._rest + payload if self._rest else payload
        n_bytes = len(data) - len(data) % self._frame_bytes
        self._rest = data[n_bytes:]
        for start in range(0, n_bytes, self._piece_bytes):
            yield self._convert(data[start : min(start + self._piece_bytes, n_bytes)])

    def flush(self) -> Samples:
        """Return the samples still in the resampler [shape=(m,)]."""
        return to_int16(self._resampler.flush()) if self._resampler else np.zeros(0, np.int16)

    def _convert(self, data: bytes) -> Samples:
        if self._is_plain:
            return np.frombuffer(data, "<i2").astype(np.int16, copy=False)
        mono = down_mix(from_pcm(data, encoding=self._encoding, n_channels=self._n_channels))
        return to_int16(self._resampler.process(mono) if self._resampler else mono)


class Timeline:
    """Timestamps of a stream's chunks, to tell when a sample was recorded by the client's clock."""

    def __init__(self, audio: AudioFormat) -> None:
        self._frames_per_ms = audio.rate / 1000
        self._frame_bytes = audio.width * audio.channels
        self._n_bytes = 0
        self._times: deque[tuple[float, int]] = deque(maxlen=_MOST_TIMES)

    def add(self, n_bytes: int, timestamp: int | None) -> None:
        """Append a chunk.

        Parameters
        ----------
        n_bytes : int
        timestamp : int or None
            Of its first sample; None: the stream simply goes on.
        """
        start_ms = self._n_bytes / self._frame_bytes / self._frames_per_ms
        if timestamp is not None:
            self._times.append((start_ms, timestamp))
        elif not self._times:
            self._times.append((start_ms, 0))
        self._n_bytes += n_bytes

    def timestamp(self, at_s: float) -> int:
        """Return the client's time of a moment of the stream.

        The unit of the protocol is the millisecond. A client that counts in another unit, as
        wyoming-satellite does, gets the timestamp of the chunk within less than its length.
        """
        at_ms = 1000 * at_s
        start_ms, timestamp = self._times[0]
        for later_ms, later in self._times:
            if later_ms > at_ms:
                break
            start_ms, timestamp = later_ms, later
        return timestamp + round(at_ms - start_ms)
