"""Hyper-parameter search with Optuna: many short trainings, of which poor ones are pruned.

Each trial trains the first stage of the recipe with values drawn from the ranges of its `[search]`
table, in a folder of its own. The objective is the lowest validation loss; validation scenes are
those of the recipe itself in every trial. Machines that use the same storage URL share one study; a
trial of one that was killed stays unfinished, and another is done in its place.
"""

import csv
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import keras
import msgspec

from kws.errors import ConfigError, KwsError
from kws_train.data.corpus import KeptCorpora
from kws_train.evaluate.study_plots import draw_study
from kws_train.fit.checkpoints import BACKUP, NonFiniteLossError
from kws_train.fit.training import fit
from kws_train.optional import load_library
from kws_train.recipe import Recipe, SearchRange, write_recipe

__all__ = ["apply_values", "search"]

log = logging.getLogger("kws.search")

_LOSS_SETTINGS = {"fit.loss", "fit.label_smoothing", "fit.focal_gamma"}
_WARM_UP_EPOCHS = 3  # the losses of the first epochs do not predict the last
_TRIES, _PAUSE_S = 4, 0.5
_LOCK_S = 60.0  # to wait while another process writes to a SQLite file, on a busy disk

_Made = TypeVar("_Made")


def search(
    recipe: Recipe,
    *,
    data: Path,
    run: Path,
    n_trials: int,
    storage: str | None = None,
    study: str | None = None,
    start: Path | None = None,
) -> Recipe:
    """Train until the study has `n_trials` complete or pruned trials; return the best recipe.

    Values are drawn by the tree-structured Parzen estimator; a trial that is worse than the median
    of the others at the same epoch is pruned. `run` gets a folder per trial, `trials.csv`,
    `best.toml` and two pictures of the study. The same command continues the study.

    Parameters
    ----------
    recipe : Recipe
        With ranges in `[search]`.
    data, start : Path
        As in `fit`.
    run : Path
    n_trials : int
        In total, including those of other machines.
    storage : str, optional
        SQLAlchemy URL of the database of the study. By default a file in `run`.
    study : str, optional
        Its name; by default the recipe's.

    Raises
    ------
    ConfigError
        If `[search]` is empty, has an unknown setting or changes the loss itself, Optuna is not
        installed, the storage cannot be used, or no trial is complete.
    KwsError
        If the storage fails later; the same command continues the study.
    """
    _check_ranges(recipe)
    run.mkdir(parents=True, exist_ok=True)
    url = storage or f"sqlite:///{run.resolve() / 'study.db'}"
    opened = _open_study(recipe, url, study, shared=storage is not None)
    load = KeptCorpora()
    with _storage_errors(url):
        try:
            while _n_done(opened) < n_trials:
                opened.optimize(
                    lambda trial: _run_trial(
                        trial, recipe, data=data, run=run, start=start, load=load
                    ),
                    1,
                )
        finally:
            _write_trials(run / "trials.csv", opened, list(recipe.search))
    best = _best_recipe(recipe, opened, run)
    draw_study(opened, run)
    write_recipe(run / "best.toml", msgspec.structs.replace(best, search={}))
    return best


