"""How good is a model file? Measured with the runtime that ships, on data that no training saw.

`evaluate_clips` sorts isolated clips into the model's labels: the usual figure of the literature.
`evaluate_stream` counts misses and false alarms on continuous audio: the figure that matters.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import stats

from kws.config import GateSettings
from kws.decision import Decision
from kws.demo import Matches, match
from kws.errors import ConfigError, FormatError, ModelError
from kws.events import Detection
from kws.features import Features
from kws.manifest import SILENCE, UNKNOWN
from kws.model import Model
from kws.spotter import Spotter
from kws.train.data import AUDIO_SUFFIXES, official_split, read_samples
from kws.train.streams import Stream

__all__ = [
    "BUDGETS",
    "TAIL_SAMPLES",
    "ClipScores",
    "Point",
    "StreamScores",
    "evaluate_clips",
    "evaluate_stream",
    "labelled_clips",
    "posteriors_of",
    "read_out",
]

SplitName: TypeAlias = Literal["train", "validation", "test", "all"]
Posteriors: TypeAlias = npt.NDArray[np.floating[Any]]

BUDGETS = (0.1, 0.2, 0.5, 1.0)
"""False alarms per hour that misses are stated at."""

_GRID = (*(round(0.3 + 0.02 * i, 2) for i in range(34)), 0.97, 0.975, 0.98, 0.985, 0.99, 0.993)
TAIL_SAMPLES = 8000  # a model answers up to half a second after a word
_SMOOTHING_MS = 60.0


class ClipScores(msgspec.Struct, frozen=True, kw_only=True):
    """What `kws eval clips --json` prints.

    Attributes
    ----------
    accuracy : float
        Share of clips sorted right, 0..1.
    n : int
        Clips.
    labels : list of str
    confusion : list of list of int
        Rows are true labels, columns what the model said.
    model_bytes : int
    recall : dict of str to float
        Per label that has clips.
    unreadable : list of str
        Files that were left out.
    """

    accuracy: float
    n: int
    labels: list[str]
    confusion: list[list[int]]
    model_bytes: int
    recall: dict[str, float]
    unreadable: list[str]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One threshold's outcome on a stream, with 95 % intervals (Poisson, Wilson)."""

    budget: float | None
    """The false alarms per hour asked for; None at the default threshold."""
    fa_per_hour: float
    fa_low: float
    fa_high: float
    threshold: float
    miss_rate: float
    miss_low: float
    miss_high: float


class StreamScores(msgspec.Struct, frozen=True, kw_only=True):
    """What `kws eval stream --json` prints.

    Attributes
    ----------
    hours : float
        Length of the stream.
    n_words : int
        Keywords said in it.
    keywords : list of str
    points : list of Point
        For each of `BUDGETS`, the lowest threshold that keeps to it, or the highest of the grid
        where none does; then the model's default.
    miss_rate_per_keyword : dict of str to float
        At the default threshold.
    latency_ms : dict of str to float
        p50 and p95 from a word's end to its detection, at the default threshold; NaN, in JSON
        null, without a hit.
    gate_kept : float
        Share of the detections made without the gate that are made with it; NaN without any.
    """

    hours: float
    n_words: int
    keywords: list[str]
    points: list[Point]
    miss_rate_per_keyword: dict[str, float]
    latency_ms: dict[str, float]
    gate_kept: float


def evaluate_clips(
    model: Model, data: Path, *, split: SplitName = "test", model_bytes: int = 0
) -> ClipScores:
    """Sort the clips of a Speech-Commands-shaped folder.

    Each clip is heard from a fresh state, followed by half a second of silence.

    Raises
    ------
    ConfigError
        If the folder holds no clip of that split.
    ModelError
        If the model has no label for silence, or none for other words.
    """
    labels = list(model.manifest.labels)
    if not {SILENCE, UNKNOWN} <= set(labels):
        raise ModelError(
            f"A model must have the labels `{SILENCE}` and `{UNKNOWN}` to sort clips. Received: "
            f"{', '.join(labels)}. Measure it with `kws eval stream`."
        )
    settings = model.manifest.features
    features = Features(settings)
    output_ms = 1000 * model.manifest.hop_frames * settings.hop_samples / settings.sample_rate_hz
    output_ms /= model.n_outputs
    confusion = np.zeros((len(labels), len(labels)), int)
    unreadable = []
    for path, label in labelled_clips(data, labels=labels, split=split):
        try:
            samples = read_samples(path)
        except FormatError:
            unreadable.append(str(path))
            continue
        padded = np.concatenate((samples, np.zeros(TAIL_SAMPLES, np.int16)))
        posteriors = posteriors_of(model, features.whole(padded))
        said = read_out(posteriors, labels, output_ms=output_ms)
        confusion[labels.index(label), said] += 1
    totals = confusion.sum(axis=1)
    return ClipScores(
        accuracy=float(np.trace(confusion) / max(1, totals.sum())),
        n=int(totals.sum()),
        labels=labels,
        confusion=confusion.tolist(),
        model_bytes=model_bytes,
        recall={
            label: float(confusion[i, i] / totals[i]) for i, label in enumerate(labels) if totals[i]
        },
        unreadable=unreadable,
    )


