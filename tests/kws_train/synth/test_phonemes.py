"""How words sound, and how unlike they are."""

import itertools
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws.errors import ConfigError
from kws_train.synth import phonemes
from kws_train.synth.phonemes import (
    dictionary,
    distances,
    ipa,
    probability,
    pronunciations,
    pronunciations_of_words,
    splits,
)

ALL = sorted({one for ways in itertools.islice(dictionary().values(), 3000) for one in ways[0]})
spoken = st.lists(st.sampled_from(ALL), min_size=1, max_size=7).map(tuple)


def distance(one, other):
    return float(distances(one, [other])[0])


def word_distance(one, other):
    return distance(pronunciations(one)[0], pronunciations(other)[0])


def test_the_dictionary_says_words_in_every_way():
    assert len(dictionary()) > 100_000
    assert pronunciations("computer") == (("K", "AH", "M", "P", "Y", "UW", "T", "ER"),)
    assert len(pronunciations("the")) == 2
    assert len(pronunciations_of_words(["the", "the"])) == 4
    assert len(pronunciations_of_words(["the"] * 5)) == 8


def test_compounds_are_said_as_their_parts_where_espeak_is_not(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    phonemes._spoken.cache_clear()
    assert splits("snowboy") == ("snow", "boy")
    assert splits("computer") is None
    assert pronunciations("snowboy") == (("S", "N", "OW", "B", "OY"),)
    with pytest.raises(ConfigError, match=r"Received: `xyzzq`.*sudo apt install espeak-ng"):
        pronunciations("xyzzq")
    phonemes._spoken.cache_clear()


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")
def test_espeak_knows_how_other_words_sound():
    assert pronunciations("zorbax") == (("Z", "AO", "R", "B", "AE", "K", "S"),)
    assert "k" in ipa("küche", language="de")
    same = 0
    words = ("computer", "marvin", "jarvis", "grasshopper", "window", "alexa", "banana", "kitchen")
    for word in words:
        asked = phonemes._spoken(word)
        same += min(distance(asked, way) for way in pronunciations(word)) < 1.0
    assert same == len(words)


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


def test_probabilities_are_those_of_speech():
    assert 0.02 < probability("the") < 0.08
    assert probability("the") > 50 * probability("computer") > 0
    assert probability("good", "morning") > 20 * probability("morning", "good")
    assert probability("good", "morning") < probability("good")
    assert probability("snowboy") == probability("hey", "snowboy") == 0
    assert np.isclose(sum(probability(word) for word in list(dictionary())), 1, atol=0.15)
