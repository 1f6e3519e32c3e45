"""A wider model begins as the same function as the narrower one, and does not stay it."""

import msgspec
import numpy as np
import pytest
import tiny

from kws.errors import ConfigError
from kws_train.recipe import BcResnetRecipe, CrnnRecipe, GruRecipe, LstmRecipe, TcResnetRecipe

pytestmark = pytest.mark.slow  # TensorFlow has to be imported

LABELS = ["_silence_", "_unknown_", "low", "high"]
SMALL = msgspec.structs.replace(tiny.CRNN, dropout=0.0)
PAIRS = {
    "crnn": (
        SMALL,
        CrnnRecipe(channels=(8, 12, 24), n_blocks=1, kernel_frames=3, gru_units=16, dropout=0.0),
    ),
    "one layer": (
        SMALL,
        CrnnRecipe(channels=(4, 6, 8), n_blocks=1, kernel_frames=3, gru_units=24, dropout=0.0),
    ),
    "gru": (GruRecipe(units=[8, 8], dropout=0.0), GruRecipe(units=[16, 24], dropout=0.0)),
    "lstm": (LstmRecipe(units=[8, 8], dropout=0.0), LstmRecipe(units=[16, 8], dropout=0.0)),
    "tc_resnet": (
        TcResnetRecipe(channels=[4, 6, 8, 10], dropout=0.0),
        TcResnetRecipe(channels=[8, 12, 16, 20], dropout=0.0),
    ),
}


def network(recipe, seed, labels=LABELS):
    import keras

    from kws_train.networks import architectures

    keras.utils.set_random_seed(seed)
    model = architectures.build(recipe, n_labels=len(labels), mean=[0.0] * 16, std=[1.0] * 16)
    random = np.random.default_rng(seed)
    for weight in model.weights:  # statistics of normalisation, too: zeros and ones hide mistakes
        value = np.array(weight)
        drawn = random.uniform(0.5, 1.5, value.shape) if value.ndim == 1 else value
        weight.assign(drawn)
    return model


FRAMES = np.random.default_rng(0).normal(size=(2, 64, 16)).astype(np.float32)


def logits(model):
    return np.array(model(FRAMES))


def widen(narrow, wide, labels=LABELS):
    from kws_train.networks.transfer import transfer

    transfer(wide.weights, narrow.weights, labels=labels, labels_before=LABELS)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_a_wider_model_begins_as_what_the_narrower_one_computes(tensorflow, pair):
    narrow, wide = (network(recipe, seed) for seed, recipe in enumerate(pair))
    assert np.abs(logits(wide) - logits(narrow)).max() > 0.01
    widen(narrow, wide)
    assert wide.count_params() > narrow.count_params()
    assert np.abs(logits(wide) - logits(narrow)).max() < 1e-4


def test_the_copies_of_a_unit_part_when_trained(tensorflow):
    import keras

    from kws_train.fit.losses import SetLoss

    narrow, wide = (network(recipe, 1) for recipe in PAIRS["one layer"])
    widen(narrow, wide)
    recurrent = next(w for w in wide.weights if tuple(w.shape) == (24, 72))
    bias = next(w for w in wide.weights if tuple(w.shape) == (2, 72))
    before = np.array(bias).reshape(-1, 3)
    assert np.array_equal(before, np.repeat(before[:, :1], 3, axis=1))
    wide.compile(keras.optimizers.SGD(0.1), loss=SetLoss())
    frames = np.random.default_rng(0).normal(size=(8, 32, 16)).astype(np.float32)
    n_outputs = wide(frames).shape[1]
    wide.train_on_batch(frames, np.eye(4, dtype=np.uint8)[np.ones((8, n_outputs), int)])
    after = np.array(bias).reshape(-1, 3)
    assert np.ptp(after, axis=1).max() > 1e-6
    assert np.isfinite(np.array(recurrent)).all()


def test_a_wider_model_may_know_other_words(tensorflow):
    labels = ["_silence_", "_unknown_", "high"]
    narrow, wide = network(PAIRS["crnn"][0], 1), network(PAIRS["crnn"][1], 2, labels)
    widen(narrow, wide, labels)
    assert np.allclose(logits(wide), logits(narrow)[..., [0, 1, 3]], atol=1e-4)


@pytest.mark.parametrize(
    ("small", "other"),
    [
        (SMALL, {"gru_units": 12}),
        (SMALL, {"gru_units": 4}),
        (SMALL, {"kernel_frames": 9}),
        (GruRecipe(units=[8, 8]), {"stack_frames": 4}),
    ],
    ids=["half as wide again", "narrower", "longer kernels", "more frames at a time"],
)
def test_what_is_not_wider_by_a_whole_number_cannot_be_begun_with(tensorflow, small, other):
    model = network(msgspec.structs.replace(small, **other), 1)
    with pytest.raises(ConfigError, match="a whole number of times narrower"):
        widen(network(small, 2), model)


def test_a_training_begins_with_a_narrower_network(tensorflow):
    from kws_train.networks.transfer import initialize

    narrow, wide = (network(recipe, seed) for seed, recipe in enumerate(PAIRS["crnn"]))
    initialize(wide, narrow, [(FRAMES,)], labels=(LABELS, LABELS))
    assert np.abs(logits(wide) - logits(narrow)).max() < 1e-4


@pytest.mark.parametrize("labels", [LABELS, LABELS[::-1]], ids=["same labels", "other labels"])
def test_weights_that_fit_and_stand_for_something_else_are_refused(tensorflow, labels):
    """Twice the sub-bands take twice as many statistics, in another order than a wider layer."""
    from kws_train.networks.transfer import initialize

    one, two = (
        network(BcResnetRecipe(n_blocks=(1, 1, 1, 1), sub_bands=n), n, labels)
        for n, labels in ((1, LABELS), (2, labels))
    )
    with pytest.raises(ConfigError, match=r"^A wider network must begin as the same function"):
        initialize(two, one, [(FRAMES,)], labels=(labels, LABELS))
