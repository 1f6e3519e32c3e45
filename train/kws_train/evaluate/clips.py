"""How well a model file sorts isolated clips into its labels: the usual figure of the literature.

The figure that matters, on continuous audio, is in `kws_train.evaluate.stream`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from kws.errors import ConfigError, FormatError, ModelError
from kws.features import Features
from kws.manifest import SILENCE, UNKNOWN
from kws.model import Model
from kws_train.data.audio_files import audio_files, read_samples
from kws_train.data.splits import SplitName, official_split
from kws_train.evaluate.traces import TAIL_SAMPLES

__all__ = [
    "Bin",
    "ClipScores",
    "Reliability",
    "evaluate_clips",
    "labelled_clips",
    "posteriors_of",
    "read_out",
    "reliability",
]

Posteriors: TypeAlias = npt.NDArray[np.floating[Any]]

_SMOOTHING_MS = 60.0
_N_BINS = 10


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """The clips whose scores lie between two bounds."""

    low: float
    high: float
    n: int
    score: float
    """Mean score of the label that was said."""
    accuracy: float
    """Share of them sorted right."""


class Reliability(msgspec.Struct, frozen=True, kw_only=True):
    """How far scores can be taken for chances (Guo et al. 2017, section 2).

    Attributes
    ----------
    expected_error : float
        Expected calibration error: mean distance between score and accuracy, over bins weighted by
        their clips.
    bins : list of Bin
        Ten, of equal width, less those without clips.
    """

    expected_error: float
    bins: list[Bin]


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
    reliability : Reliability
    """

    accuracy: float
    n: int
    labels: list[str]
    confusion: list[list[int]]
    model_bytes: int
    recall: dict[str, float]
    unreadable: list[str]
    reliability: Reliability


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
    features = Features(model.manifest.features)
    output_ms = model.manifest.call_ms / model.n_outputs
    confusion = np.zeros((len(labels), len(labels)), int)
    unreadable, scores, right = [], [], []
    for path, label in labelled_clips(data, labels=labels, split=split):
        try:
            samples = read_samples(path)
        except FormatError:
            unreadable.append(str(path))
            continue
        padded = np.concatenate((samples, np.zeros(TAIL_SAMPLES, np.int16)))
        posteriors = posteriors_of(model, features.whole(padded))
        said, score = read_out(posteriors, labels, output_ms=output_ms)
        confusion[labels.index(label), said] += 1
        scores.append(score)
        right.append(labels[said] == label)
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
        reliability=reliability(scores, right),
    )


def reliability(scores: Sequence[float], right: Sequence[bool]) -> Reliability:
    """Compare the scores of labels that were said with how often they were right.

    Parameters
    ----------
    scores : sequence of float
        In 0..1.
    right : sequence of bool
    """
    at = np.minimum((np.asarray(scores) * _N_BINS).astype(int), _N_BINS - 1)
    bins = [
        Bin(
            low=i / _N_BINS,
            high=(i + 1) / _N_BINS,
            n=int((at == i).sum()),
            score=float(np.mean(np.asarray(scores)[at == i])),
            accuracy=float(np.mean(np.asarray(right)[at == i])),
        )
        for i in np.unique(at).tolist()
    ]
    off = sum(one.n * abs(one.score - one.accuracy) for one in bins)
    return Reliability(expected_error=off / max(1, len(scores)), bins=bins)


def posteriors_of(model: Model, frames: npt.NDArray[Any]) -> Posteriors:
    """Run a model over frames from a fresh state; return posteriors [shape=(outputs, labels)]."""
    model.reset()
    hop = model.manifest.hop_frames
    starts = range(0, len(frames) - hop + 1, hop)
    return np.concatenate([model.step(frames[start : start + hop]) for start in starts])


def read_out(
    posteriors: Posteriors, labels: Sequence[str], *, output_ms: float = 20.0
) -> tuple[int, float]:
    """Return the label that a clip's posteriors speak for, and its score.

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
    said = int(scores.argmax())
    return said, float(scores[said])


def labelled_clips(
    data: Path, *, labels: Sequence[str], split: SplitName
) -> list[tuple[Path, str]]:
    """Return the clips of a split with their labels; words that are no keyword are `_unknown_`.

    Folders named like `_unknown_` and `_silence_` are taken whole: they were drawn for testing.
    """
    found = []
    for path in audio_files(data, optional=True):
        word = path.parent.name
        if word == "_background_noise_":
            continue
        if word.startswith("_") or split == "all" or official_split(path) == split:
            found.append((path, word if word in labels else UNKNOWN))
    if not found:
        raise ConfigError(
            f"A folder to evaluate on must hold word/clip files of the split `{split}`. Received: "
            f"{data} with none. Give another folder, or `--split all`."
        )
    return found
