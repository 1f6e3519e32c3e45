"""Small networks in the shapes of openWakeWord's."""

from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from kws_train.data.audio_files import read_samples

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="session")
def spoken():
    """Return two seconds of faint noise, a recording of a word, and a second of noise."""

    def samples_of(word):
        clip = np.pad(read_samples(DATA / f"wake_words/{word}.flac"), (32_000, 16_000))
        noise = np.random.default_rng(1).normal(0, 10, len(clip))
        return (clip + noise).astype(np.int16)

    return samples_of


@pytest.fixture
def head_of():
    """Return a function that makes a TFLite file: the logistic of weighted sums of the input."""
    return _logistic_head


def _logistic_head(weights, *, taken=None, kind=schema.TensorType.FLOAT32):
    """Return a network; `weights` are (scores, vectors, values)."""
    n_scores = len(weights)
    taken = [1, *weights.shape[1:]] if taken is None else list(taken)
    flat = int(np.prod(taken))

    def tensor(name, shape, buffer=0):
        return schema.TensorT(name=name, shape=shape, type=kind, buffer=buffer)

    tensors = [
        tensor("input", taken),
        tensor("weights", [n_scores, flat], buffer=1),
        tensor("logits", [1, n_scores]),
        tensor("scores", [1, n_scores]),
    ]
    operators = [
        schema.OperatorT(
            opcodeIndex=0,
            inputs=[0, 1, -1],
            outputs=[2],
            builtinOptionsType=schema.BuiltinOptions.FullyConnectedOptions,
            builtinOptions=schema.FullyConnectedOptionsT(),
        ),
        schema.OperatorT(opcodeIndex=1, inputs=[2], outputs=[3]),
    ]
    data = np.frombuffer(weights.astype("<f4").tobytes(), np.uint8)
    codes = [schema.BuiltinOperator.FULLY_CONNECTED, schema.BuiltinOperator.LOGISTIC]
    model = schema.ModelT(
        version=3,
        operatorCodes=[
            schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code, version=1)
            for code in codes
        ],
        subgraphs=[schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[3], operators=operators)],
        buffers=[schema.BufferT(), schema.BufferT(data=data)],
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
