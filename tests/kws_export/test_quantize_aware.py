"""A quantisation-aware network's int8 file has the ranges that were learned, and no others."""

import msgspec
import numpy as np
import pytest
import tiny

from kws.manifest import FeatureSettings, pack
from kws.model import open_model
from kws_train.recipe import (
    BcResnetRecipe,
    DsCnnRecipe,
    GruRecipe,
    LstmRecipe,
    TcResnetRecipe,
)

pytestmark = pytest.mark.slow

N_BANDS = 16
RECIPES = [
    tiny.CRNN,
    GruRecipe(units=(6, 5)),
    LstmRecipe(units=(6, 5)),
    DsCnnRecipe(channels=6, n_blocks=1, pool_outputs=4),
    TcResnetRecipe(channels=(4, 6, 8), kernel_frames=3, pool_outputs=3),
    BcResnetRecipe(n_blocks=(1, 1, 1, 2), sub_bands=2, pool_outputs=4),
]
FIXED = {1 / 256, 1 / 128}  # of sigmoid and softmax, of tanh
EVERY_STEP = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.architecture)


@pytest.fixture(scope="module")
def frames():
    swell = 8 + 4 * np.sin(np.arange(64) / 5)[:, None]
    return (swell + np.random.default_rng(3).normal(0, 2, (64, N_BANDS))).astype(np.float32)


@pytest.fixture(scope="module")
def built(tensorflow, unsettle, frames):
    """Build an architecture, with ranges moved away from what calibration would find."""
    from kws_train.networks import architectures
    from kws_train.networks.fake_quant import observe_ranges, quant_ranges

    made = {}

    def make(recipe):
        if recipe.architecture not in made:
            tensorflow.keras.utils.set_random_seed(1)
            network = architectures.build(
                recipe,
                n_labels=4,
                mean=[8.0] * N_BANDS,
                std=[3.0] * N_BANDS,
                quantize_aware=True,
            )
            unsettle(network, seed=2)
            observe_ranges(network, [frames[None]])
            random = np.random.default_rng(4)
            for ranges in quant_ranges(network):
                for ends in (ranges.low, ranges.high):
                    ends.assign(ends * random.uniform(1.0, 1.2, ends.shape))
            made[recipe.architecture] = network
        return made[recipe.architecture]

    return make


@pytest.fixture(scope="module")
def file(built, frames, tmp_path_factory):
    """Convert an architecture to int8; returns the path of the file."""
    from kws_export.quantize import convert
    from tests.conftest import tiny_manifest

    made = {}

    def write(recipe, quantization="int8"):
        key = recipe.architecture, quantization
        if key not in made:
            network = built(recipe)
            stride = network.time_stride
            examples = [np.roll(frames, 7 * i, axis=0) / 3 for i in range(4)]
            flatbuffer = convert(
                network, quantization=quantization, n_frames=stride, examples=examples
            )
            manifest = msgspec.structs.replace(
                tiny_manifest(network, quantization=quantization, n_frames=stride),
                features=FeatureSettings(kind="logmel", n_mels=N_BANDS, floor=1.0),
            )
            path = tmp_path_factory.mktemp("aware") / "model.tflite"
            path.write_bytes(pack(flatbuffer, manifest))
            made[key] = path
        return made[key]

    return write


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def streamed(path, frames):
    model = open_model(path)
    stride = model.manifest.n_frames
    return np.concatenate(
        [model.step(frames[i : i + stride]) for i in range(0, len(frames), stride)]
    )


@EVERY_STEP
def test_steps_give_what_the_whole_sequence_gives(built, frames, recipe):
    """Rounding may fall to either side where sums are added up in another order."""
    from kws_export.step import concrete_step, run_float

    network = built(recipe)
    stride = network.time_stride
    step = concrete_step(network, n_frames=stride, n_features=N_BANDS, state_bits=8)
    said, _ = run_float(step, network, frames, n_frames=stride)
    wanted = softmax(np.asarray(network(frames[None])))[0]
    assert wanted.std(axis=0).max() > 1e-3
    assert np.abs(said - wanted).mean() <= 1e-3


@EVERY_STEP
def test_scales_of_the_file_are_the_trained_ranges(built, file, recipe):
    """Each trained range is in the file, and no tensor has a range that calibration found."""
    from kws_train.networks.fake_quant import quant_ranges

    trained = {
        np.float32((high - low) / 255)
        for ranges in quant_ranges(built(recipe))
        for low, high in ranges.bounds().values()
    }
    unused = [scale for scale in trained if not _near(scale, _scales(file(recipe)))]
    strange = [s for s in _scales(file(recipe)) if not _near(s, trained | FIXED)]
    assert (unused, strange) == ([], [])


@EVERY_STEP
def test_the_file_says_what_the_network_says_when_it_rounds(built, file, frames, recipe):
    wanted = softmax(np.asarray(built(recipe)(frames[None])))[0]
    said = streamed(file(recipe), frames)
    assert np.abs(said - wanted).mean() <= 0.01
    assert np.mean(said.argmax(axis=-1) == wanted.argmax(axis=-1)) >= 0.9


def test_other_formats_are_of_the_network_that_does_not_round(built, file, frames):
    from kws_train.networks.fake_quant import quant_mode

    network = built(RECIPES[0])
    with quant_mode(network, "off"):
        wanted = softmax(np.asarray(network(frames[None])))[0]
    assert np.abs(streamed(file(RECIPES[0], "float32"), frames) - wanted).max() <= 1e-5


def _scales(path):
    """Return the scales of all int8 tensors but weights, which have channels or no inputs."""
    interpreter = open_model(path)._interpreter
    details = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    made = {int(i) for op in interpreter._get_ops_details() for i in op["outputs"]}
    made |= {tensor["index"] for tensor in interpreter.get_input_details()}
    scales = [details[i]["quantization_parameters"]["scales"] for i in made if i in details]
    assert all(len(scale) == 1 for scale in scales)
    return {scale[0] for scale in scales}


def _near(scale, others):
    return any(abs(scale / other - 1) < 1e-5 for other in others)
