"""Miss rates and false alarms per hour on continuous audio, the figures to compare models by.

`kws_train.evaluate.stream_results` runs the runtime's own spotter over the streams; this module
scores what it returned.
"""

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from kws.config import DecisionSettings
from kws.decision import thresholds_for
from kws.manifest import CalibrationPoint, Manifest
from kws.matching import Matches
from kws_train.evaluate.det import (
    BUDGETS,
    DetCurve,
    OperatingPoint,
    count_errors,
    false_alarms_on_background,
    match_detections,
    operating_point,
)
from kws_train.evaluate.groups import (
    ClipMetadata,
    GroupScores,
    score_groups,
)
from kws_train.evaluate.stream_results import StreamResults

__all__ = ["ConditionScores", "StreamScores", "evaluate_stream"]


class ConditionScores(msgspec.Struct, frozen=True, kw_only=True):
    """Scores of one of several streams.

    Attributes
    ----------
    name : str
        Such as `10 dB`.
    hours : float
    n_words : int
    points, gated_points, speech_points : list of OperatingPoint
        As in `StreamScores`, of this stream alone.
    """

    name: str
    hours: float
    n_words: int
    points: list[OperatingPoint]
    gated_points: list[OperatingPoint]
    speech_points: list[OperatingPoint]


class StreamScores(msgspec.Struct, frozen=True, kw_only=True):
    """What `kws eval stream --json` prints.

    Attributes
    ----------
    hours : float
        Length of the streams together.
    n_words : int
        Keywords said in them.
    keywords : list of str
    points : list of OperatingPoint
        Without the gate: for each of `BUDGETS`, at the lowest threshold from which on the budget is
        met, or at the highest threshold tried where none meets it; then at the model's default.
    gated_points : list of OperatingPoint
        The same with the gate, as `kws listen` runs.
    speech_points : list of OperatingPoint
        Without the gate, for budgets of false alarms in speech without keywords alone.
    calibrated : list of OperatingPoint
        With the gate, at the thresholds of the model's calibration table; `budget` is the table's
        rate.
    miss_rate_per_keyword : dict of str to float
        At the default threshold.
    latency_ms : dict of str to float
        p50 and p95 from a word's end to its detection, at the default threshold; NaN, in JSON null,
        without a hit.
    gate_kept : float
        Share of the detections without the gate that also occur with it, at the default threshold;
        NaN without any.
    n_false_on_words : int
        False alarms at the default threshold that are one keyword taken for another.
    conditions : list of ConditionScores
        Each stream alone, where there are several.
    groups : list of GroupScores
        At the default threshold, and at the threshold for one false alarm per hour.
    """

    hours: float
    n_words: int
    keywords: list[str]
    points: list[OperatingPoint]
    gated_points: list[OperatingPoint]
    speech_points: list[OperatingPoint]
    calibrated: list[OperatingPoint]
    miss_rate_per_keyword: dict[str, float]
    latency_ms: dict[str, float]
    gate_kept: float
    n_false_on_words: int
    conditions: list[ConditionScores]
    groups: list[GroupScores]


def evaluate_stream(
    results: StreamResults, *, metadata: ClipMetadata | None = None
) -> StreamScores:
    """Count misses and false alarms on labelled streams.

    A hit is a detection of the right word between its start and half a second after its end
    (`kws.commands.demo.match`); every other detection is a false alarm.

    Parameters
    ----------
    results : StreamResults
        Of `kws_train.evaluate.stream_results.process_streams`.
    metadata : ClipMetadata, optional
        Groups of the keyword clips.
    """
    default = results.manifest.decision.threshold
    usual = match_detections(results.traces, results.streams, default)
    words = [word for matches in usual for word in (*matches.missed, *(w for w, _ in matches.hits))]
    said = Counter(word.word for word in words)
    missed = Counter(word.word for matches in usual for word in matches.missed)
    alone = results.per_stream() if len(results.streams) > 1 else []
    n_false = sum(len(matches.false) for matches in usual)
    n_on_background = sum(map(len, map(false_alarms_on_background, results.streams, usual)))
    return StreamScores(
        hours=results.curve.hours,
        n_words=len(words),
        keywords=list(results.manifest.keywords),
        points=_points(results.curve, default),
        gated_points=_points(results.gated_curve, default),
        speech_points=[results.curve.at_budget(one, in_speech=True) for one in BUDGETS],
        calibrated=[_calibrated(results, point) for point in results.manifest.calibration],
        miss_rate_per_keyword={word: missed[word] / n for word, n in sorted(said.items())},
        latency_ms=_latency_ms(results.manifest, usual),
        gate_kept=_gate_kept(results, default),
        n_false_on_words=n_false - n_on_background,
        conditions=[_condition(one) for one in alone],
        groups=_groups(results, metadata),
    )


def _points(curve: DetCurve, default: float) -> list[OperatingPoint]:
    return [*(curve.at_budget(budget) for budget in BUDGETS), curve.at_threshold(default)]


def _condition(results: StreamResults) -> ConditionScores:
    default = results.manifest.decision.threshold
    return ConditionScores(
        name=results.streams[0].name,
        hours=results.curve.hours,
        n_words=results.curve.n_words,
        points=_points(results.curve, default),
        gated_points=_points(results.gated_curve, default),
        speech_points=[results.curve.at_budget(one, in_speech=True) for one in BUDGETS],
    )


def _calibrated(results: StreamResults, row: CalibrationPoint) -> OperatingPoint:
    """Return the outcome of one row of the calibration table on these streams, with the gate."""
    budget = row.false_alarms_per_hour
    settings = DecisionSettings(false_alarms_per_hour=budget)
    thresholds = thresholds_for(settings, results.manifest)
    errors = count_errors(results.gated, results.streams, thresholds)
    same = len(set(thresholds.values())) == 1
    return operating_point(
        n_false=errors.n_false,
        n_missed=errors.n_missed,
        n_confused=errors.n_confused,
        hours=results.curve.hours,
        n_words=results.curve.n_words,
        threshold=next(iter(thresholds.values())) if same else float("nan"),
        budget=budget,
    )


def _latency_ms(manifest: Manifest, matches: Sequence[Matches]) -> dict[str, float]:
    late = [
        1000 * (detection.end_s - word.end_s) + manifest.decision.delay_ms
        for one in matches
        for word, detection in one.hits
    ] or [np.nan]
    return {"p50": float(np.percentile(late, 50)), "p95": float(np.percentile(late, 95))}


def _gate_kept(results: StreamResults, threshold: float) -> float:
    """Return the share of detections without the gate that also occur with it."""
    n_all = n_kept = 0
    for trace, gated in zip(results.traces, results.gated, strict=True):
        free, kept = (
            {(d.keyword, round(d.end_s, 1)) for d in one.detections(threshold)}
            for one in (trace, gated)
        )
        near = {(word, round(at + step, 1)) for word, at in kept for step in (-0.1, 0.0, 0.1)}
        n_all += len(free)
        n_kept += len(free & near)
    return n_kept / n_all if n_all else float("nan")


def _groups(results: StreamResults, metadata: ClipMetadata | None) -> list[GroupScores]:
    one_an_hour = results.curve.at_budget(1.0).threshold
    return [
        row
        for threshold in dict.fromkeys((results.manifest.decision.threshold, one_an_hour))
        for row in score_groups(
            results.streams,
            match_detections(results.traces, results.streams, threshold),
            threshold=threshold,
            metadata=metadata,
        )
    ]
