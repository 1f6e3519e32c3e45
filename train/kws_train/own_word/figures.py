"""What a new model is good for: misses at budgets of false alarms, what it confuses, its cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from kws.commands.bench import cpu_by_stage, recording
from kws.config import DecisionSettings
from kws.decision import thresholds_for
from kws.model import Model
from kws_train.data.audio_files import read_samples
from kws_train.evaluate.det import OperatingPoint, wilson_interval
from kws_train.evaluate.stream import StreamScores
from kws_train.evaluate.traces import posterior_trace

__all__ = ["Outcome", "confusers", "cpu_ms", "describe", "points_of"]

_CHUNK_MS = 80
_N_CONFUSERS = 6
_LEAST_SHARE = 0.1


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a model, as `outcome.json` holds them.

    Attributes
    ----------
    keywords : tuple of str
    tested_on : str
        Whose words were missed or not.
    n_words : int
    hours : float
        Of each stream.
    points : dict of str to tuple of OperatingPoint
        By stream, `clean` and `10 dB`: misses at each budget of `kws_train.evaluate.det.BUDGETS`,
        with the gate, thresholds chosen afterwards; last, at the model's own threshold.
    thresholds : dict of str to float
        The model's own for the budget asked for, set on other speech.
    budget : float
    confused_by : dict of str to (int, int)
        What was said, how many of its clips fire, and how many there are; the surest first.
    n_bytes : int
    cpu_ms : float
        Of the pipeline with the gate open, per second of audio, in chunks of 80 ms.
    minutes : float
        That training took, in all calls together.
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


def points_of(scores: StreamScores) -> dict[str, tuple[OperatingPoint, ...]]:
    """Return the rows of each stream, with the gate."""
    return {one.name: tuple(one.gated_points) for one in scores.conditions}


def confusers(
    model: Model, clips: Mapping[str, Sequence[Path]], *, budget: float
) -> dict[str, tuple[int, int]]:
    """Return which other words fire at the threshold of a budget: how many of their clips, of all.

    Parameters
    ----------
    model : Model
    clips : mapping of str to sequence of Path
        By what is said.
    budget : float
    """
    settings = DecisionSettings(false_alarms_per_hour=budget)
    thresholds = thresholds_for(settings, model.manifest)
    counts = {
        said.replace("_", " "): (
            sum(
                bool(posterior_trace(model, read_samples(path)).detections(thresholds))
                for path in paths
            ),
            len(paths),
        )
        for said, paths in clips.items()
    }
    surest = sorted(counts.items(), key=lambda one: -wilson_interval(*one[1])[0])
    return {said: (n, n_all) for said, (n, n_all) in surest if n >= _LEAST_SHARE * n_all and n}


def cpu_ms(model: Model) -> float:
    """Return what the pipeline costs on this machine, in ms of CPU per second of audio."""
    return cpu_by_stage(model, recording(), chunk_ms=_CHUNK_MS)["all"]


def describe(outcome: Outcome, *, model: Path, report: Path) -> str:
    """Put an outcome in words, with the lines for kws.toml."""
    lines = [
        f"{model}: {outcome.n_bytes / 1000:.1f} kB, {outcome.cpu_ms:.1f} ms of CPU per second of "
        f"audio here",
        f"missed, of {outcome.n_words} words ({outcome.tested_on}) in {outcome.hours:.1f} hours:",
    ]
    for name, points in outcome.points.items():
        lines += [f"  {name:>6}  {_row(one)}" for one in points]
    worst = list(outcome.confused_by.items())[:_N_CONFUSERS]
    confused = ", ".join(f"{said} ({n} of {n_all})" for said, (n, n_all) in worst)
    lines += [
        f"confused by: {confused or 'none of the words tried'}",
        f"report: {report}",
        "in kws.toml:",
        "",
        "[model]",
        f'name = "{model.resolve()}"',
        "",
        "[decision]",
        f"false_alarms_per_hour = {outcome.budget:g}",
    ]
    return "\n".join(lines)


def _row(point: OperatingPoint) -> str:
    miss, low, high = (100 * rate for rate in (point.miss_rate, point.miss_low, point.miss_high))
    missed = f"{miss:5.1f} % [{low:.1f}, {high:.1f}]"
    if point.budget is None:  # the lines for kws.toml stand for this threshold
        return (
            f"as it is set, {point.threshold:.3f}: {missed} at {point.fa_per_hour:.2f} false "
            f"alarms/h [{point.fa_low:.2f}, {point.fa_high:.2f}]"
        )
    return f"{point.budget:3g} false alarms/h: {missed} from {point.threshold:.3f} on"
