"""Monitoring of a daemon: its snapshot, its status socket, its metrics and its last errors."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING

from kws.audio import SAMPLE_RATE_HZ
from kws.config import DaemonSettings
from kws.daemon.listeners import SourceListeners
from kws.daemon.snapshot import (
    DetectionCounter,
    LogLine,
    MqttState,
    RecordingState,
    Snapshot,
    SourceState,
    cpu_seconds,
    rss_mb,
)
from kws.daemon.source_supervisor import SourceSupervisor
from kws.daemon.status_server import StatusServer
from kws.daemon.status_socket import default_socket
from kws.errors import ConfigError
from kws.events import Event
from kws.paths import expanded
from kws.sinks.clip_recorder import ClipCounts
from kws.sinks.hooks import HookCounts

if TYPE_CHECKING:
    from kws.daemon.metrics_server import MetricsServer

__all__ = ["LastErrors", "Monitoring"]

_MAX_CHARACTERS = 2000

_log = logging.getLogger("kws.daemon")


class Monitoring:
    """Serve the state of a daemon: at its status socket, and as metrics.

    Parameters
    ----------
    settings : DaemonSettings
        With the socket and the port of the metrics.
    sources : callable
        Returns the current sources.
    hooks : callable
        Returns the counts of hooks.
    clips : callable
        Returns the counts of clips; None while recording is off.
    muted_by : callable
        Returns what mutes a source.
    mqtt : callable
        Returns the state of the MQTT connection; None without a broker.
    page : callable
        Returns the link of the page; None while there is none.
    """

    def __init__(
        self,
        settings: DaemonSettings,
        *,
        sources: Callable[[], Sequence[SourceListeners]],
        hooks: Callable[[], HookCounts],
        clips: Callable[[], ClipCounts | None] = lambda: None,
        muted_by: Callable[[SourceSupervisor], list[str]] = lambda _: [],
        mqtt: Callable[[], MqttState | None] = lambda: None,
        page: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._version = version("kws")
        self._sources, self._hooks, self._clips = sources, hooks, clips
        self._muted_by, self._mqtt, self._page = muted_by, mqtt, page
        self._counter = DetectionCounter()
        self._errors = LastErrors()
        self._status = self._status_server(settings)
        self._metrics = self._metrics_server(settings)

    async def start(self) -> None:
        """Open the socket and the port; if the default socket cannot be opened, only warn.

        Raises
        ------
        ConfigError
            If a socket or port set in kws.toml cannot be opened.
        """
        logging.getLogger("kws").addHandler(self._errors)
        await _start(self._status, self._settings)
        if self._metrics:
            try:
                await self._metrics.start()
            except ConfigError:
                await self.close()
                raise

    async def change(self, settings: DaemonSettings) -> None:
        """Switch to another socket and port, where they differ.

        Raises
        ------
        ConfigError
            If one of them cannot be opened; then the old ones stay in use.
        """
        old_status, old_metrics = self._status, self._metrics
        status, metrics = old_status, old_metrics
        if settings.socket != self._settings.socket:
            status = self._status_server(settings)
            await _start(status, settings)
        if settings.metrics_port != self._settings.metrics_port:
            metrics = self._metrics_server(settings)
            try:
                if metrics:
                    await metrics.start()
            except ConfigError:
                if status is not old_status:
                    await status.close()
                raise
        self._settings, self._status, self._metrics = settings, status, metrics
        if status is not old_status:
            await old_status.close()
        if old_metrics and metrics is not old_metrics:
            await old_metrics.close()

    def send(self, event: Event) -> None:
        """Count an event and send it to all subscribers, without waiting."""
        self._counter.send(event)
        self._status.publish(event)

    async def close(self) -> None:
        """Close all connections, within half a second."""
        logging.getLogger("kws").removeHandler(self._errors)
        await self._status.close()
        if self._metrics:
            await self._metrics.close()

    def snapshot(self) -> Snapshot:
        """Return the current state; takes a fraction of a millisecond."""
        sources, clips = self._sources(), self._clips()
        models = dict.fromkeys(one.name for source in sources for one in source.listeners)
        return Snapshot(
            version=self._version,
            pid=os.getpid(),
            time_s=time.time(),
            uptime_s=round(self._counter.uptime_s, 3),
            cpu_s=cpu_seconds(),
            rss_mb=rss_mb(),
            sources=[
                _state(source, muted_by=self._muted_by(source.supervisor)) for source in sources
            ],
            models=list(models),
            detections=self._counter.counts(),
            last_detections=list(self._counter.last),
            hooks=asdict(self._hooks()),
            recording=_recording_state(clips) if clips else None,
            mqtt=self._mqtt(),
            last_errors=self._errors.lines(),
            page=self._page(),
        )

    def _status_server(self, settings: DaemonSettings) -> StatusServer:
        if settings.socket:
            path = expanded(settings.socket, what="`[daemon] socket`")
        else:
            path = default_socket()
        return StatusServer(path, self.snapshot)

    def _metrics_server(self, settings: DaemonSettings) -> "MetricsServer | None":
        if not settings.metrics_port:
            return None
        from kws.daemon.metrics_server import MetricsServer  # the HTTP server takes memory

        return MetricsServer(settings.metrics_port, self.snapshot)


class LastErrors(logging.Handler):
    """Keep the last warnings and errors, one per line of code; a handler of the logger `kws`.

    Parameters
    ----------
    max_n : int
        Number kept; each is cut at 2000 characters.
    """

    def __init__(self, max_n: int = 20) -> None:
        super().__init__(logging.WARNING)
        self._max_n = max_n
        self._lines: dict[tuple[str, int], LogLine] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record; it replaces an earlier one from the same line of code."""
        place = (record.pathname, record.lineno)
        previous = self._lines.pop(place, None)
        self._lines[place] = LogLine(
            time_s=record.created,
            level=record.levelname.lower(),
            logger=record.name,
            message=record.getMessage()[:_MAX_CHARACTERS],
            n=previous.n + 1 if previous else 1,
        )
        if len(self._lines) > self._max_n:
            del self._lines[next(iter(self._lines))]

    def lines(self) -> list[LogLine]:
        """Return them in order of time."""
        with self.lock or contextlib.nullcontext():
            return list(self._lines.values())


async def _start(server: StatusServer, settings: DaemonSettings) -> None:
    """Open the socket; without the default one, the daemon runs nevertheless."""
    try:
        await server.start()
    except ConfigError as error:
        if settings.socket:
            raise
        _log.warning("`kws status` will not find this daemon. %s", error)


def _recording_state(clips: ClipCounts) -> RecordingState:
    return RecordingState(n_clips=clips.written, n_failed=clips.failed + clips.dropped)


def _state(source: SourceListeners, *, muted_by: list[str]) -> SourceState:
    supervisor, backlog = source.supervisor, source.supervisor.backlog
    return SourceState(
        name=supervisor.label,
        description=supervisor.name,
        state=supervisor.state,
        since_s=supervisor.since_s,
        level_dbfs=source.level_dbfs,
        gate_open=source.gate_open,
        audio_s=round(backlog.n_received / SAMPLE_RATE_HZ, 3),
        dropped_s=round(backlog.n_dropped / SAMPLE_RATE_HZ, 3),
        waiting_s=round(backlog.waiting_s, 3),
        n_overruns=supervisor.n_overruns,
        n_reopened=supervisor.n_reopened,
        muted_by=muted_by,
        last_error=supervisor.last_error,
    )
