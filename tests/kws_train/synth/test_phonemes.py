"""Distances between pronunciations."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_train.synth.lexicon import dictionary, pronunciations
from kws_train.synth.phonemes import distances

ALL = sorted({one for ways in itertools.islice(dictionary().values(), 3000) for one in ways[0]})
spoken = st.lists(st.sampled_from(ALL), min_size=1, max_size=7).map(tuple)


def distance(one, other):
    return float(distances(one, [other])[0])


def word_distance(one, other):
    return distance(pronunciations(one)[0], pronunciations(other)[0])


@given(spoken, spoken)
def test_distance_is_a_distance(one, other):
    assert distance(one, one) == 0
    assert distance(one, other) == pytest.approx(distance(other, one))
    assert (distance(one, other) > 0) == (one != other)
    assert distance(one, other) <= len(one) + len(other)


@given(spoken, spoken, spoken)
def test_many_distances_are_those_of_one_at_a_time(one, other, third):
    together = distances(one, [other, third, one])
    assert together.tolist() == pytest.approx([distance(one, x) for x in (other, third, one)])
    assert len(distances(one, [])) == 0


@pytest.mark.parametrize(
    ("word", "nearer", "farther"),
    [
        ("glass", "class", "boss"),
        ("bat", "pat", "sat"),
        ("bit", "bet", "boot"),
        ("computer", "commuter", "controller"),
        ("snowboy", "snowball", "cowboy"),
        ("hey", "hay", "he"),
        ("seven", "heaven", "eleven"),
    ],
)
def test_what_sounds_more_alike_is_nearer(word, nearer, farther):
    assert word_distance(word, nearer) < word_distance(word, farther)
