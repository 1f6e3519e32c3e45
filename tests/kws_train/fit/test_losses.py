"""Losses against the same written out in numpy, and against the library where it has them."""

import numpy as np
import pytest

pytestmark = pytest.mark.slow  # TensorFlow has to be imported

N_LABELS = 4
TEACHER_LOGITS = np.array([[[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]]], np.float32)


@pytest.fixture(scope="module")
def losses(tensorflow):
    from kws_train.fit import losses

    return losses


@pytest.fixture
def logits(random):
    return random.normal(0, 3, (2, 5, N_LABELS)).astype(np.float32)


def posteriors_of(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def one_hot(labels):
    return np.eye(N_LABELS, dtype=np.uint8)[labels]


def sets(*rows):
    """The same targets for two scenes: a row an output."""
    return np.tile(np.uint8(rows), (2, 1, 1))


def per_output(loss, targets, logits):
    return np.asarray(loss.call(targets, logits))


def test_the_loss_of_a_single_label_is_cross_entropy(losses, tensorflow, logits, random):
    labels = random.integers(N_LABELS, size=(2, 5))
    wanted = tensorflow.keras.losses.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )
    loss = per_output(losses.SetLoss(), one_hot(labels), logits)
    assert np.abs(loss - np.asarray(wanted)).max() <= 1e-5


@pytest.mark.parametrize(
    "options",
    [{}, {"label_smoothing": 0.2}, {"focal_gamma": 2.0}],
    ids=["plain", "smooth", "focal"],
)
def test_the_loss_of_all_labels_is_zero(losses, logits, options):
    loss = per_output(losses.SetLoss(**options), np.ones((2, 5, N_LABELS), np.uint8), logits)
    assert np.abs(loss).max() <= 1e-6


def test_the_loss_of_a_set_is_of_the_sum_of_its_posteriors(losses, logits):
    allowed = np.tile(np.uint8([1, 0, 1, 0]), (2, 5, 1))
    wanted = -np.log(posteriors_of(logits)[..., [0, 2]].sum(axis=-1))
    assert np.abs(per_output(losses.SetLoss(), allowed, logits) - wanted).max() <= 1e-4


def test_weights_of_outputs_weigh_the_loss(losses, logits):
    allowed = np.tile(np.uint8([1, 0, 0, 0]), (2, 5, 1))
    loss = losses.SetLoss()
    each = per_output(loss, allowed, logits)
    weights = np.arange(10, dtype=np.float32).reshape(2, 5)
    weighted = float(loss(allowed, logits, sample_weight=weights))
    assert weighted == pytest.approx(float((each * weights).mean()), rel=1e-5)


def test_smoothing_a_single_label_is_the_librarys_smoothing(losses, tensorflow, logits, random):
    targets = one_hot(random.integers(N_LABELS, size=(2, 5)))
    wanted = tensorflow.keras.losses.categorical_crossentropy(
        targets.astype(np.float32), logits, from_logits=True, label_smoothing=0.3
    )
    loss = per_output(losses.SetLoss(label_smoothing=0.3), targets, logits)
    assert np.abs(loss - np.asarray(wanted)).max() <= 1e-5


def test_smoothing_a_set_gives_each_label_outside_its_part(losses):
    """Of four equally probable labels two are right: .9 on the pair, .05 on each other."""
    loss = per_output(
        losses.SetLoss(label_smoothing=0.2),
        np.uint8([[[1, 1, 0, 0]]]),
        np.zeros((1, 1, 4), np.float32),
    )
    wanted = 0.9 * np.log(2) + 2 * 0.05 * np.log(4)
    assert loss == pytest.approx(np.array([[wanted]]), rel=1e-6)


def test_the_focal_loss_is_the_librarys(losses, tensorflow, logits, random):
    targets = one_hot(random.integers(N_LABELS, size=(2, 5)))
    wanted = tensorflow.keras.losses.categorical_focal_crossentropy(
        targets.astype(np.float32), logits, from_logits=True, alpha=1.0, gamma=2.0
    )
    loss = per_output(losses.SetLoss(focal_gamma=2.0), targets, logits)
    assert np.abs(loss - np.asarray(wanted)).max() <= 1e-4


