"""Scenes are made once; every recipe gets its own frames and targets of them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kws.features import Features
from kws.manifest import FeatureSettings
from kws_train.data.corpus import Clip
from kws_train.recipe import AugmentRecipe, DataRecipe, FitRecipe, Recipe

pytestmark = pytest.mark.slow

LABELS = ["_silence_", "_unknown_", "yes", "no"]
N_SAMPLES = 16_000
N_FRAMES = 98


class Numbered:
    """Scenes whose targets say which scene and frame they are of."""

    def __init__(self):
        self.n_made = 0
        self.clips = [Clip("yes", "yes", Path("a"), np.ones(9000, np.int16))]

    def make(self, random):
        self.n_made += 1
        allowed = np.zeros((N_FRAMES, 4), np.uint8)
        allowed[np.arange(N_FRAMES), np.arange(N_FRAMES) % 4] = 1
        weight = np.arange(N_FRAMES, dtype=np.float32) + 1000 * self.n_made
        targets = SimpleNamespace(allowed=allowed, weight=weight)
        return SimpleNamespace(samples=random.normal(0, 900, N_SAMPLES), targets=targets)


@pytest.fixture(scope="module")
def cache(tensorflow):
    import scene_cache as cache

    return cache


def recipe(*, keywords=("yes", "no"), **features):
    return Recipe(
        name="one",
        data=DataRecipe(keywords=list(keywords), words=[]),
        features=FeatureSettings(**({"kind": "mfcc"} | features)),
        augment=AugmentRecipe(),
        fit=FitRecipe(batch_size=3),
    )


def batches(cache, cached, one, *, training=False, time_stride=4):
    return cache.CachedBatches(
        cached, one, labels=LABELS, time_stride=time_stride, training=training
    )


def test_scenes_are_made_once(cache, tmp_path):
    scenes = Numbered()
    first = cache.cached_scenes(scenes, tmp_path, n_scenes=6, seed=1)
    again = cache.cached_scenes(scenes, tmp_path, n_scenes=6, seed=1)
    assert scenes.n_made == 6
    assert np.array_equal(first.samples, again.samples)
    assert np.load(tmp_path / "clips.npy").shape == (1, 24_000)


def test_frames_are_those_of_the_runtime_for_each_settings(cache, tmp_path):
    cached = cache.cached_scenes(Numbered(), tmp_path, n_scenes=6, seed=1)
    for settings in (FeatureSettings(), FeatureSettings(kind="logmel", floor=1.0)):
        wanted = Features(settings).whole(np.asarray(cached.samples))
        found = cached.frames(settings).astype(np.float32)
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= 0.05


def test_targets_are_those_at_the_last_frame_of_a_stride(cache, tmp_path):
    cached = cache.cached_scenes(Numbered(), tmp_path, n_scenes=6, seed=1)
    frames, targets, weights = batches(cache, cached, recipe())[1]
    assert frames.shape == (3, 96, 13)
    assert targets.shape == (3, 24, 4)
    assert np.array_equal(weights[0], 4000 + np.arange(3, 96, 4))
    assert (targets.argmax(axis=-1) == 3).all()


def test_keywords_that_a_recipe_does_not_have_are_unknown_words(cache, tmp_path):
    cached = cache.cached_scenes(Numbered(), tmp_path, n_scenes=6, seed=1)
    _, targets, _ = batches(cache, cached, recipe(keywords=["no"]), time_stride=1)[0]
    assert targets.shape == (3, 98, 3)
    assert targets[0, :8].tolist() == 2 * [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_training_hears_every_scene_once_an_epoch_in_another_order(cache, tmp_path):
    trained = batches(
        cache, cache.cached_scenes(Numbered(), tmp_path, n_scenes=6, seed=1), recipe()
    )
    shuffled = batches(cache, trained.cached, recipe(), training=True)
    epochs = []
    for _ in range(3):
        heard = [shuffled[i][2][:, 0] for i in range(2)]
        assert np.array_equal(
            np.sort(np.concatenate(heard)), np.concatenate([trained[i][2][:, 0] for i in range(2)])
        )
        epochs.append(tuple(heard[0].tolist()))
        shuffled.on_epoch_end()
    assert len(set(epochs)) > 1


@pytest.mark.parametrize(("kind", "changes"), [("mfcc", False), ("logmel", True)])
def test_training_disturbs_log_power_frames_and_leaves_cepstra(cache, tmp_path, kind, changes):
    cached = cache.cached_scenes(Numbered(), tmp_path, n_scenes=6, seed=1)
    one = recipe(kind=kind, floor=1.0)
    trained = batches(cache, cached, one, training=True)
    frames, _, weights = trained[0]
    scenes = (weights[:, 0] // 1000).astype(int) - 1
    clean = cached.frames(one.features)[scenes, :96].astype(np.float32)
    assert (np.abs(frames - clean).max() > 0.1) == changes
