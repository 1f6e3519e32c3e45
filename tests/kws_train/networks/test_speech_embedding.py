import re

import msgspec
import numpy as np
import pytest
import soundfile
import sounds
import tiny

from kws.commands.demo import load_demo
from kws.errors import ConfigError
from kws.features import Features
from kws_train.networks.speech_embedding import load_weights
from kws_train.recipe import EMBEDDING_FEATURES, EmbeddingRecipe

pytestmark = pytest.mark.slow

ROUNDING = 1e-4
"""Of values up to 60. With AVX-512 the bits are equal; elsewhere convolutions of other lengths are
summed up in another order."""


@pytest.fixture(scope="module")
def networks(tensorflow):
    from kws_train.networks import speech_embedding

    return speech_embedding


@pytest.fixture(scope="module")
def build(networks):
    """Make a network of the blocks alone, or of those and other layers."""
    from kws_train.networks.spotting import Spotting

    def build(*, standardize=False):
        network = Spotting(networks.speech_embedding(standardize=standardize))
        network.build((None, None, 32))
        return network

    return build


@pytest.fixture(scope="module")
def network(build):
    return build()


@pytest.fixture(scope="module")
def frames(networks):
    """Ten seconds of the demonstration."""
    signal, _ = soundfile.read(load_demo()[1], dtype="int16", stop=160_000)
    return Features(EMBEDDING_FEATURES).process(signal)


def stepped(network, frames):
    states = [np.zeros(shape, np.float32) for shape in network.state_shapes()]
    outputs = []
    for start in range(0, len(frames) - 7, 8):
        y, states = network.step(frames[None, start : start + 8], states)
        outputs.append(np.asarray(y)[0, 0, 0])
    return np.stack(outputs)


def test_whole_equals_the_published_network(networks, network, frames, published):
    starts = range(0, len(frames) - 75, 8)
    windows = np.stack([frames[start : start + 76, :, None] for start in starts])
    wanted = published("embedding_model", windows)[:, 0, 0]
    embeddings = networks.embed_whole(network, frames[None])[0]
    assert embeddings.shape == wanted.shape == (1 + (len(frames) - 76) // 8, 96)
    assert np.abs(embeddings - wanted).max() <= 1e-4


def test_a_step_gives_what_the_whole_gives_that_begins_at_frame_4(networks, network, frames):
    in_steps = stepped(network, frames)[networks.N_WARM_UP :]
    whole = networks.embed_whole(network, frames[None, 4:])[0]
    assert len(in_steps) == len(whole) > 100
    assert np.abs(in_steps - whole).max() <= ROUNDING


def test_steps_from_the_first_frame_on_are_what_training_sees(network, frames):
    whole = np.asarray(network(frames[None]))[0, :, 0][: len(frames) // 8]
    assert np.abs(stepped(network, frames) - whole).max() <= ROUNDING


def test_76_frames_give_one_embedding(networks, network, frames):
    assert networks.embed_whole(network, frames[None, :76]).shape == (1, 1, 96)


def test_standardised_embeddings_have_mean_0_and_spread_1_over_speech(
    networks, network, build, frames
):
    weights = networks.load_weights()
    plain = networks.embed_whole(network, frames[None])[0]
    standardised = networks.embed_whole(build(standardize=True), frames[None])[0]
    wanted = (plain - weights["mean"]) / weights["std"]
    assert np.abs(standardised - wanted).max() <= 1e-3


def test_blocks_are_frozen_one_by_one(build):
    network = build()
    n_all = len(network.trainable_weights)
    for block in network.stack[:-2]:
        block.trainable = False
    assert n_all == 39
    assert len(network.trainable_weights) == 4 * 2 + 1
    assert network.count_params() == 328_128


def test_a_recipe_s_network_begins_as_the_embedding_and_steps_as_it_trains(frames):
    from kws_train.networks import architectures

    recipe = EmbeddingRecipe(channels=16)
    network = architectures.build(recipe, n_labels=4, mean=[5.0] * 32, std=[2.0] * 32)
    assert network.time_stride == architectures.time_stride(recipe) == 8
    assert architectures.context_frames(recipe) == 76 + 12 * 8
    weights = {one.path.rpartition("/")[0]: np.array(one) for one in network.stack[0].weights}
    assert len(weights) == 3
    first = np.asarray(network.stack[0].layers[1].kernel)
    assert np.array_equal(first, load_weights()["kernel_0"])
    frames = frames[:400]
    states = [np.zeros(shape, np.float32) for shape in network.state_shapes()]
    posteriors = []
    for start in range(0, len(frames), 8):
        y, states = network.step(frames[None, start : start + 8], states)
        posteriors.append(np.asarray(y)[0, 0])
    logits = np.asarray(network(frames[None]))[0]
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(np.stack(posteriors) - wanted).max() <= 1e-5


def test_a_recipe_freezes_the_embedding_without_a_run_to_start_from(tmp_path):
    from kws_train.fit.training import fit

    for word, hz in (("low", 500), ("high", 2500), ("other", 1200)):
        for i in range(14):
            wave = sounds.tone_in_noise(hz, seed=i)
            sounds.write(tmp_path / "words" / word / f"{i:04x}_nohash_0.wav", wave)
    base = msgspec.structs.replace(
        tiny.RECIPE, model=EmbeddingRecipe(channels=4), features=EMBEDDING_FEATURES
    )
    for n_frozen, n_moved in ((5, 1), (0, 20)):
        recipe = tiny.changed(base, fit={"frozen_layers": n_frozen, "weight_decay": 0.0})
        model = fit(recipe, data=tmp_path, run=tmp_path / f"run-{n_frozen}", quiet=True)
        kernels = [
            np.asarray(layer.kernel)
            for block in model.stack[:6]
            for layer in block.layers
            if hasattr(layer, "kernel")
        ]
        before = load_weights()
        before["kernel_19"] = before["kernel_19"] / before["std"]
        moved = [
            not np.array_equal(kernel, before[f"kernel_{i}"]) for i, kernel in enumerate(kernels)
        ]
        assert sum(moved) == n_moved


def test_missing_weights_are_refused(networks, tmp_path):
    path = tmp_path / "weights.npz"
    message = (
        f"The weights of the speech embedding must be readable. Received: {path} ([Errno 2] No "
        f"such file or directory: '{path}'). Install kws again, or run `python -m "
        f"kws_export.speech_embedding`."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        networks.load_weights(path)


def test_damaged_weights_are_refused(networks, tmp_path):
    path = tmp_path / "weights.npz"
    path.write_bytes(networks.WEIGHTS.read_bytes()[:5000])
    with pytest.raises(ConfigError, match=r"^The weights of the speech embedding must be readable"):
        networks.load_weights(path)
