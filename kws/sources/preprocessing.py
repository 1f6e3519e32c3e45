"""What can be done to a source's samples before anything hears them.

Gain, a high-pass, and WebRTC's automatic gain and noise suppression, in this order, on 10 ms each.
The result does not depend on how the samples are cut.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from kws.audio import SAMPLE_RATE_HZ, Samples, to_int16
from kws.config import SourceSettings
from kws.errors import AudioError

__all__ = ["Conditioner", "is_conditioned"]

_BLOCK_SAMPLES = SAMPLE_RATE_HZ // 100


def is_conditioned(settings: SourceSettings) -> bool:
    """Return whether a source's settings ask for anything of this; else it is left out."""
    return bool(
        settings.gain_db
        or settings.high_pass_hz
        or settings.auto_gain
        or settings.noise_suppression
    )


class Conditioner:
    """Condition one stream of samples.

    Parameters
    ----------
    settings : SourceSettings
        Its `gain_db`, `high_pass_hz`, `auto_gain` and `noise_suppression`.

    Raises
    ------
    AudioError
        If automatic gain or noise suppression is asked for and webrtc-noise-gain is missing.
    """

    def __init__(self, settings: SourceSettings) -> None:
        self._gain = 10.0 ** (settings.gain_db / 20.0)
        self._high_pass = _HighPass(settings.high_pass_hz) if settings.high_pass_hz else None
        self._webrtc = (settings.auto_gain, settings.noise_suppression)
        self._make = _webrtc() if any(self._webrtc) else None
        self.reset()

    def reset(self) -> None:
        """Begin a new stream."""
        self._rest = np.zeros(0, np.int16)
        if self._high_pass:
            self._high_pass.reset()
        self._processor: Any = self._make(*self._webrtc) if self._make else None

    def process(self, samples: Samples, /) -> Samples:
        """Consume int16 [shape=(n,)]; return what fills blocks of 10 ms [shape=(m,)]."""
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
        """Condition a whole stream.

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
        pieces = samples.astype("<i2", copy=False).reshape(-1, _BLOCK_SAMPLES)
        heard = [self._processor.Process10ms(piece.tobytes()).audio for piece in pieces]
        return np.frombuffer(b"".join(heard), "<i2").astype(np.int16)


class _HighPass:
    """A second-order Butterworth, by the bilinear transform.

    In state space a block of samples is one product of a fixed matrix with the state and the block,
    of always the same shape: numpy does it at once, and to the same last bit however samples came.
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
        for i in range(n):  # once, when it is made: what each output owes to state and inputs
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


def _webrtc() -> Any:
    try:
        from webrtc_noise_gain import AudioProcessor
    except ImportError as error:
        raise AudioError(
            f"`auto_gain` and `noise_suppression` need webrtc-noise-gain. Received: {error}. Run "
            f"`pip install 'kws[conditioning]'`, or leave them at 0."
        ) from error
    return AudioProcessor
