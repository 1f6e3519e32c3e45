from types import SimpleNamespace

import numpy as np

from kws.near_misses import RisesBelow


def peaks(rows, *, fired=()):
    finder = RisesBelow(("_silence_", "go", "stop"), keywords=("go", "stop"), least=0.3)
    found = []
    for i, row in enumerate(rows):
        decision = SimpleNamespace(smoothed=np.array(row, np.float32))
        hits = finder.step(decision, has_fired=i in fired)
        found += [(i - hit.n_since_end, hit.keyword, round(hit.score, 2)) for hit in hits]
    return found, [hit.keyword for hit in finder.finish()]


def go(*values):
    return [[0.9, value, 0.0] for value in values]


def test_the_top_of_a_rise_that_fell_again_is_a_near_miss():
    assert peaks(go(0.1, 0.4, 0.6, 0.5, 0.2, 0.1)) == ([(2, "go", 0.6)], [])


def test_what_stays_low_and_what_is_no_keyword_is_none():
    assert peaks(go(0.1, 0.29, 0.2)) == ([], [])


def test_a_rise_that_fired_is_none_until_it_has_fallen():
    assert peaks(go(0.4, 0.6, 0.5, 0.2, 0.4, 0.1), fired={1}) == ([(4, "go", 0.4)], [])


def test_several_words_rise_at_once_and_a_detection_is_meant_for_all_of_them():
    rows = [[0.0, 0.4, 0.3], [0.0, 0.5, 0.4], [0.0, 0.0, 0.0]]
    assert peaks(rows) == ([(1, "go", 0.5), (1, "stop", 0.4)], [])
    assert peaks(rows, fired={1}) == ([], [])


def test_a_rise_that_goes_on_is_told_at_the_end():
    assert peaks(go(0.1, 0.4)) == ([], ["go"])