def test_the_focal_loss_takes_weight_from_what_is_sure(losses):
    """The set has posterior 3/4: its loss is a quarter to the power of gamma of what it was."""
    logits = np.log(np.float32([[[2, 1, 0.5, 0.5]]]))
    targets = np.uint8([[[1, 1, 0, 0]]])
    loss = per_output(losses.SetLoss(focal_gamma=0.5), targets, logits)
    assert loss == pytest.approx(np.array([[0.5 * np.log(4 / 3)]]), rel=1e-5)


WINDOW = sets([1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 1, 0], [1, 0, 1, 0])


def test_max_pooling_asks_for_the_word_where_it_is_most_probable(losses, logits):
    plain = per_output(losses.SetLoss(), WINDOW, logits)
    meanwhile = -np.log(posteriors_of(logits)[..., [0, 2]].sum(axis=-1))
    loss = per_output(losses.MaxPoolingLoss(), WINDOW, logits)
    wanted = plain.copy()
    wanted[:, 1:4] = plain[:, 1:4].min(axis=1, keepdims=True) + meanwhile[:, 1:4]
    assert np.abs(loss - wanted).max() <= 1e-4


def test_pooled_outputs_ask_for_the_word_where_its_mean_posterior_is_greatest(losses, logits):
    plain = per_output(losses.SetLoss(), WINDOW, logits)
    meanwhile = -np.log(posteriors_of(logits)[..., [0, 2]].sum(axis=-1))
    word = posteriors_of(logits)[..., 2].copy()
    word[:, [0, 4]] = 0.0  # outside of the window
    means = np.stack([np.convolve(row, np.ones(3) / 3, "same") for row in word])
    loss = per_output(losses.MaxPoolingLoss(n_pooled=3), WINDOW, logits)
    wanted = plain.copy()
    wanted[:, 1:4] = -np.log(means[:, 1:4].max(axis=1, keepdims=True)) + meanwhile[:, 1:4]
    assert np.abs(loss - wanted).max() <= 1e-4


def test_max_pooling_keeps_words_apart(losses, logits):
    """Two words that touch, and one word twice with a pause between, are two windows each."""
    for second in ([0, 0, 0, 1], [0, 0, 1, 0]):
        pause = [0, 0, 0, 1] if second[3] else [1, 0, 0, 0]
        targets = sets([0, 0, 1, 0], [0, 0, 1, 0], pause, second, second)
        plain = per_output(losses.SetLoss(), targets, logits)
        allowed = np.maximum(targets, [1, 0, 0, 0]).astype(bool)
        meanwhile = -np.log((posteriors_of(logits) * allowed).sum(axis=-1))
        loss = per_output(losses.MaxPoolingLoss(), targets, logits)
        runs = [(0, 2), (2, 5)] if second[3] else [(0, 2), (3, 5)]
        wanted = plain.copy()
        for start, end in runs:
            best = plain[:, start:end].min(axis=1, keepdims=True)
            wanted[:, start:end] = best + meanwhile[:, start:end]
        assert np.abs(loss - wanted).max() <= 1e-4


def test_max_pooling_does_not_ask_for_silence_at_one_output_alone(losses, logits):
    silence = np.tile(np.uint8([1, 0, 0, 0]), (2, 5, 1))
    plain = per_output(losses.SetLoss(), silence, logits)
    assert np.array_equal(per_output(losses.MaxPoolingLoss(), silence, logits), plain)


