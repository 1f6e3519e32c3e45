"""Run as a service: several sources and models, restarts failed sources, reloads on SIGHUP.

One loop processes a block of audio of each source in turn, runs the models on it, and sends the
detections to the sinks. Nothing in it waits for a source, a sink or a disk.
"""

import asyncio
import contextlib
import functools
import logging
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kws.config import Config
from kws.daemon.audio_loop import AudioLoop
from kws.daemon.capture_process import CAPTURE_COMMAND
from kws.daemon.delivery import Delivery
from kws.daemon.loaded_config import LoadedConfig
from kws.daemon.log_queue import log_in_thread
from kws.daemon.monitoring import Monitoring
from kws.daemon.mqtt_service import MqttService
from kws.daemon.muting import Muting
from kws.daemon.open_sources import OpenSources
from kws.daemon.services import Services
from kws.daemon.source_supervisor import wall_time
from kws.daemon.systemd import SystemdNotifier
from kws.daemon.ui_service import UiService
from kws.daemon.wyoming_service import WyomingService
from kws.errors import KwsError
from kws.events import Detection, Event, StateChange
from kws.logs import LogFormat
from kws.sinks import Sink
from kws.sinks.clip_recorder import ClipCounts
from kws.threads import in_thread

if TYPE_CHECKING:
    from kws.ui.host import PageState

__all__ = ["Daemon"]

_IDLE_S = 1.0
_SAVE_S = 1.5
_INTERRUPTED = 130

_log = logging.getLogger("kws.daemon")


