"""A run folder becomes an embedding network with background speech beside it."""

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from kws.errors import ConfigError
from kws.manifest import FeatureSettings, read_manifest
from kws.model import open_model
from kws_train.recipe import CrnnRecipe, DataRecipe, LstmRecipe, Recipe

pytestmark = pytest.mark.slow

LIBRISPEECH = Path(__file__).parents[1] / "data" / "librispeech"
N_BANDS = 16


def write_run(folder: Path, model_recipe) -> Path:
    """Write a run folder of an untrained model."""
    import keras

    from kws_train.networks import architectures

    recipe = Recipe(
        name="tiny",
        data=DataRecipe(keywords=["go", "stop"], words=[]),
        features=FeatureSettings(kind="logmel", n_mels=N_BANDS, floor=1.0),
        model=model_recipe,
    )
    keras.utils.set_random_seed(3)
    mean, std = [8.0] * N_BANDS, [4.0] * N_BANDS
    model = architectures.build(recipe.model, n_labels=len(recipe.labels), mean=mean, std=std)
    model.save_weights(folder / "model.weights.h5")
    settings = {"recipe": msgspec.to_builtins(recipe), "mean": mean, "std": std}
    (folder / "settings.json").write_text(json.dumps(settings))
    frames = np.random.default_rng(3).normal(8, 4, (12, 60, N_BANDS)).clip(0).astype(np.float32)
    np.savez(folder / "examples.npz", streams=frames, clips=frames)
    return folder


@pytest.fixture
def speech(tmp_path):
    """The utterance of one speaker, as if two had said it."""
    (recording,) = LIBRISPEECH.rglob("*.opus")
    for speaker in ("84", "85"):
        folder = tmp_path / "speech" / speaker
        folder.mkdir(parents=True)
        shutil.copy(recording, folder / f"{speaker}-1-0000.opus")
        (folder / f"{speaker}-1.trans.txt").write_text("")
    return tmp_path / "speech"


def test_a_backbone_gives_embeddings_and_has_background_speech_beside_it(
    tmp_path, speech, monkeypatch
):
    from kws_export import backbone

    monkeypatch.setattr(backbone, "_N_FILLERS", 4)
    monkeypatch.setattr(backbone, "_N_CODES", 8)
    run = write_run(tmp_path, CrnnRecipe(channels=(4, 4, 8), n_blocks=1, gru_units=8))
    out = tmp_path / "backbone.tflite"
    n_values = backbone.export_backbone(run, out, speech=speech)
    manifest, _ = read_manifest(out)
    assert (manifest.embedding, manifest.labels, len(manifest.head.mean)) == (
        n_values,
        (),
        n_values,
    )
    frames = np.zeros((manifest.n_frames, N_BANDS), np.float32)
    assert open_model(out).step(frames).shape[1] == n_values
    with np.load(out.with_suffix(".npz")) as stored:
        assert stored["codes"].shape == (stored["lengths"].sum(), 8)
        assert stored["books"].shape == (8, 8, n_values // 8)


def test_speech_of_one_speaker_leaves_none_to_train_on(tmp_path):
    from kws_export.backbone import export_backbone

    run = write_run(tmp_path, CrnnRecipe(channels=(4, 4, 8), n_blocks=1, gru_units=8))
    with pytest.raises(ConfigError, match=r"corpus of two speakers or more\. Received: "):
        export_backbone(run, tmp_path / "out.tflite", speech=LIBRISPEECH)
    assert not (tmp_path / "out.tflite").exists()


def test_a_run_without_a_gru_has_no_backbone(tmp_path):
    from kws_export.backbone import export_backbone

    run = write_run(tmp_path, LstmRecipe(units=(6, 5)))
    with pytest.raises(ConfigError, match=r"must be a step model that ends in a GRU, as `crnn`"):
        export_backbone(run, tmp_path / "out.tflite", speech=LIBRISPEECH)
    assert not (tmp_path / "out.tflite").exists()
