"""Plots of a finished training in its run folder: learning curves, validation confusion."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.features import Features
from kws_train.data.corpus import load_corpus
from kws_train.evaluate.clips import classify
from kws_train.evaluate.plots import draw_confusion, draw_learning, save
from kws_train.evaluate.traces import TAIL_SAMPLES
from kws_train.networks.architectures import Network
from kws_train.recipe import Recipe

__all__ = ["confusion_matrix", "draw_training"]

_BATCH = 256


def draw_training(run: Path, model: Network, recipe: Recipe, *, data: Path) -> list[Path]:
    """Draw the learning curves and the validation confusion of a finished training.

    Returns
    -------
    list of Path
        learning.png and confusion.png in the run folder.
    """
    confusion = _confusion(model, recipe, data)
    pictures = {
        run / "learning.png": draw_learning(run / "history.csv"),
        run / "confusion.png": draw_confusion(confusion, recipe.labels),
    }
    for path, figure in pictures.items():
        save(figure, path)
    return list(pictures)


def _confusion(model: Network, recipe: Recipe, data: Path) -> npt.NDArray[np.int_]:
    """Return the confusion matrix of the validation clips."""
    corpus = load_corpus(recipe.data, data, split="validation")
    clips = [(clip.label, clip.samples) for clips in corpus.clips.values() for clip in clips]
    return confusion_matrix(model, recipe, clips)


def confusion_matrix(
    model: Network, recipe: Recipe, clips: Sequence[tuple[str, Samples]]
) -> npt.NDArray[np.int_]:
    """Classify clips, (label, samples), with a trained model over whole sequences.

    Returns
    -------
    int [shape=(labels, labels)]
        Rows are true labels, columns predicted labels.
    """
    labels = recipe.labels
    features = Features(recipe.features)
    output_ms = 1000 * recipe.features.hop_samples * model.time_stride / RATE_HZ
    confusion = np.zeros((len(labels), len(labels)), int)
    for start in range(0, len(clips), _BATCH):
        batch = clips[start : start + _BATCH]
        longest = max(len(samples) for _, samples in batch) + TAIL_SAMPLES
        padded = [np.pad(samples, (0, longest - len(samples))) for _, samples in batch]
        frames = features.whole(np.stack(padded))
        n_frames = frames.shape[1] // model.time_stride * model.time_stride
        logits = model.predict_on_batch(frames[:, :n_frames])
        posteriors = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
        for (label, _), one in zip(batch, posteriors, strict=True):
            predicted, _ = classify(one, labels, output_ms=output_ms)
            confusion[labels.index(label), predicted] += 1
    return confusion
