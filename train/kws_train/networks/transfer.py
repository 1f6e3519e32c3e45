"""Transfer: a model begins with the weights of another, narrower one or one of other words."""

import itertools
from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt

from kws.errors import ConfigError

__all__ = ["transfer"]

Weights: TypeAlias = npt.NDArray[np.floating[Any]]

_SEED = 1
_SHARES = (0.5, 1.5)


def transfer(
    to: Sequence[keras.Variable],
    of: Sequence[keras.Variable],
    *,
    labels: Sequence[str],
    labels_before: Sequence[str],
) -> None:
    """Take over the weights of another model; of the last layer, those of labels that both know.

    Where layers are two, three … times as wide as the other model's, each of its units becomes as
    many, and the wider model computes what the narrower one did (Net2Net, Chen et al. 2016).

    Parameters
    ----------
    to, of : sequence of Variable
        The weights of two models of the same architecture but for the number of labels and for
        widths; the classifier's kernel and bias come last.
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
            "A training can begin with a run of the same architecture and features only, as wide "
            "or a whole number of times narrower. Received: one with other shapes of weights. Give "
            "another --start, or its `[model]` and `[features]`."
        )
    random = np.random.default_rng(_SEED)
    values = [_widened(*one, random) for one in zip(learned, shapes, strict=True)]
    if list(labels) != list(labels_before):
        known = [label for label in labels if label in labels_before]
        mine = [labels.index(label) for label in known]
        theirs = [labels_before.index(label) for label in known]
        for i in (-2, -1):
            last = np.array(to[i])
            last[..., mine] = values[i][..., theirs]
            values[i] = last
    for weight, value in zip(to, values, strict=True):
        weight.assign(value)


def _fits(shape: tuple[int, ...] | None, value: Weights | None) -> bool:
    """Say whether a shape is that of weights, or wider: kernels cover as many frames and bands."""
    if shape is None or value is None or shape[:-2] != value.shape[:-2]:
        return False
    return len(shape) == value.ndim and all(
        new % old == 0 for new, old in zip(shape, value.shape, strict=True)
    )


def _widened(value: Weights, shape: tuple[int, ...], random: np.random.Generator) -> Weights:
    """Repeat units along each axis; what goes into a layer twice has random shares of its weight.

    Were the shares equal, the copies of a unit would have the same gradient and never part.
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
