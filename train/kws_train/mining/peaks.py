"""Peaks of a model's smoothed posteriors: possible keywords and false alarms."""

import msgspec
import numpy as np
import numpy.typing as npt

from kws.clip_sidecar import WORD_S
from kws.events import Detection, NearMiss
from kws.mined.folder import Kind
from kws_train.evaluate.traces import Trace

__all__ = ["MIN_SCORE", "MIN_SEPARATION_S", "Peak", "find_peaks", "merge_recorded_event"]

MIN_SEPARATION_S = 0.8
"""Minimum distance of two peaks."""
MIN_SCORE = 0.1
"""Minimum smoothed posterior of a peak."""
_NEAR_MISS_SHARE = 0.5  # of the threshold


class Peak(msgspec.Struct, frozen=True, kw_only=True):
    """A maximum of a keyword's smoothed posterior within `MIN_SEPARATION_S`.

    Attributes are as in `kws.mined.folder.Candidate`.
    """

    keyword: str
    score: float
    kind: Kind
    start_s: float
    end_s: float
    embedding: bytes


def find_peaks(
    trace: Trace, thresholds: dict[str, float], *, min_score: float = MIN_SCORE
) -> list[Peak]:
    """Return the peaks of all keywords with thresholds, at least `MIN_SEPARATION_S` apart, by time.

    Of peaks that are nearer, of the same keyword or of several, the highest is kept. Embeddings are
    empty.
    """
    columns = [trace.manifest.keywords.index(keyword) for keyword in thresholds]
    scores = trace.smoothed[:, columns]
    padded = np.pad(scores, ((1, 1), (0, 0)))
    is_maximum = (scores >= min_score) & (scores > padded[:-2]) & (scores >= padded[2:])
    maxima = sorted(zip(*np.nonzero(is_maximum), strict=True), key=lambda at: (-scores[at], at))
    chosen: list[Peak] = []
    ends: dict[int, float] = {}  # by bins of MIN_SEPARATION_S, for a linear search
    for output, column in maxima:
        onset = _onset(scores[:, column], int(output))
        end_s = max(0.1, trace.time_s(onset) - trace.manifest.decision.delay_ms / 1000)
        at = int(end_s / MIN_SEPARATION_S)
        near = [ends[i] for i in (at - 1, at, at + 1) if i in ends]
        if any(abs(one - end_s) < MIN_SEPARATION_S for one in near):
            continue
        ends[at] = end_s
        keyword = list(thresholds)[int(column)]
        score = float(scores[output, column])
        kind = _kind(score, thresholds[keyword])
        chosen.append(_peak_at(trace, keyword, score, end_s, kind=kind))
    return sorted(chosen, key=lambda peak: peak.end_s)


def merge_recorded_event(
    peaks: list[Peak], event: Detection | NearMiss, trace: Trace
) -> list[Peak]:
    """Add the daemon's event of a recording; it replaces a peak of the same keyword at that time.

    The event's score is kept if it is of the same model, which had processed more audio before;
    otherwise the score is this model's highest near the event.
    """
    kind: Kind = "detection" if isinstance(event, Detection) else "near_miss"
    late_s = trace.manifest.decision.delay_ms / 1000
    near = [
        peak
        for peak in peaks
        if abs(peak.end_s - event.end_s) < MIN_SEPARATION_S and peak.keyword == event.keyword
    ]
    score = trace.peak(event.keyword, event.end_s - 0.3, event.end_s + late_s + 0.4)
    if event.model == trace.manifest.name:
        score = event.score
    own = Peak(
        keyword=event.keyword,
        score=round(score, 4),
        kind=kind,
        start_s=event.end_s - WORD_S if event.start_s is None else event.start_s,
        end_s=event.end_s,
        embedding=b"",
    )
    return sorted([*(one for one in peaks if one not in near), own], key=lambda one: one.end_s)


def _onset(scores: npt.NDArray[np.float32], maximum: int) -> int:
    """Return the output at which a score exceeds half of its maximum, about that of a detection."""
    low = np.flatnonzero(scores[:maximum] < scores[maximum] / 2)
    return int(low[-1]) + 1 if len(low) else 0


def _peak_at(trace: Trace, keyword: str, score: float, end_s: float, *, kind: Kind) -> Peak:
    start_s = max(0.0, end_s - trace.manifest.decision.word_ms / 1000)
    return Peak(
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
    return "near_miss" if score >= _NEAR_MISS_SHARE * threshold else "peak"
