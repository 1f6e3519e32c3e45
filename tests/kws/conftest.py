"""The whole command in this process, and what it hears: a model of loudness and two bursts."""

import signal
import wave

import numpy as np
import pytest
import sounds
from linear_network import linear_network

from kws.cli import main
from kws.manifest import DecisionDefaults, FeatureSettings, Manifest, pack


@pytest.fixture(scope="session")
def make_model():
    """Return the bytes of the loudness detector; `changes` go before what its manifest says."""
    known = {
        "name": "loud",
        "labels": ("_silence_", "stop", "go"),
        "kind": "step",
        "features": FeatureSettings(),
        "n_frames": 1,
        "hop_frames": 1,
        "quantization": "float32",
        "decision": DecisionDefaults(smoothing_ms=20),
    }
    return lambda **changes: pack(_loudness_detector(), Manifest(**known | changes))


@pytest.fixture(scope="session")
def model(make_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "loud.tflite"
    path.write_bytes(make_model())
    return path


@pytest.fixture(scope="session")
def recording(tmp_path_factory):
    """Three seconds of silence with two bursts of a tone."""
    samples = sounds.silence(3)
    for start_s in (0.5, 1.8):
        start = int(start_s * 16_000)
        samples[start : start + 6400] = sounds.tone(300, 0.4, peak=12_000)
    path = tmp_path_factory.mktemp("audio") / "bursts.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return path


@pytest.fixture
def kws(capfd, monkeypatch):
    """Run the command in this process; returns exit code, standard output and standard error.

    Messages name `pip` alone, wherever it is.
    """
    monkeypatch.setattr("kws.own_programs.as_typed", lambda name: name)

    def run(*arguments):
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as ended:
                main([str(argument) for argument in arguments])
        finally:
            signal.signal(signal.SIGTERM, before)
        captured = capfd.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


def _loudness_detector():
    """A softmax over one linear layer: `stop` fires when a frame's log energy rises over 18."""
    weights, bias = np.zeros((3, 13)), np.array([0, -36, -100])
    weights[1, 0] = 2
    return linear_network(weights, bias)
