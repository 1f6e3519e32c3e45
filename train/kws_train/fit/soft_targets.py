"""Soft targets: what a model says of each clip, computed once, to distil from.

The teacher is any model file with the labels of the recipe, `_silence_` excepted, which heads do
not have; its features and its architecture are its own. What it says of a clip is the score of each
label, as `kws eval clips` compares them, scaled to a sum of 1.
"""

import hashlib
import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from kws.errors import ConfigError
from kws.features import open_features
from kws.manifest import SILENCE
from kws.model import Model, model_path, open_model, with_embedding
from kws_train.cache_folder import cache_folder, kept_file
from kws_train.data.corpus import Clip, Corpus
from kws_train.evaluate.clips import label_scores
from kws_train.evaluate.traces import TAIL_SAMPLES, silence_before
from kws_train.recipe import CtcRecipe, Recipe

__all__ = ["has_soft_targets", "taught_by", "with_soft_targets"]

SoftTargets: TypeAlias = npt.NDArray[np.float32]
"""Probabilities [shape=(clips, labels)]."""

log = logging.getLogger("kws_train")

_FORMAT = 1  # to be raised whenever the targets of the same clips change
_LEAST = 1e-4


def has_soft_targets(recipe: Recipe) -> bool:
    """Return whether the teacher is a model file; a run folder teaches by its own outputs."""
    return recipe.fit.teacher is not None and not Path(recipe.fit.teacher).is_dir()


def taught_by(recipe: Recipe) -> Path:
    """Return the file of a recipe's teacher, a path or the name of a bundled model.

    Raises
    ------
    ConfigError
        If there is no such model, its labels are others, or the recipe has no place for it.
    """
    if recipe.augment.mixup_share or isinstance(recipe.model, CtcRecipe):
        raise ConfigError(
            "A model file teaches single words that are not mixed. Received: `[fit] teacher` with "
            "`mixup_share` above 0 or a model of word sequences. Leave one of them out."
        )
    path, labels = model_path(str(recipe.fit.teacher)), recipe.labels
    known = {SILENCE, *open_model(path).manifest.labels}
    if known != set(labels):
        raise ConfigError(
            f"A teacher must have the labels of the recipe. Received: {path}, with "
            f"{_difference(known, labels)}. Give another `[fit] teacher`, or the keywords of this "
            f"one in `[data]`."
        )
    return path


def with_soft_targets(
    corpus: Corpus, teacher: Path, *, labels: Sequence[str], folder: Path | None = None
) -> Corpus:
    """Return a corpus whose clips have soft targets, in the order of `labels`.

    They are kept in a file named by the content of the teacher and of all clips.

    Raises
    ------
    ConfigError
        If that file holds something else, or cannot be written.
    """
    clips = [clip for known in corpus.clips.values() for clip in known]
    digest = hashlib.sha256(f"{_FORMAT} {list(labels)}".encode() + teacher.read_bytes())
    for clip in clips:
        digest.update(np.ascontiguousarray(clip.samples).data)
    path = (folder or cache_folder("soft_targets")) / f"{digest.hexdigest()[:40]}.npy"
    targets = _read(path, (len(clips), len(labels)))
    if targets is None:
        log.info("soft targets of %d clips by %s, once", len(clips), teacher)
        targets = _posteriors(open_model(teacher), clips, labels)
        with kept_file(path, what="Soft targets") as file:
            np.save(file, targets, allow_pickle=False)
    taught = iter(targets)
    return replace(
        corpus,
        clips={
            label: [replace(clip, soft=next(taught)) for clip in known]
            for label, known in corpus.clips.items()
        },
    )


def _posteriors(teacher: Model, clips: Sequence[Clip], labels: Sequence[str]) -> SoftTargets:
    known = teacher.manifest.labels
    model = with_embedding(teacher)
    features = open_features(model.manifest.features)
    before, after = silence_before(model.manifest), np.zeros(TAIL_SAMPLES, np.int16)
    output_ms = model.manifest.call_ms / model.n_outputs
    targets = np.empty((len(clips), len(labels)), np.float32)
    for i, clip in enumerate(clips):
        frames = features.whole(np.concatenate((before, clip.samples, after)))
        scores = label_scores(model.run(frames), known, output_ms=output_ms)
        said = dict(zip(known, scores, strict=True)) | {SILENCE: 0.0}  # the word is there, if quiet
        targets[i] = [max(said[label], _LEAST) for label in labels]
    return targets / targets.sum(axis=1, keepdims=True)


def _read(path: Path, shape: tuple[int, int]) -> SoftTargets | None:
    if not path.is_file():
        return None
    try:
        targets: SoftTargets = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        received = "a damaged file"
    else:
        if targets.shape == shape and targets.dtype == np.float32:
            return targets
        received = f"{targets.dtype} of shape {targets.shape}"
    raise ConfigError(
        f"A file of soft targets must hold float32 of shape {shape}. Received: {received}, in "
        f"{path}. Remove it; it is made again."
    )


def _difference(known: Collection[str], wanted: Collection[str]) -> str:
    """Name the labels that only one side has."""
    more, less = sorted(set(known) - set(wanted)), sorted(set(wanted) - set(known))
    parts = [(what, names) for what, names in (("also", more), ("without", less)) if names]
    return " and ".join(f"{what} {', '.join(names)}" for what, names in parts)
