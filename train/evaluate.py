"""How good is a model file? Measured with the runtime that ships, on data that no training saw.

`evaluate_clips` sorts isolated clips into the model's labels: the usual figure of the literature.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from kws.errors import ConfigError, FormatError
from kws.features import Features
from kws.manifest import SILENCE, UNKNOWN
from kws.model import Model
from kws.train.data import AUDIO_SUFFIXES, official_split, read_samples

__all__ = ["ClipScores", "evaluate_clips", "read_out", "test_clips"]

SplitName: TypeAlias = Literal["train", "validation", "test", "all"]
Posteriors: TypeAlias = npt.NDArray[np.floating[Any]]

_TAIL_SAMPLES = 8000  # a model answers up to half a second after a word
_N_SMOOTHING = 3


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


def evaluate_clips(
    model: Model, data: Path, *, split: SplitName = "test", model_bytes: int = 0
) -> ClipScores:
    """Sort the clips of a Speech-Commands-shaped folder.

    Each clip is heard from a fresh state, followed by half a second of silence.

    Raises
    ------
    ConfigError
        If the folder holds no clip of that split.
    """
    labels = list(model.manifest.labels)
    features = Features(model.manifest.features)
    confusion = np.zeros((len(labels), len(labels)), int)
    unreadable = []
    for path, label in test_clips(data, labels=labels, split=split):
        try:
            samples = read_samples(path)
        except FormatError:
            unreadable.append(str(path))
            continue
        padded = np.concatenate((samples, np.zeros(_TAIL_SAMPLES, np.int16)))
        said = read_out(posteriors_of(model, features.whole(padded)), labels)
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


def posteriors_of(model: Model, frames: npt.NDArray[Any]) -> Posteriors:
    """Run a model over frames from a fresh state; return posteriors [shape=(outputs, labels)]."""
    model.reset()
    hop = model.manifest.hop_frames
    starts = range(0, len(frames) - hop + 1, hop)
    return np.concatenate([model.step(frames[start : start + hop]) for start in starts])


def read_out(posteriors: Posteriors, labels: Sequence[str]) -> int:
    """Return the label that a clip's posteriors speak for.

    A word is as sure as the peak of its smoothed posterior; silence, as its posterior never falls.

    Parameters
    ----------
    posteriors : float [shape=(outputs, labels)]
    """
    kernel = np.ones(_N_SMOOTHING) / _N_SMOOTHING
    smoothed = np.stack([np.convolve(column, kernel, "valid") for column in posteriors.T], axis=1)
    scores = smoothed.max(axis=0)
    silence = labels.index(SILENCE)
    scores[silence] = smoothed[:, silence].min()
    return int(scores.argmax())


def test_clips(data: Path, *, labels: Sequence[str], split: SplitName) -> list[tuple[Path, str]]:
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
