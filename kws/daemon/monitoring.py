"""All that tells of the daemon, in one place for the service: its snapshot, socket and metrics."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from kws.audio import SAMPLE_RATE_HZ
from kws.config import DaemonSettings
from kws.daemon.listeners import Channel
from kws.daemon.logs import LastErrors
from kws.daemon.metrics import MetricsServer
from kws.daemon.snapshot import RecordingState, Snapshot, SourceState, Tally, cpu_seconds, rss_mb
from kws.daemon.status_server import StatusServer, default_socket
from kws.errors import ConfigError
from kws.events import Event
from kws.sinks.clip_recorder import ClipCounts
from kws.sinks.hooks import HookCounts

__all__ = ["Reporter"]

_log = logging.getLogger("kws.daemon")


class Reporter:
    """Tell of a daemon whoever asks.

    Parameters
    ----------
    settings : DaemonSettings
        Which socket and port.
    channels : callable
        Gives those there are now.
    hooks : callable
        Gives what became of the hooks.
    recording : callable
        Gives what became of clips; None while none are recorded.
    """

    def __init__(
        self,
        settings: DaemonSettings,
        *,
        channels: Callable[[], Sequence[Channel]],
        hooks: Callable[[], HookCounts],
        recording: Callable[[], ClipCounts | None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._version = version("kws")
        self._channels, self._hooks, self._recording = channels, hooks, recording
        self._tally = Tally()
        self._errors = LastErrors()
        self._status = self._status_server(settings)
        self._metrics = self._metrics_server(settings)

    async def start(self) -> None:
        """Open socket and port; without a socket where none was asked for, it only warns.

        Raises
        ------
        ConfigError
            If what kws.toml asks for cannot be had.
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
        """Move to another socket and port, where they are others.

        Raises
        ------
        ConfigError
            If what is asked for cannot be had; then all stays as it is.
        """
        old = self._settings
        status, metrics = self._status, self._metrics
        if settings.socket != old.socket:
            status = self._status_server(settings)
            await _start(status, settings)
        if settings.metrics_port != old.metrics_port:
            metrics = self._metrics_server(settings)
            try:
                if metrics:
                    await metrics.start()
            except ConfigError:
                if status is not self._status:
                    await status.close()
                raise
        leaving = [self._status] * (status is not self._status)
        stopped = self._metrics if metrics is not self._metrics else None
        self._settings, self._status, self._metrics = settings, status, metrics
        for server in leaving:
            await server.close()
        if stopped:
            await stopped.close()

    def send(self, event: Event) -> None:
        """Count an event and tell it to all who follow; never waits."""
        self._tally.send(event)
        self._status.publish(event)

    async def close(self) -> None:
        """End all connections, within half a second."""
        logging.getLogger("kws").removeHandler(self._errors)
        await self._status.close()
        if self._metrics:
            await self._metrics.close()

    def _status_server(self, settings: DaemonSettings) -> StatusServer:
        path = Path(settings.socket).expanduser() if settings.socket else default_socket()
        return StatusServer(path, self.snapshot)

    def _metrics_server(self, settings: DaemonSettings) -> MetricsServer | None:
        port = settings.metrics_port
        return MetricsServer(port, self.snapshot) if port else None

    def snapshot(self) -> Snapshot:
        """Return the state of now; takes a fraction of a millisecond."""
        channels, clips = self._channels(), self._recording()
        models = dict.fromkeys(one.name for channel in channels for one in channel.listeners)
        return Snapshot(
            version=self._version,
            pid=os.getpid(),
            time_s=time.time(),
            uptime_s=round(self._tally.uptime_s, 3),
            cpu_s=cpu_seconds(),
            rss_mb=rss_mb(),
            sources=[_state(channel) for channel in channels],
            models=list(models),
            detections=self._tally.counts(),
            last_detections=list(self._tally.last),
            hooks=asdict(self._hooks()),
            recording=RecordingState(n_clips=clips.written, n_failed=clips.failed + clips.dropped)
            if clips
            else None,
            last_errors=self._errors.lines(),
        )


async def _start(server: StatusServer, settings: DaemonSettings) -> None:
    """Open the socket; where none was asked for, do without."""
    try:
        await server.start()
    except ConfigError as error:
        if settings.socket:
            raise
        _log.warning("`kws status` will not find this daemon. %s", error)


def _state(channel: Channel) -> SourceState:
    ear = channel.ear
    return SourceState(
        name=ear.label,
        description=ear.name,
        state=ear.state,
        since_s=ear.since_s,
        level_dbfs=channel.level_dbfs,
        gate_open=any(one.spotter.gate_open for one in channel.listeners),
        audio_s=round(ear.backlog.n_received / SAMPLE_RATE_HZ, 3),
        dropped_s=round(ear.backlog.n_dropped / SAMPLE_RATE_HZ, 3),
        waiting_s=round(ear.backlog.waiting_s, 3),
        n_overruns=ear.n_overruns,
        n_reopened=ear.n_reopened,
        last_error=ear.last_error,
    )
