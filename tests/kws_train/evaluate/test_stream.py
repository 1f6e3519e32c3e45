"""Figures on streams are counted right."""

import msgspec
import pytest

from kws.config import DecisionSettings
from kws.manifest import CalibrationPoint
from kws_train.evaluate.stream import evaluate_stream
from kws_train.evaluate.stream_results import process_streams
from kws_train.evaluate.tables import stream_table


def test_misses_and_false_alarms_are_counted_on_a_stream(pitch, tones):
    scores = evaluate_stream(process_streams(pitch, [tones]))
    assert scores.n_words == 8
    usual = scores.points[-1]
    assert usual.miss_rate == pytest.approx(2 / 8)
    assert usual.miss_low < 0.25 < usual.miss_high
    assert scores.miss_rate_per_keyword == {"go": 0.0, "stop": 1.0}
    # The two clips that are called `stop` are low tones too: heard as `go`, they are false alarms.
    assert usual.fa_per_hour * scores.hours == pytest.approx(2)
    assert usual.fa_low < usual.fa_per_hour < usual.fa_high
    assert scores.n_false_on_words == 2
    # And none is in speech without a keyword.
    assert (usual.speech_fa_per_hour, usual.confused_rate) == (0.0, pytest.approx(2 / 8))
    assert usual.speech_fa_low == 0.0
    assert usual.speech_fa_high * scores.hours == pytest.approx(3.689, abs=1e-3)
    for point in scores.speech_points:
        assert point.speech_fa_per_hour <= point.budget
        assert point.miss_rate <= scores.points[0].miss_rate
    assert scores.points[0].threshold > 0.97
    assert scores.points[0].miss_rate == 1.0
    # This model answers at a word's start, half a second before its end.
    assert -500 <= scores.latency_ms["p50"] <= -400
    assert scores.conditions == []


def test_the_delay_that_a_model_was_trained_for_is_part_of_the_latency(pitch, tones):
    free = evaluate_stream(process_streams(pitch, [tones])).latency_ms["p50"]
    decision = msgspec.structs.replace(pitch.manifest.decision, delay_ms=10)
    pitch.manifest = msgspec.structs.replace(pitch.manifest, decision=decision)
    assert evaluate_stream(process_streams(pitch, [tones])).latency_ms["p50"] == pytest.approx(
        free, abs=0.6
    )


def test_several_streams_are_counted_together_and_each_by_itself(pitch, tones):
    streams = [tones, type(tones)(tones.samples, tones.words, name="again")]
    scores = evaluate_stream(process_streams(pitch, streams))
    assert (scores.n_words, len(scores.conditions)) == (16, 2)
    assert scores.conditions[1].points[-1].miss_rate == pytest.approx(2 / 8)
    assert "again alone, without the gate: 8 keywords" in stream_table(scores)


def test_a_calibrated_threshold_is_held_against_what_it_promises(pitch, tones):
    rows = (
        CalibrationPoint(false_alarms_per_hour=0.5, thresholds={"go": 0.99, "stop": 0.99}),
        CalibrationPoint(false_alarms_per_hour=5.0, thresholds={"go": 0.5, "stop": 0.6}),
    )
    pitch.manifest = msgspec.structs.replace(pitch.manifest, calibration=rows)
    strict, loose = evaluate_stream(process_streams(pitch, [tones])).calibrated
    assert (strict.budget, strict.threshold, strict.miss_rate) == (0.5, 0.99, 1.0)
    assert loose.budget == 5.0
    assert loose.threshold != loose.threshold  # not one for all keywords
    assert DecisionSettings(false_alarms_per_hour=5.0)
