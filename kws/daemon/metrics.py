"""Metrics for Prometheus, at an HTTP port of this machine alone.

In the daemon, all in its loop::

    server = MetricsServer(9100, snapshot=take_snapshot)   # ConfigError without prometheus_client
    await server.start()                                   # ConfigError if the port is taken
    await server.close()
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kws.daemon.clients import Clients
from kws.daemon.snapshot import Snapshot
from kws.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["MetricsServer", "families", "render"]

_HOST = "127.0.0.1"
_LONGEST_HEAD = 8192
_REQUEST_S = 5.0
_MOST_CLIENTS = 8
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsServer:
    """Answer GET /metrics on 127.0.0.1.

    Parameters
    ----------
    port : int
        0 takes one that is free; `port` says which after `start`.
    snapshot : callable
        Called in the loop at every request; to be quick.

    Raises
    ------
    ConfigError
        If prometheus_client is not installed.
    """

    def __init__(self, port: int, snapshot: Callable[[], Snapshot]) -> None:
        _client_library()
        self.port = port
        self._snapshot = snapshot
        self._server: asyncio.Server | None = None
        self._clients = Clients()

    async def start(self) -> None:
        """Open the port.

        Raises
        ------
        ConfigError
            If it cannot be had.
        """
        try:
            self._server = await asyncio.start_server(
                self._attend, _HOST, self.port, limit=_LONGEST_HEAD
            )
        except OSError as error:
            raise ConfigError(
                f"`[daemon] metrics_port` must be free. Received: {self.port} "
                f"({error.strerror or error}). Choose another."
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Close the port and every connection."""
        if self._server is None:
            return
        self._server.close()
        await self._clients.close()
        self._server = None

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._clients.attending(writer):
            async with asyncio.timeout(_REQUEST_S):
                writer.write(await self._answer(reader))
                writer.transport.set_write_buffer_limits(0)
                await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        if len(self._clients) > _MOST_CLIENTS:
            return _http("503 Service Unavailable", b"Too many ask at once.\n")
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _http("431 Request Header Fields Too Large", b"")
        except asyncio.IncompleteReadError:
            return _http("400 Bad Request", b"")
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in {b"GET", b"HEAD"}:
            return _http("405 Method Not Allowed", b"", "Allow: GET, HEAD")
        if path != b"/metrics":
            return _http("404 Not Found", b"The metrics are at /metrics.\n")
        answer = _http("200 OK", render(self._snapshot()))
        return answer if method == b"GET" else answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def render(snapshot: Snapshot) -> bytes:
    """Return a snapshot in Prometheus's text format, version 0.0.4."""
    client = _client_library()
    registry = client.CollectorRegistry(auto_describe=False)
    registry.register(_Collector(snapshot))
    text: bytes = client.generate_latest(registry)
    return text


def families(snapshot: Snapshot) -> "Iterator[Metric]":
    """Yield the metrics of a snapshot, by the naming rules of Prometheus."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    info = {"version": snapshot.version, "models": ",".join(snapshot.models)}
    yield InfoMetricFamily("kws_build", "The version of kws, and the models that listen.", info)
    yield GaugeMetricFamily("kws_uptime_seconds", "Since the start.", snapshot.uptime_s)
    text = "CPU seconds of the daemon; the processes that record are not counted."
    yield CounterMetricFamily("process_cpu_seconds", text, snapshot.cpu_s)
    text = "Resident memory of the daemon."
    yield GaugeMetricFamily("process_resident_memory_bytes", text, 1e6 * snapshot.rss_mb)
    heard = CounterMetricFamily(
        "kws_detections", "Keywords heard.", labels=["keyword", "model", "source"]
    )
    for one in snapshot.detections:
        heard.add_metric([one.keyword, one.model, one.source], one.n)
    yield heard
    runs = CounterMetricFamily("kws_hook_runs", "Runs of hooks.", labels=["outcome"])
    for outcome, n in snapshot.hooks.items():
        runs.add_metric([outcome], n)
    yield runs
    if recording := snapshot.recording:
        clips = CounterMetricFamily("kws_clips", "Activations recorded.", labels=["outcome"])
        clips.add_metric(["ok"], recording.n_clips)
        clips.add_metric(["failed"], recording.n_failed)
        yield clips
    yield from _source_families(snapshot)


def _source_families(snapshot: Snapshot) -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    kinds: list[tuple[Any, str, str, Callable[[Any], float | None]]] = [
        (CounterMetricFamily, "kws_audio_seconds", "Audio that came.", lambda s: s.audio_s),
        (
            CounterMetricFamily,
            "kws_audio_dropped_seconds",
            "Audio dropped, as the machine was too busy.",
            lambda s: s.dropped_s,
        ),
        (
            CounterMetricFamily,
            "kws_source_reopened",
            "How often a source was heard again after a stall.",
            lambda s: s.n_reopened,
        ),
        (
            GaugeMetricFamily,
            "kws_source_up",
            "1 while a source gives audio.",
            lambda s: s.state == "listening",
        ),
        (GaugeMetricFamily, "kws_level_dbfs", "Of the last audio.", lambda s: s.level_dbfs),
        (GaugeMetricFamily, "kws_gate_open", "1 while a model runs.", lambda s: s.gate_open),
    ]
    for family, name, text, value_of in kinds:
        metric = family(name, text, labels=["source"])
        for source in snapshot.sources:
            if (value := value_of(source)) is not None:
                metric.add_metric([source.name], value)
        yield metric


class _Collector:
    """What the registry asks."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> "Iterator[Metric]":
        return families(self._snapshot)


def _client_library() -> Any:
    try:
        import prometheus_client
    except ImportError as error:
        raise ConfigError(
            f"`[daemon] metrics_port` needs the package prometheus-client. Received: {error}. "
            f"Run `pip install 'kws[metrics]'`, or remove the key."
        ) from error
    return prometheus_client


def _http(status: str, body: bytes, *headers: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {_CONTENT_TYPE}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
