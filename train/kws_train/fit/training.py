"""Training of a recipe: data, model, one loop over epochs, and a run folder that can be resumed.

The run folder holds settings.json, history.csv, the weights to export in model.weights.h5,
TensorBoard logs under tensorboard/, features for export in examples.npz, pictures, and, until the
training has finished, the state to resume from under backup/.
"""

import csv
import importlib.util
import itertools
import json
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import keras
import msgspec

from kws.errors import ConfigError
from kws_train.data.corpus import Corpus, KeptCorpora, load_corpus, write_left_out
from kws_train.fit.batches import (
    Batch,
    SceneBatches,
    feature_statistics,
    make_batches,
    write_examples,
)
from kws_train.fit.checkpoints import (
    CsvHistory,
    EarlyStopping,
    StateCheckpoint,
    StopOnNonFiniteLoss,
    WeightsCheckpoint,
    completed_epochs,
    is_finished,
    mark_finished,
    resume,
    save_weights,
    write_text,
)
from kws_train.fit.hard_negatives import find_hard_negatives
from kws_train.fit.losses import CtcLoss, TaughtLoss, distill, make_loss
from kws_train.fit.prefetch import prefetch
from kws_train.fit.soft_targets import has_soft_targets
from kws_train.networks import architectures
from kws_train.networks.fake_quant import quant_ranges
from kws_train.networks.keras_backend import at_precision, make_deterministic
from kws_train.networks.transfer import initialize
from kws_train.recipe import CtcRecipe, EmbeddingRecipe, Recipe
from kws_train.scenes.scenes import Scenes

__all__ = ["fit", "fit_stages", "restore"]

log = logging.getLogger("kws_train")

LoadCorpus: TypeAlias = Callable[..., Corpus]

_WEIGHTS = "model.weights.h5"
_TRAINED = "trained.weights.h5"  # the weights that `start_share` averages with the initial ones


def fit(
    recipe: Recipe,
    *,
    data: Path,
    run: Path,
    start: Path | None = None,
    validate: Recipe | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    quiet: bool = False,
    load: LoadCorpus = load_corpus,
) -> architectures.Network:
    """Train one stage of a recipe; return the model with its final weights.

    Resumes after the last completed epoch if `run` holds an unfinished training.

    Parameters
    ----------
    recipe : Recipe
    data : Path
        The folder that the recipe's paths are relative to.
    run : Path
        The run folder; created if missing.
    start : Path, optional
        A run folder of the same architecture, whose weights and feature statistics are the initial
        ones. Its keywords may differ: classifier weights of unknown labels are not transferred. It
        may be narrower by a whole factor: the model then begins as the same function.
    validate : Recipe, optional
        The recipe of the validation scenes, if another than `recipe`.
    callbacks : sequence of keras.callbacks.Callback
        Called besides those of every training.
    quiet : bool
        Print no line for each epoch.
    load : callable
        `KeptCorpora` where several trainings in a row have the same data.

    Raises
    ------
    ConfigError
        If data is missing, `run` holds an unfinished training of another recipe, or `start` is of
        another architecture.
    """
    make_deterministic(seed=recipe.fit.seed)
    run.mkdir(parents=True, exist_ok=True)
    completed = completed_epochs(run)  # a validation loss per epoch; empty unless resumed
    if completed:
        _check_same_recipe(recipe, run)

    initial = _load_initial(recipe, start)
    training, validation = _make_data(
        recipe, validate or recipe, data, run, initial=initial, load=load
    )
    with closing(training), closing(validation):
        model = _make_model(recipe, run, training, initial=initial, resumed=bool(completed))
        initial_weights = model.get_weights()

        _compile(model, recipe, n_batches=len(training), has_initial=initial is not None)
        if completed:
            resume(model, run, n_epochs=len(completed))
        own = _callbacks(run, recipe, training, validation, completed=completed)
        _train(
            model,
            recipe,
            training,
            validation,
            completed=completed,
            callbacks=[*own, *callbacks],
            quiet=quiet,
        )

        _finish(model, recipe, run, initial_weights=initial_weights)
    return model


def fit_stages(
    recipe: Recipe,
    *,
    data: Path,
    run: Path,
    start: Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    quiet: bool = False,
    load: LoadCorpus | None = None,
) -> tuple[architectures.Network, Recipe]:
    """Train the stages of a recipe in turn, all but the last in subfolders of `run`.

    Returns
    -------
    Spotting or Windowed, Recipe
        The model and the recipe of the last stage.
    """
    if is_finished(run):
        log.warning("this training has finished already, nothing is done: %s", run)
        return restore(run)
    options: dict[str, Any] = {"data": data, "callbacks": callbacks, "quiet": quiet}
    options["load"] = load or KeptCorpora()
    *earlier, last = recipe.stages()
    for i, stage in enumerate(earlier, start=1):
        folder = run / f"stage-{i}"
        if not is_finished(folder):
            fit(stage, run=folder, start=start, **options)
        start = folder
    model = fit(last, run=run, start=start, **options)
    return model, last


