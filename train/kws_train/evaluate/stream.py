"""How good a model file is on continuous audio, by the runtime that ships: the figure that matters.

`hear` runs the model, `evaluate_stream` counts its misses and false alarms.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np

from kws.config import DecisionSettings, GateSettings
from kws.decision import thresholds_for
from kws.manifest import CalibrationPoint, Manifest
from kws.matching import Matches
from kws.model import Model
from kws_train.evaluate.build_stream import Stream
from kws_train.evaluate.det import BUDGETS, Curve, Point, count, decide, point, sweep
from kws_train.evaluate.groups import Group, Metadata, group, on_background
from kws_train.evaluate.traces import Trace, listen

__all__ = ["Condition", "Heard", "StreamScores", "evaluate_stream", "hear"]


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One of several streams, by itself.

    Attributes
    ----------
    name : str
        Such as `10 dB`.
    hours : float
    n_words : int
    points, gated_points : list of Point
        As in `StreamScores`, of this stream alone.
    """

    name: str
    hours: float
    n_words: int
    points: list[Point]
    gated_points: list[Point]


class StreamScores(msgspec.Struct, frozen=True, kw_only=True):
    """What `kws eval stream --json` prints.

    Attributes
    ----------
    hours : float
        Length of the streams together.
    n_words : int
        Keywords said in them.
    keywords : list of str
    points : list of Point
        Without the gate: for each of `BUDGETS`, the lowest threshold from which on it is kept to,
        or the highest there is where none does; then the model's default.
    gated_points : list of Point
        The same with the gate, as `kws listen` runs.
    calibrated : list of Point
        With the gate, at the thresholds of the model's calibration table; `budget` is what the
        table promises.
    miss_rate_per_keyword : dict of str to float
        At the default threshold.
    latency_ms : dict of str to float
        p50 and p95 from a word's end to the moment of its detection, at the default threshold; NaN,
        in JSON null, without a hit.
    gate_kept : float
        Share of the detections made without the gate that are made with it, at the default
        threshold; NaN without any.
    n_false_on_words : int
        Of the false alarms at the default threshold, those that are one keyword taken for another.
    conditions : list of Condition
        Each stream by itself, where there are several.
    groups : list of Group
        At the default threshold, and at that for one false alarm an hour.
    """

    hours: float
    n_words: int
    keywords: list[str]
    points: list[Point]
    gated_points: list[Point]
    calibrated: list[Point]
    miss_rate_per_keyword: dict[str, float]
    latency_ms: dict[str, float]
    gate_kept: float
    n_false_on_words: int
    conditions: list[Condition]
    groups: list[Group]


@dataclass(frozen=True)
class Heard:
    """What a model said over streams, with the gate and, where that is asked for, without it."""

    manifest: Manifest
    streams: Sequence[Stream]
    gated: Sequence[Trace]
    without_gate: Callable[[], Sequence[Trace]]

    @cached_property
    def traces(self) -> Sequence[Trace]:
        """What the model said without the gate; heard when first asked for, which takes longest."""
        return self.without_gate()

    @cached_property
    def curve(self) -> Curve:
        """Misses against false alarms over all streams, without the gate."""
        return self._sweep(self.traces, self.streams)

    @cached_property
    def gated_curve(self) -> Curve:
        """The same with the gate."""
        return self._sweep(self.gated, self.streams)

    def curves(self) -> dict[str, Curve]:
        """Return the curve of each stream with the gate and, of a single one, without it too."""
        if len(self.streams) > 1:
            return self.by_condition()
        name = self.streams[0].name
        return {f"{name}, gate on": self.gated_curve, f"{name}, gate off": self.curve}

    def by_condition(self) -> dict[str, Curve]:
        """Return the curve of each condition with the gate; streams of one name count together."""
        named: dict[str, list[int]] = {}
        for i, stream in enumerate(self.streams):
            named.setdefault(stream.name, []).append(i)
        return {
            name: self._sweep([self.gated[i] for i in among], [self.streams[i] for i in among])
            for name, among in named.items()
        }

    @cached_property
    def alone(self) -> "list[Heard]":
        """Return each stream by itself."""
        return [self._alone(i) for i in range(len(self.streams))]

    def _alone(self, i: int) -> "Heard":
        return Heard(self.manifest, [self.streams[i]], [self.gated[i]], lambda: [self.traces[i]])

    def _sweep(self, traces: Sequence[Trace], streams: Sequence[Stream]) -> Curve:
        return sweep(traces, streams, default=self.manifest.decision.threshold)


