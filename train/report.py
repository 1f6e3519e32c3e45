"""Pictures of a run: learning curves and confusion matrix."""

import csv
from collections.abc import Sequence
from pathlib import Path

import keras
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from kws.features import Features
from kws.train.data import load_corpus
from kws.train.evaluate import TAIL_SAMPLES, read_out
from kws.train.fit import labels_of
from kws.train.settings import Recipe
from kws.train.zoo import Network

__all__ = ["draw", "draw_confusion", "draw_learning"]

mpl.use("agg")

_BATCH = 256


def draw(run: Path, model: Network, recipe: Recipe, *, data: Path) -> list[Path]:
    """Draw the learning curves and the validation confusion of a finished training.

    Returns
    -------
    list of Path
        learning.png and confusion.png in the run folder.
    """
    pictures = [draw_learning(run / "history.csv", run / "learning.png")]
    confusion = _validation_confusion(model, recipe, data)
    pictures.append(draw_confusion(confusion, labels_of(recipe), run / "confusion.png"))
    return pictures


def draw_learning(history: Path, out: Path) -> Path:
    """Draw loss and validation loss over epochs, from Keras's CSV log."""
    with history.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    epochs = [int(row["epoch"]) + 1 for row in rows]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for key, label in (("loss", "training"), ("val_loss", "validation")):
        axes.plot(epochs, [float(row[key]) for row in rows], label=label)
    axes.set(xlabel="epoch", ylabel="loss, nats per output", yscale="log", title="Learning")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(out, dpi=120)
    return out


def draw_confusion(confusion: np.ndarray, labels: Sequence[str], out: Path) -> Path:
    """Draw a confusion matrix: rows are what was said, columns what was heard, in percent."""
    share = 100 * confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    size = 2.5 + 0.5 * len(labels)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    ticks = range(len(labels))
    axes.set_xticks(ticks, labels, rotation=60, ha="right")
    axes.set_yticks(ticks, labels)
    axes.set(xlabel="heard", ylabel="said", title="Confusion, % of what was said")
    for (row, column), value in np.ndenumerate(share):
        if value >= 0.5:
            colour = "white" if value > 50 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour)
    figure.savefig(out, dpi=120)
    return out


def _validation_confusion(model: Network, recipe: Recipe, data: Path) -> np.ndarray:
    """Sort the validation clips with the trained model, over whole sequences."""
    labels = labels_of(recipe)
    features = Features(recipe.features)
    corpus = load_corpus(recipe.data, data, split="validation")
    clips = [clip for clips in corpus.clips.values() for clip in clips]
    confusion = np.zeros((len(labels), len(labels)), int)
    for start in range(0, len(clips), _BATCH):
        batch = clips[start : start + _BATCH]
        longest = max(len(clip.samples) for clip in batch) + TAIL_SAMPLES
        padded = [np.pad(clip.samples, (0, longest - len(clip.samples))) for clip in batch]
        frames = features.whole(np.stack(padded))
        n_frames = frames.shape[1] // model.time_stride * model.time_stride
        logits = model.predict_on_batch(frames[:, :n_frames])
        for clip, one in zip(
            batch, keras.ops.convert_to_numpy(keras.ops.softmax(logits)), strict=True
        ):
            confusion[labels.index(clip.label), read_out(one, labels)] += 1
    return confusion