def restore(run: Path) -> tuple[architectures.Network, Recipe]:
    """Return the trained model of a run folder, and its recipe.

    Raises
    ------
    ConfigError
        If the folder holds no completed epoch.
    """
    try:
        settings = json.loads((run / "settings.json").read_text())
        recipe = msgspec.convert(settings["recipe"], Recipe)
        model = _build(recipe, mean=settings["mean"], std=settings["std"])
        model.load_weights(run / _WEIGHTS)
    except (OSError, ValueError, KeyError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"A run folder must hold settings.json and {_WEIGHTS} of one training. Received: "
            f"{run} ({error}). Make one with `kws train`."
        ) from error
    return model, recipe


def _check_same_recipe(recipe: Recipe, run: Path) -> None:
    """Refuse to resume with another recipe, the number of epochs excepted."""
    saved = json.loads((run / "settings.json").read_text())["recipe"]
    given = json.loads(json.dumps(msgspec.to_builtins(recipe)))
    for one in (saved, given):
        del one["fit"]["epochs"]
    if saved != given:
        changed = ", ".join(f"[{key}]" for key in given if given[key] != saved.get(key))
        raise ConfigError(
            f"An unfinished training must be resumed with its own recipe. Received: other values "
            f"in {changed} for {run}. Give another --out, or remove that folder."
        )


class _Initial(NamedTuple):
    """The model that a training starts from, and its labels."""

    model: architectures.Network
    labels: list[str]


def _load_initial(recipe: Recipe, start: Path | None) -> _Initial | None:
    if start is not None:
        model, saved = restore(start)
        return _Initial(model, saved.labels)
    for setting, is_set in (
        ("quantize_aware = true", recipe.fit.quantize_aware),
        ("start_share", recipe.fit.start_share),
    ):
        if is_set:
            raise ConfigError(
                f"`[fit] {setting}` must have trained weights to start from. Received: a training "
                f"from random weights. Put it into a `[[then]]`, or give a run folder with --start."
            )
    return None


def _make_data(
    recipe: Recipe,
    validate: Recipe,
    data: Path,
    run: Path,
    *,
    initial: _Initial | None,
    load: LoadCorpus,
) -> tuple[SceneBatches, SceneBatches]:
    """Return training and validation batches; write lists of their files to the run folder.

    Hard negatives are false alarms of the initial model, if it has the recipe's labels.
    """
    corpus = load(recipe.data, data, split="train")
    detector = initial.model if initial and initial.labels == recipe.labels else None
    mined = find_hard_negatives(run, recipe, detector, corpus)
    training = make_batches(recipe, corpus, split="train", mined=mined)
    validation_corpus = load(validate.data, data, split="validation")
    validation = make_batches(validate, validation_corpus, split="validation")
    _write_left_out(run, training.scenes.left_out | validation.scenes.left_out)
    _write_unknown_words(run, training.scenes, seed=recipe.fit.seed)
    write_examples(run / "examples.npz", training, validation)
    return training, validation


def _write_left_out(run: Path, left_out: dict[Path, str]) -> None:
    write_left_out(run / "left_out.csv", left_out)
    if left_out:
        log.warning("%d files left out, listed in %s", len(left_out), run / "left_out.csv")