def gradient(tensorflow, loss, targets, logits):
    tf = tensorflow.tf
    logits = tf.convert_to_tensor(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(targets, logits)
    return tape.gradient(value, logits)


def test_max_pooling_pulls_at_the_best_output_alone(losses, tensorflow):
    logits = np.zeros((1, 5, N_LABELS), np.float32)
    logits[0, 2, 2] = 1.0
    logits[0, :, 3] = -30.0  # nothing but the word, unknown and silence is probable
    logits[0, :, 1] = -30.0
    slope = gradient(tensorflow, losses.MaxPoolingLoss(), WINDOW[:1], logits).numpy()[0]
    assert np.abs(slope[[1, 3]]).max() < 1e-6
    assert slope[2, 2] < -0.1


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("name", ["set", "focal", "max_pooling"])
def test_every_loss_pulls_towards_what_is_right_and_stays_finite(
    losses, tensorflow, logits, name, scale
):
    loss = losses.make_loss(name, label_smoothing=0.1, focal_gamma=0.5, pooled_outputs=3)
    follow = tensorflow.tf.function(lambda logits: gradient(tensorflow, loss, WINDOW, logits))
    for _ in range(400):
        slope = follow(scale * logits).numpy()
        assert np.isfinite(slope).all()
        if scale > 1:
            return
        logits = logits - 20.0 * slope
    best = posteriors_of(logits)
    assert best[:, 0, 0].min() > 0.7
    assert best[:, 1:4, 2].max(axis=1).min() > 0.7


def test_shares_of_two_sets_side_by_side_add_up(losses, logits, random):
    first, second = (one_hot(random.integers(N_LABELS, size=(2, 5))) for _ in range(2))
    for loss in (losses.SetLoss(label_smoothing=0.1), losses.MaxPoolingLoss()):
        wanted = 0.7 * per_output(loss, first, logits) + 0.3 * per_output(loss, second, logits)
        mixed = np.concatenate([0.7 * first, 0.3 * second], axis=-1).astype(np.float32)
        assert np.abs(per_output(loss, mixed, logits) - wanted).max() <= 1e-4


def test_a_loss_of_half_precision_logits_is_computed_in_single(losses, logits):
    targets = one_hot(np.zeros((2, 5), int))
    half = logits.astype(np.float16)
    loss = losses.SetLoss()
    assert per_output(loss, targets, half).dtype == np.float32
    assert np.array_equal(
        per_output(loss, targets, half), per_output(loss, targets, half.astype(np.float32))
    )


def test_a_recipe_names_its_loss(losses):
    focal = losses.make_loss("focal", label_smoothing=0.1, focal_gamma=3.0)
    assert (focal.label_smoothing, focal.focal_gamma) == (0.1, 3.0)
    plain = losses.make_loss("set", focal_gamma=3.0)
    assert (type(plain), plain.focal_gamma) == (losses.SetLoss, 0.0)
    pooling = losses.make_loss("max_pooling", pooled_outputs=3)
    assert (type(pooling), pooling.n_pooled) == (losses.MaxPoolingLoss, 3)


def test_the_ctc_loss_is_the_log_probability_over_all_alignments(losses, random):
    from kws.ctc_decision import log_probability

    logits = random.normal(0, 2, (3, 7, 4)).astype(np.float32)
    words = np.array([[1, 2, 2], [3, 0, 0], [0, 0, 0]])
    found = np.asarray(losses.CtcLoss(reduction=None)(words, logits))
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    for i, sequence in enumerate([(1, 2, 2), (3,), ()]):
        wanted = -log_probability(log_probs[i], sequence) / 7
        assert found[i] == pytest.approx(wanted, abs=1e-4)


def linear(losses, keras, seed):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((None, 4)), keras.layers.Dense(3)])
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss=losses.SetLoss())
    return model


def test_posteriors_do_not_diverge_from_themselves(losses):
    assert np.allclose(
        losses.divergence(TEACHER_LOGITS, TEACHER_LOGITS + 5.0, temperature=2.0), 0.0, atol=1e-6
    )


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_divergence_is_that_of_kullback_and_leibler(losses, temperature):
    other = TEACHER_LOGITS[..., ::-1].copy()
    p, q = posteriors_of(TEACHER_LOGITS / temperature), posteriors_of(other / temperature)
    expected = temperature**2 * np.sum(p * np.log(p / q), axis=-1)
    assert np.allclose(
        losses.divergence(TEACHER_LOGITS, other, temperature=temperature), expected, atol=1e-5
    )


