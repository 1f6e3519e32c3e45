"""Architectures, each a function from settings to streaming layers, and the model of them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from kws.train.layers import (
    GRU,
    Causal,
    Classify,
    Flatten,
    Normalize,
    Residual,
    States,
    Streaming,
    Tensor,
    step_through,
)
from kws.train.settings import ModelRecipe

__all__ = ["ARCHITECTURES", "Spotting", "build", "crnn", "time_stride"]


class Spotting(keras.Model):
    """A stack of streaming layers: frames in, a vector of posteriors per `time_stride` of them."""

    def __init__(self, layers: Sequence[Streaming], **options: Any) -> None:
        super().__init__(**options)
        self.stack = list(layers)
        self.time_stride = math.prod(layer.time_stride for layer in self.stack)

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Build for (batch, frames, features)."""
        shape = (*shape, 1)
        for layer in self.stack:
            layer.build(shape)
            layer.built = True
            shape = layer.compute_output_shape(shape)
        self.built = True

    def call(self, frames: Tensor, training: bool = False) -> Tensor:
        """Turn frames (batch, frames, features) into logits (batch, frames / stride, labels)."""
        x = keras.ops.expand_dims(frames, -1)
        for layer in self.stack:
            x = layer(x, training=training)
        return x

    @property
    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and spread of each feature, as the first layer takes them out."""
        return self.stack[0].statistics

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of all states, first layer first."""
        return [shape for layer in self.stack for shape in layer.state_shapes()]

    def step(self, frames: Tensor, states: States) -> tuple[Tensor, States]:
        """Turn the next frames (1, n, features) into posteriors (1, n / stride, labels)."""
        return step_through(self.stack, keras.ops.expand_dims(frames, -1), states)


def time_stride(recipe: ModelRecipe) -> int:
    """Return how many frames an architecture takes to one output."""
    return math.prod(layer.time_stride for layer in ARCHITECTURES[recipe.architecture](recipe))


def build(
    recipe: ModelRecipe, *, n_labels: int, mean: Sequence[float], std: Sequence[float]
) -> Spotting:
    """Build the architecture that a recipe names, for features with this mean and spread."""
    body = ARCHITECTURES[recipe.architecture](recipe)
    model = Spotting([Normalize(mean, std), *body, Classify(n_labels, dropout=recipe.dropout)])
    model.build((None, None, len(mean)))
    return model


def crnn(recipe: ModelRecipe) -> list[Streaming]:
    """Causal depthwise-separable CNN, then a GRU: convolutions see half a second, the GRU the rest.

    Two 2-D layers give tolerance to shifts in pitch and formants; the rest is 1-D over time.
    """
    front, middle, width = recipe.channels
    layers: list[Streaming] = [
        Causal(front, kernel=(2, 5), stride=(2, 2)),
        Causal(None, kernel=(3, 3), stride=(1, 2)),
        Causal(middle),
        Flatten(),
        Causal(width),
    ]
    layers += [
        Residual(
            [
                Causal(None, kernel=(recipe.kernel_frames, 1), activation="linear"),
                Causal(width, activation="linear"),
            ]
        )
        for _ in range(recipe.n_blocks)
    ]
    return [*layers, GRU(recipe.gru_units, dropout=recipe.dropout)]


ARCHITECTURES: dict[str, Callable[[ModelRecipe], list[Streaming]]] = {"crnn": crnn}
