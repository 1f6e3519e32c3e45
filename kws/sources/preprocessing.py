"""Preprocessing of a source's samples: gain, high-pass, automatic gain, noise suppression.

The stages run in this order, on blocks of 10 ms; the last two are WebRTC's. The result does not
depend on how the samples are cut into chunks.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ, to_int16
from kws.config import SourceSettings
from kws.errors import AudioError
from kws.sources.source import Source, chunk_samples, cut

__all__ = ["PreprocessedSource", "Preprocessor", "needs_preprocessing"]

_BLOCK_SAMPLES = SAMPLE_RATE_HZ // 100


def needs_preprocessing(settings: SourceSettings) -> bool:
    """Return whether a source's settings turn on any of these stages."""
    return bool(
        settings.gain_db
        or settings.high_pass_hz
        or settings.auto_gain
        or settings.noise_suppression
    )


class PreprocessedSource(Source):
    """Preprocess the chunks of another source; closing it closes the other.

    Parameters
    ----------
    source : Source
        Open.
    settings : SourceSettings
        As `Preprocessor` takes them.

    Raises
    ------
    AudioError
        As `Preprocessor` does.
    """

    def __init__(self, source: Source, settings: SourceSettings) -> None:
        self._source = source
        self._preprocessor = Preprocessor(settings)
        self._n_samples = chunk_samples(settings.chunk_ms)
        self.name, self.duration_s, self.live = source.name, source.duration_s, source.live

    @property
    def dropped_chunks(self) -> int:
        """Number of losses of the other source."""
        return self._source.dropped_chunks

    def __iter__(self) -> Iterator[Samples]:
        return cut(self._preprocessor.stream(self._source), n_samples=self._n_samples)

    def close(self) -> None:
        """Close the other source; a second call does nothing."""
        self._source.close()


class Preprocessor:
    """Preprocess one stream of samples.

    Parameters
    ----------
    settings : SourceSettings
        Its `gain_db`, `high_pass_hz`, `auto_gain` and `noise_suppression`.

    Raises
    ------
    AudioError
        If automatic gain or noise suppression is on and webrtc-noise-gain is missing.
    """

    def __init__(self, settings: SourceSettings) -> None:
        self._gain = 10.0 ** (settings.gain_db / 20.0)
        self._high_pass = _HighPass(settings.high_pass_hz) if settings.high_pass_hz else None
        self._webrtc_levels = (settings.auto_gain, settings.noise_suppression)
        self._webrtc = _webrtc_processor() if any(self._webrtc_levels) else None
        self.reset()

    def reset(self) -> None:
        """Begin a new stream."""
        self._rest = np.zeros(0, np.int16)
        if self._high_pass:
            self._high_pass.reset()
        self._processor: Any = self._webrtc(*self._webrtc_levels) if self._webrtc else None

    def process(self, samples: Samples, /) -> Samples:
        """Consume int16 [shape=(n,)]; return the whole blocks of 10 ms so far [shape=(m,)]."""
        samples = np.concatenate((self._rest, samples))
        n_whole = len(samples) - len(samples) % _BLOCK_SAMPLES
        self._rest = samples[n_whole:]
        return self._whole(samples[:n_whole])

    def flush(self) -> Samples:
        """End the stream: return the samples still inside [shape=(m,)], and reset."""
        n_left = len(self._rest)
        tail = self.process(np.zeros(-n_left % _BLOCK_SAMPLES, np.int16))[:n_left]
        self.reset()
        return tail

    def stream(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Preprocess a whole stream.

        Raises
        ------
        AudioError
            Whatever `blocks` raises, after every sample before it was yielded.
        """
        self.reset()
        failure: AudioError | None = None
        try:
            for block in blocks:
                yield self.process(block)
        except AudioError as error:
            failure = error
        yield self.flush()
        if failure:
            raise failure

    def _whole(self, samples: Samples) -> Samples:
        if self._high_pass or self._gain != 1.0:
            scaled = samples * np.float64(self._gain)
            if self._high_pass:
                scaled = self._high_pass.process(scaled.reshape(-1, _BLOCK_SAMPLES)).ravel()
            samples = to_int16(scaled.astype(np.float32))  # saturates
        if self._processor is None or not len(samples):
            return samples
        blocks = samples.astype("<i2", copy=False).reshape(-1, _BLOCK_SAMPLES)
        cleaned = [self._processor.Process10ms(block.tobytes()).audio for block in blocks]
        return np.frombuffer(b"".join(cleaned), "<i2").astype(np.int16)


class _HighPass:
    """A second-order Butterworth, by the bilinear transform.

    In state space, filtering a block is one product of a fixed matrix with the state and the block.
    All blocks have one length, so that the result does not depend on the chunks, to the bit.
    """

    def __init__(self, cutoff_hz: float) -> None:
        b, a = _butterworth(cutoff_hz)
        # Transposed direct form II: y = b0 u + s0, s0' = b1 u - a1 y + s1, s1' = b2 u - a2 y.
        step = np.array([[-a[1], 1.0], [-a[2], 0.0]])
        drive = np.array([b[1] - a[1] * b[0], b[2] - a[2] * b[0]])
        n = _BLOCK_SAMPLES
        self._matrix = np.zeros((n + 2, n + 2))
        state = np.zeros((2, n + 2))
        state[:, :2] = np.eye(2)
        for i in range(n):  # row i: the weights of state and inputs in output i
            self._matrix[i] = state[0]
            self._matrix[i, 2 + i] += b[0]
            state = step @ state
            state[:, 2 + i] += drive
        self._matrix[n:] = state
        self.reset()

    def reset(self) -> None:
        self._state = np.zeros(2)

    def process(self, blocks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Filter float64 [shape=(k, 160)]."""
        filtered = np.empty_like(blocks)
        for i, block in enumerate(blocks):
            result = self._matrix @ np.concatenate((self._state, block))
            filtered[i], self._state = result[:-2], result[-2:]
        return filtered


def _butterworth(cutoff_hz: float) -> tuple[list[float], list[float]]:
    """Return numerator and denominator of the second-order high-pass."""
    k = float(np.tan(np.pi * cutoff_hz / SAMPLE_RATE_HZ))
    norm = 1.0 / (1.0 + np.sqrt(2.0) * k + k * k)
    return (
        [norm, -2.0 * norm, norm],
        [1.0, 2.0 * (k * k - 1.0) * norm, (1.0 - np.sqrt(2.0) * k + k * k) * norm],
    )


def _webrtc_processor() -> Any:
    try:
        from webrtc_noise_gain import AudioProcessor
    except ImportError as error:
        raise AudioError(
            f"`auto_gain` and `noise_suppression` need webrtc-noise-gain. Received: {error}. Run "
            f"`pip install 'kws[conditioning]'`, or leave them at 0."
        ) from error
    return AudioProcessor
