"""Precision, and training on another backend than TensorFlow."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny

pytestmark = pytest.mark.slow  # TensorFlow has to be imported

ONE_STEP = """
import sys
sys.modules["tensorflow"] = None  # whoever imports it fails
import numpy as np, keras
from kws_train.scenes import augment
from kws_train.fit import checkpoints
from kws_train.data import corpus
from kws_train.networks import layers
from kws_train.scenes import rooms
from kws_train.scenes import scenes
from kws_train.networks import architectures
from kws_train.networks.keras_backend import at_precision, has_gpu, make_deterministic
from kws_train.fit.losses import make_loss
from kws_train.recipe import CrnnRecipe
make_deterministic(seed=1)
with at_precision("auto"):
    model = architectures.build(
        CrnnRecipe(channels=(4, 4, 8), n_blocks=1, kernel_frames=3, gru_units=8),
        n_labels=4, mean=[0.0] * 8, std=[1.0] * 8,
    )
loss = make_loss("max_pooling", label_smoothing=0.1, pooled_outputs=3)
model.compile(optimizer="adam", loss=loss)
random = np.random.default_rng(1)
frames = random.normal(size=(4, 40, 8)).astype(np.float32)
targets = np.eye(4, dtype=np.uint8)[random.integers(4, size=(4, 20))]
before = [weight.copy() for weight in model.get_weights()]
loss = model.train_on_batch(frames, targets)
assert np.isfinite(loss)
assert any(np.any(a != b) for a, b in zip(before, model.get_weights()))
assert keras.backend.backend() != "tensorflow" and "tensorflow.python" not in sys.modules
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_trains_without_tensorflow(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", ONE_STEP],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def build(precision):
    from kws_train.networks import architectures
    from kws_train.networks.keras_backend import at_precision

    with at_precision(precision):
        return architectures.build(tiny.CRNN, n_labels=4, mean=[0.0] * 8, std=[1.0] * 8)


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_a_model_of_mixed_precision_keeps_its_weights_in_single_and_trains(tensorflow, precision):
    from kws_train.fit.losses import make_loss

    tensorflow.keras.utils.set_random_seed(1)
    model = build(precision)
    assert {weight.dtype for weight in model.trainable_variables} == {"float32"}
    frames = np.random.default_rng(1).normal(size=(8, 40, 8)).astype(np.float32)
    half = precision.removeprefix("mixed_")
    assert model(frames).dtype == half
    labels = np.where(frames[:, ::2, :1] > 0, 2, 1)[..., 0]
    model.compile(optimizer=tensorflow.keras.optimizers.Adam(0.01), loss=make_loss("set"))
    losses = [float(model.train_on_batch(frames, np.eye(4)[labels])) for _ in range(12)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_with_a_gpu_uneven_strides_are_computed_evenly_to_the_same_values(tensorflow, monkeypatch):
    model = build("float32")
    frames = np.random.default_rng(2).normal(size=(2, 40, 8)).astype(np.float32)
    wanted = np.asarray(model(frames))
    monkeypatch.setattr("kws_train.networks.convolution.has_gpu", lambda: True)
    assert np.abs(np.asarray(model(frames)) - wanted).max() < 1e-5


def test_precision_is_single_without_a_gpu_and_mixed_with_one(tensorflow, monkeypatch):
    for found, dtype in ((False, "float32"), (True, "float16")):
        monkeypatch.setattr("kws_train.networks.keras_backend.has_gpu", lambda found=found: found)
        assert build("auto")(np.zeros((1, 4, 8), np.float32)).dtype == dtype
    assert tensorflow.keras.config.dtype_policy().name == "float32", "and is so again afterwards"
