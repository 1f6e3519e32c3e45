"""What turns audio into the vectors that a network takes.

The speech embedding, the features that it takes itself, or the micro frontend.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kws.arrays import Frames, Samples
from kws.features import Features
from kws.micro_features import MICRO_FEATURES, MicroFeatures
from kws.model import Model, embedding_reference, n_cold_vectors, open_model

__all__ = ["FrontEnd", "Vectors", "embedding_frames", "micro_frontend", "speech_embedding"]

Vectors: TypeAlias = npt.NDArray[np.float16]

_N_COLD_FRAMES = 100
"""Of the micro frontend: noise reduction and gain control have settled after a second."""


@dataclass(frozen=True)
class FrontEnd:
    """A front end: a vector every `hop_samples`, the first one after `overlap_samples` more.

    Attributes
    ----------
    name : str
        Differs between front ends whose vectors differ.
    size : int
        Values of a vector.
    hop_samples, overlap_samples : int
    n_cold : int
        First vectors of a stream, which depend on what came before it.
    compute : callable
        Returns all vectors of int16 samples, float32 [shape=(k, size)], from a fresh state.
    """

    name: str
    size: int
    hop_samples: int
    overlap_samples: int
    n_cold: int
    compute: Callable[[Samples], Frames]

    def vectors(self, samples: npt.NDArray[Any]) -> Vectors:
        """Return the vectors of a signal, those that depend on what came before it excepted.

        Parameters
        ----------
        samples : array [shape=(n,)]
            On the scale of 16-bit samples; rounded and clipped to them, as the runtime has them.

        Returns
        -------
        float16 [shape=(k, size)]
            The first is vector `n_cold` of the stream.
        """
        rounded = np.clip(np.rint(samples), -32768, 32767).astype(np.int16)
        return self.compute(rounded)[self.n_cold :].astype(np.float16)

    def n_samples(self, n_vectors: int) -> int:
        """Return the samples that give so many vectors after the cold ones."""
        return (self.n_cold + n_vectors) * self.hop_samples + self.overlap_samples

    def vector_after(self, sample: int) -> int:
        """Return the index, among those after the cold ones, of the first vector that ends later.

        Parameters
        ----------
        sample : int
            Of the signal.
        """
        return -(-(sample - self.overlap_samples) // self.hop_samples) - 1 - self.n_cold


@functools.cache
def speech_embedding() -> FrontEnd:
    """Return the bundled speech embedding, which takes frames of its own features."""
    reference = embedding_reference()
    model, features = _opened_embedding()
    return FrontEnd(
        name=f"{reference.name}-{reference.sha256[:16]}",
        size=reference.size,
        hop_samples=reference.hop_frames * features.settings.hop_samples,
        overlap_samples=features.settings.window_samples - features.settings.hop_samples,
        n_cold=n_cold_vectors(model.manifest),
        compute=_embed,
    )


@functools.cache
def embedding_frames() -> FrontEnd:
    """Return the features of the bundled speech embedding, to train it together with a head."""
    reference = embedding_reference()
    settings = _opened_embedding()[1].settings
    return FrontEnd(
        name=f"{reference.name}-{reference.sha256[:16]}-frames",
        size=settings.n_mels,
        hop_samples=settings.hop_samples,
        overlap_samples=settings.window_samples - settings.hop_samples,
        n_cold=0,
        compute=_frames,
    )


@functools.cache
def micro_frontend() -> FrontEnd:
    """Return the micro frontend of microWakeWord and ESPHome.

    Raises
    ------
    ModelError
        If pymicro-features is not installed.
    """
    MicroFeatures()
    return FrontEnd(
        name="micro_frontend",
        size=MICRO_FEATURES.n_mels,
        hop_samples=MICRO_FEATURES.hop_samples,
        overlap_samples=MICRO_FEATURES.window_samples - MICRO_FEATURES.hop_samples,
        n_cold=_N_COLD_FRAMES,
        compute=_micro_frames,
    )


def _embed(samples: Samples) -> Frames:
    model, features = _opened_embedding()
    return model.run(features.whole(samples))


def _frames(samples: Samples) -> Frames:
    return _opened_embedding()[1].whole(samples)


def _micro_frames(samples: Samples) -> Frames:
    return _opened_micro_frontend().whole(samples)


@functools.cache
def _opened_embedding() -> tuple[Model, Features]:
    """Open the embedding, once in each process."""
    model = open_model(embedding_reference().name)
    return model, Features(model.manifest.features)


@functools.cache
def _opened_micro_frontend() -> MicroFeatures:
    return MicroFeatures()
