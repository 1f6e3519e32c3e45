"""Every architecture of the zoo builds, streams or slides, and runs in int8 in the runtime."""

import numpy as np
import pytest

from kws.manifest import FeatureSettings, Manifest, StateTensor, pack
from kws.model import StepModel, WindowModel, open_model
from kws_train.recipe import (
    BcResnetRecipe,
    BilstmRecipe,
    CnnLstmRecipe,
    Conv1dLstmRecipe,
    CtcRecipe,
    DeepCnnRecipe,
    DsCnnRecipe,
    GruRecipe,
    LstmRecipe,
    TcResnetRecipe,
)

pytestmark = pytest.mark.slow

N_BANDS = 16
STEP = [
    GruRecipe(units=(6, 5)),
    LstmRecipe(units=(6, 5)),
    DsCnnRecipe(channels=6, n_blocks=1, pool_outputs=4),
    TcResnetRecipe(channels=(4, 6, 8), kernel_frames=3, pool_outputs=3),
    BcResnetRecipe(n_blocks=(1, 1, 1, 2), sub_bands=2, pool_outputs=4),
    CtcRecipe(channels=(4, 4, 8), n_blocks=1, gru_units=6),
]
WINDOWS = [
    Conv1dLstmRecipe(window_frames=16, hop_frames=4, channels=6, lstm_units=5),
    CnnLstmRecipe(window_frames=16, hop_frames=4, channels=(3, 4, 4), lstm_units=5),
    DeepCnnRecipe(window_frames=16, hop_frames=4, channels=(3, 4, 4, 4), dense_units=5),
    BilstmRecipe(window_frames=16, hop_frames=4, units=4),
]
LABELS = ("_silence_", "_unknown_", "yes")


def named(recipes):
    return pytest.mark.parametrize("recipe", recipes, ids=lambda recipe: recipe.architecture)


@pytest.fixture(scope="module")
def built(tensorflow, unsettle):
    from kws_train.networks import architectures

    made = {}

    def make(recipe):
        if recipe.architecture not in made:
            tensorflow.keras.utils.set_random_seed(1)
            network = architectures.build(
                recipe, n_labels=3, mean=[8.0] * N_BANDS, std=[3.0] * N_BANDS
            )
            unsettle(network, seed=2)
            made[recipe.architecture] = network
        return made[recipe.architecture]

    return make


@pytest.fixture(scope="module")
def frames():
    swell = 8 + 4 * np.sin(np.arange(64) / 5)[:, None]
    return (swell + np.random.default_rng(3).normal(0, 2, (64, N_BANDS))).astype(np.float32)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def whole(network, frames):
    return softmax(np.asarray(network(frames[None])))[0]


