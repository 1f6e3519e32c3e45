"""Batches of tones: their shapes, and what each of them depends on."""

import numpy as np
import pytest
from tiny import RECIPE, changed

from kws_train.data.corpus import load_corpus

pytestmark = pytest.mark.slow  # TensorFlow has to be imported


@pytest.fixture(scope="module")
def batches_of(tensorflow, tone_words):
    from kws_train.fit.batches import make_batches

    def make(split, recipe=RECIPE):
        corpus = load_corpus(recipe.data, tone_words, split=split)
        return make_batches(recipe, corpus, split=split)

    return make


def test_the_files_of_a_batch_are_found_by_making_it_again(batches_of):
    batches = batches_of("train")
    before = batches[2]
    files = batches.files(0, 2)
    assert set(files) <= {clip.path for clip in batches.scenes.clips}
    assert len(set(files)) >= 8
    assert files == batches.files(0, 2) != batches.files(1, 2)
    assert batches.scenes.sources is None
    assert all(np.array_equal(a, b) for a, b in zip(before, batches[2], strict=True))


def test_batches_of_an_epoch_depend_on_the_seed_alone(batches_of):
    first, again = (batches_of("train") for _ in range(2))
    batch = first[1]
    again[0]  # what was asked for before does not matter
    assert all(np.array_equal(a, b) for a, b in zip(batch, again[1], strict=True))
    assert not np.array_equal(batch[0], again[1 + len(again)][0])  # of the next epoch


def test_a_scene_is_in_as_many_batches_as_it_echoes(batches_of):
    calm = {"tilt_db": 0.0, "time_masks": 0, "band_masks": 0}
    recipe = changed(fit={"echo": 2}, augment=calm)
    first, second, third = (batches_of("train", recipe)[i][0] for i in range(3))
    assert np.array_equal(first[4:], second[:4])
    assert np.array_equal(second[4:], third[:4])
    assert not np.array_equal(first[:4], second[:4])


def test_an_echo_is_disturbed_anew(batches_of):
    batches = batches_of("train", changed(fit={"echo": 2}))
    assert not np.array_equal(batches[0][0][4:], batches[1][0][:4])


def test_validation_batches_are_the_same_in_every_epoch(batches_of):
    batches = batches_of("validation")
    first = batches[0][0].copy()
    assert np.array_equal(batches[0][0], first)
    fresh = batches_of("validation")
    assert np.array_equal(fresh[0][0], first)


def test_a_batch_fits_the_model(batches_of):
    frames, targets, weights = batches_of("train")[0]
    assert frames.shape == (8, 2 * targets.shape[1], 8)
    assert targets.shape == (8, weights.shape[1], 4)