def hear(model: Model, streams: Sequence[Stream]) -> Heard:
    """Run the runtime's spotter over streams, with the gate."""
    return Heard(
        model.manifest,
        streams,
        [listen(model, stream.samples, gate=GateSettings()) for stream in streams],
        lambda: [listen(model, stream.samples) for stream in streams],
    )


def evaluate_stream(heard: Heard, *, metadata: Metadata | None = None) -> StreamScores:
    """Count misses and false alarms on labelled streams, at every threshold that tells apart.

    A hit is a detection of the right word between its start and half a second after its end
    (`kws.commands.demo.match`); all else is a false alarm.

    Parameters
    ----------
    heard : Heard
        From `hear`.
    metadata : Metadata, optional
        Groups of the keyword clips.
    """
    default = heard.manifest.decision.threshold
    usual = decide(heard.traces, heard.streams, default)
    words = [word for matches in usual for word in (*matches.missed, *(w for w, _ in matches.hits))]
    said = Counter(word.word for word in words)
    missed = Counter(word.word for matches in usual for word in matches.missed)
    alone = heard.alone if len(heard.streams) > 1 else []
    n_false = sum(len(matches.false) for matches in usual)
    n_on_background = sum(map(len, map(on_background, heard.streams, usual)))
    return StreamScores(
        hours=heard.curve.hours,
        n_words=len(words),
        keywords=list(heard.manifest.keywords),
        points=_points(heard.curve, default),
        gated_points=_points(heard.gated_curve, default),
        calibrated=[_calibrated(heard, point) for point in heard.manifest.calibration],
        miss_rate_per_keyword={word: missed[word] / n for word, n in sorted(said.items())},
        latency_ms=_latency_ms(heard.manifest, usual),
        gate_kept=_gate_kept(heard, default),
        n_false_on_words=n_false - n_on_background,
        conditions=[_condition(one) for one in alone],
        groups=_groups(heard, metadata),
    )


def _points(curve: Curve, default: float) -> list[Point]:
    return [*(curve.at_budget(budget) for budget in BUDGETS), curve.at_threshold(default)]


def _condition(heard: Heard) -> Condition:
    default = heard.manifest.decision.threshold
    return Condition(
        name=heard.streams[0].name,
        hours=heard.curve.hours,
        n_words=heard.curve.n_words,
        points=_points(heard.curve, default),
        gated_points=_points(heard.gated_curve, default),
    )


def _calibrated(heard: Heard, promised: CalibrationPoint) -> Point:
    """Return what comes of a row of the calibration table on these streams, with the gate."""
    budget = promised.false_alarms_per_hour
    settings = DecisionSettings(false_alarms_per_hour=budget)
    thresholds = thresholds_for(settings, heard.manifest)
    n_false, n_missed = count(heard.gated, heard.streams, thresholds)
    same = len(set(thresholds.values())) == 1
    return point(
        n_false=n_false,
        n_missed=n_missed,
        hours=heard.curve.hours,
        n_words=heard.curve.n_words,
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


def _gate_kept(heard: Heard, threshold: float) -> float:
    """Compare what is said with the gate to what is said without it."""
    n_all = n_kept = 0
    for trace, gated in zip(heard.traces, heard.gated, strict=True):
        free, kept = (
            {(d.keyword, round(d.end_s, 1)) for d in one.detections(threshold)}
            for one in (trace, gated)
        )
        near = {(word, round(at + step, 1)) for word, at in kept for step in (-0.1, 0.0, 0.1)}
        n_all += len(free)
        n_kept += len(free & near)
    return n_kept / n_all if n_all else float("nan")


def _groups(heard: Heard, metadata: Metadata | None) -> list[Group]:
    one_an_hour = heard.curve.at_budget(1.0).threshold
    return [
        row
        for threshold in dict.fromkeys((heard.manifest.decision.threshold, one_an_hour))
        for row in group(
            heard.streams,
            decide(heard.traces, heard.streams, threshold),
            threshold=threshold,
            metadata=metadata,
        )
    ]
