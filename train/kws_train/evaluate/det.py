"""Detection error trade-off (DET): miss rate against false alarms per hour, with intervals.

Martin et al. 1997, "The DET curve in assessment of detection task performance".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import stats

from kws.events import Detection
from kws.matching import TOLERANCE_S, Matches, match
from kws_train.evaluate.build_stream import Stream
from kws_train.evaluate.traces import Trace

__all__ = [
    "BUDGETS",
    "DetCurve",
    "Errors",
    "OperatingPoint",
    "count_errors",
    "det_curve",
    "false_alarms_on_background",
    "false_alarms_within",
    "match_detections",
    "operating_point",
    "poisson_interval",
    "wilson_interval",
]

BUDGETS = (0.1, 0.2, 0.5, 1.0)
"""False alarms per hour that miss rates are stated at."""

_LEAST = 0.3
_FULL_LENGTH = 1.01  # of what a stream was meant to last, relative to what it lasts at the least
_N_TOP = 500
_N_REST = 300


class OperatingPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Miss rate and false alarms per hour at one threshold, with 95 % intervals.

    False alarms are of two kinds, in speech without a keyword and a keyword taken for another;
    `fa_per_hour` is their sum.
    """

    budget: float | None
    """The permitted false alarms per hour; None at the default threshold."""
    fa_per_hour: float
    fa_low: float
    fa_high: float
    threshold: float
    miss_rate: float
    miss_low: float
    miss_high: float
    speech_fa_per_hour: float | None = None
    """False alarms in speech without a keyword; None where they were not counted apart."""
    speech_fa_low: float | None = None
    speech_fa_high: float | None = None
    confused_rate: float | None = None
    """Keywords taken for another, as a share of the keywords said."""


class Errors(NamedTuple):
    """Counts at one threshold."""

    n_false: int
    n_missed: int
    n_confused: int
    """False alarms that are a keyword taken for another."""


@dataclass(frozen=True)
class DetCurve:
    """Counts at increasing thresholds.

    Attributes
    ----------
    thresholds : float [shape=(n,)]
    n_false, n_missed : int [shape=(n,)]
    hours : float
    n_words : int
    n_confused : int [shape=(n,)], optional
        False alarms that are a keyword taken for another.
    """

    thresholds: npt.NDArray[np.float64]
    n_false: npt.NDArray[np.int64]
    n_missed: npt.NDArray[np.int64]
    hours: float
    n_words: int
    n_confused: npt.NDArray[np.int64] | None = None

    def at_budget(self, budget: float, *, in_speech: bool = False) -> OperatingPoint:
        """Return the outcome at the lowest threshold from which on the budget is met.

        At the highest threshold tried, where that exceeds the budget too. `in_speech` counts false
        alarms in speech alone.
        """
        n_false = self.n_false
        if in_speech and self.n_confused is not None:
            n_false = n_false - self.n_confused
        over = np.flatnonzero(n_false > false_alarms_within(budget, hours=self.hours))
        i = min(over[-1] + 1 if len(over) else 0, len(self.thresholds) - 1)
        return self._point(int(i), budget)

    def mean_misses(self, n_false: Iterable[int] = range(1, 7)) -> float:
        """Return the mean miss rate at these numbers of false alarms: a single one says little."""
        points = (self.at_budget((n + 0.01) / self.hours) for n in n_false)
        return float(np.mean([one.miss_rate for one in points]))

    def at_threshold(self, threshold: float) -> OperatingPoint:
        """Return the outcome at one of the thresholds."""
        return self._point(int(np.searchsorted(self.thresholds, threshold - 1e-9)), None)

    def _point(self, i: int, budget: float | None) -> OperatingPoint:
        return operating_point(
            n_false=int(self.n_false[i]),
            n_missed=int(self.n_missed[i]),
            hours=self.hours,
            n_words=self.n_words,
            threshold=float(self.thresholds[i]),
            budget=budget,
            n_confused=None if self.n_confused is None else int(self.n_confused[i]),
        )


