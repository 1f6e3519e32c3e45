"""Transfer of weights from another model, which may be narrower or have other labels."""

import itertools
from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt

from kws.errors import ConfigError
from kws_train.networks.architectures import Network
from kws_train.networks.fake_quant import observe_ranges, quant_ranges

__all__ = ["initialize", "transfer"]

Weights: TypeAlias = npt.NDArray[np.floating[Any]]

_SEED = 1
_SHARES = (0.5, 1.5)
_N_OBSERVED = 8  # batches that quantisation ranges are initialised with
_TOLERANCE = 0.05  # of the spread of logits: half precision, in which a GPU may train


def initialize(
    model: Network,
    source: Network,
    batches: Sequence[Sequence[Any]],
    *,
    labels: tuple[Sequence[str], Sequence[str]],
) -> None:
    """Initialise a model with the weights of another; find missing quantisation ranges on batches.

    Parameters
    ----------
    model, source : Network
    batches : sequence of batches
        Frames (batch, time, features) first in each. Without any, ranges are left alone and the
        function of a wider model is not checked.
    labels : pair of sequences of str
        Those of `model` and of `source`.

    Raises
    ------
    ConfigError
        If the architectures differ.
    """
    ranges, (new, old) = quant_ranges(model), labels
    same_ranges = bool(ranges) == bool(quant_ranges(source))
    if same_ranges and list(new) == list(old):
        transfer(model.weights, source.weights, labels=new, labels_before=old)
    else:
        transfer(_without_ranges(model), _without_ranges(source), labels=new, labels_before=old)
    if same_ranges and batches and model.count_params() > source.count_params():
        _check_same_function(model, source, batches[0][0], labels=labels)
    if ranges and not same_ranges:
        n_batches = min(_N_OBSERVED, len(batches))
        observe_ranges(model, (batches[i][0] for i in range(n_batches)))


def transfer(
    to: Sequence[keras.Variable],
    of: Sequence[keras.Variable],
    *,
    labels: Sequence[str],
    labels_before: Sequence[str],
) -> None:
    """Copy the weights of another model; in the last layer, those of common labels only.

    Where a layer is two, three ... times as wide as in the other model, each unit is duplicated as
    often, and the wider model computes the same function (Net2Net, Chen et al. 2016).

    Parameters
    ----------
    to, of : sequence of Variable
        The weights of two models of one architecture, which may differ in the number of labels
        and in widths; the kernel and bias of the classifier come last.
    labels, labels_before : sequence of str
        In the order of their outputs.

    Raises
    ------
    ConfigError
        If the architectures differ.
    """
    learned = [np.array(weight) for weight in of]
    shapes = [tuple(weight.shape) for weight in to]
    if list(labels) != list(labels_before):
        shapes[-2:] = [(*shape[:-1], len(labels_before)) for shape in shapes[-2:]]
    same_input = shapes[0][:-1] == learned[0].shape[:-1]
    if not same_input or not all(itertools.starmap(_fits, itertools.zip_longest(shapes, learned))):
        raise ConfigError(
            "The initial weights must be of the same architecture and features, as wide or a whole "
            "number of times narrower. Received: other shapes of weights. Give another --start, or "
            "its `[model]` and `[features]`."
        )
    random = np.random.default_rng(_SEED)
    values = [_widened(*one, random) for one in zip(learned, shapes, strict=True)]
    if list(labels) != list(labels_before):
        known = [label for label in labels if label in labels_before]
        targets = [labels.index(label) for label in known]
        sources = [labels_before.index(label) for label in known]
        for i in (-2, -1):
            last = np.array(to[i])
            last[..., targets] = values[i][..., sources]
            values[i] = last
    for weight, value in zip(to, values, strict=True):
        weight.assign(value)


def _without_ranges(model: Network) -> list[keras.Variable]:
    ranges = {id(weight) for layer in quant_ranges(model) for weight in layer.weights}
    return [weight for weight in model.weights if id(weight) not in ranges]


def _check_same_function(
    model: Network,
    source: Network,
    frames: Any,
    *,
    labels: tuple[Sequence[str], Sequence[str]],
) -> None:
    """Refuse weights that have the shapes of a wider model but another meaning in it."""
    new, old = labels
    common = [label for label in new if label in old]
    ours = np.array(model(frames, training=False))[..., [new.index(label) for label in common]]
    theirs = np.array(source(frames, training=False))[..., [old.index(label) for label in common]]
    if ours.shape != theirs.shape or np.abs(ours - theirs).max() > _TOLERANCE * np.ptp(theirs):
        raise ConfigError(
            "A wider network must begin as the same function as the one it starts from. Received: "
            "a `[model]` that differs in more than widths, such as in sub-bands or window length. "
            "Change widths alone, or give another --start."
        )


def _fits(shape: tuple[int, ...] | None, value: Weights | None) -> bool:
    """Return whether a shape is that of the weights or wider, with kernels of the same size."""
    if shape is None or value is None or shape[:-2] != value.shape[:-2]:
        return False
    return len(shape) == value.ndim and all(
        new % old == 0 for new, old in zip(shape, value.shape, strict=True)
    )


def _widened(value: Weights, shape: tuple[int, ...], random: np.random.Generator) -> Weights:
    """Repeat units along each axis; duplicated inputs share their weight at random.

    With equal shares, the copies of a unit would have equal gradients and remain equal.
    """
    times = [new // old for new, old in zip(shape, value.shape, strict=True)]
    if max(times, default=1) == 1:
        return value
    for axis, n in enumerate(times):
        value = np.repeat(value, n, axis=axis)
    is_depthwise = len(shape) == 4 and shape[-1] == 1
    if len(shape) < 2 or times[-2] == 1 or is_depthwise:
        return value
    groups = (*shape[:-2], shape[-2] // times[-2], times[-2], shape[-1])
    shares = random.uniform(*_SHARES, groups)
    return value * (shares / shares.sum(axis=-2, keepdims=True)).reshape(shape)
