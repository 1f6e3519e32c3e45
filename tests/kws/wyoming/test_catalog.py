"""Folders of models that other tools made."""

import logging
import shutil
from pathlib import Path

import pytest

from kws.wyoming.catalog import Catalog


@pytest.mark.slow
def test_a_folder_of_openwakeword_is_served_without_its_other_networks(caplog, tmp_path):
    package = Path(pytest.importorskip("pyopen_wakeword").__file__).parent / "models"
    for name in ("alexa", "hey_jarvis", "embedding_model"):
        shutil.copy(package / f"{name}.tflite", tmp_path / f"{name}_v0.1.tflite")
    (tmp_path / "alexa_v0.1.onnx").write_bytes(b"the same model")
    with caplog.at_level(logging.WARNING):
        catalog = Catalog([], folders=[tmp_path])
    assert catalog.keywords == ("alexa", "hey_jarvis")
    chosen = catalog.choose(["alexa_v0.1", "Hey Jarvis"])
    assert catalog.open(chosen).keywords == ("alexa", "hey_jarvis")
    (warning,) = caplog.messages
    assert "embedding_model_v0.1.tflite is not served: A model without a manifest" in warning
