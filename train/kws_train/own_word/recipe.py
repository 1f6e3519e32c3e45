"""The recipe of a phrase: three stages that fit into the minutes asked for."""

import importlib.util
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from msgspec.structs import replace

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.manifest import DataSource, DecisionDefaults
from kws_train.data.audio_files import read_samples
from kws_train.data.speech_span import speech_span
from kws_train.fit.training import fit
from kws_train.own_word.pretrained import recipe_of_backbone
from kws_train.recipe import (
    AugmentRecipe,
    DataRecipe,
    FitRecipe,
    Recipe,
    SpeechCorpus,
    WordCorpus,
)

__all__ = ["draw_up", "seconds_per_scene", "usual_length_ms", "weight_of_real", "within"]

_EPOCHS = (22, 10, 8)
_BATCH = 128
_SCENES_PER_EPOCH = (2 * _BATCH, 100 * _BATCH)
_VALIDATION_SHARE = 0.1  # of what a scene costs, those of validation cost less: they are kept
_PROBED_SCENES = 10 * _BATCH
_REAL_HALF = 30  # real recordings that are heard as often as all synthetic ones
_MOST_REAL = 0.8


def draw_up(
    labels: Sequence[str],
    *,
    words: Sequence[WordCorpus],
    speech: Sequence[SpeechCorpus],
    noise: Sequence[str],
    sources: Sequence[DataSource],
    word_ms: int,
    seed: int,
) -> Recipe:
    """Return the recipe for keywords, as long as `within` has not cut it to a time.

    The network and its features are those of the backbone. Microphones, rooms and noise are varied
    most in the first stage; the others hear what the stage before takes for a phrase.
    """
    backbone = recipe_of_backbone()
    rooms = bool(importlib.util.find_spec("pyroomacoustics"))
    return Recipe(
        name=re.sub(r"[^A-Za-z0-9_.-]", "_", "-".join(labels))[:64],
        description=", ".join(label.replace("_", " ") for label in labels),
        licence="as the data's",
        data=DataRecipe(
            keywords=list(labels),
            words=list(words),
            speech=list(speech),
            noise=list(noise),
            sources=list(sources),
        ),
        features=backbone.features,
        model=backbone.model,
        augment=AugmentRecipe(
            keyword_share=0.55,
            speech_share=0.35,
            context_share=0.5,
            room_share=0.35,
            room="pyroomacoustics" if rooms else "polack",
            speech_word_share=0.0,
            noise_share=0.85,
            snr_db=(-5.0, 32.0),
            babble_share=0.08,
            microphone_share=0.25,
            speed=(0.82, 1.25),
            warp=(0.86, 1.18),
            tilt_db=12.0,
        ),
        fit=FitRecipe(
            seed=seed,
            epochs=_EPOCHS[0],
            batch_size=_BATCH,
            learning_rate=1.5e-3,
            echo=2,
            average=0.99,
            keep="last",
            patience=sum(_EPOCHS),
        ),
        decision=DecisionDefaults(
            threshold=0.8, smoothing_ms=80, refractory_ms=1000, word_ms=word_ms
        ),
        then=[
            {
                "augment": {"mined_share": 0.3},
                "fit": {"epochs": _EPOCHS[1], "learning_rate": 8e-4},
            },
            {
                "augment": {"mined_share": 0.3, "speech_share": 0.4},
                "fit": {"epochs": _EPOCHS[2], "learning_rate": 5e-4},
            },
        ],
    )


def within(recipe: Recipe, *, minutes: float, scene_s: float) -> Recipe:
    """Return the recipe with as many scenes to an epoch as fit into the time.

    Parameters
    ----------
    recipe : Recipe
    minutes : float
    scene_s : float
        What a scene costs here, by `seconds_per_scene`.
    """
    least, most = _SCENES_PER_EPOCH
    n_scenes = 60 * minutes / scene_s / sum(_EPOCHS) / (1 + _VALIDATION_SHARE)
    n_scenes = int(np.clip(n_scenes, least, most)) // _BATCH * _BATCH
    n_validation = max(_BATCH, n_scenes // 8 // _BATCH * _BATCH)
    fitted = replace(recipe.fit, scenes_per_epoch=n_scenes, validation_scenes=n_validation)
    return replace(recipe, fit=fitted)


def seconds_per_scene(recipe: Recipe, *, data: Path, run: Path, start: Path) -> float:
    """Train three short epochs; return what a scene of the last took.

    The first compiles, and the second uses up what was made ahead meanwhile.
    """
    short = replace(
        recipe,
        then=[],
        fit=replace(
            recipe.fit, epochs=3, scenes_per_epoch=_PROBED_SCENES, validation_scenes=_BATCH
        ),
    )
    watch = _Stopwatch()
    fit(short, data=data, run=run, start=start, callbacks=[watch])
    return watch.last_s / _PROBED_SCENES


def usual_length_ms(clips: Sequence[Path]) -> int:
    """Return the median length of a word in clips, rounded to 50 ms."""
    spans = [speech_span(read_samples(path), said=path.parent.name) for path in clips]
    lengths = [end - start for start, end in spans]
    return max(100, round(float(np.median(lengths)) / RATE_HZ * 20) * 50)


def weight_of_real(n_real: int, n_synthetic: int) -> float:
    """Return how often a real clip is drawn against a synthetic one.

    Thirty recordings are heard as often as all that voices say, hundreds four times as often.
    """
    if not n_real or not n_synthetic:
        return 1.0
    share = min(_MOST_REAL, n_real / (n_real + _REAL_HALF))
    return share / (1 - share) * n_synthetic / n_real


class _Stopwatch(keras.callbacks.Callback):
    """Take the time of the last epoch."""

    last_s = 0.0
    _begun_s = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._begun_s = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.last_s = time.perf_counter() - self._begun_s
