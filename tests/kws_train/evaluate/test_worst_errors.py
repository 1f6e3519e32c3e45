"""The worst moments are cut out where they were."""

import numpy as np
import pytest

from kws_train.evaluate.stream_results import process_streams
from kws_train.evaluate.worst_errors import worst_false_alarms, worst_misses


@pytest.fixture
def results(pitch, tones, monkeypatch):
    # Tones are no voice: let the trace with the gate be the one without it.
    made = process_streams(pitch, [tones])
    return type(made)(made.manifest, made.streams, made.traces, made.traces)


def test_a_word_taken_for_another_is_a_false_alarm_and_a_miss(results, tones):
    alarms, misses = worst_false_alarms(results), worst_misses(results)
    assert [(one.keyword, one.said) for one in alarms] == [("go", "stop")] * 2
    assert [(one.keyword, one.said) for one in misses] == [("stop", "stop")] * 2
    assert alarms[0].score > 0.9 > 0.1 > misses[0].score
    assert alarms[0].source == "go/a_nohash_0.wav"
    assert {one.stream for one in (*alarms, *misses)} == {"clean"}
    for miss in misses:
        start = round(miss.at_s * 16_000)
        np.testing.assert_array_equal(
            miss.samples, tones.samples[start : start + len(miss.samples)]
        )
        marked = [round(edge * 16_000) for edge in miss.marked_s]
        inside = miss.samples[slice(*marked)].astype(float)
        assert np.sqrt(np.mean(inside**2)) > 1000  # the word, by the level of speech


def test_no_more_are_returned_than_asked_for(results):
    assert len(worst_misses(results, n_most=1)) == 1
    assert worst_false_alarms(results, n_most=0) == []
