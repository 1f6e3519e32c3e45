"""A word out of a few recordings: templates matched to a stream of embeddings, in numpy.

Each recording is a sequence of unit vectors. Dynamic time warping follows the stream through every
template at once (Sakoe and Chiba 1978, steps of slope 0, 1 and 2, open start). A frame costs its
cosine distance to the template less a share of that to the nearest filler, one of the sounds of
speech in general, as in keyword-filler spotting (Rose and Paul 1990): what is near everything is
near nothing.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kws.errors import ModelError
from kws.manifest import Head

__all__ = ["TemplateHead", "pack_vectors", "unit_vectors"]

Vectors: TypeAlias = npt.NDArray[np.float32]
_FAR = np.float32(9.0)
_STEPS_TOGETHER = 7  # templates of one word end within this many steps of one another
_SLOPE = 25.0


class TemplateHead:
    """Turn embeddings into posteriors, one a keyword.

    Parameters
    ----------
    head : Head
        With at least one template.
    keywords : sequence of str
        In the order of the posteriors.
    n_values : int
        Size of an embedding.

    Raises
    ------
    ModelError
        If the sizes do not fit, or a keyword has no template.
    """

    def __init__(self, head: Head, *, keywords: tuple[str, ...], n_values: int) -> None:
        if {len(head.mean), len(head.std)} != {n_values}:
            raise _wrong(f"{n_values} values", f"{len(head.mean)} means, {len(head.std)} spreads")
        if {one.keyword for one in head.templates} != set(keywords):
            raise _wrong("templates for each of its keywords", "others, or none")
        self._head = head
        ordered = sorted(head.templates, key=lambda one: keywords.index(one.keyword))
        templates = [_unpack(one.vectors, n_values) for one in ordered]
        self._templates = np.concatenate(templates).T.copy()
        self._fillers = _unpack(head.fillers, n_values).T.copy()
        lengths = np.array([len(one) for one in templates])
        ends = np.cumsum(lengths)
        self._first, self._last = ends - lengths, ends - 1
        self._lengths = lengths.astype(np.float32)
        self._words = [
            np.flatnonzero([one.keyword == keyword for one in ordered]) for keyword in keywords
        ]
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._costs = np.full(self._templates.shape[1], _FAR, np.float32)
        self._recent = np.full((_STEPS_TOGETHER, len(self._lengths)), _FAR, np.float32)
        self._at = 0

    def step(self, embedding: Vectors, /) -> Vectors:
        """Take an embedding float32 [shape=(n_values,)]; return posteriors [shape=(keywords,)]."""
        scores = self.score(embedding)
        posteriors = 1 / (1 + np.exp(_SLOPE * (self._head.offset - scores)))
        return np.asarray(posteriors, np.float32)

    def score(self, embedding: Vectors, /) -> Vectors:
        """Do as `step`, but return scores: mean gain over the fillers a frame, at most about 1."""
        return self.score_unit(unit_vectors(embedding[None], self._head)[0])

    def score_unit(self, x: Vectors, /) -> Vectors:
        """Do as `score` with a vector that is whitened and of length 1 already."""
        filler = 1 - float((x @ self._fillers).max())
        local = 1 - x @ self._templates - np.float32(self._head.filler_share * filler)
        stay = self._costs
        move, skip = np.empty_like(stay), np.empty_like(stay)
        move[1:], skip[2:] = stay[:-1], stay[:-2]
        move[self._first] = 0.0  # a word may begin at any time
        skip[self._first], skip[self._first + 1] = _FAR, 0.0
        self._costs = np.minimum(np.minimum(stay, move), skip) + local
        self._recent[self._at] = self._costs[self._last] / self._lengths
        self._at = (self._at + 1) % _STEPS_TOGETHER
        best = self._recent.min(axis=0)
        return np.array([-_better_half(best[word]) for word in self._words], np.float32)


def unit_vectors(embeddings: Vectors, head: Head) -> Vectors:
    """Whiten embeddings [shape=(n, n_values)] by the head's statistics; scale them to length 1."""
    z = (embeddings - np.asarray(head.mean, np.float32)) / np.asarray(head.std, np.float32)
    unit: Vectors = z / np.sqrt(np.square(z).sum(axis=1, keepdims=True) + np.float32(1e-6))
    return unit


def pack_vectors(unit: Vectors) -> bytes:
    """Return unit vectors as int8, 1/127 a step."""
    return np.rint(unit * 127).astype(np.int8).tobytes()


def _unpack(packed: bytes, n_values: int) -> Vectors:
    if not packed or len(packed) % n_values or len(packed) < 2 * n_values:
        raise _wrong(f"two or more vectors of {n_values} bytes", f"{len(packed)} bytes")
    return np.frombuffer(packed, np.int8).reshape(-1, n_values).astype(np.float32) / np.float32(127)


def _better_half(costs: npt.NDArray[Any]) -> float:
    """Return the mean over the templates that fit best: one bad recording does no harm."""
    return float(np.sort(costs)[: (len(costs) + 1) // 2].mean())


def _wrong(rule: str, received: str) -> ModelError:
    return ModelError(
        f"The head of an enrolled model must hold {rule}. Received: {received}. "
        f"Make it again with `kws enroll`."
    )