@named(STEP)
def test_steps_give_what_the_whole_sequence_gives(built, frames, recipe):
    network = built(recipe)
    states = [np.zeros(shape, np.float32) for shape in network.state_shapes()]
    stride, outputs = network.time_stride, []
    for start in range(0, len(frames), stride):
        y, states = network.step(frames[None, start : start + stride], states)
        outputs.append(np.asarray(y)[0])
    wanted = whole(network, frames)
    assert wanted.shape == (len(frames) // stride, 3)
    assert wanted.std(axis=0).max() > 1e-3
    assert np.abs(np.concatenate(outputs) - wanted).max() <= 1e-5


@named(WINDOWS)
def test_an_output_is_of_the_window_before_it(built, frames, recipe):
    network = built(recipe)
    wanted = whole(network, frames)
    assert wanted.shape == (16, 3)
    for output in (3, 9, 15):
        window = frames[(output + 1) * 4 - 16 : (output + 1) * 4]
        alone = softmax(np.asarray(network.logits(window[None])))[0]
        assert np.abs(alone - wanted[output]).max() <= 1e-5


@named([*STEP, *WINDOWS])
def test_the_stride_is_known_without_building(built, recipe):
    from kws_train.networks.architectures import time_stride

    assert time_stride(recipe) == built(recipe).time_stride


@named([*STEP, *WINDOWS])
def test_the_int8_file_agrees_in_the_runtime(built, frames, recipe, tmp_path):
    from kws_export.quantize import convert

    network = built(recipe)
    stride = network.time_stride
    examples = [np.roll(frames, 7 * i, axis=0) for i in range(6)]
    flatbuffer = convert(network, quantization="int8", n_frames=stride, examples=examples)
    window = recipe in WINDOWS
    one = isinstance(recipe, DeepCnnRecipe)
    states = () if window else network.state_shapes()
    manifest = Manifest(
        name="tiny",
        labels=LABELS[2:] if one else LABELS,
        kind="window" if window else "step",
        features=FeatureSettings(kind="logmel", n_mels=N_BANDS),
        n_frames=network.window_frames if window else stride,
        hop_frames=stride,
        input="frames" if states else "",
        output="Identity" if states else "",
        states=tuple(
            StateTensor(input=f"state_{i}", output=f"Identity_{i + 1}", shape=shape)
            for i, shape in enumerate(states)
        ),
    )
    path = tmp_path / "tiny.tflite"
    path.write_bytes(pack(flatbuffer, manifest))
    model = open_model(path)
    assert isinstance(model, WindowModel if window else StepModel)
    starts = range(0, len(frames), stride)
    heard = np.concatenate([model.step(frames[start : start + stride]) for start in starts])
    wanted = whole(network, frames)[:, -1:] if one else whole(network, frames)
    assert heard.shape == wanted.shape
    # The cell of an LSTM sums up for long, and every step is rounded to a 128th of its range.
    tolerance = 0.08 if isinstance(recipe, LstmRecipe) else 0.03
    assert np.abs(heard - wanted).mean() <= tolerance
    if not window:
        assert [state.rescale for state in model._states] == [None] * len(states)


def test_one_keyword_is_trained_by_binary_cross_entropy(built, frames):
    """Silence, a word, or either of them: all of it is "not the keyword"."""
    from kws_train.fit.losses import SetLoss

    (recipe,) = (one for one in WINDOWS if isinstance(one, DeepCnnRecipe))
    network = built(recipe)
    logits = np.asarray(network.logits(frames[None, :16]))[None]
    p = np.asarray(network.window(frames[None, :16])).item()
    assert 0.0 < p < 1.0
    z = np.log(p / (1 - p))
    assert np.asarray(logits)[0, 0, 2] == pytest.approx(z, abs=1e-4)

    def loss(allowed):
        return float(np.asarray(SetLoss().call(np.array([[allowed]], np.float32), logits)).item())

    assert loss([0, 0, 1]) == pytest.approx(-np.log(p), abs=1e-4)
    assert loss([1, 1, 0]) == pytest.approx(-np.log(1 - p), abs=1e-4)
    for other in ([1, 0, 0], [0, 1, 0]):
        assert loss(other) == pytest.approx(-np.log(1 - p) + np.log(2), abs=1e-4)


def test_the_cell_of_an_lstm_keeps_to_the_range_found(built, frames):
    from kws_export.step import cell_ranges, concrete_step, run_float

    network = built(STEP[1])
    ranges = cell_ranges(network, [frames], n_frames=2)
    assert len(ranges) == 2
    assert all(most > 0 for most in ranges)
    step = concrete_step(
        network, n_frames=2, n_features=N_BANDS, state_bits=8, cell_ranges=[0.5, 0.25]
    )
    _, inputs = run_float(step, network, frames, n_frames=2)
    reached = [np.abs([call[at] for call in inputs]).max() for at in (2, 4)]
    assert reached[0] <= 0.5
    assert reached[1] <= 0.25
    concrete_step(network, n_frames=2, n_features=N_BANDS, state_bits=None)  # unbinds them
