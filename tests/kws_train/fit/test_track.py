"""Weights & Biases, without the network."""

import re
import sys

import pytest

from kws.errors import ConfigError
from kws.manifest import FeatureSettings
from kws_train.recipe import DataRecipe, Recipe, WordCorpus

pytestmark = pytest.mark.slow  # TensorFlow has to be imported

RECIPE = Recipe(
    name="tones",
    data=DataRecipe(keywords=["low"], words=[WordCorpus(path="words")]),
    features=FeatureSettings(kind="logmel"),
)


@pytest.fixture
def track(tensorflow):
    from kws_train.fit.track import Track

    return Track


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # wandb's own
def test_offline_the_losses_stay_in_the_run_folder(track, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs kws[wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracked = track("kws-test", recipe=RECIPE, run=tmp_path / "run")
    tracked.on_epoch_end(0, {"loss": 1.5, "val_loss": 0.123456789})
    tracked.close()
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert b"val_loss" in log.read_bytes()
    assert b"0.123456789" in log.read_bytes()


def test_without_the_library_the_message_says_how_to_get_it(track, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError) as error:
        track("kws-test", recipe=RECIPE, run=tmp_path)
    assert re.fullmatch(
        r"--wandb needs the library wandb\. Received: .+\. Run `pip install 'wandb'`\.",
        str(error.value),
    )
