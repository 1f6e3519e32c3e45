"""Misses against false alarms at every threshold, with intervals: the detection error trade-off.

Martin et al. 1997, "The DET curve in assessment of detection task performance".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import stats

from kws.matching import Matches, match
from kws_train.evaluate.build_stream import Stream
from kws_train.evaluate.traces import Trace

__all__ = [
    "BUDGETS",
    "Curve",
    "Point",
    "count",
    "decide",
    "point",
    "poisson_interval",
    "sweep",
    "wilson_interval",
]

BUDGETS = (0.1, 0.2, 0.5, 1.0)
"""False alarms per hour that misses are stated at."""

_LEAST = 0.3
_N_TOP = 500
_N_REST = 300


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One threshold's outcome, with 95 % intervals (Poisson, Wilson)."""

    budget: float | None
    """The false alarms per hour asked for; None at the default threshold."""
    fa_per_hour: float
    fa_low: float
    fa_high: float
    threshold: float
    miss_rate: float
    miss_low: float
    miss_high: float


@dataclass(frozen=True)
class Curve:
    """Counts at rising thresholds.

    Attributes
    ----------
    thresholds : float [shape=(n,)]
    n_false, n_missed : int [shape=(n,)]
    hours : float
    n_words : int
    """

    thresholds: npt.NDArray[np.float64]
    n_false: npt.NDArray[np.int64]
    n_missed: npt.NDArray[np.int64]
    hours: float
    n_words: int

    def at_budget(self, budget: float) -> Point:
        """Return the lowest threshold from which on no more than `budget` false alarms an hour.

        Where not even the highest keeps to it, that one.
        """
        over = np.flatnonzero(self.n_false > budget * self.hours)
        i = min(over[-1] + 1 if len(over) else 0, len(self.thresholds) - 1)
        return self._point(int(i), budget)

    def at_threshold(self, threshold: float) -> Point:
        """Return the outcome at one of the thresholds."""
        return self._point(int(np.searchsorted(self.thresholds, threshold - 1e-9)), None)

    def _point(self, i: int, budget: float | None) -> Point:
        return point(
            n_false=int(self.n_false[i]),
            n_missed=int(self.n_missed[i]),
            hours=self.hours,
            n_words=self.n_words,
            threshold=float(self.thresholds[i]),
            budget=budget,
        )


def point(
    *,
    n_false: int,
    n_missed: int,
    hours: float,
    n_words: int,
    threshold: float,
    budget: float | None,
) -> Point:
    """Turn counts into rates with their intervals."""
    fa_low, fa_high = poisson_interval(n_false)
    miss_low, miss_high = wilson_interval(n_missed, n_words)
    return Point(
        budget=budget,
        fa_per_hour=n_false / hours,
        fa_low=fa_low / hours,
        fa_high=fa_high / hours,
        threshold=threshold,
        miss_rate=n_missed / max(1, n_words),
        miss_low=miss_low,
        miss_high=miss_high,
    )


def sweep(
    traces: Sequence[Trace], streams: Sequence[Stream], *, default: float | None = None
) -> Curve:
    """Count misses and false alarms over all streams together.

    Parameters
    ----------
    traces, streams : sequences
        What the model said over each stream.
    default : float, optional
        A threshold to be among those tried. The others are the scores that were reached: all of the
        highest 500, and 300 of those below, down to 0.3; and one beyond them all.
    """
    levels = np.unique(np.concatenate([trace.levels() for trace in traces])).astype(float)
    levels = levels[levels >= _LEAST]
    rest, top = levels[:-_N_TOP], levels[-_N_TOP:]
    if len(rest) > _N_REST:
        rest = rest[np.linspace(0, len(rest) - 1, _N_REST).astype(int)]
    beyond = min(1.0, 1e-3 + float(levels[-1])) if len(levels) else 1.0
    wanted = [_LEAST, beyond, *([] if default is None else [default])]
    thresholds = np.unique(np.concatenate((rest, top, wanted)))
    counts = np.array([count(traces, streams, float(threshold)) for threshold in thresholds])
    lowest = decide(traces, streams, float(thresholds[0]))
    return Curve(
        thresholds,
        n_false=counts[:, 0],
        n_missed=counts[:, 1],
        hours=sum(stream.duration_s for stream in streams) / 3600,
        n_words=sum(len(one.hits) + len(one.missed) for one in lowest),
    )


def decide(
    traces: Sequence[Trace], streams: Sequence[Stream], thresholds: float | dict[str, float]
) -> list[Matches]:
    """Match what is detected at these thresholds to what was said, stream by stream."""
    return [
        match(stream.words, trace.detections(thresholds), keywords=trace.manifest.keywords)
        for trace, stream in zip(traces, streams, strict=True)
    ]


def count(
    traces: Sequence[Trace], streams: Sequence[Stream], thresholds: float | dict[str, float]
) -> tuple[int, int]:
    """Return the false alarms and the misses at these thresholds, over all streams together."""
    outcomes = decide(traces, streams, thresholds)
    return sum(len(one.false) for one in outcomes), sum(len(one.missed) for one in outcomes)


def poisson_interval(n: int) -> tuple[float, float]:
    """Return the 95 % interval of an expected count of which `n` were seen (Garwood 1936)."""
    low = float(stats.chi2.ppf(0.025, 2 * n)) / 2 if n else 0.0
    return low, float(stats.chi2.ppf(0.975, 2 * n + 2)) / 2


def wilson_interval(n: int, n_all: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of which `n` in `n_all` were seen (Wilson 1927)."""
    if not n_all:
        return 0.0, 1.0
    interval = stats.binomtest(n, n_all).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
