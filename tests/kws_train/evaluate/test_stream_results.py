from dataclasses import replace

import pytest

from kws_train.evaluate.stream_results import process_streams


def test_without_the_gate_a_stream_is_run_once_and_only_on_demand(pitch, tones):
    results = process_streams(pitch, [tones, tones])
    n_gated_calls = pitch.n_calls
    assert results.gated_curve.n_words == 16
    assert pitch.n_calls == n_gated_calls > 0
    assert results.curve.n_words == 16
    n_calls_of_both = pitch.n_calls
    assert n_calls_of_both > n_gated_calls
    assert [one.curve.n_words for one in results.per_stream()] == [8, 8]
    assert pitch.n_calls == n_calls_of_both


def test_streams_of_one_condition_count_together(pitch, tones):
    twice = process_streams(pitch, [tones, tones, replace(tones, name="10 dB")])
    curves = twice.by_condition()
    assert list(curves) == ["clean", "10 dB"]
    assert curves["clean"].hours == pytest.approx(2 * curves["10 dB"].hours)
    assert curves["clean"].n_words == 2 * curves["10 dB"].n_words
