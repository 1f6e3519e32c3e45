"""Which candidates to label first: those that the model is unsure of, and unlike one another.

Greedy farthest-point sampling (k-centre, Sener and Savarese 2018), weighted by how near a score is
to the threshold.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kws_train.mining.peaks import Rise

__all__ = ["choose", "uncertainty"]

_ALIKE = 0.1  # cosine distance; 40 ms earlier or later is 0.06, the same speaker's next take 0.15
_MOST_ALIKE = 3
_LEAST_SURE = 0.05  # what the model is sure of may be wrong: it comes last, but comes
_MOST = 20_000


def choose(
    rises: Sequence[Rise],
    *,
    thresholds: dict[str, float],
    known: Sequence[bytes] = (),
    n: int,
) -> list[int]:
    """Return the indices of at most `n` candidates, the most telling first.

    Of what sounds alike, labelled already or chosen, there are three at most.

    Parameters
    ----------
    rises : sequence of Rise
    thresholds : dict of str to float
        Of each keyword.
    known : sequence of bytes
        Embeddings of what is labelled already.
    n : int
    """
    doubts = np.array([uncertainty(one.score, thresholds[one.keyword]) for one in rises])
    order = np.argsort(-doubts, kind="stable")[:_MOST]
    if not len(order):
        return []
    doubts, vectors = doubts[order], _vectors([rises[i].embedding for i in order])
    farthest, n_alike = np.ones(len(order)), np.zeros(len(order), int)
    size = len(rises[0].embedding)
    for vector in _vectors([one for one in known if len(one) == size]):
        _heed(vectors, vector, farthest, n_alike)
    chosen: list[int] = []
    gains = np.zeros(len(order))
    while len(chosen) < min(n, len(order)):
        gains = np.where(n_alike < _MOST_ALIKE, doubts * farthest, -1.0)
        gains[chosen] = -1.0
        best = int(gains.argmax())
        if gains[best] < 0:
            break
        chosen.append(best)
        _heed(vectors, vectors[best], farthest, n_alike)
    return [int(order[i]) for i in chosen]


def uncertainty(score: float, threshold: float) -> float:
    """Return 1 for a score at the threshold, falling to 0.05 for what could not be surer."""
    room = threshold if score < threshold else 1 - threshold
    return max(_LEAST_SURE, 1 - abs(score - threshold) / max(room, 1e-3))


def _heed(
    vectors: npt.NDArray[np.float32],
    vector: npt.NDArray[np.float32],
    farthest: npt.NDArray[np.float64],
    n_alike: npt.NDArray[np.int_],
) -> None:
    """Note how far all are from one that was chosen."""
    distances = np.maximum(0.0, 1.0 - vectors @ vector)
    np.minimum(farthest, distances, out=farthest)
    n_alike += distances < _ALIKE


def _vectors(packed: Sequence[bytes]) -> npt.NDArray[np.float32]:
    """Return unit vectors [shape=(n, values)]."""
    if not packed:
        return np.zeros((0, 0), np.float32)
    vectors = np.stack([np.frombuffer(one, np.int8) for one in packed]).astype(np.float32)
    return np.asarray(
        vectors / np.sqrt(np.square(vectors).sum(axis=1, keepdims=True) + np.float32(1e-6))
    )
