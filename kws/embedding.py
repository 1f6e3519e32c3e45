"""Embeddings of recordings, by the bundled backbone or one like it."""

import numpy as np
import numpy.typing as npt

from kws.audio import Samples
from kws.features import Features
from kws.model import Model

__all__ = ["embed"]


def embed(model: Model, samples: Samples) -> npt.NDArray[np.float32]:
    """Return the embeddings of a recording, one a call of the model [shape=(n, n_values)]."""
    manifest = model.manifest
    frames = Features(manifest.features).whole(samples)
    model.reset()
    hop = manifest.hop_frames
    calls = [
        model.step(frames[i : i + hop]).mean(axis=0) for i in range(0, len(frames) - hop + 1, hop)
    ]
    return np.array(calls, np.float32).reshape(len(calls), manifest.embedding or 0)
