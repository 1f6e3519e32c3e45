"""Quantisation of the speech embedding by imitation of the float network.

Ranges start at percentiles of what tensors reach over speech, clean and in noise. Weights, biases
and ranges are then trained together, rounded as the int8 model rounds them (Jacob et al. 2018), to
lower the squared error to the float network. No labels are involved.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kws.model import open_model
from kws_train.networks.blocks import Block
from kws_train.networks.fake_quant import quant_mode
from kws_train.networks.speech_embedding import (
    LEAST,
    N_WARM_UP,
    SLOPE,
    FrameRange,
    LeakyConvolution,
    embed_whole,
    speech_embedding,
)
from kws_train.networks.spotting import Spotting
from kws_train.networks.streaming import Streaming
from kws_train.recipe import EMBEDDING_FEATURES

__all__ = ["N_FRAMES", "build_network", "correlations", "quantize_aware"]

log = logging.getLogger("kws_export")

N_FRAMES = 8
"""To a call of the step."""

Array: TypeAlias = npt.NDArray[np.float32]

_LEAST_FRAME = 0.0  # rounding to 16 bits alone gives 1.6; digital silence, -8, is clipped
_PERCENTILE = 99.99  # above it tensors are clipped: a few outliers would make the steps coarse
_N_UPDATES, _BATCH, _RATE = 400, 6, 3e-4
_CROP_FRAMES = 512


def build_network(
    weights: Mapping[str, Array], *, standardize: bool = True, aware: bool = False
) -> Spotting:
    """Return the network, in float or quantisation-aware."""
    model = Spotting(speech_embedding(weights, standardize=standardize))
    if aware:
        for layer in [one for one in model._flatten_layers() if isinstance(one, Streaming)]:
            layer.add_ranges()
    model.build((None, None, EMBEDDING_FEATURES.n_features))
    return model


def quantize_aware(weights: Mapping[str, Array], streams: Array) -> Spotting:
    """Return the standardised network, its weights and ranges trained for eight bits.

    Parameters
    ----------
    weights : mapping of str to float32 arrays
        With `mean` and `std`.
    streams : float32 [shape=(n, frames, 32)]
        Speech and noise.
    """
    teacher, model = build_network(weights), build_network(weights, aware=True)
    _set_ranges(model, streams)
    targets = np.asarray(teacher.predict(streams, batch_size=_BATCH, verbose=0))
    random = np.random.default_rng(1)
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(_RATE, decay_steps=_N_UPDATES)
    )

    @tf.function  # type: ignore[untyped-decorator]
    def update(frames: Any, wanted: Any) -> Any:
        with tf.GradientTape() as tape:
            error = (model(frames, training=True) - wanted)[:, N_WARM_UP:]
            loss = tf.reduce_mean(tf.square(error))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    for i in range(_N_UPDATES):
        chosen = random.integers(len(streams), size=_BATCH)
        start = int(random.integers((streams.shape[1] - _CROP_FRAMES) // N_FRAMES)) * N_FRAMES
        crop = slice(start, start + _CROP_FRAMES)
        outputs = slice(start // N_FRAMES, (start + _CROP_FRAMES) // N_FRAMES)
        loss = update(tf.constant(streams[chosen, crop]), tf.constant(targets[chosen, outputs]))
        if i % 50 == 0 or i == _N_UPDATES - 1:
            log.info("update %d of %d: squared error %.5f", i + 1, _N_UPDATES, float(loss))
    return model


def correlations(path: Path, weights: Mapping[str, Array], streams: Array) -> Array:
    """Return how each value of a model file correlates with the published network's, -1..1.

    Parameters
    ----------
    path : Path
    weights : mapping of str to float32 arrays
    streams : float32 [shape=(n, frames, 32)]

    Returns
    -------
    float32 [shape=(96,)]
    """
    step, published = open_model(path), build_network(weights, standardize=False)
    first = N_FRAMES * (1 + N_WARM_UP) - 76
    wanted, got = [], []
    for stream in streams:
        step.reset()
        starts = range(0, len(stream) - N_FRAMES + 1, N_FRAMES)
        outputs = [step.step(stream[start : start + N_FRAMES])[0] for start in starts]
        got.append(np.array(outputs)[N_WARM_UP:])
        wanted.append(embed_whole(published, stream[None, first:])[0])
    a, b = (np.concatenate(one) - np.concatenate(one).mean(axis=0) for one in (got, wanted))
    return (a * b).sum(axis=0) / np.sqrt(np.square(a).sum(axis=0) * np.square(b).sum(axis=0))


def _set_ranges(model: Spotting, streams: Array) -> None:
    """Let ranges end at percentiles; activations begin where the network clips them."""
    layers = [layer for block in model.stack if isinstance(block, Block) for layer in block.layers]
    x = streams[..., None]
    with quant_mode(model, "off"):
        for layer in layers:
            x = np.asarray(layer(x))
            low, high = np.percentile(x, [100 - _PERCENTILE, _PERCENTILE])
            if isinstance(layer, FrameRange):
                _assign(layer, [_LEAST_FRAME], [high])
            elif isinstance(layer, LeakyConvolution) and layer.is_linear:
                _assign(layer, [low], [high])
            elif isinstance(layer, LeakyConvolution):
                _assign(layer, [LEAST / SLOPE, LEAST], [high, high])


def _assign(layer: Streaming, low: Sequence[float], high: Sequence[float]) -> None:
    if layer.ranges:
        layer.ranges.low.assign(low)
        layer.ranges.high.assign(high)
