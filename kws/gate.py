"""Voice activity detection per block of 20 ms: whether the model runs, and where speech began.

webrtcvad classifies each block; a hangover keeps the gate open across pauses within speech.
"""

from collections import deque

import numpy as np
import numpy.typing as npt

from kws.config import GateSettings
from kws.errors import ConfigError

__all__ = ["BLOCK_MS", "Gate"]

BLOCK_MS = 20

_RATES_HZ = (8000, 16_000, 32_000, 48_000)
_BRIDGED = 10  # blocks without voice, 200 ms, that do not end a stretch of speech
_MOST_STRETCHES = 32


class Gate:
    """Decide for each block of 20 ms whether the gate is open.

    Parameters
    ----------
    settings : GateSettings
        Aggressiveness and hangover; the pre-roll is applied by the spotter, which has the frames.
    sample_rate_hz : int
        8000, 16000, 32000 or 48000.

    Raises
    ------
    ConfigError
        At any other sample rate.

    Attributes
    ----------
    block_samples : int
        Samples in a block.
    latency_samples : int
        A verdict is out as soon as the last sample of its block is in.
    """

    def __init__(self, settings: GateSettings, *, sample_rate_hz: int) -> None:
        if sample_rate_hz not in _RATES_HZ:
            raise ConfigError(
                f"The gate must be given audio at {', '.join(map(str, _RATES_HZ))} Hz. Received: "
                f"a model at {sample_rate_hz} Hz. Set `[gate] enabled = false`."
            )
        self.settings = settings
        self.block_samples = sample_rate_hz * BLOCK_MS // 1000
        self.latency_samples = self.block_samples
        self._rate_hz = sample_rate_hz
        self._n_hangover = -(-settings.hangover_ms // BLOCK_MS)
        self.reset()

    def reset(self) -> None:
        """Close the gate and forget the background noise."""
        import webrtcvad  # half of the cost of importing kws, and the gate may be off

        self._detector = webrtcvad.Vad(self.settings.aggressiveness)
        self._pending = b""
        self._n_open = 0
        self._n_blocks = 0
        self._stretches: deque[tuple[int, int]] = deque(maxlen=_MOST_STRETCHES)

    def process(self, samples: npt.NDArray[np.int16], /) -> list[bool]:
        """Consume any number of samples; return one verdict for each block they complete.

        Parameters
        ----------
        samples : int16 [shape=(n,)]

        Returns
        -------
        list of bool
            True where the gate is open, oldest block first.
        """
        audio = self._pending + samples.tobytes()
        size = 2 * self.block_samples
        verdicts = []
        for start in range(0, len(audio) - size + 1, size):
            if self._detector.is_speech(audio[start : start + size], self._rate_hz):
                self._n_open = self._n_hangover + 1
                self._add_voiced(self._n_blocks)
            self._n_blocks += 1
            verdicts.append(self._n_open > 0)
            self._n_open = max(0, self._n_open - 1)
        self._pending = audio[len(verdicts) * size :]
        return verdicts

    def onset_sample(self, sample: int, /) -> int | None:
        """Return where the speech at a sample, or up to 200 ms before it, began.

        Pauses of up to 200 ms are bridged. Blocks after `sample` make no difference.

        Parameters
        ----------
        sample : int
            Not more than a few seconds before the last one processed.

        Returns
        -------
        int or None
            First sample of the stretch of speech; None without speech there.
        """
        block = sample // self.block_samples
        for first, last in reversed(self._stretches):
            if first <= block:
                return first * self.block_samples if block - last <= _BRIDGED else None
        return None

    def _add_voiced(self, block: int) -> None:
        """Extend the last stretch of speech by a voiced block, or begin another."""
        if self._stretches and block - self._stretches[-1][1] <= _BRIDGED:
            first, _ = self._stretches.pop()
            self._stretches.append((first, block))
        else:
            self._stretches.append((block, block))
