"""Figures of a new model: misses at budgets of false alarms, confusions, size and CPU time."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from kws.commands.bench import cpu_by_stage, recording
from kws.config import DecisionSettings
from kws.decision import thresholds_for
from kws.manifest import Manifest
from kws.model import Model, open_model
from kws_train.data.audio_files import read_samples
from kws_train.evaluate.det import OperatingPoint, wilson_interval
from kws_train.evaluate.stream import StreamScores, evaluate_stream
from kws_train.evaluate.stream_results import StreamResults
from kws_train.evaluate.traces import posterior_trace, silence_before
from kws_train.own_word.evaluation import describe_voices, negative_clips
from kws_train.own_word.people import MEASURED, Estimate, estimate_misses
from kws_train.own_word.prepare import n_test_recordings
from kws_train.own_word.workspace import Request, Workspace

__all__ = [
    "Figures",
    "confusions",
    "describe_figures",
    "measure_figures",
    "points_by_stream",
    "thresholds_at",
]

_CHUNK_MS = 80
_N_SHOWN_CONFUSIONS = 6
_MIN_CONFUSION_RATE = 0.1


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a model, stored as `figures.json`.

    Attributes
    ----------
    keywords : tuple of str
    tested_on : str
        Whose words were evaluated.
    n_words : int
    hours : float
        Of each stream.
    points : dict of str to tuple of OperatingPoint
        By stream, `clean` and `10 dB`: misses at each budget of `kws_train.evaluate.det.BUDGETS`,
        with the gate, at thresholds chosen afterwards; last, at the model's own threshold.
    thresholds : dict of str to float
        The model's own for the requested budget, calibrated on other speech.
    budget : float
    confused_by : dict of str to (int, int)
        Other words: detected clips and all clips; by confidence of a high rate.
    n_bytes : int
    cpu_ms : float
        Of the pipeline with the gate open, per second of audio, in chunks of 80 ms.
    minutes : float
        Training time of all calls together.
    people : dict of str to Estimate
        By stream: misses of people at the model's own threshold, estimated where only synthetic
        voices were tested.
    """

    keywords: tuple[str, ...]
    tested_on: str
    n_words: int
    hours: float
    points: dict[str, tuple[OperatingPoint, ...]]
    thresholds: dict[str, float]
    budget: float
    confused_by: dict[str, tuple[int, int]]
    n_bytes: int
    cpu_ms: float
    minutes: float
    people: dict[str, Estimate] = {}


def measure_figures(request: Request, workspace: Workspace, *, heard: StreamResults) -> Figures:
    """Measure the figures of the calibrated model of a workspace.

    Parameters
    ----------
    request : Request
    workspace : Workspace
    heard : StreamResults
        Its scores over `kws_train.own_word.evaluation.evaluation_streams`.
    """
    model = open_model(workspace.model)
    points = points_by_stream(evaluate_stream(heard))
    n_words = len(heard.streams[0].words)
    # The words to compare with were measured with heads.
    has_no_estimate = request.small or request.is_micro or n_test_recordings(request, workspace) > 0
    return Figures(
        keywords=model.manifest.keywords,
        tested_on=describe_voices(request, workspace),
        n_words=n_words,
        hours=heard.streams[0].duration_s / 3600,
        points=points,
        budget=request.budget,
        thresholds=thresholds_at(request.budget, model.manifest),
        confused_by=confusions(model, negative_clips(request, workspace), budget=request.budget),
        n_bytes=workspace.model.stat().st_size,
        cpu_ms=cpu_by_stage(model, recording(), chunk_ms=_CHUNK_MS)["all"],
        minutes=round(workspace.training_minutes, 1),
        people={} if has_no_estimate else _people(points, n_words=n_words),
    )


def points_by_stream(scores: StreamScores) -> dict[str, tuple[OperatingPoint, ...]]:
    """Return the operating points of each stream, with the gate."""
    return {one.name: tuple(one.gated_points) for one in scores.conditions}


def thresholds_at(budget: float, manifest: Manifest) -> dict[str, float]:
    """Return a model's own thresholds for a budget of false alarms per hour.

    A model of another format has no table: its threshold was set for the budget.
    """
    rate = budget if manifest.calibration else None
    return thresholds_for(DecisionSettings(false_alarms_per_hour=rate), manifest)


