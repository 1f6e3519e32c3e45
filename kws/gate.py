"""Voice activity: decides, per 20 ms, whether the model has to run.

webrtcvad judges each block; a hangover keeps the gate open across the pauses inside speech.
"""

import numpy as np
import numpy.typing as npt

from kws.config import GateSettings
from kws.errors import ConfigError

__all__ = ["BLOCK_MS", "Gate"]

BLOCK_MS = 20

_RATES_HZ = (8000, 16_000, 32_000, 48_000)


class Gate:
    """Say for every 20 ms block whether the gate is open.

    Parameters
    ----------
    settings : GateSettings
        Aggressiveness and hangover. The pre-roll is the spotter's business, which has the frames.
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
        A block is judged as soon as its last sample is in.
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
        """Forget everything: the gate is closed, the detector knows no background."""
        import webrtcvad  # half of what importing kws would cost, and the gate may be off

        self._detector = webrtcvad.Vad(self.settings.aggressiveness)
        self._pending = b""
        self._n_open = 0

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
            verdicts.append(self._n_open > 0)
            self._n_open = max(0, self._n_open - 1)
        self._pending = audio[len(verdicts) * size :]
        return verdicts
