"""Training: one loop over scenes, from a recipe to a run folder.

The run folder holds settings.json, history.csv, the weights to keep in model.weights.h5,
TensorBoard logs under tensorboard/, what export needs in examples.npz, pictures, and, until the
training has finished, what it goes on from under backup/.
"""

import csv
import importlib.util
import itertools
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras
import msgspec
import numpy as np

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError
from kws.features import Features
from kws.manifest import SILENCE, UNKNOWN
from kws_train.data.corpus import Corpus, Spoken, load_corpus, write_left_out
from kws_train.data.splits import Split
from kws_train.fit.checkpoints import (
    Backup,
    History,
    KeepWeights,
    StopAtNaN,
    StopEarly,
    begun,
    finish,
    go_on,
    is_finished,
    save_whole,
    write_whole,
)
from kws_train.fit.ctc import CtcLoss
from kws_train.fit.distill import learn_from
from kws_train.fit.hard_negatives import in_noise, mine, name_of, read_moments, write_moments
from kws_train.fit.losses import make_loss
from kws_train.fit.prefetch import worked_ahead
from kws_train.networks import architectures
from kws_train.networks.fake_quant import observe, ranges_of
from kws_train.networks.keras_backend import at_precision, prepare
from kws_train.networks.transfer import transfer
from kws_train.recipe import CtcRecipe, Recipe
from kws_train.scenes import augment
from kws_train.scenes.ctc_scenes import SequenceScenes
from kws_train.scenes.scenes import Scenes

__all__ = ["SceneBatches", "fit", "fit_stages", "labels_of", "make_scenes", "restore"]

log = logging.getLogger("kws_train")

Batch: TypeAlias = tuple[Any, ...]

_WEIGHTS = "model.weights.h5"
_TRAINED = "trained.weights.h5"  # what `start_share` mixes into _WEIGHTS
_N_STREAMS = 96
_N_CLIPS = 600
_N_OBSERVED = 8  # batches that ranges begin with
_MINED_SNR_DB = (0.0, 15.0)
_ROUNDING = 0.05  # of the spread of logits: half precision, which a GPU may train in


