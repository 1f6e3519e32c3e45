"""Vectors of a front end, computed once and kept on disk.

A file of the cache is named by a digest of everything that its vectors depend on; the front end
names the folder, so that vectors of another one are never found.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kws_train.cache_folder import cache_folder, kept_file
from kws_train.data.front_ends import FrontEnd, Vectors, speech_embedding

__all__ = ["VectorCache", "digest_of", "vector_cache_folder"]

_FORMAT = 1  # to be raised whenever the vectors of the same audio change


def vector_cache_folder() -> Path:
    """Return the default cache: $XDG_CACHE_HOME/kws/vectors or ~/.cache/kws/vectors."""
    return cache_folder("vectors")


@dataclass(frozen=True)
class VectorCache:
    """Arrays of vectors by the digest of their content; files are written whole or not at all.

    Parameters
    ----------
    folder : Path
        Shared by all front ends.
    front_end : FrontEnd
        By default the bundled speech embedding.
    """

    folder: Path
    front_end: FrontEnd = field(default_factory=speech_embedding)

    def find(self, digest: str) -> Vectors | None:
        """Return kept vectors; None where there are none, or the file is damaged."""
        try:
            vectors = np.load(self._path(digest), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        fits = vectors.dtype == np.float16 and vectors.shape[1:] == (self.front_end.size,)
        return vectors if fits else None

    def vectors(self, digest: str, make: Callable[[], Vectors]) -> Vectors:
        """Return kept vectors; compute and keep them first where there are none.

        Parameters
        ----------
        digest : str
            Of all that the vectors depend on beside the front end, see `digest_of`.
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
        with kept_file(
            path,
            what="Vectors to train on",
            folder=self.folder,
            remedy="name another folder in XDG_CACHE_HOME; what was computed so far is used again",
        ) as file:
            np.save(file, vectors, allow_pickle=False)
        return vectors

    def _path(self, digest: str) -> Path:
        return self.folder / self.front_end.name / digest[:2] / f"{digest}.npy"


def digest_of(*parts: Any) -> str:
    """Return the digest of values that print unambiguously, such as numbers, text and digests."""
    return hashlib.sha256(repr((_FORMAT, *parts)).encode()).hexdigest()[:40]