def apply_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return a recipe with other values for keys such as `fit.learning_rate`.

    Raises
    ------
    ConfigError
        If there is no such setting, or the recipe breaks a rule with these values.
    """
    tables = msgspec.to_builtins(recipe)
    for key, value in values.items():
        *path, last = key.split(".")
        table = tables
        for name in path:
            table = table.get(name) if isinstance(table, dict) else None
        if not path or not isinstance(table, dict) or last not in table:
            raise ConfigError(
                f"`[search]` must name settings as `table.key`. Received: `{key}`. "
                f"docs/training.md lists every key."
            )
        table[last] = value
    try:
        return msgspec.convert(tables, Recipe)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"`[search]` must stay within the rules of recipes. Received: {error}, for {values}. "
            f"Correct its ranges."
        ) from error


def _check_ranges(recipe: Recipe) -> None:
    if not recipe.search:
        raise ConfigError(
            "A search needs ranges to search in. Received: a recipe without `[search]`. Add it, as "
            "in docs/training.md."
        )
    if forbidden := sorted(_LOSS_SETTINGS & set(recipe.search)):
        raise ConfigError(
            f"A search compares losses, so the loss must be the same in every trial. Received: "
            f"`{forbidden[0]}` in `[search]`. Take it out, and search once for each loss."
        )
    for key, range_ in recipe.search.items():
        apply_values(recipe, {key: range_.choices[0] if range_.choices else range_.low})


def _best_recipe(recipe: Recipe, study: Any, run: Path) -> Recipe:
    try:
        values = {key: study.best_params[key] for key in recipe.search}
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"A search must have a complete trial with these ranges. Received: none; see "
            f"{run / 'trials.csv'}. Narrow `[search]`, or give another --study."
        ) from error
    return apply_values(recipe, values)


def _open_study(recipe: Recipe, url: str, name: str | None, *, shared: bool) -> Any:
    optuna = load_library("optuna", purpose="`kws train --search`")
    sqlalchemy = load_library("sqlalchemy", purpose="`kws train --search`")
    optuna.logging.disable_default_handler()
    try:
        database = _create_concurrently(
            lambda: optuna.storages.RDBStorage(url, engine_kwargs=_engine_options(url)),
            sqlalchemy.exc.DBAPIError,
        )
        study = optuna.create_study(
            storage=database,
            study_name=name or recipe.name,
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=_WARM_UP_EPOCHS),
        )
    except (ValueError, ImportError, sqlalchemy.exc.SQLAlchemyError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"--storage must be the URL of a database that can be opened. Received: {url} "
            f"({reason}). Give one such as sqlite:///study.db or postgresql://user@host/name."
        ) from error
    # Machines that share a study must draw different values.
    seed = None if shared else (recipe.fit.seed + len(study.trials)) % 2**32
    study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=shared)
    return study


def _engine_options(url: str) -> dict[str, Any]:
    return {"connect_args": {"timeout": _LOCK_S}} if url.startswith("sqlite") else {}


@contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    """Turn failures of an open study's database into an error that says how to go on."""
    optuna = load_library("optuna", purpose="`kws train --search`")
    sqlalchemy = load_library("sqlalchemy", purpose="`kws train --search`")
    failures = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)
    try:
        yield
    except (AssertionError, *failures) as error:
        cause = error.__context__ if isinstance(error, AssertionError) else error
        if not isinstance(cause, failures):  # Optuna asserts that it could store how a trial ended
            raise
        reason = str(cause.__cause__ or cause).partition("\n")[0]
        raise KwsError(
            f"The study's database must stay writable. Received: {reason} at {url}. The same "
            f"command continues the study; its unfinished trial is done again."
        ) from error


def _create_concurrently(make: Callable[[], _Made], taken: type[Exception]) -> _Made:
    """Retry creating a database that another machine may be creating at the same time."""
    for _ in range(_TRIES - 1):
        try:
            return make()
        except taken:
            time.sleep(_PAUSE_S)
    return make()


def _n_done(study: Any) -> int:
    """Count complete and pruned trials; failed ones are repeated."""
    return sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.get_trials())


def _run_trial(
    trial: Any,
    recipe: Recipe,
    *,
    data: Path,
    run: Path,
    start: Path | None,
    load: KeptCorpora,
) -> float:
    """Train once; return the lowest validation loss."""
    pruned = load_library("optuna", purpose="`kws train --search`").TrialPruned
    values = {key: _draw(trial, key, range_) for key, range_ in recipe.search.items()}
    log.info("trial %d: %s", trial.number, values)
    drawn = msgspec.structs.replace(apply_values(recipe, values), then=[], search={})
    validate = msgspec.structs.replace(recipe, features=drawn.features, model=drawn.model)
    folder = run / f"trial-{trial.number}"
    report = _Report(trial, pruned)
    keras.backend.clear_session()
    try:
        fit(
            drawn,
            data=data,
            run=folder,
            start=start,
            validate=validate,
            callbacks=[report],
            load=load,
        )
    except NonFiniteLossError as error:
        log.warning("trial %d: %s", trial.number, error)
        raise pruned(str(error)) from error
    finally:
        shutil.rmtree(folder / BACKUP, ignore_errors=True)
    return min(report.losses)


def _draw(trial: Any, key: str, range_: SearchRange) -> Any:
    if range_.choices:
        return trial.suggest_categorical(key, range_.choices)
    step = {} if range_.step is None else {"step": range_.step}
    if isinstance(range_.low, int) and isinstance(range_.high, int):
        return trial.suggest_int(key, range_.low, range_.high, log=range_.log, **step)
    return trial.suggest_float(key, range_.low, range_.high, log=range_.log, **step)


class _Report(keras.callbacks.Callback):
    """Report the validation loss of each epoch to the study; stop if it prunes the trial."""

    def __init__(self, trial: Any, pruned: type[Exception]) -> None:
        super().__init__()
        self.trial, self.pruned = trial, pruned
        self.losses: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.losses.append(float(logs["val_loss"]))
        self.trial.report(self.losses[-1], epoch)
        if self.trial.should_prune():
            log.info("trial %d: pruned after epoch %d", self.trial.number, epoch + 1)
            raise self.pruned


def _write_trials(path: Path, study: Any, keys: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("trial", "state", "val_loss", *keys))
        for trial in study.get_trials():
            drawn = (trial.params.get(key, "") for key in keys)
            loss = "" if trial.value is None else trial.value
            rows.writerow((trial.number, trial.state.name.lower(), loss, *drawn))
