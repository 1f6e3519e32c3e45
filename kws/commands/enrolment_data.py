"""The bundled file that `kws enroll` works with, made by `kws_export.enrolment`.

It holds a network whose weights an enrolment fills in, and vectors of the speech embedding of
background speech.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kws.commands.bundled_data import bundled_file, read_bundled
from kws.errors import ModelError

__all__ = [
    "BIAS_MARK",
    "N_VECTORS",
    "VECTOR_STEP",
    "EnrolmentData",
    "enrolment_data_path",
    "fill_network",
    "read_enrolment_data",
    "weight_marks",
]

N_VECTORS = 20
"""Vectors that the network weighs, 1.6 s."""
BIAS_MARK = 12_345.678
"""Stands in the network for the bias."""
VECTOR_STEP = 1.5
"""What the values of the background's vectors are rounded to."""


class EnrolmentData(NamedTuple):
    """The content of the file."""

    embedding_sha256: str
    """Digest of the speech embedding that the vectors are of."""
    network: bytes
    """A flatbuffer with marks in place of weights and bias."""
    utterances: list[npt.NDArray[np.float32]]
    """[shape=(n, size)] each: vectors of background speech."""


def enrolment_data_path() -> Path:
    """Return the bundled file."""
    return bundled_file("enrolment.npz")


@functools.cache
def read_enrolment_data(path: Path | None = None) -> EnrolmentData:
    """Read the file, by default the bundled one.

    Raises
    ------
    ModelError
        If it is missing or damaged.
    """
    return read_bundled(
        path or enrolment_data_path(),
        _decoded,
        what="Enrolment needs the file of background speech",
    )


def weight_marks(size: int) -> npt.NDArray[np.float32]:
    """Return what stands in the network for the weights [shape=(N_VECTORS * size,)]."""
    return np.arange(1, 1 + N_VECTORS * size, dtype=np.float32) + np.float32(0.5)


def fill_network(network: bytes, weights: npt.NDArray[np.float32], bias: float) -> bytes:
    """Return the flatbuffer with weights and a bias in place of its marks.

    Parameters
    ----------
    network : bytes
    weights : float32 [shape=(k, size)]
        Of the last vectors, oldest first; `k` at most `N_VECTORS`. Older ones get 0.
    bias : float

    Raises
    ------
    ModelError
        If the marks are not there.
    """
    size = weights.shape[1]
    whole = np.zeros((N_VECTORS, size), np.float32)
    whole[N_VECTORS - len(weights) :] = weights
    numbers = ((weight_marks(size), whole), (np.float32(BIAS_MARK), np.float32(bias)))
    for mark, number in numbers:
        if network.count(mark.tobytes()) != 1:
            raise ModelError(
                f"The network of enrolled words must hold each mark once. Received: "
                f"{network.count(mark.tobytes())} times. Install kws again."
            )
        network = network.replace(mark.tobytes(), number.tobytes())
    return network


def _decoded(stored: Any) -> EnrolmentData:
    lengths = stored["lengths"]
    vectors = stored["vectors"].T.astype(np.float32) * np.float32(VECTOR_STEP)
    if lengths.sum() != len(vectors):
        raise ValueError(f"{lengths.sum()} vectors in utterances, {len(vectors)} in all")
    utterances = np.split(vectors, np.cumsum(lengths, dtype=np.int64)[:-1])
    return EnrolmentData(str(stored["embedding"]), stored["network"].tobytes(), utterances)
