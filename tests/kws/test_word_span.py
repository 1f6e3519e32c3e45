import numpy as np

from kws.word_span import word_span


def test_a_word_lies_where_it_is_loud_across_a_short_pause():
    levels = np.full(120, 1.0, np.float32)
    levels[20:40] = levels[50:60] = levels[90:95] = 9.0
    start, end = word_span(levels)
    assert abs(start - 20) <= 2
    assert abs(end - 60) <= 2


def test_a_phrase_goes_on_over_the_pauses_between_its_words():
    levels = np.full(200, 1.0, np.float32)
    levels[20:40], levels[80:110] = 9.0, 10.0
    assert word_span(levels)[0] >= 78
    start, end = word_span(levels, pause_frames=60)
    assert abs(start - 20) <= 2
    assert abs(end - 110) <= 2


def test_nothing_is_loud_in_a_constant_level():
    assert word_span(np.ones(50, np.float32)) == (0, 0)
