"""A run folder becomes a model file, or an error that says why not."""

import json
import re
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tiny

from kws.errors import ConfigError, ModelError
from kws.manifest import read_manifest
from kws.model import open_model
from kws_train.recipe import Conv1dLstmRecipe, DeepCnnRecipe, Recipe, WindowRecipe

pytestmark = pytest.mark.slow

RECIPE = msgspec.structs.replace(
    tiny.changed(data={"keywords": ["go", "stop"], "words": []}, features={"n_mels": 16}),
    name="tiny",
    model=tiny.CRNN,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder of an untrained model: its posteriors are all nearly the same."""
    return untrained(RECIPE, tmp_path_factory.mktemp("run"))


def untrained(recipe: Recipe, folder: Path) -> Path:
    import keras

    from kws_train.networks import architectures

    keras.utils.set_random_seed(3)
    mean, std = [8.0] * 16, [4.0] * 16
    model = architectures.build(recipe.model, n_labels=len(recipe.labels), mean=mean, std=std)
    model.save_weights(folder / "model.weights.h5")
    settings = {"recipe": msgspec.to_builtins(recipe), "mean": mean, "std": std}
    (folder / "settings.json").write_text(json.dumps(settings))
    random = np.random.default_rng(3)
    frames = random.normal(8, 4, (12, 60, 16)).clip(0).astype(np.float32)
    np.savez(folder / "examples.npz", streams=frames, clips=frames)
    return folder


def test_a_float_export_agrees_and_carries_its_manifest(run: Path, tmp_path: Path) -> None:
    from kws_export.bundle import export_model

    out = tmp_path / "tiny.tflite"
    agreement = export_model(run, out, quantization="float32")
    assert agreement.argmax > 0.999
    assert agreement.largest_difference < 1e-4
    manifest, _ = read_manifest(out)
    assert manifest.labels == ("_silence_", "_unknown_", "go", "stop")
    assert manifest.quantization == "float32"
    assert zipfile.ZipFile(out).namelist() == ["kws.json"]
    posteriors = open_model(out).step(np.zeros((2, 16), np.float32))
    np.testing.assert_allclose(posteriors.sum(), 1.0, atol=1e-5)


def test_a_temperature_spreads_posteriors_and_keeps_their_order(run: Path, tmp_path: Path) -> None:
    from kws_export.bundle import export_model

    plain, soft = tmp_path / "plain.tflite", tmp_path / "soft.tflite"
    export_model(run, plain, quantization="float32")
    export_model(run, soft, quantization="float32", temperature=2.0)
    frames = np.random.default_rng(1).normal(8, 4, (2, 16)).astype(np.float32)
    expected = np.sqrt(open_model(plain).step(frames))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(open_model(soft).step(frames), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("keywords", "network"),
    [
        (["go", "stop"], Conv1dLstmRecipe(channels=4, lstm_units=4, window_frames=40)),
        (["stop"], DeepCnnRecipe(channels=(2, 2, 2, 2), dense_units=4, window_frames=40)),
    ],
)
def test_a_temperature_divides_the_logits_of_window_models(
    keywords: list[str], network: WindowRecipe, tmp_path: Path
) -> None:
    from kws_export.bundle import export_model

    tables = {"data": {"keywords": keywords, "words": []}, "features": {"n_mels": 16}}
    recipe = msgspec.structs.replace(tiny.changed(**tables), name="tiny", model=network)
    run = untrained(recipe, tmp_path)
    files = {t: tmp_path / f"{t}.tflite" for t in (1.0, 2.0)}
    for t, out in files.items():
        export_model(run, out, quantization="float32", temperature=t, force=True)
    frames = np.random.default_rng(1).normal(8, 4, (network.hop_frames, 16)).astype(np.float32)
    plain, soft = (open_model(one).step(frames) for one in files.values())
    # One output: that of the keyword, by a sigmoid.
    every = np.stack((plain, 1 - plain)) if len(keywords) == 1 else plain.T[..., None]
    expected = np.sqrt(every) / np.sqrt(every).sum(axis=0)
    np.testing.assert_allclose(soft.ravel(), expected.ravel()[: soft.size], atol=1e-5)


def test_an_export_that_disagrees_is_refused_and_leaves_no_file(run: Path, tmp_path: Path) -> None:
    from kws_export.bundle import export_model

    out = tmp_path / "tiny.tflite"
    rule = re.escape("An exported model must agree with the trained one at 98.5% of the outputs.")
    with pytest.raises(ModelError, match=rule):
        export_model(run, out, quantization="int8")
    assert not out.exists()


def test_an_export_that_disagrees_is_written_when_forced(run: Path, tmp_path: Path) -> None:
    from kws_export.bundle import export_model
    from kws_export.verify import MIN_AGREEMENT

    out = tmp_path / "tiny.tflite"
    agreement = export_model(run, out, quantization="int8", force=True)
    assert agreement.argmax < MIN_AGREEMENT
    assert read_manifest(out)[0].quantization == "int8"


def test_frames_that_do_not_fit_the_stride_are_refused(run: Path, tmp_path: Path) -> None:
    from kws_export.bundle import export_model

    message = (
        "`--frames` must be a multiple of the model's time stride, 2. Received: 3. Choose another."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        export_model(run, tmp_path / "tiny.tflite", n_frames=3)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    from kws_export.bundle import export_model

    with pytest.raises(ConfigError, match=r"A run folder must hold settings\.json"):
        export_model(tmp_path, tmp_path / "tiny.tflite")


def test_a_file_that_cannot_run_is_reported_not_fatal(run: Path, tmp_path: Path) -> None:
    from kws.manifest import pack
    from kws_export.bundle import export_model
    from kws_export.verify import verify

    good = tmp_path / "good.tflite"
    export_model(run, good, quantization="float32")
    manifest, content = read_manifest(good)
    broken = tmp_path / "broken.tflite"
    flatbuffer = content[: content.rfind(b"PK\x03\x04")]
    broken.write_bytes(pack(flatbuffer[: len(flatbuffer) // 3], manifest))
    expected = tmp_path / "expected.npz"
    np.savez(expected, frames=np.zeros((1, 4, 16), np.float32), posteriors=np.zeros((1, 2, 4)))
    with pytest.raises(ModelError, match="An exported model must run"):
        verify(broken, expected)
