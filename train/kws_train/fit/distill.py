"""Distillation: a small model learns from a larger one's posteriors beside the labels."""

from typing import Any

import keras
from keras import ops

__all__ = ["divergence", "learn_from"]


def learn_from(
    student: keras.Model, teacher: keras.Model, *, share: float, temperature: float
) -> None:
    """Let a model's training loss be (1 - share) of its own and `share` of the divergence.

    Hinton et al. 2015. Validation goes on with the student's own loss; the teacher's weights are
    neither trained nor saved with the student's.

    Parameters
    ----------
    student, teacher : Model
        From the same frames to logits (batch, outputs, labels) of the same shape.
    share : float
        0..1.
    temperature : float
        Divides logits, so that labels that the teacher thinks unlikely count as well.
    """
    own = student.compute_loss

    def compute_loss(
        x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, **options: Any
    ) -> Any:
        loss = own(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, **options)
        if not options.get("training", True):
            return loss
        wanted = ops.stop_gradient(teacher(x, training=False))
        differs = divergence(wanted, y_pred, temperature=temperature)
        if sample_weight is not None:
            differs = differs * ops.cast(sample_weight, differs.dtype)
        return (1.0 - share) * loss + share * ops.mean(differs)

    student.compute_loss = compute_loss


def divergence(wanted: Any, logits: Any, *, temperature: float) -> Any:
    """Return the Kullback-Leibler divergence per output (batch, outputs), times temperature^2.

    The square keeps the gradient's size as the temperature changes.
    """
    wanted, logits = (ops.cast(one, "float32") / temperature for one in (wanted, logits))
    ratio = ops.log_softmax(wanted, axis=-1) - ops.log_softmax(logits, axis=-1)
    return temperature**2 * ops.sum(ops.softmax(wanted, axis=-1) * ratio, axis=-1)
