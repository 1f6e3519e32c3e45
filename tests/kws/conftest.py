"""The whole command in this process, and what it hears: a model of loudness and two bursts."""

import signal
import wave

import flatbuffers
import numpy as np
import pytest
import sounds
from ai_edge_litert import schema_py_generated as schema

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
def kws(capfd):
    """Run the command in this process; returns exit code, standard output and standard error."""

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

    def tensor(name, shape, *, buffer=0):
        kind = schema.TensorType.FLOAT32
        return schema.TensorT(name=name, shape=list(shape), type=kind, buffer=buffer)

    def buffer(values):
        return schema.BufferT(data=np.frombuffer(values.astype("<f4").tobytes(), np.uint8))

    def code(operator):
        return schema.OperatorCodeT(deprecatedBuiltinCode=operator, builtinCode=operator)

    linear = schema.OperatorT(
        opcodeIndex=0,
        inputs=[0, 1, 2],
        outputs=[3],
        builtinOptionsType=schema.BuiltinOptions.FullyConnectedOptions,
        builtinOptions=schema.FullyConnectedOptionsT(),
    )
    softmax = schema.OperatorT(
        opcodeIndex=1,
        inputs=[3],
        outputs=[4],
        builtinOptionsType=schema.BuiltinOptions.SoftmaxOptions,
        builtinOptions=schema.SoftmaxOptionsT(beta=1.0),
    )
    tensors = [
        tensor("frames", (1, 13)),
        tensor("weights", (3, 13), buffer=1),
        tensor("bias", (3,), buffer=2),
        tensor("logits", (1, 3)),
        tensor("posteriors", (1, 3)),
    ]
    network = schema.ModelT(
        version=3,
        buffers=[schema.BufferT(), buffer(weights), buffer(bias)],
        operatorCodes=[
            code(schema.BuiltinOperator.FULLY_CONNECTED),
            code(schema.BuiltinOperator.SOFTMAX),
        ],
        subgraphs=[
            schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[4], operators=[linear, softmax])
        ],
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(network.Pack(builder), b"TFL3")
    return bytes(builder.Output())
