"""Training: one loop over scenes, from a recipe to a run folder.

The run folder holds settings.json, history.csv, the weights to keep in model.weights.h5,
TensorBoard logs under tensorboard/, what export needs in examples.npz, pictures, and, until the
training has finished, what it goes on from under backup/.
"""

import csv
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import tensorflow as tf

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError
from kws.features import Features
from kws.manifest import SILENCE, UNKNOWN
from kws.train import augment, zoo
from kws.train.ctc import CtcLoss
from kws.train.data import Corpus, Split, load_corpus
from kws.train.scenes import Scenes
from kws.train.sequences import SequenceScenes
from kws.train.settings import CtcRecipe, Recipe

__all__ = ["SceneBatches", "SetLoss", "fit", "fit_stages", "labels_of", "make_scenes", "restore"]

log = logging.getLogger("kws.train")

_FINISHED = "finished"
_WEIGHTS = "model.weights.h5"
_N_STREAMS = 96
_N_CLIPS = 600


class SetLoss(keras.losses.Loss):
    """Negative log of the posterior of a set of labels, of which any may be right.

    Takes targets (batch, outputs, labels) of 0 and 1, and logits of the same shape. With one label
    in the set this is cross-entropy; with all of them it is zero.
    """

    def call(self, allowed: Any, logits: Any) -> Any:
        """Return the loss per output (batch, outputs)."""
        allowed = keras.ops.cast(allowed, logits.dtype)
        everything = keras.ops.logsumexp(logits, axis=-1)
        right = keras.ops.logsumexp(logits + (allowed - 1.0) * 1e4, axis=-1)
        return everything - right


