"""Poor phrases are warned of, with figures."""

import re
import shutil

import pytest

from kws_train.synth.phrase_check import check_phrase
from kws_train.synth.phrases import Phrase

pytestmark = pytest.mark.slow  # the dictionary is read, and all words asked for


@pytest.mark.parametrize("phrase", ["hey computer", "view glass", "grasshopper", "ok robot"])
def test_good_phrases_are_not_warned_of(phrase):
    check = check_phrase(Phrase.of(phrase))
    assert check.warnings == ()
    assert check.per_hour < 0.1


@pytest.mark.parametrize(
    ("phrase", "n", "longer"), [("hi", 2, "hey hi"), ("hey", 2, "hey computer")]
)
def test_short_phrases_are_warned_of_with_their_number_of_phonemes(phrase, n, longer):
    check = check_phrase(Phrase.of(phrase))
    assert len(check.phonemes) == n
    warning = check.warnings[0]
    assert warning.startswith(f"`{phrase}` is short: {n} phonemes, where 6 or more are reliable.")
    assert f"such as `{longer}`" in warning


def test_everyday_words_are_warned_of_with_how_often_they_are_said():
    check = check_phrase(Phrase.of("computer"))
    assert (len(check.phonemes), check.n_syllables) == (8, 3)
    assert 1 < check.per_hour < 10
    (warning,) = check.warnings
    assert re.match(
        r"`computer` is common in everyday speech: said about [\d.]+ times in an hour", warning
    )


def test_everyday_neighbours_are_warned_of():
    check = check_phrase(Phrase.of("hey"))
    assert "he" in check.similar
    assert check.similar_per_hour == pytest.approx(sum(check.similar.values()), rel=0.05)
    assert any("is similar to common words (he, " in warning for warning in check.warnings)


def test_the_more_everyday_the_more_often():
    often = [check_phrase(Phrase.of(p)).per_hour for p in ("the", "seven", "computer", "snowboy")]
    assert often == sorted(often, reverse=True)
    assert often[-1] == 0


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")
def test_of_other_languages_only_the_length_is_known():
    check = check_phrase(Phrase.of("küche", language="de"))
    assert check.per_hour is None
    assert 3 <= len(check.phonemes) <= 5
    assert "phonemes" in check.warnings[0]
