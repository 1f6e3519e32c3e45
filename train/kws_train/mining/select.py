"""Active learning: select the peaks to label first, uncertain ones that differ from one another.

Greedy farthest-point sampling (k-centre, Sener and Savarese 2018), weighted by the distance of the
score from the threshold.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kws_train.mining.peaks import Peak

__all__ = ["select", "uncertainty"]

# Cosine distance; 0.04 is the same sound 40 ms earlier or later, 0.2 the speaker's next take.
_MIN_DISTANCE = 0.1
_MAX_SIMILAR = 3
_MIN_UNCERTAINTY = 0.05  # sure scores may be wrong, too: they are selected last
_MAX_PEAKS = 20_000


def select(
    peaks: Sequence[Peak],
    *,
    thresholds: dict[str, float],
    labelled: Sequence[bytes] = (),
    n: int,
) -> list[int]:
    """Return the indices of at most `n` peaks, the most informative first.

    At most three peaks sound similar, labelled ones included.

    Parameters
    ----------
    peaks : sequence of Peak
    thresholds : dict of str to float
        Of each keyword.
    labelled : sequence of bytes
        Embeddings of labelled candidates.
    n : int
    """
    uncertainties = np.array([uncertainty(one.score, thresholds[one.keyword]) for one in peaks])
    order = np.argsort(-uncertainties, kind="stable")[:_MAX_PEAKS]
    if not len(order):
        return []
    uncertainties, vectors = uncertainties[order], _vectors([peaks[i].embedding for i in order])
    nearest, n_similar = np.ones(len(order)), np.zeros(len(order), int)
    size = len(peaks[0].embedding)
    for vector in _vectors([one for one in labelled if len(one) == size]):
        _update(vectors, vector, nearest, n_similar)
    selected: list[int] = []
    gains = np.zeros(len(order))
    while len(selected) < min(n, len(order)):
        gains = np.where(n_similar < _MAX_SIMILAR, uncertainties * nearest, -1.0)
        gains[selected] = -1.0
        best = int(gains.argmax())
        if gains[best] < 0:
            break
        selected.append(best)
        _update(vectors, vectors[best], nearest, n_similar)
    return [int(order[i]) for i in selected]


def uncertainty(score: float, threshold: float) -> float:
    """Return 1 for a score at the threshold, falling linearly to 0.05 at 0 and 1."""
    room = threshold if score < threshold else 1 - threshold
    return max(_MIN_UNCERTAINTY, 1 - abs(score - threshold) / max(room, 1e-3))


def _update(
    vectors: npt.NDArray[np.float32],
    vector: npt.NDArray[np.float32],
    nearest: npt.NDArray[np.float64],
    n_similar: npt.NDArray[np.int_],
) -> None:
    """Update distances to the nearest selected vector, and counts of similar ones, in place."""
    distances = np.maximum(0.0, 1.0 - vectors @ vector)
    np.minimum(nearest, distances, out=nearest)
    n_similar += distances < _MIN_DISTANCE


def _vectors(packed: Sequence[bytes]) -> npt.NDArray[np.float32]:
    """Return unit vectors [shape=(n, values)]."""
    if not packed:
        return np.zeros((0, 0), np.float32)
    vectors = np.stack([np.frombuffer(one, np.int8) for one in packed]).astype(np.float32)
    return np.asarray(
        vectors / np.sqrt(np.square(vectors).sum(axis=1, keepdims=True) + np.float32(1e-6))
    )