def confusions(
    model: Model, clips: Mapping[str, Sequence[Path]], *, budget: float
) -> dict[str, tuple[int, int]]:
    """Return the other words that are detected: how many of their clips, of how many.

    Parameters
    ----------
    model : Model
    clips : mapping of str to sequence of Path
        By text.
    budget : float
        False alarms per hour, which decides the threshold.
    """
    thresholds = thresholds_at(budget, model.manifest)
    counts = {
        text.replace("_", " "): (
            sum(_is_detected(model, path, thresholds) for path in paths),
            len(paths),
        )
        for text, paths in clips.items()
    }
    ordered = sorted(counts.items(), key=lambda one: -wilson_interval(*one[1])[0])
    return {text: one for text, one in ordered if one[0] >= max(1, _MIN_CONFUSION_RATE * one[1])}


def _people(points: Mapping[str, Sequence[OperatingPoint]], *, n_words: int) -> dict[str, Estimate]:
    """Estimate the misses of people at the model's own threshold, which comes last."""
    estimates = {
        name: estimate_misses(round(of[-1].miss_rate * n_words), n_words, MEASURED.get(name, ()))
        for name, of in points.items()
    }
    return {name: one for name, one in estimates.items() if one is not None}


def _is_detected(model: Model, path: Path, thresholds: Mapping[str, float]) -> bool:
    samples = np.concatenate((silence_before(model.manifest), read_samples(path)))
    return bool(posterior_trace(model, samples).detections(thresholds))


def describe_figures(
    figures: Figures,
    *,
    model: Path,
    report: Path,
    with_config: bool = True,
    is_micro: bool = False,
) -> str:
    """Return a summary of figures, by default with the lines for kws.toml or ESPHome."""
    lines = [
        f"{model}: {figures.n_bytes / 1000:.1f} kB, {figures.cpu_ms:.1f} ms of CPU time per second "
        f"of audio on this machine",
        f"misses of {figures.n_words} words ({figures.tested_on}) in {figures.hours:.1f} hours of "
        f"audio:",
    ]
    for name, points in figures.points.items():
        lines += [f"  {name:>6}  {_row(one)}" for one in points]
    if figures.people:
        lines += ["estimated misses of people, at the model's own threshold:"]
        lines += [
            f"  {name:>6}  {one.miss_rate:.0%} ({one.low:.0%} to {one.high:.0%}), from words of "
            f"which there are recordings"
            for name, one in figures.people.items()
        ]
    shown = list(figures.confused_by.items())[:_N_SHOWN_CONFUSIONS]
    confused = ", ".join(f"{text} ({n} of {n_all})" for text, (n, n_all) in shown)
    lines += [
        f"confused with: {confused or 'none of the tested words'}",
        f"report: {report}",
    ]
    if not with_config:
        return "\n".join(lines)
    if is_micro:
        json = model.with_suffix(".json").name
        lines += [
            f"in the device's ESPHome configuration, with {model.name} and {json} beside it:",
            "",
            "micro_wake_word:",
            "  models:",
            f"    - model: {json}",
        ]
        return "\n".join(lines)
    lines += [
        "in kws.toml:",
        "",
        "[model]",
        f'name = "{model.resolve()}"',
        "",
        "[decision]",
        f"false_alarms_per_hour = {figures.budget:g}",
    ]
    return "\n".join(lines)


def _row(point: OperatingPoint) -> str:
    miss, low, high = (100 * rate for rate in (point.miss_rate, point.miss_low, point.miss_high))
    missed = f"{miss:5.1f} % [{low:.1f}, {high:.1f}]"
    if point.budget is None:  # the threshold that the lines for kws.toml select
        return (
            f"at the model's own threshold, {point.threshold:.3f}: {missed} with "
            f"{point.fa_per_hour:.2f} false alarms/h [{point.fa_low:.2f}, {point.fa_high:.2f}]"
        )
    return f"{point.budget:3g} false alarms/h: {missed} at threshold {point.threshold:.3f}"