def evaluate_stream(model: Model, stream: Stream) -> StreamScores:
    """Count misses and false alarms on a labelled stream, at every threshold of a grid.

    The model runs once; thresholds are tried on the stored posteriors by the runtime's own
    decision. A hit is a detection of the right word between its start and half a second after its
    end (`kws.demo.match`); all else is a false alarm.
    """
    frames = Features(model.manifest.features).whole(stream.samples)
    posteriors = posteriors_of(model, frames)
    hours = stream.duration_s / 3600
    default = model.manifest.decision.threshold
    tried = {
        threshold: _matches(model, posteriors, stream, threshold)
        for threshold in sorted({*_GRID, default})
    }
    points = []
    for budget in BUDGETS:
        kept = [t for t, matches in tried.items() if len(matches.false) <= budget * hours]
        threshold = min(kept, default=max(tried))
        points.append(_point(threshold, tried[threshold], hours, budget=budget))
    usual = tried[default]
    late = [1000 * (detection.end_s - word.end_s) for word, detection in usual.hits] or [np.nan]
    said = Counter(word.word for word in stream.words)
    missed = Counter(word.word for word in usual.missed)
    return StreamScores(
        hours=hours,
        n_words=len(stream.words),
        keywords=list(model.manifest.keywords),
        points=[*points, _point(default, usual, hours, budget=None)],
        miss_rate_per_keyword={word: missed[word] / n for word, n in sorted(said.items())},
        latency_ms={"p50": float(np.percentile(late, 50)), "p95": float(np.percentile(late, 95))},
        gate_kept=_gate_kept(model, stream),
    )


def _matches(model: Model, posteriors: Posteriors, stream: Stream, threshold: float) -> Matches:
    """Decide on stored posteriors and match the detections to the words said."""
    manifest, settings = model.manifest, model.manifest.features
    output_samples = manifest.hop_frames * settings.hop_samples // model.n_outputs
    decision = Decision.of(
        manifest,
        thresholds=dict.fromkeys(manifest.keywords, threshold),
        n_outputs=model.n_outputs,
    )
    overlap = settings.window_samples - settings.hop_samples
    detections = []
    for i, row in enumerate(posteriors):
        if hit := decision.step(row):
            end_s = ((i + 1) * output_samples + overlap) / settings.sample_rate_hz
            detections.append(
                Detection(
                    keyword=hit.keyword,
                    score=hit.score,
                    start_s=end_s,
                    end_s=end_s,
                    model=manifest.name,
                )
            )
    return match(stream.words, detections, keywords=manifest.keywords)


def _gate_kept(model: Model, stream: Stream) -> float:
    """Run the whole pipeline with and without the gate; compare what it says."""
    heard = []
    for enabled in (False, True):
        spotter = Spotter(model, gate=GateSettings(enabled=enabled))
        heard.append([*spotter.process(stream.samples), *spotter.flush()])
    open_gate, gated = ({(d.keyword, round(d.end_s, 1)) for d in one} for one in heard)
    near = {(word, round(at + step, 1)) for word, at in gated for step in (-0.1, 0.0, 0.1)}
    return len(open_gate & near) / len(open_gate) if open_gate else float("nan")


def _point(threshold: float, matches: Matches, hours: float, *, budget: float | None) -> Point:
    n_false, n_missed = len(matches.false), len(matches.missed)
    miss = stats.binomtest(n_missed, max(1, n_missed + len(matches.hits)))
    interval = miss.proportion_ci(method="wilson")
    return Point(
        budget=budget,
        fa_per_hour=n_false / hours,
        fa_low=float(stats.chi2.ppf(0.025, 2 * n_false) / 2 / hours) if n_false else 0.0,
        fa_high=float(stats.chi2.ppf(0.975, 2 * n_false + 2) / 2 / hours),
        threshold=threshold,
        miss_rate=float(miss.statistic),
        miss_low=float(interval.low),
        miss_high=float(interval.high),
    )


def posteriors_of(model: Model, frames: npt.NDArray[Any]) -> Posteriors:
    """Run a model over frames from a fresh state; return posteriors [shape=(outputs, labels)]."""
    model.reset()
    hop = model.manifest.hop_frames
    starts = range(0, len(frames) - hop + 1, hop)
    return np.concatenate([model.step(frames[start : start + hop]) for start in starts])


def read_out(posteriors: Posteriors, labels: Sequence[str], *, output_ms: float = 20.0) -> int:
    """Return the label that a clip's posteriors speak for.

    A word is as sure as the peak of its smoothed posterior; silence, as its posterior never falls.

    Parameters
    ----------
    posteriors : float [shape=(outputs, labels)]
    output_ms : float
        From one output to the next; posteriors are averaged over 60 ms, or not at all if that is
        shorter than two of them.
    """
    n_smoothing = max(1, round(_SMOOTHING_MS / output_ms))
    kernel = np.ones(n_smoothing) / n_smoothing
    smoothed = np.stack([np.convolve(column, kernel, "valid") for column in posteriors.T], axis=1)
    scores = smoothed.max(axis=0)
    silence = labels.index(SILENCE)
    scores[silence] = smoothed[:, silence].min()
    return int(scores.argmax())


def labelled_clips(
    data: Path, *, labels: Sequence[str], split: SplitName
) -> list[tuple[Path, str]]:
    """Return the clips of a split with their labels; words that are no keyword are `_unknown_`.

    Folders named like `_unknown_` and `_silence_` are taken whole: they were drawn for testing.
    """
    found = []
    for path in sorted(data.rglob("*")):
        word = path.parent.name
        if path.suffix.lower() not in AUDIO_SUFFIXES or word == "_background_noise_":
            continue
        if word.startswith("_") or split == "all" or official_split(path) == split:
            found.append((path, word if word in labels else UNKNOWN))
    if not found:
        raise ConfigError(
            f"A folder to evaluate on must hold word/clip files of the split `{split}`. Received: "
            f"{data} with none. Give another folder, or `--split all`."
        )
    return found
