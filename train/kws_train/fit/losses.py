"""Losses over sets of labels: cross-entropy, focal, max-pooling; label smoothing and mixup in each.

Targets are (batch, outputs, labels) of 0 and 1: 1 where a label is right. Several sets may stand
side by side, (batch, outputs, n * labels), each scaled by its share of the loss, as
`kws_train.scenes.augment.mixup` makes them. Everything is computed in float32 and with `keras.ops`
alone.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from kws_train.recipe import LossName

__all__ = ["MaxPoolingLoss", "SetLoss", "make_loss"]

_NEVER = 1e4  # as a difference of logits: exp(-1e4) is 0 in every float format
_SILENCE = 0  # the first label of every model


def make_loss(
    name: LossName,
    *,
    label_smoothing: float = 0.0,
    focal_gamma: float = 2.0,
    pooled_outputs: int = 1,
) -> keras.losses.Loss:
    """Return the loss that a recipe names.

    `focal_gamma` is of the focal loss alone, `pooled_outputs` of max-pooling.
    """
    if name == "max_pooling":
        return MaxPoolingLoss(label_smoothing=label_smoothing, n_pooled=pooled_outputs)
    gamma = focal_gamma if name == "focal" else 0.0
    return SetLoss(label_smoothing=label_smoothing, focal_gamma=gamma)


class SetLoss(keras.losses.Loss):
    """Negative log of the posterior of a set of labels, of which any may be right.

    With one label in the set this is cross-entropy; with all of them it is zero.

    Parameters
    ----------
    label_smoothing : float
        Share of the target that is spread evenly over all labels (Szegedy et al. 2016, section 7).
        What falls on the set stays the set's; each label outside of it gets its own part.
    focal_gamma : float
        Exponent of (1 - posterior of the set), which scales the set's loss and so takes weight from
        what is sure already (Lin et al. 2017, equation 4). 0 is none.
    """

    def __init__(
        self, *, label_smoothing: float = 0.0, focal_gamma: float = 0.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.label_smoothing, self.focal_gamma = label_smoothing, focal_gamma

    def call(self, targets: Any, logits: Any) -> Any:
        """Return the loss per output (batch, outputs) of targets and logits."""
        logits = ops.cast(logits, "float32")
        targets = ops.cast(targets, "float32")
        n_sets = targets.shape[-1] // logits.shape[-1]
        if n_sets == 1:
            return self.of_set(targets, logits)
        losses = []
        for part in ops.split(targets, n_sets, axis=-1):
            share = ops.max(part, axis=-1)
            allowed = ops.cast(part > 0, "float32")
            losses.append(share * self.of_set(allowed, logits))
        return sum(losses[1:], start=losses[0])

    def of_set(self, allowed: Any, logits: Any) -> Any:
        """Return the loss per output (batch, outputs) of one set, 0 and 1, both float32."""
        everything = ops.logsumexp(logits, axis=-1)
        loss = everything - ops.logsumexp(logits + (allowed - 1.0) * _NEVER, axis=-1)
        scale = 1.0
        if self.focal_gamma:
            # The derivative of a power below 1 has no value at 0.
            scale = ops.maximum(-ops.expm1(-loss), 1e-7) ** self.focal_gamma
        if not self.label_smoothing:
            return scale * loss
        outside = (1.0 - allowed) * (self.label_smoothing / logits.shape[-1])
        others = ops.sum(outside * (ops.expand_dims(everything, -1) - logits), axis=-1)
        return scale * (1.0 - ops.sum(outside, axis=-1)) * loss + others


class MaxPoolingLoss(SetLoss):
    """Ask for a word at one output of its answer window alone: where it is most probable.

    Sun et al. 2016, "Max-pooling loss training of LSTM networks for small-footprint keyword
    spotting", equation 3. An answer window is a run of outputs at which the same one label, other
    than silence, is right. Each of its outputs has the loss of the best one, so that a word weighs
    what it does in `SetLoss`, and, where Sun et al. ask for nothing, that of {word, silence}: no
    third label may be said meanwhile. All other outputs have the loss of their sets.

    Parameters
    ----------
    n_pooled : int
        Odd. A word is asked for where the mean of its posterior over this many outputs is greatest,
        as a spotter that smooths posteriors needs it; outputs outside of the window count as 0.
        Sun et al. take 1.
    """

    def __init__(self, *, n_pooled: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.n_pooled = n_pooled

    def of_set(self, allowed: Any, logits: Any) -> Any:
        """Return the loss per output (batch, outputs) of one set, 0 and 1, both float32."""
        loss = super().of_set(allowed, logits)
        asked = (ops.sum(allowed, axis=-1) == 1.0) & (allowed[..., _SILENCE] == 0.0)
        label = ops.where(asked, ops.argmax(allowed, axis=-1), -1)
        breaks = ops.cast(label[:, 1:] != label[:, :-1], "int32")
        window = ops.pad(ops.cumsum(breaks, axis=1), [[0, 0], [1, 0]])
        best = _least(self._pooled(loss, window), window)
        silence = ops.one_hot(_SILENCE, logits.shape[-1])
        meanwhile = super().of_set(ops.maximum(allowed, silence), logits)
        return ops.where(asked, best + meanwhile, loss)

    def _pooled(self, loss: Any, window: Any) -> Any:
        """Return the negative log of each output's mean posterior with those beside it."""
        n_outputs, reach = loss.shape[-1], self.n_pooled // 2
        sides = [[0, 0], [reach, reach]]
        far_loss = ops.pad(loss, sides, constant_values=_NEVER)
        far_window = ops.pad(window, sides, constant_values=-1)
        posteriors = [
            ops.where(
                far_window[:, i : i + n_outputs] == window, -far_loss[:, i : i + n_outputs], -_NEVER
            )
            for i in range(self.n_pooled)
        ]
        return float(np.log(self.n_pooled)) - ops.logsumexp(ops.stack(posteriors), axis=0)


def _least(values: Any, window: Any) -> Any:
    """Return for each output the least value of its window, all (batch, outputs)."""
    n_rows, n_outputs = ops.shape(values)[0], values.shape[-1]
    row = ops.arange(n_rows, dtype="int32")[:, None]
    ids = ops.reshape(row * n_outputs + window, (-1,))
    greatest = ops.segment_max(ops.reshape(-values, (-1,)), ids, num_segments=n_rows * n_outputs)
    return ops.reshape(-ops.take(greatest, ids), (-1, n_outputs))
