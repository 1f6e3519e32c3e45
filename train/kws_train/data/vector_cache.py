"""Vectors of the bundled speech embedding, computed once and kept on disk.

A file of the cache is named by a digest of everything that its vectors depend on; the embedding's
own digest names the folder, so that vectors of another embedding are never found.
"""

import functools
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kws.errors import ConfigError
from kws.features import Features
from kws.model import Model, embedding_reference, open_model
from kws.model import n_cold_vectors as cold_vectors_of
from kws_train.atomic import replacing

__all__ = [
    "VectorCache",
    "Vectors",
    "digest_of",
    "embed",
    "n_cold_vectors",
    "vector_cache_folder",
]

Vectors: TypeAlias = npt.NDArray[np.float16]

_FORMAT = 1  # to be raised whenever the vectors of the same audio change


def vector_cache_folder() -> Path:
    """Return the default cache: $XDG_CACHE_HOME/kws/vectors or ~/.cache/kws/vectors."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kws/vectors"


@dataclass(frozen=True)
class VectorCache:
    """Arrays of vectors by the digest of their content; files are written whole or not at all.

    Parameters
    ----------
    folder : Path
        Shared by all embeddings.
    """

    folder: Path

    def find(self, digest: str) -> Vectors | None:
        """Return kept vectors; None where there are none, or the file is damaged."""
        try:
            vectors = np.load(self._path(digest), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        size = embedding_reference().size
        fits = vectors.dtype == np.float16 and vectors.ndim == 2 and vectors.shape[1] == size
        return vectors if fits else None

    def vectors(self, digest: str, make: Callable[[], Vectors]) -> Vectors:
        """Return kept vectors; compute and keep them first where there are none.

        Parameters
        ----------
        digest : str
            Of all that the vectors depend on beside the embedding, see `digest_of`.
        make : callable
            Returns float16 [shape=(k, size)].

        Raises
        ------
        ConfigError
            If they cannot be written; what was kept before stays whole.
        """
        if (found := self.find(digest)) is not None:
            return found
        vectors = make()
        path = self._path(digest)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as begun, begun.open("wb") as file:
                np.save(file, vectors, allow_pickle=False)
        except OSError as error:
            raise ConfigError(
                f"Vectors of the speech embedding must go to a folder that can be written to. "
                f"Received: {self.folder} ({error.strerror}). Free some space, or name another "
                f"folder in XDG_CACHE_HOME; what was computed so far is used again."
            ) from error
        return vectors

    def _path(self, digest: str) -> Path:
        reference = embedding_reference()
        name = f"{reference.name}-{reference.sha256[:16]}"
        return self.folder / name / digest[:2] / f"{digest}.npy"


def digest_of(*parts: Any) -> str:
    """Return the digest of values that print unambiguously, such as numbers, text and digests."""
    return hashlib.sha256(repr((_FORMAT, *parts)).encode()).hexdigest()[:40]


def embed(samples: npt.NDArray[Any]) -> Vectors:
    """Return the vectors of a signal, those that depend on what came before it excepted.

    Parameters
    ----------
    samples : array [shape=(n,)]
        On the scale of 16-bit samples; rounded and clipped to them, as the runtime has them.

    Returns
    -------
    float16 [shape=(k, size)]
        The first is the first with whole context: vector `n_cold_vectors()` of the stream.
    """
    model, features = _bundled()
    rounded = np.clip(np.rint(samples), -32768, 32767).astype(np.int16)
    frames = features.whole(rounded)
    return model.run(frames)[n_cold_vectors() :].astype(np.float16)


def n_cold_vectors() -> int:
    """Return how many first vectors of a stream depend on frames before it."""
    return cold_vectors_of(_bundled()[0].manifest)


@functools.cache
def _bundled() -> tuple[Model, Features]:
    """Open the embedding, once in each process."""
    model = open_model(embedding_reference().name)
    return model, Features(model.manifest.features)