def _write_unknown_words(run: Path, scenes: Scenes, *, seed: int) -> None:
    """Write the words that stand for `_unknown_`, and the probability that each is drawn."""
    with (run / "unknown.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("word", "source", "count", "probability", "seed"))
        rows.writerows((*row, seed) for row in scenes.unknown_words())


def _make_model(
    recipe: Recipe, run: Path, training: SceneBatches, *, initial: _Initial | None, resumed: bool
) -> architectures.Network:
    """Return the model with its initial weights; write settings.json, which `restore` reads."""
    mean, std = initial.model.statistics if initial else feature_statistics(training)
    settings = {"recipe": msgspec.to_builtins(recipe), "mean": mean, "std": std}
    write_text(run / "settings.json", json.dumps(settings, indent=1))
    with at_precision("float32" if recipe.fit.quantize_aware else recipe.fit.precision):
        model = _build(recipe, mean=mean, std=std)
    log.info("%s: %d parameters", recipe.model.architecture, model.count_params())
    if initial:
        batches: Sequence[Batch] = [] if resumed else training
        initialize(model, initial.model, batches, labels=(recipe.labels, initial.labels))
    return model


def _build(recipe: Recipe, *, mean: Sequence[float], std: Sequence[float]) -> architectures.Network:
    return architectures.build(
        recipe.model,
        n_labels=len(recipe.labels),
        mean=mean,
        std=std,
        quantize_aware=recipe.fit.quantize_aware,
    )


def _compile(
    model: architectures.Network, recipe: Recipe, *, n_batches: int, has_initial: bool
) -> None:
    has_weights = has_initial or isinstance(recipe.model, EmbeddingRecipe)
    if recipe.fit.frozen_layers and has_weights:  # window models have none
        for layer in model.stack[: recipe.fit.frozen_layers]:
            layer.trainable = False
    model.compile(optimizer=_optimizer(model, recipe, n_batches=n_batches), loss=_loss(recipe))
    _add_teacher(model, recipe)


def _optimizer(
    model: architectures.Network, recipe: Recipe, *, n_batches: int
) -> keras.optimizers.Optimizer:
    """AdamW; the learning rate warms up for one epoch, then follows a cosine to zero."""
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
    if ranges := [weight for layer in quant_ranges(model) for weight in layer.weights]:
        optimizer.exclude_from_weight_decay(ranges)
    return optimizer


def _loss(recipe: Recipe) -> keras.losses.Loss:
    if isinstance(recipe.model, CtcRecipe):
        return CtcLoss()
    fit = recipe.fit
    own = make_loss(
        fit.loss,
        label_smoothing=fit.label_smoothing,
        focal_gamma=fit.focal_gamma,
        pooled_outputs=fit.pooled_outputs,
    )
    if not has_soft_targets(recipe):
        return own
    return TaughtLoss(own, share=fit.teacher_share, temperature=fit.temperature)


def _add_teacher(model: architectures.Network, recipe: Recipe) -> None:
    """Add the recipe's teacher, if that is a run folder, to the training loss."""
    fit = recipe.fit
    if fit.teacher is None or has_soft_targets(recipe):
        return
    teacher, teacher_recipe = restore(Path(fit.teacher))
    student, taught = (
        (one.features, one.labels, architectures.time_stride(one.model))
        for one in (recipe, teacher_recipe)
    )
    if student != taught:
        raise ConfigError(
            f"A teacher must have the same features, labels and time stride. Received: "
            f"{fit.teacher}, which was trained with another `[features]`, other keywords or "
            f"another time stride. Train one by this recipe with a larger `[model]`."
        )
    distill(model, teacher, share=fit.teacher_share, temperature=fit.temperature)


def _callbacks(
    run: Path,
    recipe: Recipe,
    training: SceneBatches,
    validation: SceneBatches,
    *,
    completed: Sequence[float],
) -> list[keras.callbacks.Callback]:
    """Return the callbacks of every training; Keras calls them in this order."""
    averaging = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if recipe.fit.average else []
    return [
        StopOnNonFiniteLoss(run, training=training.files, validation=validation.files),
        StateCheckpoint(run),  # of the weights that the optimiser updates
        *averaging,  # from here on, the model has the averaged weights
        WeightsCheckpoint(
            _checkpoint(run, recipe),
            best_only=recipe.fit.keep == "best",
            best=min(completed, default=None),
        ),
        EarlyStopping(patience=recipe.fit.patience, completed=completed),
        CsvHistory(run, append=bool(completed)),
        *_tensorboard(run),
    ]


def _checkpoint(run: Path, recipe: Recipe) -> Path:
    """Return the path of the weights of the best or the last epoch."""
    return run / (_TRAINED if recipe.fit.start_share else _WEIGHTS)


def _tensorboard(run: Path) -> list[keras.callbacks.Callback]:
    """Write TensorBoard logs; Keras needs TensorFlow for that, whatever its backend."""
    if importlib.util.find_spec("tensorflow") is None:
        return []
    return [keras.callbacks.TensorBoard(str(run / "tensorboard"), write_graph=False)]


def _train(
    model: architectures.Network,
    recipe: Recipe,
    training: SceneBatches,
    validation: SceneBatches,
    *,
    completed: Sequence[float],
    callbacks: Sequence[keras.callbacks.Callback],
    quiet: bool,
) -> None:
    """Run the epochs that are not completed; another process prepares the batches."""
    steps = itertools.count(len(completed) * len(training))
    with prefetch(training.__getitem__, steps) as batches:
        model.fit(
            batches,
            steps_per_epoch=len(training),
            shuffle=False,  # a step's scenes must be reproducible by its number
            validation_data=validation,
            initial_epoch=len(completed),
            epochs=recipe.fit.epochs,
            callbacks=callbacks,
            verbose=0 if quiet else 1 if sys.stdout.isatty() else 2,
        )


def _finish(
    model: architectures.Network, recipe: Recipe, run: Path, *, initial_weights: Sequence[Any]
) -> None:
    """Load the weights of the best or last epoch, average them, mark the run as finished."""
    model.load_weights(_checkpoint(run, recipe))
    if share := recipe.fit.start_share:  # Wortsman et al. 2022, section 3
        pairs = zip(initial_weights, model.get_weights(), strict=True)
        model.set_weights([share * before + (1 - share) * after for before, after in pairs])
        save_weights(model, run / _WEIGHTS)
    mark_finished(run)