class Daemon:
    """Listen until a signal, or until all sources were files and have ended.

    Parameters
    ----------
    config : Path
        Of kws.toml; read again on SIGHUP.
    printer : Sink or None
        A sink of events beside the hooks.
    notifier : SystemdNotifier or None
        Notifies the service manager; None makes one from the environment.
    capture_command : sequence of str
        Command of the capture processes.
    change_log : callable or None
        Called at a reload with `[daemon] log_format`; None leaves the log as it is.
    override : callable
        Returns the settings to use in place of those of kws.toml.
    announce_page : callable or None
        Takes the link of the page of `[ui]`; then the daemon goes on after the end of all files.

    Raises
    ------
    KwsError
        If the configuration, a model or a hook cannot be used.
    """

    def __init__(
        self,
        config: Path,
        *,
        printer: Sink | None = None,
        notifier: SystemdNotifier | None = None,
        capture_command: Sequence[str] = CAPTURE_COMMAND,
        change_log: Callable[[LogFormat], None] | None = None,
        override: Callable[[Config], Config] = lambda config: config,
        announce_page: Callable[[str], None] | None = None,
    ) -> None:
        self.config_path = config
        self._override = override
        self._stays = announce_page is not None
        self._notifier = notifier or SystemdNotifier()
        self._change_log = change_log
        self._early_hangups: list[int] = []
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGHUP, lambda number, _: self._early_hangups.append(number))
        self._loaded = LoadedConfig.read(config, override=override)
        self._delivery = Delivery(self._loaded.hooks, printer=printer)
        self._muting = Muting(lambda: self._delivery.is_muting)
        self._ui = UiService(self, announce=announce_page)
        self._audio = AudioLoop(
            deliver=self._deliver,
            clip_recorder=lambda: self._loaded.clip_recorder,
            muting=self._muting,
            ui=self._ui,
        )
        self._mqtt = MqttService(
            self._muting, sources=lambda: self._audio.sources, on_failure=self._report_failure
        )
        self._monitoring = Monitoring(
            self._loaded.config.daemon,
            sources=lambda: self._audio.sources,
            hooks=lambda: self._loaded.hooks.counts,
            clips=self._clip_counts,
            muted_by=self._audio.muted_by,
            mqtt=self._mqtt.state,
            page=lambda: self._ui.link,
        )
        self._services = Services(WyomingService(), self._ui, self._monitoring)
        self._wake = asyncio.Event()
        self._is_reload_wanted = asyncio.Event()
        self._sources = OpenSources(
            self._audio,
            capture_command=capture_command,
            deliver=self._deliver,
            on_change=self._deliver_change,
            on_audio=self._wake.set,
        )
        self._code: int | None = None
        self._failure: BaseException | None = None

    async def run(self) -> int:
        """Listen; return the exit code: 0, or 130 after Ctrl-C.

        Raises
        ------
        AudioError
            If all sources were files, and there was an error in one.
        """
        with log_in_thread():
            await self._run()
        if self._failed:
            raise self._failed
        if self._audio.file_failure and self._code is None:
            raise self._audio.file_failure
        return self._code or 0

    async def _run(self) -> None:
        await self._services.start(self._loaded.config)
        self._handle_signals()
        tasks = [asyncio.create_task(one) for one in (self._reload_on_request(), self._mqtt.run())]
        self._mqtt.change(self._loaded)
        self._sources.open_all(self._loaded)
        self._deliver(StateChange(event="start", time=wall_time()))
        self._notifier.ready()
        self._report_status()
        try:
            await self._process()
        except Exception as error:  # noqa: BLE001  raised again after the shutdown
            self._failure = error
        for task in tasks:
            task.cancel()
        await self._shut_down()

    def page_state(self) -> "PageState":
        """Return the state for the page of `[ui]`; as of `kws.ui.host.Host`."""
        from kws.daemon.page_state import page_state

        return page_state(self._loaded, self._audio.sources, path=self.config_path)

    def page_config(self) -> Config:
        """Return the configuration in effect."""
        return self._loaded.config

    def request_reload(self) -> None:
        """Have kws.toml read again soon, as SIGHUP does."""
        self._is_reload_wanted.set()

    @property
    def _failed(self) -> BaseException | None:
        return self._failure or self._sources.failure

    async def _process(self) -> None:
        """Process audio until all files have ended, or a signal or an error ends the daemon."""
        while self._code is None and self._failed is None:
            self._wake.clear()
            was_busy = self._audio.process_each_source()
            self._notifier.ping_watchdog()
            if was_busy:
                await asyncio.sleep(0)
            elif self._audio.are_all_finished and not (self._stays or self._sources.is_switching):
                return
            else:
                await self._wait(self._notifier.watchdog_interval_s or _IDLE_S)

    def _report_failure(self, detail: str) -> None:
        self._deliver(StateChange(event="error", time=wall_time(), detail=detail))

    async def _wait(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _deliver(self, event: Event) -> None:
        """Send an event to every sink, without waiting for any."""
        if isinstance(event, Detection):
            _log.info(
                "%s: detected `%s` (%.2f).",
                event.source,
                event.keyword,
                event.score,
                extra=msgspec.structs.asdict(event),
            )
        self._monitoring.send(event)
        self._ui.send(event)
        self._loaded.clip_recorder.send(event)
        self._mqtt.send(event)
        self._delivery.send(event)

    def _deliver_change(self, change: StateChange) -> None:
        self._deliver(change)
        self._report_status()

    def _report_status(self) -> None:
        n_keywords = len(self._loaded.keywords)
        states = "; ".join(source.supervisor.status() for source in self._audio.sources)
        self._notifier.status(f"{n_keywords} keywords. {states}.")

    async def _reload_on_request(self) -> None:
        while True:
            await self._is_reload_wanted.wait()
            self._is_reload_wanted.clear()
            self._notifier.reloading()
            await self._reload()
            self._notifier.ready()
            self._report_status()

    async def _reload(self) -> None:
        """Read kws.toml again; switch to it once all models, hooks and ports are open."""
        old = self._loaded
        read = functools.partial(
            LoadedConfig.read,
            self.config_path,
            old=old,
            sources=list(self._audio.sources),
            override=self._override,
        )
        try:
            loaded = await in_thread(read)
            try:
                await self._services.change(loaded.config, former=old.config)
            except KwsError:
                if loaded.clip_recorder is not old.clip_recorder:
                    loaded.clip_recorder.close()
                raise
        except (KwsError, OSError) as error:
            _log.error("The new configuration is refused, and the old one kept: %s", error)
            self._deliver_change(StateChange(event="error", time=wall_time(), detail=str(error)))
            return
        await self._switch(loaded)
        _log.info("The configuration was read again.")

    async def _switch(self, loaded: LoadedConfig) -> None:
        """Replace models, hooks and sources between two blocks of audio."""
        for source in self._audio.sources:
            settings = source.supervisor.settings
            if settings in loaded.config.every_source:
                await source.warm_up(loaded.listeners[settings.label])
        old, self._loaded = self._loaded, loaded
        if self._change_log:
            self._change_log(loaded.config.daemon.log_format)
        if loaded.clip_recorder is not old.clip_recorder:
            # Its last clips are written while audio is processed.
            close = old.clip_recorder.close
            threading.Thread(target=close, name="kws-recording", daemon=True).start()
        if loaded.hooks is not old.hooks:
            self._delivery.replace_hooks(loaded.hooks)
        self._mqtt.change(loaded)
        await self._sources.switch(loaded)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._finish, 0)
        loop.add_signal_handler(signal.SIGINT, self._finish, _INTERRUPTED)
        loop.add_signal_handler(signal.SIGHUP, self._is_reload_wanted.set)
        if self._early_hangups:  # while the models were opened
            self._is_reload_wanted.set()

    def _finish(self, code: int) -> None:
        self._code = code if self._code is None else self._code
        self._wake.set()

    async def _shut_down(self) -> None:
        """Release everything, within two seconds after a signal."""
        self._notifier.stopping()
        self._sources.begin_close()
        await self._audio.process_remaining()
        self._deliver(StateChange(event="stop", time=wall_time()))
        closing = [
            asyncio.create_task(one)
            for one in (
                self._delivery.close(
                    is_urgent=lambda: self._code is not None or self._failed is not None,
                    keep_alive=self._notifier.ping_watchdog,
                ),
                self._mqtt.close(),
                *self._services.closing(),
            )
        ]
        saving = asyncio.create_task(in_thread(self._loaded.clip_recorder.close))
        await asyncio.wait([saving], timeout=_SAVE_S)
        await asyncio.wait(closing)
        await self._sources.closed()
        for task in closing:
            task.result()
        self._notifier.close()

    def _clip_counts(self) -> ClipCounts | None:
        clip_recorder = self._loaded.clip_recorder
        return clip_recorder.counts if clip_recorder.is_on else None