class SceneBatches(keras.utils.PyDataset):
    """Batches of features, targets and weights; batch i of epoch e depends on the seed alone."""

    def __init__(self, scenes: Scenes, recipe: Recipe, *, n_scenes: int, training: bool) -> None:
        super().__init__(workers=1, use_multiprocessing=training, max_queue_size=8)
        self.scenes, self.recipe, self.training = scenes, recipe, training
        self.n_batches = max(1, n_scenes // recipe.fit.batch_size)
        self.n_features = recipe.features.n_features
        self.epoch = 0
        self._features = Features(recipe.features)
        self._kept: dict[int, tuple[Any, ...]] = {}

    def __len__(self) -> int:
        return self.n_batches

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        if self.training:
            return self._make(index)
        if index not in self._kept:  # validation scenes are the same in every epoch
            self._kept[index] = self._make(index)
        return self._kept[index]

    def on_epoch_end(self) -> None:
        """Move on to the next epoch's scenes."""
        self.epoch += 1

    def _make(self, index: int) -> tuple[Any, ...]:
        fit = self.recipe.fit
        stream = [fit.seed, int(self.training), self.epoch if self.training else 0, index]
        random = np.random.default_rng(stream)
        made: list[Any] = [self.scenes.make(random) for _ in range(fit.batch_size)]
        frames = self._features.whole(np.stack([scene.samples for scene in made]))
        if self.training:
            frames = np.stack([self._disturb(one, random) for one in frames])
        n_outputs = len(self.scenes.output_ends)
        stride = frames.shape[1] // n_outputs
        if isinstance(self.scenes, SequenceScenes):
            return frames[:, : n_outputs * stride], np.stack([one.words for one in made])
        targets = np.stack([scene.targets.allowed for scene in made])
        weights = np.stack([scene.targets.weight for scene in made])
        return frames[:, : n_outputs * stride], targets, weights

    def _disturb(self, frames: Any, random: np.random.Generator) -> Any:
        recipe = self.recipe.augment
        if self.recipe.features.kind == "mfcc":  # what follows is for bands, not for cepstra
            return frames
        frames = augment.tilt(frames, greatest_db=recipe.tilt_db, random=random)
        frames = np.maximum(frames, np.float32(np.log(self.recipe.features.floor)))
        if random.random() < 0.3:
            return frames.astype(np.float32)
        return augment.mask(
            frames,
            n_time=recipe.time_masks,
            time_frames=recipe.time_mask_frames,
            n_band=recipe.band_masks,
            bands=recipe.bands_per_mask,
            random=random,
        )


def labels_of(recipe: Recipe) -> list[str]:
    """Return the labels in the order of the model's outputs: silence, unknown, then keywords."""
    return [SILENCE, UNKNOWN, *recipe.data.keywords]


def make_scenes(corpus: Corpus, recipe: Recipe, *, time_stride: int) -> Scenes:
    """Return the scene maker of a recipe."""
    kind = SequenceScenes if isinstance(recipe.model, CtcRecipe) else Scenes
    return kind(
        corpus,
        recipe.data,
        recipe.augment,
        labels=labels_of(recipe),
        features=recipe.features,
        time_stride=time_stride,
    )


def fit(recipe: Recipe, *, data: Path, run: Path, start: Path | None = None) -> zoo.Network:
    """Train what the recipe says; return the model with the weights it ends with.

    Goes on from the last finished epoch where `run` holds an unfinished training.

    Parameters
    ----------
    recipe : Recipe
    data : Path
        The folder that the recipe's paths are relative to.
    run : Path
        The run folder; made if need be.
    start : Path, optional
        Another run folder of the same architecture, whose weights and feature statistics to begin
        with.

    Raises
    ------
    ConfigError
        If data is missing, or `run` holds an unfinished training of another recipe.
    """
    keras.utils.set_random_seed(recipe.fit.seed)
    tf.config.experimental.enable_op_determinism()
    run.mkdir(parents=True, exist_ok=True)
    if _history(run):
        _refuse_another(recipe, run)
    training = _batches(recipe, data, split="train")
    validation = _batches(recipe, data, split="validation")
    _write_examples(run, training, validation)
    before = None if start is None else restore(start)[0]
    mean, std = before.statistics if before else _statistics(training)
    settings = {"recipe": msgspec.to_builtins(recipe), "mean": mean, "std": std}
    (run / "settings.json").write_text(json.dumps(settings, indent=1))
    model = zoo.build(recipe.model, n_labels=len(labels_of(recipe)), mean=mean, std=std)
    log.info("%s: %d parameters", recipe.model.architecture, model.count_params())
    if before:
        model.set_weights(before.get_weights())
    history = _history(run)
    training.epoch = len(history)  # after the statistics, which are of the first epoch's scenes
    model.compile(optimizer=_optimizer(recipe, n_batches=len(training)), loss=_loss(recipe))
    model.fit(
        training,
        validation_data=validation,
        epochs=recipe.fit.epochs,
        callbacks=_callbacks(run, recipe, history),
        verbose=1 if sys.stdout.isatty() else 2,
    )
    model.load_weights(run / _WEIGHTS)
    (run / _FINISHED).touch()
    return model


def fit_stages(
    recipe: Recipe, *, data: Path, run: Path, start: Path | None = None
) -> tuple[zoo.Network, Recipe]:
    """Train the stages of a recipe one after another, all but the last in folders of `run`.

    Returns
    -------
    Spotting or Windowed, Recipe
        The model, and the recipe of the stage that made it.
    """
    if (run / _FINISHED).is_file():
        log.warning("this training has finished already, nothing is done: %s", run)
        return restore(run)
    *before, last = recipe.stages()
    for i, stage in enumerate(before, start=1):
        folder = run / f"stage-{i}"
        if not (folder / _FINISHED).is_file():
            fit(stage, data=data, run=folder, start=start)
        start = folder
    return fit(last, data=data, run=run, start=start), last


def restore(run: Path) -> tuple[zoo.Network, Recipe]:
    """Return the trained model of a run folder, and its recipe.

    Raises
    ------
    ConfigError
        If the folder holds no finished epoch.
    """
    try:
        settings = json.loads((run / "settings.json").read_text())
        recipe = msgspec.convert(settings["recipe"], Recipe)
        mean, std = settings["mean"], settings["std"]
        model = zoo.build(recipe.model, n_labels=len(labels_of(recipe)), mean=mean, std=std)
        model.load_weights(run / _WEIGHTS)
    except (OSError, ValueError, KeyError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"A run folder must hold settings.json and {_WEIGHTS} of one training. Received: "
            f"{run} ({error}). Make one with `kws train`."
        ) from error
    return model, recipe


def _batches(recipe: Recipe, data: Path, *, split: Split) -> SceneBatches:
    fit = recipe.fit
    scenes = make_scenes(
        load_corpus(recipe.data, data, split=split),
        recipe,
        time_stride=zoo.time_stride(recipe.model),
    )
    n_scenes = fit.scenes_per_epoch if split == "train" else fit.validation_scenes
    return SceneBatches(scenes, recipe, n_scenes=n_scenes, training=split == "train")


def _write_examples(run: Path, training: SceneBatches, validation: SceneBatches) -> None:
    """Keep what export needs: streams to calibrate on, and real clips to verify with."""
    random = np.random.default_rng(training.recipe.fit.seed)
    features = Features(training.recipe.features)
    streams = [features.whole(training.scenes.make(random).samples) for _ in range(_N_STREAMS)]
    real = [clip for clip in validation.scenes.clips if clip.real]
    clips = [
        features.whole(np.resize(np.pad(clip.samples, (0, 8 * RATE_HZ)), RATE_HZ * 3 // 2))
        for clip in real or validation.scenes.clips
    ]
    chosen = random.permutation(len(clips))[:_N_CLIPS]
    np.savez_compressed(
        run / "examples.npz",
        streams=np.stack(streams).astype(np.float32),
        clips=np.stack([clips[i] for i in sorted(chosen)]).astype(np.float32),
    )


def _statistics(batches: SceneBatches) -> tuple[list[float], list[float]]:
    """Return mean and spread of each feature over the first batches."""
    frames = np.concatenate([batches[i][0] for i in range(4)]).reshape(-1, batches.n_features)
    return frames.mean(axis=0).tolist(), (frames.std(axis=0) + 1e-3).tolist()


def _loss(recipe: Recipe) -> keras.losses.Loss:
    return CtcLoss() if isinstance(recipe.model, CtcRecipe) else SetLoss()


def _optimizer(recipe: Recipe, *, n_batches: int) -> keras.optimizers.Optimizer:
    """AdamW with one epoch of warm-up and a cosine to zero."""
    n_epochs = recipe.fit.cosine_epochs or recipe.fit.epochs
    schedule = keras.optimizers.schedules.CosineDecay(
        recipe.fit.learning_rate / 20,
        max(1, (n_epochs - 1) * n_batches),
        warmup_target=recipe.fit.learning_rate,
        warmup_steps=n_batches,
    )
    return keras.optimizers.AdamW(schedule, weight_decay=recipe.fit.weight_decay, clipnorm=1.0)


def _callbacks(
    run: Path, recipe: Recipe, history: Sequence[float]
) -> list[keras.callbacks.Callback]:
    return [
        keras.callbacks.ModelCheckpoint(
            str(run / _WEIGHTS),
            save_best_only=recipe.fit.keep == "best",
            save_weights_only=True,
            initial_value_threshold=min(history, default=None),
        ),
        keras.callbacks.EarlyStopping(patience=recipe.fit.patience),
        keras.callbacks.CSVLogger(str(run / "history.csv"), append=bool(history)),
        keras.callbacks.TensorBoard(str(run / "tensorboard"), write_graph=False),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.BackupAndRestore(str(run / "backup"), delete_checkpoint=True),
    ]


def _refuse_another(recipe: Recipe, run: Path) -> None:
    """Refuse to go on with another recipe than the one begun with; more epochs are welcome."""
    begun = json.loads((run / "settings.json").read_text())["recipe"]
    asked = json.loads(json.dumps(msgspec.to_builtins(recipe)))
    for one in (begun, asked):
        del one["fit"]["epochs"]
    if begun != asked:
        changed = ", ".join(f"[{key}]" for key in asked if asked[key] != begun.get(key))
        raise ConfigError(
            f"An unfinished training must go on with the recipe that it began with. Received: "
            f"other values in {changed} for {run}. Give another --out, or remove that folder."
        )


def _history(run: Path) -> list[float]:
    """Return the validation losses of the epochs that an interrupted training has finished."""
    if not (run / "backup").is_dir() or not (run / "history.csv").is_file():
        return []
    with (run / "history.csv").open(newline="") as rows:
        return [float(row["val_loss"]) for row in csv.DictReader(rows)]