def test_the_loss_is_shared_between_labels_and_teacher(losses, tensorflow):
    student, teacher = (linear(losses, tensorflow.keras, seed) for seed in (1, 2))
    frames = np.random.default_rng(0).normal(size=(8, 5, 4)).astype(np.float32)
    targets = np.eye(3, dtype=np.uint8)[np.zeros((8, 5), int)]
    weights = np.linspace(0.5, 2.0, 40, dtype=np.float32).reshape(8, 5)
    logits = student(frames)
    own = float(student.compute_loss(frames, targets, logits, weights))
    differs = np.asarray(losses.divergence(teacher(frames), logits, temperature=2.0))
    losses.distill(student, teacher, share=0.25, temperature=2.0)
    both = float(student.compute_loss(frames, targets, logits, weights, training=True))
    assert both == pytest.approx(0.75 * own + 0.25 * np.mean(differs * weights), rel=1e-5)
    judged = float(student.compute_loss(frames, targets, logits, weights, training=False))
    assert judged == pytest.approx(own)


def test_a_student_comes_to_say_what_its_teacher_says(losses, tensorflow):
    student, teacher = (linear(losses, tensorflow.keras, seed) for seed in (1, 2))
    losses.distill(student, teacher, share=1.0, temperature=1.0)
    before = [value.copy() for value in teacher.get_weights()]
    frames = np.random.default_rng(0).normal(size=(64, 5, 4)).astype(np.float32)
    targets = np.ones((64, 5, 3), np.uint8)
    student.fit(frames, targets, epochs=60, batch_size=16, verbose=0)
    theirs, ours = (posteriors_of(np.asarray(model(frames))) for model in (teacher, student))
    assert np.abs(theirs - ours).max() < 0.05
    assert all(np.array_equal(*pair) for pair in zip(before, teacher.get_weights(), strict=True))
    assert len(student.weights) == 2


def soft_targets(targets, soft):
    return np.concatenate(
        (targets, np.broadcast_to(soft, targets.shape)), axis=-1, dtype=np.float32
    )


def test_soft_targets_mix_with_the_loss_where_there_are_any(losses, logits):
    own = losses.SetLoss()
    loss = losses.TaughtLoss(own, share=0.25, temperature=2.0)
    targets = sets(*one_hot([0, 1, 2, 3, 3]))
    soft = np.zeros((2, 5, N_LABELS), np.float32)
    soft[:, 1] = [0.1, 0.2, 0.3, 0.4]
    both = per_output(loss, soft_targets(targets, soft), logits)
    alone = per_output(own, targets, logits)
    assert np.array_equal(both[:, [0, 2, 3, 4]], alone[:, [0, 2, 3, 4]])
    distance = np.asarray(losses.divergence(np.log(soft[:, 1]), logits[:, 1], temperature=2.0))
    assert both[:, 1] == pytest.approx(0.75 * alone[:, 1] + 0.25 * distance, rel=1e-4)


def test_a_student_that_says_what_its_teacher_says_has_no_divergence(losses, logits):
    loss = losses.TaughtLoss(losses.SetLoss(), share=1.0, temperature=3.0)
    mild = logits / 4  # no posterior below the floor of soft targets
    targets = soft_targets(sets(*one_hot([0, 1, 2, 3, 3])), posteriors_of(mild))
    assert np.abs(per_output(loss, targets, mild)).max() < 1e-3


def test_without_soft_targets_the_loss_is_the_students_own(losses, logits):
    loss = losses.TaughtLoss(losses.SetLoss(), share=0.5, temperature=2.0)
    targets = sets(*one_hot([0, 1, 2, 3, 3]))
    assert np.array_equal(
        per_output(loss, targets, logits), per_output(losses.SetLoss(), targets, logits)
    )
