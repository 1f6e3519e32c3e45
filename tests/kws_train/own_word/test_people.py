"""The estimate of people's misses from those of synthetic voices."""

import pytest

from kws_train.own_word.people import MEASURED, Comparison, estimate_misses

TWICE = Comparison("robot", voices=(10, 100), people=(18, 100))
ALIKE = Comparison("hey robot", voices=(10, 100), people=(10, 100))


def test_a_word_that_people_say_as_voices_do_leaves_the_rate():
    found = estimate_misses(10, 100, [ALIKE])
    assert found.miss_rate == pytest.approx(10.5 / 101)
    assert found.low == found.high == pytest.approx(found.miss_rate)


def test_the_spread_is_that_of_the_words():
    found = estimate_misses(10, 100, [ALIKE, TWICE])
    assert found.low == pytest.approx(10.5 / 101)
    assert found.high == pytest.approx(18.5 / 101)
    assert found.low < found.miss_rate < found.high


def test_no_missed_voice_does_not_promise_that_no_person_is_missed():
    assert 0 < estimate_misses(0, 40, [ALIKE]).miss_rate < 0.03


def test_without_a_word_to_compare_with_nothing_is_estimated():
    assert estimate_misses(1, 40, []) is None


def test_each_condition_has_the_same_words():
    words = {name: [one.word for one in rows] for name, rows in MEASURED.items()}
    assert words["clean"] == words["10 dB"]
    assert len(words["clean"]) == 3


@pytest.mark.parametrize("name", ["clean", "10 dB"])
def test_the_estimate_from_two_words_is_near_the_third(name):
    """Leave one out: within a factor of four in odds, which is the figure in the docs."""
    for left_out in MEASURED[name]:
        others = [one for one in MEASURED[name] if one is not left_out]
        found = estimate_misses(*left_out.voices, others).miss_rate
        real = (left_out.people[0] + 0.5) / (left_out.people[1] + 1)
        assert 1 / 4 < (found / (1 - found)) / (real / (1 - real)) < 4
