"""What is decided on a trace is what the spotter itself would have reported."""

import numpy as np
import pytest
import sounds
from hypothesis import given
from hypothesis import strategies as st

from kws.config import DecisionSettings, GateSettings
from kws.decision import Decision
from kws.manifest import DecisionDefaults, FeatureSettings, Manifest
from kws.spotter import Spotter
from kws_train.evaluate.traces import Trace, posterior_trace

FEATURES = FeatureSettings(kind="logmel", n_mels=15, floor=1.0)
LABELS = ("_silence_", "go", "stop")
GATES = (GateSettings(enabled=False), GateSettings())


def manifest(**decision):
    return Manifest(
        name="made",
        labels=LABELS,
        kind="step",
        features=FEATURES,
        n_frames=2,
        hop_frames=2,
        decision=DecisionDefaults(**decision),
    )


@given(
    posteriors=st.lists(
        st.tuples(*[st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])] * 3), min_size=1, max_size=60
    ),
    thresholds=st.tuples(*[st.sampled_from([0.2, 0.375, 0.5, 0.75, 1.0])] * 2),
    smoothing_ms=st.sampled_from([0, 20, 40, 80]),
    refractory_ms=st.sampled_from([0, 20, 100]),
)
def test_rising_edges_are_those_of_the_runtimes_decision(
    posteriors, thresholds, smoothing_ms, refractory_ms
):
    made = manifest(smoothing_ms=smoothing_ms, refractory_ms=refractory_ms)
    own = dict(zip(("go", "stop"), thresholds, strict=True))
    decision = Decision.of(made, thresholds=own)
    smoothed = np.zeros((len(posteriors), 3), np.float32)
    expected = []
    for i, row in enumerate(posteriors):
        if hit := decision.step(np.float32(row)):
            expected.append((hit.keyword, pytest.approx(hit.score), i))
        smoothed[i] = decision.smoothed
    trace = Trace(made, smoothed[:, 1:], 1, duration_s=1e9)
    found = trace.detections(own)
    times = [round(trace.time_s(i), 3) for _, _, i in expected]
    assert [(one.keyword, one.score) for one in found] == [one[:2] for one in expected]
    assert [one.end_s for one in found] == times


@pytest.mark.parametrize("gate", GATES, ids=["gate off", "gate on"])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_a_trace_gives_what_the_spotter_gives(pitch, voiced, gate, threshold):
    # A voice, a tone that says `go`, a long pause in which the gate closes, and again.
    tone, pause = sounds.tone(300, 0.5), sounds.silence(2.5)
    samples = np.concatenate([voiced, tone, pause, voiced, tone, voiced[:777]])
    trace = posterior_trace(pitch, samples, gate=gate)
    spotter = Spotter(pitch, gate=gate, decision=DecisionSettings(threshold=threshold))
    expected = [*spotter.process(samples), *spotter.flush()]
    assert expected
    assert [(one.keyword, one.end_s) for one in trace.detections(threshold)] == [
        (one.keyword, one.end_s) for one in expected
    ]


def test_the_gate_saves_the_model_its_work(pitch, voiced):
    quiet = np.zeros(80_000, np.int16)
    samples = np.concatenate([quiet, voiced, quiet])
    n_calls = 0
    step = pitch.step

    def counted(frames):
        nonlocal n_calls
        n_calls += 1
        return step(frames)

    pitch.step = counted
    posterior_trace(pitch, samples, gate=GateSettings())
    assert n_calls < 0.5 * len(samples) / 320


def test_levels_are_the_tops_of_the_scores_and_a_peak_is_looked_up_by_time():
    smoothed = np.zeros((100, 2), np.float32)
    smoothed[10:13, 0] = [0.4, 0.7, 0.5]
    smoothed[50:53, 1] = [0.1, 0.15, 0.1]
    smoothed[60:64, 1] = [0.3, 0.9, 0.9, 0.2]
    trace = Trace(manifest(), smoothed, 1, duration_s=2.0)
    assert trace.levels().tolist() == [np.float32(0.7), np.float32(0.9)]
    at = trace.time_s(61)
    assert trace.peak("stop", at - 0.1, at + 0.1) == np.float32(0.9)
    assert trace.peak("stop", at + 0.1, at + 0.2) == 0.0
