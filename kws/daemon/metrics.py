"""The metrics of a snapshot, for a registry of prometheus_client."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from kws.daemon.snapshot import Snapshot, SourceState

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["Collector", "families"]

_SOURCE_METRICS: tuple[tuple[str, str, str, Callable[[SourceState], float | None]], ...] = (
    ("counter", "kws_audio_seconds", "Seconds of audio received.", lambda s: s.audio_s),
    (
        "counter",
        "kws_audio_dropped_seconds",
        "Seconds of audio dropped, as the machine was too busy.",
        lambda s: s.dropped_s,
    ),
    (
        "counter",
        "kws_audio_overruns",
        "Losses of audio before the daemon received it.",
        lambda s: s.n_overruns,
    ),
    (
        "counter",
        "kws_source_reopened",
        "Recoveries of a source after a stall.",
        lambda s: s.n_reopened,
    ),
    (
        "gauge",
        "kws_source_up",
        "1 while a source delivers audio that is not digital silence.",
        lambda s: s.state == "listening",
    ),
    (
        "gauge",
        "kws_source_silent",
        "1 while a source delivers digital silence.",
        lambda s: s.state == "silent",
    ),
    ("gauge", "kws_level_dbfs", "Level of the last audio.", lambda s: s.level_dbfs),
    ("gauge", "kws_gate_open", "1 while a model runs.", lambda s: s.gate_open),
    ("gauge", "kws_source_muted", "1 while a source is muted.", lambda s: bool(s.muted_by)),
)


class Collector:
    """A collector for a registry of prometheus_client.

    Parameters
    ----------
    take_snapshot : callable
        Called at every collection.
    """

    def __init__(self, take_snapshot: Callable[[], Snapshot]) -> None:
        self._take_snapshot = take_snapshot

    def collect(self) -> "Iterator[Metric]":
        """Yield the metrics of a new snapshot."""
        return families(self._take_snapshot())


def families(snapshot: Snapshot) -> "Iterator[Metric]":
    """Yield the metrics of a snapshot, named by the rules of Prometheus."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    info = {"version": snapshot.version, "models": ",".join(snapshot.models)}
    yield InfoMetricFamily("kws_build", "The version of kws, and its models.", info)
    yield GaugeMetricFamily("kws_uptime_seconds", "Seconds since the start.", snapshot.uptime_s)
    text = "CPU seconds of the daemon, without the capture processes."
    yield CounterMetricFamily("process_cpu_seconds", text, snapshot.cpu_s)
    text = "Resident memory of the daemon."
    yield GaugeMetricFamily("process_resident_memory_bytes", text, 1e6 * snapshot.rss_mb)
    detections = CounterMetricFamily(
        "kws_detections", "Detections.", labels=["keyword", "model", "source"]
    )
    for one in snapshot.detections:
        detections.add_metric([one.keyword, one.model, one.source], one.n)
    yield detections
    runs = CounterMetricFamily("kws_hook_runs", "Runs of hooks.", labels=["outcome"])
    for outcome, n in snapshot.hooks.items():
        runs.add_metric([outcome], n)
    yield runs
    if recording := snapshot.recording:
        clips = CounterMetricFamily("kws_clips", "Recorded clips.", labels=["outcome"])
        clips.add_metric(["ok"], recording.n_clips)
        clips.add_metric(["failed"], recording.n_failed)
        yield clips
    yield from _mqtt_families(snapshot)
    yield from _source_families(snapshot)


def _mqtt_families(snapshot: Snapshot) -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    if mqtt := snapshot.mqtt:
        text = "1 while the MQTT broker is connected."
        yield GaugeMetricFamily("kws_mqtt_connected", text, mqtt.connected)
        text = "Messages that wait for the MQTT broker."
        yield GaugeMetricFamily("kws_mqtt_queued", text, mqtt.n_queued)
        messages = CounterMetricFamily(
            "kws_mqtt_messages", "MQTT messages of events.", labels=["outcome"]
        )
        messages.add_metric(["sent"], mqtt.n_sent)
        messages.add_metric(["dropped"], mqtt.n_dropped)
        yield messages


def _source_families(snapshot: Snapshot) -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
    for kind, name, text, value_of in _SOURCE_METRICS:
        metric = kinds[kind](name, text, labels=["source"])
        for source in snapshot.sources:
            if (value := value_of(source)) is not None:
                metric.add_metric([source.name], value)
        yield metric
