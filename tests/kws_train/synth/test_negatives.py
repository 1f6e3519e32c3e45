"""What is like a phrase is found, ranked, and shared out."""

import pytest

from kws_train.synth.lexicon import common_words, phrase_pronunciations
from kws_train.synth.negatives import (
    WAKE_WORDS,
    Negative,
    allocate_clips,
    contains,
    find_negatives,
    without_keywords,
)
from kws_train.synth.phrases import Phrase

pytestmark = pytest.mark.slow  # the dictionary is read, and all words asked for


def texts(found, kind=None):
    return {one.text for one in found if kind in {None, one.kind}}


@pytest.fixture(scope="module")
def found():
    return find_negatives(Phrase.of("hey computer"), n=120)


def test_what_an_accent_may_make_of_the_phrase_is_left_out_unless_people_say_it(found):
    near = texts(found, "near")
    assert "a computer" in near
    assert not {"he computer", "say computer", "high computer"} & near
    assert not {"few glass", "view class"} & {
        one.text for one in find_negatives(Phrase.of("view glass"))
    }
    assert "compute" in {one.text for one in find_negatives(Phrase.of("computer"))}


def test_all_kinds_are_there(found):
    assert texts(found, "part") == {"hey", "computer"}
    assert {"hey commuter", "hey computing", "high computing"} <= texts(found, "near")
    assert {"cuter", "prosecutor"} <= texts(found, "end")
    assert {"alexa", "hey google", "hey jarvis"} <= texts(found, "wake")
    assert all(word.startswith("ha") or word.startswith("he") for word in texts(found, "start"))
    assert len(texts(found, "start")) >= 10


def test_the_nearest_come_first_and_none_twice(found):
    assert [one.distance for one in found] == sorted(one.distance for one in found)
    assert all(0 < one.distance <= 1 for one in found)
    assert len(texts(found)) == len(found) <= 120


def test_what_sounds_like_the_phrase_or_holds_it_is_none(found):
    assert not texts(found) & {"hey computer", "hay computer", "hey computers"}
    computer = find_negatives(Phrase.of("computer"))
    assert not texts(computer) & {"computer", "computers", "supercomputer", "hey computer"}
    ways = phrase_pronunciations(["hey", "computer"])
    for one in found:
        assert not any(
            contains(way, ways) for way in phrase_pronunciations(one.text.lower().split())
        )


def test_what_holds_or_sounds_like_another_keyword_is_left_out_of_a_model_of_both():
    near_go = find_negatives(Phrase.of("go"))
    apart = without_keywords(near_go, [Phrase.of("no"), Phrase.of("stop")])
    assert texts(near_go) - texts(apart) == {"know", "americano", "snowboy"}
    spanish = find_negatives(Phrase.of("para ahora", language="es"))
    assert texts(spanish) - texts(
        without_keywords(spanish, [Phrase.of("ahora", language="es")])
    ) == {"ahora"}


def test_a_seed_decides_and_another_decides_otherwise(found):
    assert find_negatives(Phrase.of("hey computer"), n=120) == found
    other = find_negatives(Phrase.of("hey computer"), n=120, seed=2)
    assert texts(other, "near") == texts(found, "near")
    assert texts(other, "start") != texts(found, "start")


@pytest.mark.parametrize(
    ("phrase", "part"), [("snowboy", "snow"), ("view glass", "glass"), ("KWS", "K W")]
)
def test_parts_of_other_phrases(phrase, part):
    assert part in texts(find_negatives(Phrase.of(phrase)), "part")


@pytest.mark.parametrize("phrase", ["hey", "a", "r2d2", "seven"])
@pytest.mark.parametrize("n", [5, 60])
def test_there_is_something_like_every_phrase(phrase, n):
    found = find_negatives(Phrase.of(phrase), n=n)
    assert 1 <= len(found) <= n


def test_other_languages_have_parts_and_wake_words():
    found = find_negatives(Phrase.of("hallo küche", language="de"))
    assert texts(found, "part") == {"hallo", "küche"}
    assert texts(found, "wake") == set(WAKE_WORDS)
    assert len(find_negatives(Phrase.of("küche", language="de"), n=3)) == 3


def test_clips_are_shared_out_to_the_last_and_more_to_the_near():
    near = Negative(text="a", kind="near", distance=0.1)
    far = Negative(text="b", kind="near", distance=0.8)
    part = Negative(text="c", kind="part", distance=0.8)
    shares = allocate_clips([near, far, part], n_clips=1000)
    assert sum(shares.values()) == 1000
    assert shares["a"] > shares["c"] > shares["b"] > 0
    assert allocate_clips([near, far], n_clips=1) == {"a": 1}
    assert allocate_clips([], n_clips=10) == {}


def test_common_words_are_what_people_say():
    assert 20_000 < len(common_words()) < 60_000
    assert {"computer", "hello", "kitchen"} <= set(common_words())
