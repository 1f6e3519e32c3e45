"""Training time: measure the speed of this machine, and fit a recipe into minutes."""

import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from msgspec.structs import replace

from kws_train.fit.training import fit
from kws_train.recipe import Recipe

__all__ = ["fit_to_minutes", "seconds_per_scene"]

_SCENES_PER_EPOCH = (256, 12_800)
_VALIDATION_SHARE = 0.1  # of the cost of a training scene; validation scenes are cached
_N_PROBE_BATCHES = 10


def fit_to_minutes(recipe: Recipe, *, minutes: float, scene_s: float) -> Recipe:
    """Return the recipe with the number of scenes per epoch that fits into a training time.

    Parameters
    ----------
    recipe : Recipe
    minutes : float
    scene_s : float
        Time per scene on this machine, see `seconds_per_scene`.
    """
    least, most = _SCENES_PER_EPOCH
    batch = recipe.fit.batch_size
    n_epochs = sum(stage.fit.epochs for stage in recipe.stages())
    n_scenes = 60 * minutes / scene_s / n_epochs / (1 + _VALIDATION_SHARE)
    n_scenes = int(np.clip(n_scenes, least, most)) // batch * batch
    n_validation = max(batch, n_scenes // 8 // batch * batch)
    fitted = replace(recipe.fit, scenes_per_epoch=n_scenes, validation_scenes=n_validation)
    return replace(recipe, fit=fitted)


def seconds_per_scene(recipe: Recipe, *, data: Path, run: Path, start: Path) -> float:
    """Train three short epochs; return the time per scene of the last one.

    The first epoch includes compilation; the second is sped up by scenes that were prefetched
    meanwhile.
    """
    batch = recipe.fit.batch_size
    n_scenes = _N_PROBE_BATCHES * batch
    short = replace(
        recipe,
        then=[],
        fit=replace(recipe.fit, epochs=3, scenes_per_epoch=n_scenes, validation_scenes=batch),
    )
    watch = _Stopwatch()
    fit(short, data=data, run=run, start=start, callbacks=[watch], quiet=True)
    return watch.last_s / n_scenes


class _Stopwatch(keras.callbacks.Callback):
    """Measures the duration of the last epoch."""

    last_s = 0.0
    _begun_s = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._begun_s = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.last_s = time.perf_counter() - self._begun_s
