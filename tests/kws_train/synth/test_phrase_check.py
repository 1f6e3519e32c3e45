"""Poor phrases are warned of, with figures."""

import re
import shutil

import pytest

from kws_train.synth.phrase_check import advise
from kws_train.synth.phrases import Phrase

pytestmark = pytest.mark.slow  # the dictionary is read, and all words asked for


@pytest.mark.parametrize("phrase", ["hey computer", "view glass", "grasshopper", "ok robot"])
def test_good_phrases_are_not_warned_of(phrase):
    advice = advise(Phrase.of(phrase))
    assert advice.warnings == ()
    assert advice.per_hour < 0.1


@pytest.mark.parametrize(
    ("phrase", "n", "longer"), [("hi", 2, "hey hi"), ("hey", 2, "hey computer")]
)
def test_short_phrases_are_warned_of_with_their_number_of_phonemes(phrase, n, longer):
    advice = advise(Phrase.of(phrase))
    assert len(advice.phonemes) == n
    warning = advice.warnings[0]
    assert warning.startswith(f"`{phrase}` is short: {n} phonemes, where 6 or more are reliable.")
    assert f"such as `{longer}`" in warning


def test_everyday_words_are_warned_of_with_how_often_they_are_said():
    advice = advise(Phrase.of("computer"))
    assert (len(advice.phonemes), advice.n_syllables) == (8, 3)
    assert 1 < advice.per_hour < 10
    (warning,) = advice.warnings
    assert re.match(r"`computer` is everyday speech: said about [\d.]+ times in an hour", warning)


def test_everyday_neighbours_are_warned_of():
    advice = advise(Phrase.of("hey"))
    assert "he" in advice.near
    assert advice.near_per_hour == pytest.approx(sum(advice.near.values()), rel=0.05)
    assert any("is like everyday words (he, " in warning for warning in advice.warnings)


def test_the_more_everyday_the_more_often():
    often = [advise(Phrase.of(p)).per_hour for p in ("the", "seven", "computer", "snowboy")]
    assert often == sorted(often, reverse=True)
    assert often[-1] == 0


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")
def test_of_other_languages_only_the_length_is_known():
    advice = advise(Phrase.of("küche", language="de"))
    assert advice.per_hour is None
    assert 3 <= len(advice.phonemes) <= 5
    assert "phonemes" in advice.warnings[0]
