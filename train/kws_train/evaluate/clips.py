"""Classification of isolated clips by a model file: accuracy, recall, confusion, reliability.

The usual figures of the literature. `kws_train.evaluate.stream` measures continuous audio, which
is what a keyword spotter runs on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from kws.errors import ConfigError, FormatError
from kws.features import open_features
from kws.manifest import SILENCE, UNKNOWN
from kws.model import Model, with_embedding
from kws_train.data.audio_files import audio_files, log_left_out, read_samples
from kws_train.data.splits import SplitName, check_layout, official_split, word_of
from kws_train.evaluate.traces import TAIL_SAMPLES, silence_before

__all__ = [
    "ClipScores",
    "Reliability",
    "ReliabilityBin",
    "classify",
    "evaluate_clips",
    "label_scores",
    "labelled_clips",
    "reliability",
]

Posteriors: TypeAlias = npt.NDArray[np.floating[Any]]

_SMOOTHING_MS = 60.0
_N_BINS = 10


class ReliabilityBin(msgspec.Struct, frozen=True, kw_only=True):
    """The clips whose scores lie between two bounds."""

    low: float
    high: float
    n: int
    score: float
    """Mean score of the predicted labels."""
    accuracy: float
    """Share of them classified correctly."""


class Reliability(msgspec.Struct, frozen=True, kw_only=True):
    """Agreement of scores with accuracy (Guo et al. 2017, section 2).

    Attributes
    ----------
    expected_error : float
        Expected calibration error: mean distance between score and accuracy over bins, weighted by
        their clips.
    bins : list of ReliabilityBin
        Ten of equal width; bins without clips are omitted.
    """

    expected_error: float
    bins: list[ReliabilityBin]


class ClipScores(msgspec.Struct, frozen=True, kw_only=True):
    """What `kws eval clips --json` prints.

    Attributes
    ----------
    accuracy : float
        Share of clips classified correctly, 0..1.
    n : int
        Clips.
    labels : list of str
    confusion : list of list of int
        Rows are true labels, columns predicted labels.
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
    """Classify the clips of a folder of words, `word/clip` or `word/speaker/clip`.

    The model runs over each clip from a fresh state, between silence of its context and half a
    second of silence. For a model without the label `_unknown_`, that has what the greatest
    posterior leaves of 1.

    Raises
    ------
    ConfigError
        If the folder holds no clip of that split.
    """
    model = with_embedding(model)
    labels = _labels_of(model)
    features = open_features(model.manifest.features)
    before = silence_before(model.manifest)
    output_ms = model.manifest.call_ms / model.n_outputs
    confusion = np.zeros((len(labels), len(labels)), int)
    left_out: dict[Path, str] = {}
    scores, correct = [], []
    for path, label in labelled_clips(data, labels=labels, split=split):
        try:
            samples = read_samples(path)
        except FormatError as error:
            left_out[path] = str(error)
            continue
        padded = np.concatenate((before, samples, np.zeros(TAIL_SAMPLES, np.int16)))
        posteriors = _with_unknown(model.run(features.whole(padded)), labels)
        predicted, score = classify(posteriors, labels, output_ms=output_ms)
        confusion[labels.index(label), predicted] += 1
        scores.append(score)
        correct.append(labels[predicted] == label)
    log_left_out(left_out)
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
        unreadable=[str(path) for path in left_out],
        reliability=reliability(scores, correct),
    )


def _labels_of(model: Model) -> list[str]:
    labels = list(model.manifest.labels)
    return labels if UNKNOWN in labels else [*labels, UNKNOWN]


def _with_unknown(posteriors: Posteriors, labels: Sequence[str]) -> Posteriors:
    """Return posteriors of all labels, of which the model may lack the last."""
    if posteriors.shape[1] == len(labels):
        return posteriors
    rest = 1 - posteriors.max(axis=1, keepdims=True)
    return np.concatenate((posteriors, rest), axis=1)


def reliability(scores: Sequence[float], correct: Sequence[bool]) -> Reliability:
    """Compare the scores of predicted labels with how often they were correct.

    Parameters
    ----------
    scores : sequence of float
        In 0..1.
    correct : sequence of bool
    """
    at = np.minimum((np.asarray(scores) * _N_BINS).astype(int), _N_BINS - 1)
    bins = [
        ReliabilityBin(
            low=i / _N_BINS,
            high=(i + 1) / _N_BINS,
            n=int((at == i).sum()),
            score=float(np.mean(np.asarray(scores)[at == i])),
            accuracy=float(np.mean(np.asarray(correct)[at == i])),
        )
        for i in np.unique(at).tolist()
    ]
    off = sum(one.n * abs(one.score - one.accuracy) for one in bins)
    return Reliability(expected_error=off / max(1, len(scores)), bins=bins)


def classify(
    posteriors: Posteriors, labels: Sequence[str], *, output_ms: float = 20.0
) -> tuple[int, float]:
    """Return the predicted label of a clip and its score, from posteriors over time.

    The score of a word is the peak of its smoothed posterior; that of silence, or without such a
    label that of `_unknown_`, is the minimum.

    Parameters
    ----------
    posteriors : float [shape=(outputs, labels)]
    output_ms : float
        Time between outputs. Posteriors are averaged over 60 ms, or not at all if that is shorter
        than two outputs.
    """
    scores = label_scores(posteriors, labels, output_ms=output_ms)
    predicted = int(scores.argmax())
    return predicted, float(scores[predicted])


def label_scores(
    posteriors: Posteriors, labels: Sequence[str], *, output_ms: float = 20.0
) -> Posteriors:
    """Return the score of each label of a clip, as `classify` compares them [shape=(labels,)]."""
    n_smoothing = max(1, round(_SMOOTHING_MS / output_ms))
    kernel = np.ones(n_smoothing) / n_smoothing
    smoothed = np.stack([np.convolve(column, kernel, "valid") for column in posteriors.T], axis=1)
    scores: Posteriors = smoothed.max(axis=0)
    resting = labels.index(SILENCE if SILENCE in labels else UNKNOWN)
    scores[resting] = smoothed[:, resting].min()
    return scores


def labelled_clips(
    data: Path, *, labels: Sequence[str], split: SplitName
) -> list[tuple[Path, str]]:
    """Return the clips of a split with their labels; words other than keywords are `_unknown_`.

    Folders such as `_unknown_` and `_silence_` are used whole: they were drawn for testing.
    """
    found = []
    paths = audio_files(data, optional=True)
    check_layout(paths, data, keywords=[one for one in labels if not one.startswith("_")])
    for path in paths:
        word = word_of(path, data)
        if word == "_background_noise_":
            continue
        if word.startswith("_") or split == "all" or official_split(path, root=data) == split:
            found.append((path, word if word in labels else UNKNOWN))
    if not found:
        raise ConfigError(
            f"A folder to evaluate on must hold word/clip files of the split `{split}`. Received: "
            f"{data} with none. Give another folder, or `--split all`."
        )
    return found
