"""Training losses: over sets of labels (cross-entropy, focal, max-pooling), CTC, distillation.

Targets of the losses over sets are (batch, outputs, labels) of 0 and 1: 1 for each correct label.
Several sets may be concatenated, (batch, outputs, n * labels), each scaled by its share of the
loss, as `kws_train.scenes.augment.mixup` makes them. Everything is computed in float32 and with
`keras.ops` alone.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from kws_train.recipe import LossName

__all__ = [
    "CtcLoss",
    "MaxPoolingLoss",
    "SetLoss",
    "TaughtLoss",
    "distill",
    "divergence",
    "make_loss",
]

_NEVER = 1e4  # as a difference of logits: exp(-1e4) is 0 in every float format
_LEAST_SOFT = 1e-4
_SILENCE = 0  # the first label of every model; the blank of CTC


def make_loss(
    name: LossName,
    *,
    label_smoothing: float = 0.0,
    focal_gamma: float = 2.0,
    pooled_outputs: int = 1,
) -> keras.losses.Loss:
    """Return the loss over sets of labels that a recipe names.

    `focal_gamma` applies to the focal loss alone, `pooled_outputs` to max-pooling.
    """
    if name == "max_pooling":
        return MaxPoolingLoss(label_smoothing=label_smoothing, n_pooled=pooled_outputs)
    gamma = focal_gamma if name == "focal" else 0.0
    return SetLoss(label_smoothing=label_smoothing, focal_gamma=gamma)


class SetLoss(keras.losses.Loss):
    """Negative log of the posterior of a set of labels, any of which is correct.

    With one label in the set this is cross-entropy; with all of them it is zero.

    Parameters
    ----------
    label_smoothing : float
        Share of the target that is spread evenly over all labels (Szegedy et al. 2016, section 7).
        The part of labels in the set remains with the set; each label outside gets its own part.
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
    """Require a word at one output of its answer window only: the most probable one.

    Sun et al. 2016, "Max-pooling loss training of LSTM networks for small-footprint keyword
    spotting", equation 3. An answer window is a run of outputs at which one label other than
    silence is correct. Each of its outputs has the loss of the best one, so that a word has the
    same weight as in `SetLoss`, plus the loss of {word, silence}, so that no third label is
    detected meanwhile (Sun et al. require nothing there). Other outputs have the loss of their
    sets.

    Parameters
    ----------
    n_pooled : int
        Odd. The best output is the one with the greatest mean posterior over this many outputs, as
        in a spotter that smooths posteriors; outputs outside of the window count as 0. Sun et al.
        use 1.
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
        """Return the negative log of each output's posterior, averaged with its neighbours."""
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


class CtcLoss(keras.losses.Loss):
    """Connectionist temporal classification (Graves et al. 2006), per output.

    Negative log of the probability of a sequence of words over all its alignments. Targets are
    (batch, words), label indices padded with 0; logits (batch, outputs, labels). The label of
    silence is the blank. `kws.ctc_decision` decodes the outputs.
    """

    def call(self, words: Any, logits: Any) -> Any:
        """Return the loss of each utterance (batch,), divided by its number of outputs."""
        words = ops.cast(words, "int32")
        n_outputs = logits.shape[1]
        n_words = ops.sum(ops.cast(words != _SILENCE, "int32"), axis=1)
        lengths = ops.full_like(n_words, n_outputs)
        logits = ops.cast(logits, "float32")
        return ops.ctc_loss(words, logits, n_words, lengths, mask_index=_SILENCE) / n_outputs


class TaughtLoss(keras.losses.Loss):
    """Another loss, mixed with the divergence from soft targets that were computed before.

    Knowledge distillation (Hinton et al. 2015). Targets are (batch, outputs, 2 * labels): those of
    the other loss, then probabilities, all 0 where nothing is taught. Without the second half, as
    in validation, this is the other loss.

    Parameters
    ----------
    own : SetLoss
    share : float
        Of the divergence, 0..1, where there is a soft target.
    temperature : float
        Divides logits, which gives more weight to labels of low probability.
    """

    def __init__(self, own: SetLoss, *, share: float, temperature: float, **options: Any) -> None:
        super().__init__(**options)
        self.own, self.share, self.temperature = own, share, temperature

    def call(self, targets: Any, logits: Any) -> Any:
        """Return the loss per output (batch, outputs)."""
        n_labels = logits.shape[-1]
        loss = self.own.call(targets[..., :n_labels], logits)
        if targets.shape[-1] == n_labels:
            return loss
        soft = ops.cast(targets[..., n_labels:], "float32")
        log_soft = ops.log(ops.maximum(soft, _LEAST_SOFT))
        distance = divergence(log_soft, logits, temperature=self.temperature)
        mixed = (1.0 - self.share) * loss + self.share * distance
        return ops.where(ops.sum(soft, axis=-1) > 0, mixed, loss)


def distill(
    student: keras.Model, teacher: keras.Model, *, share: float, temperature: float
) -> None:
    """Make the training loss (1 - share) of the student's own and `share` of the divergence.

    Knowledge distillation (Hinton et al. 2015). Validation uses the student's own loss alone; the
    teacher's weights are neither trained nor saved with the student's.

    Parameters
    ----------
    student, teacher : Model
        From the same frames to logits (batch, outputs, labels) of the same shape.
    share : float
        0..1.
    temperature : float
        Divides logits, which gives more weight to labels of low probability.
    """
    own = student.compute_loss

    def compute_loss(
        x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, **options: Any
    ) -> Any:
        loss = own(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, **options)
        if not options.get("training", True):
            return loss
        target = ops.stop_gradient(teacher(x, training=False))
        distance = divergence(target, y_pred, temperature=temperature)
        if sample_weight is not None:
            distance = distance * ops.cast(sample_weight, distance.dtype)
        return (1.0 - share) * loss + share * ops.mean(distance)

    student.compute_loss = compute_loss


def divergence(target: Any, logits: Any, *, temperature: float) -> Any:
    """Return the Kullback-Leibler divergence per output (batch, outputs), times temperature^2.

    The square keeps the size of the gradient independent of the temperature. Both arguments are
    logits (batch, outputs, labels).
    """
    target, logits = (ops.cast(one, "float32") / temperature for one in (target, logits))
    ratio = ops.log_softmax(target, axis=-1) - ops.log_softmax(logits, axis=-1)
    return temperature**2 * ops.sum(ops.softmax(target, axis=-1) * ratio, axis=-1)


def _least(values: Any, window: Any) -> Any:
    """Return the least value of the window of each output, all (batch, outputs)."""
    n_rows, n_outputs = ops.shape(values)[0], values.shape[-1]
    row = ops.arange(n_rows, dtype="int32")[:, None]
    ids = ops.reshape(row * n_outputs + window, (-1,))
    greatest = ops.segment_max(ops.reshape(-values, (-1,)), ids, num_segments=n_rows * n_outputs)
    return ops.reshape(-ops.take(greatest, ids), (-1, n_outputs))
