"""Logging to Weights & Biases, without the network."""

import re
import sys
import time

import pytest
from tiny import RECIPE

from kws.errors import ConfigError

pytestmark = pytest.mark.slow  # TensorFlow has to be imported


@pytest.fixture
def wandb_callbacks(tensorflow):
    from kws_train.cli import _wandb_callbacks

    return _wandb_callbacks


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # wandb's own
def test_offline_the_losses_stay_in_the_run_folder(
    wandb_callbacks, tensorflow, tmp_path, monkeypatch
):
    pytest.importorskip("wandb", reason="needs kws[wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    model = tensorflow.keras.Sequential([tensorflow.keras.layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse")
    with wandb_callbacks("kws-test", RECIPE, tmp_path / "run") as callbacks:
        for callback in callbacks:
            callback.set_model(model)
            callback.on_epoch_end(0, {"loss": 1.5, "val_loss": 0.123456789})
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    give_up = time.monotonic() + 20
    while b"0.123456789" not in log.read_bytes():  # another process writes it
        assert time.monotonic() < give_up
        time.sleep(0.05)
    assert b"epoch/val_loss" in log.read_bytes()


def test_without_a_project_nothing_is_logged(wandb_callbacks, tmp_path):
    with wandb_callbacks(None, RECIPE, tmp_path / "run") as callbacks:
        assert callbacks == ()
    assert not (tmp_path / "run").exists()


def test_without_the_library_the_message_names_the_command(wandb_callbacks, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError) as error, wandb_callbacks("kws-test", RECIPE, tmp_path):
        pass
    assert re.fullmatch(
        r"--wandb needs the library wandb\. Received: .+\. Run `pip install 'wandb'`\.",
        str(error.value),
    )
