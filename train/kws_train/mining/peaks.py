"""Where a model's posterior rises: what may be a keyword, or be taken for one."""

import msgspec
import numpy as np
import numpy.typing as npt

from kws.events import Detection, NearMiss
from kws_train.evaluate.traces import Trace
from kws_train.mining.folder import Kind

__all__ = ["APART_S", "LEAST", "WORD_S", "Rise", "rises_in", "with_recorded"]

APART_S = 0.8
WORD_S = 0.6
"""Length of a word whose start is unknown."""
"""Two moments that are nearer are one."""
LEAST = 0.1
"""A smoothed posterior below which nothing is a candidate."""
_NEAR_MISS = 0.5  # of the threshold


class Rise(msgspec.Struct, frozen=True, kw_only=True):
    """A place where a keyword's smoothed posterior is at its highest for `APART_S` around.

    Attributes are as in `kws_train.mining.folder.Candidate`.
    """

    keyword: str
    score: float
    kind: Kind
    start_s: float
    end_s: float
    embedding: bytes


def rises_in(trace: Trace, thresholds: dict[str, float], *, least: float = LEAST) -> list[Rise]:
    """Return where scores are highest, at least `APART_S` from one another, by time.

    At one moment only the keyword that is highest counts. Embeddings are left empty.
    """
    columns = [trace.manifest.keywords.index(keyword) for keyword in thresholds]
    scores = trace.smoothed[:, columns]
    padded = np.pad(scores, ((1, 1), (0, 0)))
    is_top = (scores >= least) & (scores > padded[:-2]) & (scores >= padded[2:])
    tops = sorted(zip(*np.nonzero(is_top), strict=True), key=lambda top: (-scores[top], top))
    chosen: list[Rise] = []
    taken: set[int] = set()  # by bins of APART_S, so that an hour is no matter of squares
    ends: dict[int, float] = {}
    for output, column in tops:
        begun = _begin(scores[:, column], int(output))
        end_s = max(0.1, trace.time_s(begun) - trace.manifest.decision.delay_ms / 1000)
        at = int(end_s / APART_S)
        if any(i in taken and abs(ends[i] - end_s) < APART_S for i in (at - 1, at, at + 1)):
            continue
        taken.add(at)
        ends[at] = end_s
        keyword = list(thresholds)[int(column)]
        score = float(scores[output, column])
        chosen.append(_rise(trace, keyword, score, end_s, kind=_kind(score, thresholds[keyword])))
    return sorted(chosen, key=lambda rise: rise.end_s)


def with_recorded(rises: list[Rise], event: Detection | NearMiss, trace: Trace) -> list[Rise]:
    """Add what made the daemon record; where the model rises there as well, that is what it is.

    The daemon's score counts if it was this model's: it was heard with all that came before.
    """
    kind: Kind = "detection" if isinstance(event, Detection) else "near_miss"
    late_s = trace.manifest.decision.delay_ms / 1000
    near = [
        rise
        for rise in rises
        if abs(rise.end_s - event.end_s) < APART_S and rise.keyword == event.keyword
    ]
    score = trace.peak(event.keyword, event.end_s - 0.3, event.end_s + late_s + 0.4)
    if event.model == trace.manifest.name:
        score = event.score
    own = Rise(
        keyword=event.keyword,
        score=round(score, 4),
        kind=kind,
        start_s=event.end_s - WORD_S if event.start_s is None else event.start_s,
        end_s=event.end_s,
        embedding=b"",
    )
    return sorted([*(one for one in rises if one not in near), own], key=lambda one: one.end_s)


def _begin(scores: npt.NDArray[np.float32], top: int) -> int:
    """Return where a score comes over half of its top: about where a detection would be made."""
    low = np.flatnonzero(scores[:top] < scores[top] / 2)
    return int(low[-1]) + 1 if len(low) else 0


def _rise(trace: Trace, keyword: str, score: float, end_s: float, *, kind: Kind) -> Rise:
    start_s = max(0.0, end_s - trace.manifest.decision.word_ms / 1000)
    return Rise(
        keyword=keyword,
        score=round(score, 4),
        kind=kind,
        start_s=round(start_s, 3),
        end_s=round(end_s, 3),
        embedding=b"",
    )


def _kind(score: float, threshold: float) -> Kind:
    if score >= threshold:
        return "detection"
    return "near_miss" if score >= _NEAR_MISS * threshold else "peak"
