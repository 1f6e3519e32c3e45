"""A new model ends in a verdict in plain words, with what would help most."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from kws_train.evaluate.det import operating_point
from kws_train.own_word.figures import Figures
from kws_train.own_word.verdict import Grounds, judge, weak_voices_warning

GROUNDS = Grounds(
    tested_on="recordings",
    n_recordings=60,
    has_voices=True,
    has_weak_voices=False,
    has_speech=True,
    minutes=30,
    recordings=Path("takes"),
)


def figures(n_missed, *, n_words=20, n_false=0, hours=1.0):
    at_budget = operating_point(
        n_false=0, n_missed=0, hours=hours, n_words=n_words, threshold=0.9, budget=0.5
    )
    own = operating_point(
        n_false=n_false,
        n_missed=n_missed,
        hours=hours,
        n_words=n_words,
        threshold=0.6,
        budget=None,
    )
    return Figures(
        keywords=("hey_robot",),
        tested_on="held-out recordings",
        n_words=n_words,
        hours=hours,
        points={"clean": (at_budget, own)},
        thresholds={"hey_robot": 0.6},
        budget=0.5,
        confused_by={},
        n_bytes=90_000,
        cpu_ms=1.5,
        minutes=3.0,
    )


def test_a_deaf_model_is_not_usable_and_enrolment_is_offered():
    """All held-out words were missed, and the command ended in success."""
    few = GROUNDS._replace(n_recordings=30, has_voices=False, minutes=1)
    verdict = judge(figures(20), few)
    assert not verdict.is_usable
    assert verdict.text == "Not usable: it misses 100% of 20 recordings that were held out."
    assert verdict.advice == (
        "What would help most: 50 recordings by the people who will say it, "
        "`kws record 'hey robot'`, then --recordings. 1 min of training are few: --minutes 10. "
        "For one speaker, no training is needed: `kws enroll 'hey robot' takes "
        "--out hey_robot.tflite`."
    )


def test_a_model_that_fires_all_the_time_is_not_usable():
    verdict = judge(figures(0, n_false=40), GROUNDS)
    assert not verdict.is_usable
    assert verdict.text == "Not usable: 40.0 false alarms per hour in speech without the phrase."


def test_a_good_model_is_ready_and_needs_no_advice():
    verdict = judge(figures(1), GROUNDS)
    assert verdict.is_usable
    assert (verdict.kind, verdict.advice) == ("ready", "")
    assert verdict.text == (
        "Ready: it misses 5% of 20 recordings that were held out, with 0.0 false alarms per hour."
    )


def test_of_text_alone_people_will_be_missed_more():
    alone = GROUNDS._replace(tested_on="voices", n_recordings=0, recordings=None)
    verdict = judge(figures(1), alone)
    assert verdict.text.endswith("People will be missed more often.")
    assert "kws record" in verdict.advice
    assert "kws enroll" not in verdict.advice


@pytest.mark.parametrize(
    "grounds",
    [GROUNDS._replace(has_voices=False), GROUNDS._replace(tested_on="training recordings")],
)
def test_a_model_without_other_voices_works_for_its_speakers(grounds):
    verdict = judge(figures(1), grounds)
    assert verdict.is_usable
    assert verdict.text.startswith("Works for these speakers only: it misses 5% of 20 recordings")


def test_a_model_that_misses_every_third_word_is_weak():
    verdict = judge(figures(7), GROUNDS)
    assert (verdict.kind, verdict.is_usable) == ("weak", True)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"has_weak_voices": True}, "neural voices"),
        ({"has_voices": False}, "neural voices"),
        ({"minutes": 3}, "--minutes 10"),
        ({"has_speech": False}, "--speech"),
        ({}, "a longer phrase"),
    ],
)
def test_what_would_help_most_comes_first(changes, advice):
    assert advice in judge(figures(7), GROUNDS._replace(**changes)).advice


def test_the_threshold_that_kws_toml_selects_is_judged():
    only_at_budget = replace(figures(20), points={"clean": figures(20).points["clean"][:1]})
    assert judge(only_at_budget, GROUNDS).kind == "ready"


@pytest.mark.parametrize("engines", [["flite"], ["espeak-ng", "flite"]])
def test_weak_voices_alone_are_warned_of_with_the_figure(engines):
    warning = weak_voices_warning(engines)
    assert warning.startswith(f"only {' and '.join(engines)} speak")
    assert "1 to 18 %" in warning


@pytest.mark.parametrize("engines", [[], ["kokoro"], ["kokoro", "flite"]])
def test_neural_voices_or_none_bring_no_warning(engines):
    assert weak_voices_warning(engines) == ""
