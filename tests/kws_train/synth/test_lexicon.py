"""Pronunciations and probabilities of English words."""

import shutil

import numpy as np
import pytest

from kws.errors import ConfigError
from kws_train.synth import lexicon
from kws_train.synth.lexicon import (
    dictionary,
    espeak_ipa,
    phrase_pronunciations,
    probability,
    pronunciations,
    split_compound,
)
from kws_train.synth.phonemes import distances


def test_the_dictionary_says_words_in_every_way():
    assert len(dictionary()) > 100_000
    assert pronunciations("computer") == (("K", "AH", "M", "P", "Y", "UW", "T", "ER"),)
    assert len(pronunciations("the")) == 2
    assert len(phrase_pronunciations(["the", "the"])) == 4
    assert len(phrase_pronunciations(["the"] * 5)) == 8


def test_compounds_are_said_as_their_parts_where_espeak_is_not(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    lexicon._espeak_phonemes.cache_clear()
    assert split_compound("snowboy") == ("snow", "boy")
    assert split_compound("computer") is None
    assert pronunciations("snowboy") == (("S", "N", "OW", "B", "OY"),)
    with pytest.raises(ConfigError, match=r"Received: `xyzzq`.*sudo apt install espeak-ng"):
        pronunciations("xyzzq")
    lexicon._espeak_phonemes.cache_clear()


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")
def test_espeak_knows_how_other_words_sound():
    assert pronunciations("zorbax") == (("Z", "AO", "R", "B", "AE", "K", "S"),)
    assert "k" in espeak_ipa("küche", language="de")
    same = 0
    words = ("computer", "marvin", "jarvis", "grasshopper", "window", "alexa", "banana", "kitchen")
    for word in words:
        asked = lexicon._espeak_phonemes(word)
        same += float(distances(asked, pronunciations(word)).min()) < 1.0
    assert same == len(words)


def test_probabilities_are_those_of_speech():
    assert 0.02 < probability("the") < 0.08
    assert probability("the") > 50 * probability("computer") > 0
    assert probability("good", "morning") > 20 * probability("morning", "good")
    assert probability("good", "morning") < probability("good")
    assert probability("snowboy") == probability("hey", "snowboy") == 0
    assert np.isclose(sum(probability(word) for word in list(dictionary())), 1, atol=0.15)