class SceneBatches(keras.utils.PyDataset):
    """Batches of features, targets and weights; batch i depends on the seed alone.

    In training the batches of the next epochs follow those of the first: there is no last one.

    A batch is `echo` groups of scenes, the newest of its own and the others of the batches before,
    disturbed anew: data echoing (Choi et al. 2019), since scenes cost more than masks.
    """

    def __init__(self, scenes: Scenes, recipe: Recipe, *, n_scenes: int, training: bool) -> None:
        super().__init__(workers=1)
        self.scenes, self.recipe, self.training = scenes, recipe, training
        self.n_batches = max(1, n_scenes // recipe.fit.batch_size)
        self.n_features = recipe.features.n_features
        self._features = Features(recipe.features)
        self._kept: dict[int, Batch] = {}
        self._groups: dict[int, Batch] = {}

    def __len__(self) -> int:
        return self.n_batches

    def __getitem__(self, index: int) -> Batch:
        if self.training:
            return self._echoed(index)
        if index not in self._kept:  # validation scenes are the same in every epoch
            self._kept[index] = self._make(index, self.recipe.fit.batch_size)
        return self._kept[index]

    def sources(self, epoch: int, index: int) -> list[Path]:
        """Return the files that a batch of an epoch is made of, by making it again."""
        n_scenes = self.n_batches * self.recipe.fit.batch_size
        again = SceneBatches(
            self.scenes.recording_sources(), self.recipe, n_scenes=n_scenes, training=self.training
        )
        again[epoch * self.n_batches + index]
        return again.scenes.sources or []

    def _echoed(self, step: int) -> Batch:
        """Put together the batch of a step of training."""
        fit = self.recipe.fit
        n_groups = min(fit.echo, fit.batch_size)
        steps = range(step, step + n_groups)  # groups are numbered so that none is negative
        self._groups = {
            i: self._groups.get(i) or self._make(i, fit.batch_size // n_groups) for i in steps
        }
        frames, *targets = (
            np.concatenate(parts) for parts in zip(*self._groups.values(), strict=True)
        )
        random = np.random.default_rng([fit.seed, 2, step])
        frames = np.stack([self._disturb(one, random) for one in frames])
        return self._mix((frames, *targets), random)

    def _make(self, index: int, n_scenes: int) -> Batch:
        """Make scenes, undisturbed."""
        random = np.random.default_rng([self.recipe.fit.seed, int(self.training), index])
        made: list[Any] = [self.scenes.make(random) for _ in range(n_scenes)]
        frames = self._features.whole(np.stack([scene.samples for scene in made]))
        stride = frames.shape[1] // len(self.scenes.output_ends)
        n_outputs = len(self.scenes.output_ends)
        if isinstance(self.scenes, SequenceScenes):
            return frames[:, : n_outputs * stride], np.stack([one.words for one in made])
        targets = np.stack([scene.targets.allowed for scene in made])
        weights = np.stack([scene.targets.weight for scene in made])
        return frames[:, : n_outputs * stride], targets, weights

    def _mix(self, batch: Batch, random: np.random.Generator) -> Batch:
        recipe = self.recipe.augment
        if not recipe.mixup_share or len(batch) != 3:
            return batch
        share, alpha = recipe.mixup_share, recipe.mixup_alpha
        return augment.mixup(*batch, share=share, alpha=alpha, random=random)

    def _disturb(self, frames: Any, random: np.random.Generator) -> Any:
        recipe = self.recipe.augment
        if self.recipe.features.kind == "mfcc":  # what follows is for bands, not for cepstra
            return frames
        if self.recipe.features.kind == "logmel" and recipe.warp != (1.0, 1.0):
            frames = augment.warp(frames, random.uniform(*recipe.warp), high_hz=RATE_HZ / 2)
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


def make_scenes(
    corpus: Corpus,
    recipe: Recipe,
    *,
    time_stride: int,
    mined: Sequence[tuple[Spoken, int]] = (),
) -> Scenes:
    """Return the scene maker of a recipe."""
    kind = SequenceScenes if isinstance(recipe.model, CtcRecipe) else Scenes
    return kind(
        corpus,
        recipe.data,
        recipe.augment,
        labels=labels_of(recipe),
        features=recipe.features,
        time_stride=time_stride,
        mined=mined,
    )


def fit(
    recipe: Recipe,
    *,
    data: Path,
    run: Path,
    start: Path | None = None,
    validate: Recipe | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    quiet: bool = False,
) -> architectures.Network:
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
        with. It may know other keywords: what the classifier has learnt of those is left behind.
        It may be a whole number of times narrower: the model begins as the same function.
    validate : Recipe, optional
        What the scenes of validation are made by, where that is another.
    callbacks : sequence of keras.callbacks.Callback
        To be called besides those that every training has.
    quiet : bool
        Print no line for each epoch.

    Raises
    ------
    ConfigError
        If data is missing, `run` holds an unfinished training of another recipe, or `start` is of
        another architecture.
    """
    prepare(seed=recipe.fit.seed)
    run.mkdir(parents=True, exist_ok=True)
    history = begun(run)
    if history:
        _refuse_another(recipe, run)
    before, known = _restored(start)
    if recipe.fit.quantize_aware and before is None:
        raise ConfigError(
            "Quantisation-aware training must begin with trained weights. Received: `[fit] "
            "quantize_aware = true` in a training from nothing. Put it into a `[[then]]`, or give "
            "a run folder with --start."
        )
    if recipe.fit.start_share and before is None:
        raise ConfigError(
            "Weights to end with a share of must be given to begin with. Received: `[fit] "
            "start_share` in a training from nothing. Put it into a `[[then]]`, or give a run "
            "folder with --start."
        )
    corpus = load_corpus(recipe.data, data, split="train")
    judge_of_speech = before if known == labels_of(recipe) else None
    mined = _mined(run, recipe, judge_of_speech, corpus)
    training = _batches(recipe, corpus, split="train", mined=mined)
    judge = validate or recipe
    validation = _batches(
        judge, load_corpus(judge.data, data, split="validation"), split="validation"
    )
    _list_left_out(run, training.scenes.left_out | validation.scenes.left_out)
    _list_unknown_words(run, training.scenes, seed=recipe.fit.seed)
    _write_examples(run, training, validation)
    mean, std = before.statistics if before else _statistics(training)
    settings = {"recipe": msgspec.to_builtins(recipe), "mean": mean, "std": std}
    write_whole(run / "settings.json", json.dumps(settings, indent=1))
    with at_precision("float32" if recipe.fit.quantize_aware else recipe.fit.precision):
        model = _build(recipe, mean=mean, std=std)
    log.info("%s: %d parameters", recipe.model.architecture, model.count_params())
    if before:
        labels = (labels_of(recipe), known)
        _begin_with(model, before, training if not history else [], labels=labels)
    begun_with = model.get_weights()
    for layer in model.stack[: recipe.fit.frozen_layers] if before else ():
        layer.trainable = False
    model.compile(optimizer=_optimizer(model, recipe, n_batches=len(training)), loss=_loss(recipe))
    _learn_from_teacher(model, recipe)
    if history:
        go_on(model, run, n_epochs=len(history))
    stop = StopAtNaN(run, training=training.sources, validation=validation.sources)
    steps = itertools.count(len(history) * len(training))
    with worked_ahead(training.__getitem__, steps) as batches:
        model.fit(
            batches,
            steps_per_epoch=len(training),
            shuffle=False,  # scenes are random as it is, and a step is to be found again
            validation_data=validation,
            initial_epoch=len(history),
            epochs=recipe.fit.epochs,
            callbacks=[stop, *_callbacks(run, recipe, history), *callbacks],
            verbose=0 if quiet else 1 if sys.stdout.isatty() else 2,
        )
    model.load_weights(_kept(run, recipe))
    if recipe.fit.start_share:
        _mix_in(model, begun_with, share=recipe.fit.start_share)
        save_whole(model, run / _WEIGHTS)
    finish(run)
    return model


def fit_stages(
    recipe: Recipe,
    *,
    data: Path,
    run: Path,
    start: Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    quiet: bool = False,
) -> tuple[architectures.Network, Recipe]:
    """Train the stages of a recipe one after another, all but the last in folders of `run`.

    Returns
    -------
    Spotting or Windowed, Recipe
        The model, and the recipe of the stage that made it.
    """
    if is_finished(run):
        log.warning("this training has finished already, nothing is done: %s", run)
        return restore(run)
    *before, last = recipe.stages()
    for i, stage in enumerate(before, start=1):
        folder = run / f"stage-{i}"
        if not is_finished(folder):
            fit(stage, data=data, run=folder, start=start, callbacks=callbacks, quiet=quiet)
        start = folder
    model = fit(last, data=data, run=run, start=start, callbacks=callbacks, quiet=quiet)
    return model, last


def restore(run: Path) -> tuple[architectures.Network, Recipe]:
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
        model = _build(recipe, mean=mean, std=std)
        model.load_weights(run / _WEIGHTS)
    except (OSError, ValueError, KeyError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"A run folder must hold settings.json and {_WEIGHTS} of one training. Received: "
            f"{run} ({error}). Make one with `kws train`."
        ) from error
    return model, recipe


def _restored(run: Path | None) -> tuple[architectures.Network | None, list[str]]:
    """Return the model to begin with and its labels, if there is one."""
    if run is None:
        return None, []
    model, recipe = restore(run)
    return model, labels_of(recipe)


def _build(recipe: Recipe, *, mean: Sequence[float], std: Sequence[float]) -> architectures.Network:
    return architectures.build(
        recipe.model,
        n_labels=len(labels_of(recipe)),
        mean=mean,
        std=std,
        quantize_aware=recipe.fit.quantize_aware,
    )


def _begin_with(
    model: architectures.Network,
    before: architectures.Network,
    training: Sequence[Batch],
    *,
    labels: tuple[Sequence[str], Sequence[str]],
) -> None:
    """Take over weights, and ranges too if both models have them; else find ranges on batches."""
    ranges, (now, known) = ranges_of(model), labels
    same_ranges = bool(ranges) == bool(ranges_of(before))
    if same_ranges and list(now) == list(known):
        transfer(model.weights, before.weights, labels=now, labels_before=known)
    else:
        of, to = _without_ranges(before), _without_ranges(model)
        transfer(to, of, labels=now, labels_before=known)
    if same_ranges and training and model.count_params() > before.count_params():
        _refuse_another_function(model, before, training[0][0], labels=labels)
    if ranges and not same_ranges:
        observe(model, (training[i][0] for i in range(min(_N_OBSERVED, len(training)))))


def _refuse_another_function(
    model: architectures.Network,
    before: architectures.Network,
    frames: Any,
    *,
    labels: tuple[Sequence[str], Sequence[str]],
) -> None:
    """Refuse weights that fit as those of a wider model, but stand for something else there."""
    now, known = labels
    both = [label for label in now if label in known]
    ours = np.array(model(frames, training=False))[..., [now.index(label) for label in both]]
    theirs = np.array(before(frames, training=False))[..., [known.index(label) for label in both]]
    if ours.shape != theirs.shape or np.abs(ours - theirs).max() > _ROUNDING * np.ptp(theirs):
        raise ConfigError(
            "A wider network must begin as the same function as the one begun with. Received: a "
            "`[model]` that is more than wider, such as one with more sub-bands or a longer "
            "window. Change widths alone, or give another --start."
        )


def _mix_in(model: architectures.Network, begun_with: Sequence[Any], *, share: float) -> None:
    """Go back part of the way to the weights begun with (Wortsman et al. 2022, section 3)."""
    now = model.get_weights()
    model.set_weights(
        [
            share * before + (1 - share) * after
            for before, after in zip(begun_with, now, strict=True)
        ]
    )


def _without_ranges(model: architectures.Network) -> list[keras.Variable]:
    ranges = {id(weight) for layer in ranges_of(model) for weight in layer.weights}
    return [weight for weight in model.weights if id(weight) not in ranges]


def _batches(
    recipe: Recipe, corpus: Corpus, *, split: Split, mined: Sequence[tuple[Spoken, int]] = ()
) -> SceneBatches:
    fit = recipe.fit
    scenes = make_scenes(
        corpus, recipe, time_stride=architectures.time_stride(recipe.model), mined=mined
    )
    n_scenes = fit.scenes_per_epoch if split == "train" else fit.validation_scenes
    return SceneBatches(scenes, recipe, n_scenes=n_scenes, training=split == "train")


def _mined(
    run: Path, recipe: Recipe, model: architectures.Network | None, corpus: Corpus
) -> list[tuple[Spoken, int]]:
    """Return where the model begun with is wrong in what training hears; found once a run.

    It hears all speech, all noise, and all speech in some of the noise.
    """
    if model is None or not recipe.augment.mined_share:
        return []
    speech, noise = corpus.speech, corpus.wordless()
    if not (path := run / "mined.csv").is_file():
        noisy = in_noise(speech, noise, snr_db=_MINED_SNR_DB, seed=recipe.fit.seed)
        heard = itertools.chain(speech, noise, noisy)
        write_moments(mine(model, recipe, labels_of(recipe), heard), path)
    by_name = {name_of(spoken): spoken for spoken in (*speech, *noise)}
    moments = [moment for moment in read_moments(path) if moment.utterance in by_name]
    log.info("%d moments are taken for keywords where nobody says one, see %s", len(moments), path)
    return [(by_name[moment.utterance], moment.at) for moment in moments]


def _list_left_out(run: Path, left_out: dict[Path, str]) -> None:
    write_left_out(run / "left_out.csv", left_out)
    if left_out:
        log.warning("%d files left out, listed in %s", len(left_out), run / "left_out.csv")


def _list_unknown_words(run: Path, scenes: Scenes, *, seed: int) -> None:
    """Write which words stand for `_unknown_`, and how often each is drawn with which seed."""
    with (run / "unknown.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("word", "source", "count", "probability", "seed"))
        rows.writerows((*row, seed) for row in scenes.unknown_words())


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
    if isinstance(recipe.model, CtcRecipe):
        return CtcLoss()
    fit = recipe.fit
    return make_loss(
        fit.loss,
        label_smoothing=fit.label_smoothing,
        focal_gamma=fit.focal_gamma,
        pooled_outputs=fit.pooled_outputs,
    )


def _learn_from_teacher(model: architectures.Network, recipe: Recipe) -> None:
    fit = recipe.fit
    if fit.teacher is None:
        return
    teacher, taught = restore(Path(fit.teacher))
    ours, theirs = (
        (one.features, labels_of(one), architectures.time_stride(one.model))
        for one in (recipe, taught)
    )
    if ours != theirs:
        raise ConfigError(
            f"A teacher must take the same features and give the same labels as often. Received: "
            f"{fit.teacher}, which was trained with another `[features]`, other keywords or "
            f"another time stride. Train one by this recipe with a larger `[model]`."
        )
    learn_from(model, teacher, share=fit.teacher_share, temperature=fit.temperature)


def _optimizer(
    model: architectures.Network, recipe: Recipe, *, n_batches: int
) -> keras.optimizers.Optimizer:
    """AdamW with one epoch of warm-up and a cosine to zero."""
    n_epochs = recipe.fit.cosine_epochs or recipe.fit.epochs
    schedule = keras.optimizers.schedules.CosineDecay(
        recipe.fit.learning_rate / 20,
        max(1, (n_epochs - 1) * n_batches),
        warmup_target=recipe.fit.learning_rate,
        warmup_steps=n_batches,
    )
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=recipe.fit.weight_decay,
        clipnorm=1.0,
        use_ema=recipe.fit.average is not None,
        ema_momentum=recipe.fit.average or 0.99,
    )
    if ranges := [weight for layer in ranges_of(model) for weight in layer.weights]:
        optimizer.exclude_from_weight_decay(ranges)
    return optimizer


def _callbacks(
    run: Path, recipe: Recipe, history: Sequence[float]
) -> list[keras.callbacks.Callback]:
    averaging = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if recipe.fit.average else []
    return [
        Backup(run),  # of the weights that training goes on from
        *averaging,  # so that what is kept is the average
        KeepWeights(
            _kept(run, recipe),
            best_only=recipe.fit.keep == "best",
            least=min(history, default=None),
        ),
        StopEarly(patience=recipe.fit.patience, before=history),
        History(run, append=bool(history)),
        *_tensorboard(run),
    ]


def _kept(run: Path, recipe: Recipe) -> Path:
    """Return where the weights of the epoch to keep are."""
    return run / (_TRAINED if recipe.fit.start_share else _WEIGHTS)


def _tensorboard(run: Path) -> list[keras.callbacks.Callback]:
    """Write logs for TensorBoard; Keras does so with TensorFlow, whatever the backend."""
    if importlib.util.find_spec("tensorflow") is None:
        return []
    return [keras.callbacks.TensorBoard(str(run / "tensorboard"), write_graph=False)]


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
