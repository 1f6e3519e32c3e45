"""A network of one linear layer and a softmax, made without TensorFlow."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_KIND = schema.TensorType.FLOAT32


def linear_network(weights, bias):
    """Return the flatbuffer of `softmax(weights @ frames + bias)`.

    Parameters
    ----------
    weights : float [shape=(labels, inputs)]
    bias : float [shape=(labels,)]
    """
    n_labels, n_inputs = np.shape(weights)
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
        _tensor("frames", (1, n_inputs)),
        _tensor("weights", (n_labels, n_inputs), buffer=1),
        _tensor("bias", (n_labels,), buffer=2),
        _tensor("logits", (1, n_labels)),
        _tensor("posteriors", (1, n_labels)),
    ]
    network = schema.ModelT(
        version=3,
        buffers=[schema.BufferT(), _buffer(weights), _buffer(bias)],
        operatorCodes=[
            _code(schema.BuiltinOperator.FULLY_CONNECTED),
            _code(schema.BuiltinOperator.SOFTMAX),
        ],
        subgraphs=[
            schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[4], operators=[linear, softmax])
        ],
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(network.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(name, shape, *, buffer=0):
    return schema.TensorT(name=name, shape=list(shape), type=_KIND, buffer=buffer)


def _buffer(values):
    return schema.BufferT(data=np.frombuffer(np.asarray(values, "<f4").tobytes(), np.uint8))


def _code(operator):
    return schema.OperatorCodeT(deprecatedBuiltinCode=operator, builtinCode=operator)
