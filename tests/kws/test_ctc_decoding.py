"""Decoding against the definition: every alignment, spelt out."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws.ctc_decision import greedy, log_probability, prefix_beam


def collapsed(alignment, blank=0):
    merged = [label for label, _ in itertools.groupby(alignment)]
    return tuple(label for label in merged if label != blank)


def enumerated(log_probs):
    """Return the probability of every sequence, by adding up all alignments."""
    n_outputs, n_labels = log_probs.shape
    found = {}
    for alignment in itertools.product(range(n_labels), repeat=n_outputs):
        p = np.exp(sum(log_probs[t, label] for t, label in enumerate(alignment)))
        sequence = collapsed(alignment)
        found[sequence] = found.get(sequence, 0.0) + p
    return found


def drawn(seed, n_outputs, n_labels):
    logits = np.random.default_rng(seed).normal(0, 2, (n_outputs, n_labels))
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@given(seed=st.integers(0, 10_000), n_outputs=st.integers(1, 5), n_labels=st.integers(2, 4))
def test_a_wide_beam_gives_the_sum_over_all_alignments(seed, n_outputs, n_labels):
    log_probs = drawn(seed, n_outputs, n_labels)
    wanted = enumerated(log_probs)
    found = prefix_beam(log_probs, beam=10_000)
    assert {sequence for sequence, _ in found if np.isfinite(_)} == set(wanted)
    for sequence, log_p in found:
        assert np.exp(log_p) == pytest.approx(wanted.get(sequence, 0.0), abs=1e-12)
    probabilities = [log_p for _, log_p in found]
    assert probabilities == sorted(probabilities, reverse=True)


@given(seed=st.integers(0, 10_000), n_outputs=st.integers(1, 5))
def test_the_forward_algorithm_gives_the_sum_over_all_alignments(seed, n_outputs):
    log_probs = drawn(seed, n_outputs, 3)
    for sequence, p in enumerated(log_probs).items():
        assert np.exp(log_probability(log_probs, sequence)) == pytest.approx(p, abs=1e-12)


def test_what_is_too_long_for_the_outputs_is_impossible():
    log_probs = drawn(1, 3, 3)
    assert log_probability(log_probs, (1, 1, 2)) == -np.inf, "a repeat needs a blank between"
    assert np.isfinite(log_probability(log_probs, (1, 2, 1)))


@given(seed=st.integers(0, 10_000))
def test_greedy_gives_the_sequence_of_the_most_probable_alignment(seed):
    log_probs = drawn(seed, 5, 3)
    alignments = itertools.product(range(3), repeat=5)
    best = max(alignments, key=lambda one: sum(log_probs[t, label] for t, label in enumerate(one)))
    assert greedy(log_probs) == collapsed(best)


def test_many_alignments_can_outweigh_the_best_one():
    """Graves et al. 2006, figure 2: two outputs, blank .6 and A .4."""
    log_probs = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert greedy(log_probs) == ()
    (sequence, log_p), *_ = prefix_beam(log_probs, beam=4)
    assert (sequence, np.exp(log_p)) == ((1,), pytest.approx(0.64))


def test_a_narrow_beam_is_a_lower_bound():
    log_probs = drawn(3, 5, 4)
    exact = dict(prefix_beam(log_probs, beam=10_000))
    for sequence, log_p in prefix_beam(log_probs, beam=3):
        assert log_p <= exact[sequence] + 1e-12


def test_the_blank_may_be_any_label():
    log_probs = drawn(4, 5, 3)
    turned = log_probs[:, [1, 2, 0]]  # the blank comes last
    names = {0: 1, 1: 2}
    sequence, log_p = prefix_beam(turned, beam=1000, blank=2)[0]
    wanted, wanted_p = prefix_beam(log_probs, beam=1000)[0]
    assert tuple(names[label] for label in sequence) == wanted
    assert log_p == pytest.approx(wanted_p)
    assert log_probability(turned, sequence, blank=2) == pytest.approx(wanted_p)
