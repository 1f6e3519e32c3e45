"""Embeddings of peaks by the enrolment backbone, to compare how they sound."""

import functools

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.features import Features
from kws.manifest import Head
from kws.model import Model, backbone_path, mean_embeddings, open_model
from kws.templates import pack_vectors, unit_vectors
from kws_train.mining.peaks import Peak

__all__ = ["with_embedding"]

_N_PARTS = 3
_LEAD_S, _TAIL_S = 0.6, 0.1


def with_embedding(peak: Peak, samples: Samples) -> Peak:
    """Return a peak with its embedding: the mean unit vector of each third of the word.

    Parameters
    ----------
    peak : Peak
        With times relative to `samples`.
    samples : int16 [shape=(n,)]
        Audio around the word, at 16 kHz.
    """
    backbone = _backbone()
    first = max(0, round((peak.start_s - _LEAD_S) * RATE_HZ))
    last = round((peak.end_s + _TAIL_S) * RATE_HZ)
    frames = Features(backbone.manifest.features).whole(samples[first:last])
    unit = unit_vectors(mean_embeddings(backbone, frames), backbone.manifest.head or Head())
    step_samples = backbone.manifest.hop_frames * backbone.manifest.features.hop_samples
    word_samples = (peak.end_s - peak.start_s + _TAIL_S) * RATE_HZ
    n_steps = max(_N_PARTS, round(word_samples / step_samples))
    return replace(peak, embedding=pack_vectors(_means_of_parts(unit[-n_steps:])))


def _means_of_parts(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return unit mean vectors (parts, values) of vectors in order of time."""
    if len(vectors) < _N_PARTS:
        vectors = np.pad(vectors, ((_N_PARTS - len(vectors), 0), (0, 0)))
    means = np.stack([part.mean(axis=0) for part in np.array_split(vectors, _N_PARTS)])
    lengths = np.sqrt(np.square(means).sum(axis=1, keepdims=True) + np.float32(1e-6))
    return np.asarray(means / lengths, np.float32)


@functools.cache
def _backbone() -> Model:
    return open_model(backbone_path())
