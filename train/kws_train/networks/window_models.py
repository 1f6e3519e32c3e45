"""Architectures over a window of frames, and the model that applies one to every window.

They are ordinary Keras networks from a window to logits. `Windowed` slides the window over a
sequence by its hop, as the runtime does, so that training and evaluation are those of streaming
models.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kws_train.networks.layers import Normalize
from kws_train.networks.streaming import BatchNormalization, Tensor
from kws_train.recipe import (
    BilstmRecipe,
    CnnLstmRecipe,
    Conv1dLstmRecipe,
    DeepCnnRecipe,
    WindowRecipe,
)

__all__ = ["WINDOW_ARCHITECTURES", "OneKeyword", "Windowed", "build_window"]


class Windowed(keras.Model):
    """A network applied to a sliding window: a vector of logits per `time_stride` frames.

    Output t depends on the `window_frames` frames before (t + 1) * time_stride; the sequence is
    padded at the front with copies of its first frame.

    Parameters
    ----------
    net : keras.Model
        From (batch, window_frames, features), normalised, to logits (batch, labels).
    recipe : WindowRecipe
    mean, std : sequence of float [shape=(features,)]
        Statistics of the training features.
    """

    def __init__(
        self,
        net: keras.Model,
        recipe: WindowRecipe,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.net = net
        self.window_frames, self.time_stride = recipe.window_frames, recipe.hop_frames
        self.one_keyword = isinstance(recipe, DeepCnnRecipe)
        self.normalize = Normalize(mean, std)

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Build for (batch, frames, features); the network for windows is built already."""
        self.built = True

    @property
    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each feature, as the model normalises with them."""
        return self.normalize.statistics

    def call(self, frames: Tensor, training: bool = False) -> Tensor:
        """Turn frames (batch, frames, features) into logits (batch, frames / hop, labels)."""
        n_time = frames.shape[1] or ops.shape(frames)[1]
        n_outputs = n_time // self.time_stride
        before = ops.repeat(frames[:, :1], self.window_frames - self.time_stride, axis=1)
        padded = ops.concatenate([before, frames], axis=1)
        starts = self.time_stride * ops.arange(n_outputs)
        at = ops.expand_dims(starts, 1) + ops.arange(self.window_frames)
        windows = ops.take(padded, at, axis=1)  # (batch, outputs, window_frames, features)
        n_features = frames.shape[2]
        windows = ops.reshape(windows, (-1, self.window_frames, n_features))
        logits = self.logits(windows, training=training)
        return ops.reshape(logits, (-1, n_outputs, logits.shape[-1]))

    def logits(self, windows: Tensor, training: bool = False) -> Tensor:
        """Turn windows (batch, window_frames, features) into logits (batch, labels)."""
        normal = self.normalize(ops.expand_dims(windows, -1))
        return self.net(normal[..., 0], training=training)

    def window(self, frames: Tensor) -> Tensor:
        """Turn one window (1, window_frames, features) into posteriors (1, 1, labels).

        A network for one keyword returns only the posterior of the keyword.
        """
        posteriors = ops.softmax(self.logits(frames))
        if self.one_keyword:
            posteriors = posteriors[:, -1:]
        return ops.expand_dims(posteriors, 0)


def build_window(
    recipe: WindowRecipe, *, n_labels: int, mean: Sequence[float], std: Sequence[float]
) -> Windowed:
    """Build the architecture that a recipe names, for features of this mean and std."""
    frames = keras.Input((recipe.window_frames, len(mean)))
    x = WINDOW_ARCHITECTURES[recipe.architecture](frames, recipe)
    x = layers.Dropout(recipe.dropout)(x)
    head = OneKeyword() if isinstance(recipe, DeepCnnRecipe) else layers.Dense(n_labels)
    model = Windowed(keras.Model(frames, head(x)), recipe, mean=mean, std=std)
    model.build((None, recipe.window_frames, len(mean)))
    return model


class OneKeyword(layers.Layer):
    """A dense layer with one output z, the logit of a sigmoid, presented as three logits.

    Silence and unknown are -log 2 each, so that the softmax of the three is (1 - s, 1 - s, 2 s) / 2
    with s = sigmoid(z): silence and unknown are not distinguished, and the loss over sets of labels
    equals binary cross-entropy.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.dense = layers.Dense(1)

    def build(self, shape: tuple[Any, ...]) -> None:
        """Build for (batch, channels)."""
        self.dense.build(shape)

    def call(self, x: Tensor) -> Tensor:
        """Return logits (batch, 3): silence, unknown, the keyword."""
        z = self.dense(x)
        others = ops.full_like(z, -np.log(2.0))
        return ops.concatenate([others, others, z], axis=-1)


def _conv1d_lstm(frames: Tensor, recipe: Conv1dLstmRecipe) -> Tensor:
    """1-D convolution over time, max pooling, LSTM."""
    x = layers.Conv1D(recipe.channels, recipe.kernel_frames, padding="same")(frames)
    x = layers.MaxPooling1D(recipe.pool_frames)(_normal(x))
    return layers.LSTM(recipe.lstm_units, use_cudnn=False)(x)


def _cnn_lstm(frames: Tensor, recipe: CnnLstmRecipe) -> Tensor:
    """Convolutional time series: 2-D convolutions and pooling, columns in turn to an LSTM."""
    x = ops.expand_dims(frames, -1)
    pools = ((2, 2), (1, 2), (1, 2))
    for i, (channels, pool) in enumerate(zip(recipe.channels, pools, strict=True)):
        x = layers.Conv2D(channels, 3, strides=2 if i == 0 else 1, padding="same")(x)
        x = layers.MaxPooling2D(pool)(_normal(x))
    x = layers.Reshape((x.shape[1], x.shape[2] * x.shape[3]))(x)
    return layers.LSTM(recipe.lstm_units, use_cudnn=False)(x)


def _deep_cnn(frames: Tensor, recipe: DeepCnnRecipe) -> Tensor:
    """Four blocks of 2-D convolution and max pooling, then a dense layer."""
    x = ops.expand_dims(frames, -1)
    for channels in recipe.channels:
        x = layers.Conv2D(channels, 3, padding="same")(x)
        x = layers.MaxPooling2D(2, padding="same")(_normal(x))
    return layers.Dense(recipe.dense_units, activation="relu")(layers.Flatten()(x))


def _bilstm(frames: Tensor, recipe: BilstmRecipe) -> Tensor:
    """LSTMs from both ends of the window, on stacked frames."""
    n_steps = recipe.window_frames // recipe.stack_frames
    stacked = frames[:, -n_steps * recipe.stack_frames :]
    x = layers.Reshape((n_steps, -1))(stacked)
    return layers.Bidirectional(layers.LSTM(recipe.units, use_cudnn=False))(x)


def _normal(x: Tensor) -> Tensor:
    return layers.ReLU()(BatchNormalization()(x))


WINDOW_ARCHITECTURES: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "conv1d_lstm": _conv1d_lstm,
    "cnn_lstm": _cnn_lstm,
    "deep_cnn": _deep_cnn,
    "bilstm": _bilstm,
}
"""Window architectures by their name in recipes."""
