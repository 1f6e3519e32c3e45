"""Phrases come in one form, however they are typed."""

import re

import pytest

from kws.errors import ConfigError
from kws_train.synth.phrases import Phrase


@pytest.mark.parametrize(
    ("typed", "text", "label"),
    [
        ("Hey Computer", "hey computer", "hey_computer"),
        ("  HEY,   computer!! ", "hey computer", "hey_computer"),
        ("Café Olé", "cafe ole", "cafe_ole"),
        ("R2D2", "R two D two", "r_two_d_two"),
        ("7th heaven", "seventh heaven", "seventh_heaven"),
        ("area 51", "area fifty one", "area_fifty_one"),
        ("version 3.5", "version three point five", "version_three_point_five"),
        ("wake-word", "wake word", "wake_word"),
        ("KWS", "K W S", "k_w_s"),
        ("what's up", "what's up", "whats_up"),
        ("What’s up", "what's up", "whats_up"),
        ("salt & pepper", "salt and pepper", "salt_and_pepper"),
        ("ｆｕｌｌ width", "full width", "full_width"),
        ("hey computer 🖖", "hey computer", "hey_computer"),
        ("hmm", "hmm", "hmm"),
    ],
)
def test_case_digits_accents_and_punctuation_are_brought_into_one_form(typed, text, label):
    phrase = Phrase.of(typed)
    assert (phrase.text, phrase.label) == (text, label)
    assert Phrase.of(phrase.text) == phrase


def test_other_languages_keep_their_letters_and_digits():
    phrase = Phrase.of("Hallo Küche 7", language="de")
    assert (phrase.text, phrase.label) == ("hallo küche 7", "hallo_küche_7")
    assert Phrase.of("コンピューター", language="ja").text == "コンピューター"


@pytest.mark.parametrize("typed", ["", "  ", "!?", "🖖", "'"])
def test_nothing_to_say_is_an_error(typed):
    with pytest.raises(ConfigError, match=re.escape(f"Received: {typed!r}. Write it as it is")):
        Phrase.of(typed)


def test_letters_that_english_lacks_are_an_error():
    with pytest.raises(ConfigError, match=r"letters a to z. Received: 'привет', with в, е, и"):
        Phrase.of("привет")


def test_a_sentence_is_too_long():
    with pytest.raises(ConfigError, match=r"at most 8 words and 60 letters. Received: .* 9 words"):
        Phrase.of("one two three four five six seven eight nine")
