"""Embeddings of words, by the speech embedding, to compare how they sound."""

import functools

import numpy as np
import numpy.typing as npt

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.features import Features
from kws.model import Model, embedding_reference, open_model

__all__ = ["pack_vectors", "word_embedding"]

_N_PARTS = 3
_LEAD_S, _TAIL_S = 0.8, 0.3  # an embedding looks back so far; it is surest after a sound


def word_embedding(samples: Samples, word_s: tuple[float, float], /) -> bytes:
    """Return the mean unit vector of each third of a word, by `pack_vectors`.

    Parameters
    ----------
    samples : int16 [shape=(n,)]
        Audio around the word, at 16 kHz.
    word_s : (float, float)
        Its start and end in them, seconds.
    """
    model = _embedding()
    start_s, end_s = word_s
    first = max(0, round((start_s - _LEAD_S) * RATE_HZ))
    last = round((end_s + _TAIL_S) * RATE_HZ)
    vectors = model.run(Features(model.manifest.features).whole(samples[first:last]))
    word_samples = (end_s - start_s + _TAIL_S) * RATE_HZ
    n_vectors = max(_N_PARTS, round(word_samples / model.manifest.call_samples))
    return pack_vectors(_means_of_parts(vectors[-n_vectors:]))


def pack_vectors(unit: npt.NDArray[np.float32]) -> bytes:
    """Return unit vectors as int8, 1/127 a step."""
    return np.rint(unit * 127).astype(np.int8).tobytes()


def _means_of_parts(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return unit mean vectors (parts, values) of vectors in order of time."""
    if len(vectors) < _N_PARTS:
        vectors = np.pad(vectors, ((_N_PARTS - len(vectors), 0), (0, 0)))
    means = np.stack([part.mean(axis=0) for part in np.array_split(vectors, _N_PARTS)])
    lengths = np.sqrt(np.square(means).sum(axis=1, keepdims=True) + np.float32(1e-6))
    return np.asarray(means / lengths, np.float32)


@functools.cache
def _embedding() -> Model:
    return open_model(embedding_reference().name)
