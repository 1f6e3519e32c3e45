"""A student learns from its teacher's posteriors; the teacher stays as it is."""

import keras
import numpy as np
import pytest

from kws_train.fit.distill import divergence, learn_from
from kws_train.fit.losses import SetLoss

LOGITS = np.array([[[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]]], np.float32)


def softmax(logits):
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


def linear(seed):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((None, 4)), keras.layers.Dense(3)])
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss=SetLoss())
    return model


def test_posteriors_do_not_diverge_from_themselves():
    assert np.allclose(divergence(LOGITS, LOGITS + 5.0, temperature=2.0), 0.0, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_divergence_is_that_of_kullback_and_leibler(temperature):
    other = LOGITS[..., ::-1].copy()
    p, q = softmax(LOGITS / temperature), softmax(other / temperature)
    expected = temperature**2 * np.sum(p * np.log(p / q), axis=-1)
    assert np.allclose(divergence(LOGITS, other, temperature=temperature), expected, atol=1e-5)


def test_the_loss_is_shared_between_labels_and_teacher():
    student, teacher = linear(1), linear(2)
    frames = np.random.default_rng(0).normal(size=(8, 5, 4)).astype(np.float32)
    targets = np.eye(3, dtype=np.uint8)[np.zeros((8, 5), int)]
    weights = np.linspace(0.5, 2.0, 40, dtype=np.float32).reshape(8, 5)
    logits = student(frames)
    own = float(student.compute_loss(frames, targets, logits, weights))
    differs = np.asarray(divergence(teacher(frames), logits, temperature=2.0))
    learn_from(student, teacher, share=0.25, temperature=2.0)
    both = float(student.compute_loss(frames, targets, logits, weights, training=True))
    assert both == pytest.approx(0.75 * own + 0.25 * np.mean(differs * weights), rel=1e-5)
    judged = float(student.compute_loss(frames, targets, logits, weights, training=False))
    assert judged == pytest.approx(own)


def test_a_student_comes_to_say_what_its_teacher_says():
    student, teacher = linear(1), linear(2)
    learn_from(student, teacher, share=1.0, temperature=1.0)
    before = [value.copy() for value in teacher.get_weights()]
    frames = np.random.default_rng(0).normal(size=(64, 5, 4)).astype(np.float32)
    targets = np.ones((64, 5, 3), np.uint8)
    student.fit(frames, targets, epochs=60, batch_size=16, verbose=0)
    theirs, ours = (softmax(np.asarray(model(frames))) for model in (teacher, student))
    assert np.abs(theirs - ours).max() < 0.05
    assert all(np.array_equal(*pair) for pair in zip(before, teacher.get_weights(), strict=True))
    assert len(student.weights) == 2