def false_alarms_within(per_hour: float, *, hours: float) -> float:
    """Return how many false alarms a rate permits.

    A stream ends with its last whole utterance: one of an hour, some seconds short of it, still has
    room for one false alarm at one per hour.
    """
    return per_hour * hours * _FULL_LENGTH


def operating_point(
    *,
    n_false: int,
    n_missed: int,
    hours: float,
    n_words: int,
    threshold: float,
    budget: float | None,
    n_confused: int | None = None,
) -> OperatingPoint:
    """Convert counts to rates with 95 % intervals: Poisson (Garwood 1936), Wilson (1927)."""
    apart = {}
    if n_confused is not None:
        low, high = poisson_interval(n_false - n_confused)
        apart = {
            "speech_fa_per_hour": (n_false - n_confused) / hours,
            "speech_fa_low": low / hours,
            "speech_fa_high": high / hours,
            "confused_rate": n_confused / max(1, n_words),
        }
    fa_low, fa_high = poisson_interval(n_false)
    miss_low, miss_high = wilson_interval(n_missed, n_words)
    return OperatingPoint(
        budget=budget,
        fa_per_hour=n_false / hours,
        fa_low=fa_low / hours,
        fa_high=fa_high / hours,
        threshold=threshold,
        miss_rate=n_missed / max(1, n_words),
        miss_low=miss_low,
        miss_high=miss_high,
        **apart,
    )


def det_curve(
    traces: Sequence[Trace], streams: Sequence[Stream], *, default: float | None = None
) -> DetCurve:
    """Count misses and false alarms over all streams together.

    Parameters
    ----------
    traces, streams : sequences
        The posteriors of each stream.
    default : float, optional
        A threshold to include. The others are the peaks of the smoothed posteriors: all of the
        highest 500, and 300 of those below, down to 0.3; and one above all of them.
    """
    levels = np.unique(np.concatenate([trace.levels() for trace in traces])).astype(float)
    levels = levels[levels >= _LEAST]
    rest, top = levels[:-_N_TOP], levels[-_N_TOP:]
    if len(rest) > _N_REST:
        rest = rest[np.linspace(0, len(rest) - 1, _N_REST).astype(int)]
    beyond = min(1.0, 1e-3 + float(levels[-1])) if len(levels) else 1.0
    wanted = [_LEAST, beyond, *([] if default is None else [default])]
    thresholds = np.unique(np.concatenate((rest, top, wanted)))
    counts = np.array([count_errors(traces, streams, float(threshold)) for threshold in thresholds])
    lowest = match_detections(traces, streams, float(thresholds[0]))
    return DetCurve(
        thresholds,
        n_false=counts[:, 0],
        n_missed=counts[:, 1],
        n_confused=counts[:, 2],
        hours=sum(stream.duration_s for stream in streams) / 3600,
        n_words=sum(len(one.hits) + len(one.missed) for one in lowest),
    )


def match_detections(
    traces: Sequence[Trace], streams: Sequence[Stream], thresholds: float | dict[str, float]
) -> list[Matches]:
    """Match the detections at these thresholds to the words said, stream by stream."""
    return [
        match(stream.words, trace.detections(thresholds), keywords=trace.manifest.keywords)
        for trace, stream in zip(traces, streams, strict=True)
    ]


def count_errors(
    traces: Sequence[Trace], streams: Sequence[Stream], thresholds: float | dict[str, float]
) -> Errors:
    """Count errors at these thresholds, over all streams together."""
    outcomes = match_detections(traces, streams, thresholds)
    n_false = sum(len(one.false) for one in outcomes)
    in_speech = map(false_alarms_on_background, streams, outcomes)
    return Errors(
        n_false,
        n_missed=sum(len(one.missed) for one in outcomes),
        n_confused=n_false - sum(map(len, in_speech)),
    )


def false_alarms_on_background(stream: Stream, matches: Matches) -> list[Detection]:
    """Return the false alarms near no word; the others are substitutions of keywords."""
    return [
        detection
        for detection in matches.false
        if not any(
            word.start_s <= detection.end_s <= word.end_s + TOLERANCE_S for word in stream.words
        )
    ]


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
