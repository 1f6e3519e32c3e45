from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from kws.daemon.metrics import Collector
from kws.daemon.snapshot import (
    DetectionCount,
    MqttState,
    RecordingState,
    Snapshot,
    SourceState,
)

STATE = Snapshot(
    version="1.2",
    pid=7,
    time_s=100.0,
    uptime_s=50.0,
    cpu_s=5.0,
    rss_mb=40.0,
    models=["a", "b"],
    sources=[
        SourceState(
            name='the "mic"\n',
            state="listening",
            since_s=50.0,
            level_dbfs=-20.5,
            gate_open=True,
            audio_s=30.0,
            dropped_s=1.5,
            n_overruns=7,
            n_reopened=2,
        ),
        SourceState(name="b", state="stalled", since_s=50.0, muted_by=["a hook"]),
    ],
    detections=[DetectionCount(keyword="go", model="a", source="b", n=3)],
    hooks={"ok": 4, "timed_out": 1},
    recording=RecordingState(n_clips=6, n_failed=1),
    mqtt=MqttState(broker="b:1883", connected=True, n_sent=7, n_queued=2, n_dropped=1),
)


def samples(text):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_figure_of_a_snapshot_is_a_metric():
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(lambda: STATE))
    assert samples(generate_latest(registry).decode()) == {
        ("kws_build_info", "a,b", "1.2"): 1.0,
        ("kws_uptime_seconds",): 50.0,
        ("process_cpu_seconds_total",): 5.0,
        ("process_resident_memory_bytes",): 40e6,
        ("kws_detections_total", "go", "a", "b"): 3.0,
        ("kws_hook_runs_total", "ok"): 4.0,
        ("kws_hook_runs_total", "timed_out"): 1.0,
        ("kws_clips_total", "ok"): 6.0,
        ("kws_clips_total", "failed"): 1.0,
        ("kws_mqtt_connected",): 1.0,
        ("kws_mqtt_queued",): 2.0,
        ("kws_mqtt_messages_total", "sent"): 7.0,
        ("kws_mqtt_messages_total", "dropped"): 1.0,
        ("kws_source_muted", 'the "mic"\n'): 0.0,
        ("kws_source_muted", "b"): 1.0,
        ("kws_audio_seconds_total", 'the "mic"\n'): 30.0,
        ("kws_audio_seconds_total", "b"): 0.0,
        ("kws_audio_dropped_seconds_total", 'the "mic"\n'): 1.5,
        ("kws_audio_dropped_seconds_total", "b"): 0.0,
        ("kws_audio_overruns_total", 'the "mic"\n'): 7.0,
        ("kws_audio_overruns_total", "b"): 0.0,
        ("kws_source_reopened_total", 'the "mic"\n'): 2.0,
        ("kws_source_reopened_total", "b"): 0.0,
        ("kws_source_up", 'the "mic"\n'): 1.0,
        ("kws_source_up", "b"): 0.0,
        ("kws_source_silent", 'the "mic"\n'): 0.0,
        ("kws_source_silent", "b"): 0.0,
        ("kws_level_dbfs", 'the "mic"\n'): -20.5,
        ("kws_gate_open", 'the "mic"\n'): 1.0,
    }
