"""One detection for one utterance where several models share a keyword."""

import pytest

from kws.events import Detection, Peak
from kws.surest import HOLD_S, SurestDetections, Timed


def heard(known_s, *, score, model, keyword="computer", end_s=None):
    end_s = known_s if end_s is None else end_s
    detection = Detection(keyword=keyword, score=score, start_s=None, end_s=end_s, model=model)
    return Timed(known_s, detection, model)


def peak_of(timed):
    return Peak(**timed.detection.fields(), peak=0.99)


@pytest.fixture
def surest():
    return SurestDetections([["computer", "lamp"], ["computer"]])


@pytest.mark.parametrize("scores", [(0.6, 0.9), (0.9, 0.6)])
def test_of_one_utterance_the_surest_model_is_given_once(surest, scores):
    anna, bert = (
        heard(1.0 + 0.1 * i, score=score, model=model)
        for i, (score, model) in enumerate(zip(scores, ("anna", "bert"), strict=True))
    )
    assert surest.process([anna, bert], now_s=1.15) == []
    best = max(anna, bert, key=lambda one: one.detection.score)
    assert surest.process([], now_s=1.0 + HOLD_S) == [best.detection]
    assert surest.flush() == []


def test_a_keyword_of_one_model_does_not_wait(surest):
    lamp = heard(1.0, score=0.7, model="anna", keyword="lamp")
    assert surest.process([lamp], now_s=1.0) == [lamp.detection]


def test_a_model_that_is_late_adds_no_second_detection(surest):
    anna, bert = heard(1.0, score=0.6, model="anna"), heard(1.4, score=0.9, model="bert")
    assert surest.process([anna, bert], now_s=3.0) == [anna.detection]


def test_the_word_said_again_is_another_detection(surest):
    first, again = heard(1.0, score=0.6, model="anna"), heard(1.6, score=0.6, model="bert")
    assert surest.process([first, again], now_s=3.0) == [first.detection, again.detection]
    soon, after = heard(5.0, score=0.6, model="anna"), heard(5.15, score=0.6, model="anna")
    assert surest.process([soon, after], now_s=6.0) == [soon.detection, after.detection]


def test_a_peak_comes_after_its_detection_and_none_of_what_was_dropped(surest):
    anna, bert = heard(1.0, score=0.6, model="anna"), heard(1.05, score=0.9, model="bert")
    assert surest.process([anna, bert], now_s=1.1) == []
    assert surest.peaks([peak_of(anna), peak_of(bert)]) == []
    assert surest.process([], now_s=1.3) == [bert.detection]
    assert surest.peaks([]) == [peak_of(bert)]


def test_the_end_of_a_stream_gives_what_is_held(surest):
    anna = heard(1.0, score=0.6, model="anna")
    assert surest.process([anna], now_s=1.0) == []
    assert surest.flush() == [anna.detection]


def test_a_new_stream_remembers_nothing(surest):
    surest.process([heard(1.0, score=0.6, model="anna")], now_s=3.0)
    surest.reset()
    again = heard(1.2, score=0.6, model="bert")
    assert surest.process([again], now_s=3.0) == [again.detection]
