"""Models of voices are opened on one thread, and broken ones named."""

import sys
from types import SimpleNamespace

import pytest

from kws.errors import ConfigError
from kws_train.synth.voices.onnx import open_session


@pytest.fixture
def opened(monkeypatch):
    """Stand in for onnxruntime; returns what it is asked to open."""
    opened = []

    def session(model, options, *, providers):
        if model.endswith("broken.onnx"):
            raise Exception("INVALID_PROTOBUF")  # noqa: TRY002  # as onnxruntime does
        opened.append((model, vars(options), providers))
        return "session"

    runtime = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=session)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    return opened


def test_a_model_has_one_thread(tmp_path, opened):
    assert open_session(tmp_path / "voice.onnx") == "session"
    ((_, options, providers),) = opened
    assert set(options.values()) == {1}
    assert providers == ["CPUExecutionProvider"]


def test_a_broken_model_is_named(tmp_path, opened):
    with pytest.raises(ConfigError, match=r"complete ONNX file\. Received: .*\(INVALID"):
        open_session(tmp_path / "broken.onnx")


def test_without_onnxruntime_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="pip install 'onnxruntime'"):
        open_session(tmp_path / "voice.onnx")
