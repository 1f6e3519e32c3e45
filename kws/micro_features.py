"""Frames of the micro frontend: 40 values every 10 ms, as microWakeWord and ESPHome compute them.

The library `pymicro-features` holds TensorFlow Lite Micro's own code: fixed-point filters, noise
reduction and gain control, which remember the stream.
"""

import numpy as np

from kws.arrays import Frames, Samples, check_samples
from kws.errors import ModelError
from kws.manifest import FeatureSettings

__all__ = ["MICRO_FEATURES", "MicroFeatures"]

MICRO_FEATURES = FeatureSettings(
    kind="micro", window_samples=480, hop_samples=160, n_fft=512, n_mels=40, preemphasis=0.0
)
"""The only settings that there are."""


class MicroFeatures:
    """Turn samples into frames of the micro frontend; see `kws.features.Features`.

    Attributes
    ----------
    settings : FeatureSettings
    latency_samples : int

    Raises
    ------
    ModelError
        If pymicro-features is not installed.
    """

    settings = MICRO_FEATURES
    latency_samples = MICRO_FEATURES.window_samples

    def __init__(self) -> None:
        try:
            from pymicro_features import MicroFrontend
        except ImportError as error:
            raise ModelError(
                f"A microWakeWord model needs pymicro-features. Received: none that can be "
                f"imported ({error}). Run `pip install 'kws[micro]'`."
            ) from error
        self._frontend = MicroFrontend()
        self.reset()

    def reset(self) -> None:
        """Forget all samples; the next one is the first of a new signal."""
        self._frontend.reset()
        self._pending = np.zeros(0, np.int16)

    def process(self, samples: Samples, /) -> Frames:
        """Consume any number of samples; return the frames they complete.

        Parameters
        ----------
        samples : int16 [shape=(n,)]
            Mono, 16 kHz.

        Returns
        -------
        float32 [shape=(k, 40)]

        Raises
        ------
        FormatError
            If `samples` is not one-dimensional int16.
        """
        check_samples(samples)
        pending = np.concatenate((self._pending, samples))
        hop = self.settings.hop_samples
        n_whole = len(pending) - len(pending) % hop
        self._pending = pending[n_whole:]
        content = pending[:n_whole].tobytes()
        frames = []
        for at in range(0, len(content), 2 * hop):
            # The frontend takes what a block completes, one frame at most.
            values = self._frontend.process_samples(content[at : at + 2 * hop]).features
            if values:
                frames.append(values)
        return np.array(frames, np.float32).reshape(-1, self.settings.n_mels)

    def whole(self, signal: Samples, /) -> Frames:
        """Return the frames of a whole signal, from a fresh state.

        Parameters
        ----------
        signal : int16 [shape=(n,)]

        Returns
        -------
        float32 [shape=(k, 40)]
        """
        self.reset()
        frames = self.process(signal)
        self.reset()
        return frames
