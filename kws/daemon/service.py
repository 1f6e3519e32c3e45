"""`kws daemon`: ears, models and sinks put together, in one loop that also tells the watchdog.

The loop takes a piece of audio of each source in turn, gives it to the models, and hands what they
hear to the outlets. Nothing in it waits for a source, a sink or a disk.
"""

import asyncio
import functools
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from kws.config import SourceSettings
from kws.daemon.backlog import Piece
from kws.daemon.capture_process import CAPTURE
from kws.daemon.listeners import Channel
from kws.daemon.loaded_config import Setup
from kws.daemon.log_queue import logs_in_a_thread
from kws.daemon.logs import LogFormat
from kws.daemon.monitoring import Reporter
from kws.daemon.sink_queue import Outlet
from kws.daemon.source_supervisor import Ear, wall_time
from kws.daemon.systemd import Notifier
from kws.daemon.threads import in_thread
from kws.daemon.wyoming_service import WyomingService
from kws.errors import AudioError, KwsError
from kws.events import Detection, Event, StateChange
from kws.sinks import Sink
from kws.sinks.hooks import Hooks

__all__ = ["Daemon"]

_IDLE_S = 1.0
_LAST_AUDIO_S = 0.3
_LAST_HOOKS_S = 0.7
_KILL_S = 0.8
_SAVE_S = 1.5
_POLL_S = 0.01
_INTERRUPTED = 130

_log = logging.getLogger("kws.daemon")


class Daemon:
    """Listen until told to end, or until all sources were files and have ended.

    Parameters
    ----------
    config : Path
        kws.toml; read again on SIGHUP.
    printer : Sink or None
        Takes events beside the hooks.
    notifier : Notifier or None
        Talks to the service manager; None makes one out of the environment.
    recorder : sequence of str
        What records; tests bring their own.
    change_log : callable or None
        Called at a reload with `[daemon] log_format`; None leaves the log as it is.

    Raises
    ------
    KwsError
        If the configuration, a model or a hook is not as it must be.
    """

    def __init__(
        self,
        config: Path,
        *,
        printer: Sink | None = None,
        notifier: Notifier | None = None,
        recorder: Sequence[str] = CAPTURE,
        change_log: Callable[[LogFormat], None] | None = None,
    ) -> None:
        self._path = config
        self._notifier = notifier or Notifier()
        self._recorder = recorder
        self._change_log = change_log
        self._setup = Setup.read(config)
        self._channels: list[Channel] = []
        self._reporter = Reporter(
            self._setup.config.daemon,
            channels=lambda: self._channels,
            hooks=lambda: self._setup.hooks.counts,
            recording=lambda: self._setup.recording.counts if self._setup.recording.is_on else None,
        )
        self._wyoming = WyomingService()
        self._tasks: dict[Ear, asyncio.Task[None]] = {}
        self._hooks = Outlet("hooks", self._setup.hooks)
        self._printers = [Outlet("standard output", printer)] if printer else []
        self._retired: list[Outlet[Event]] = []
        self._code: int | None = None
        self._failure: BaseException | None = None
        self._file_failure: AudioError | None = None
        self._is_switching = False

    async def run(self) -> int:
        """Listen; return the exit code: 0, or 130 after Ctrl-C.

        Raises
        ------
        AudioError
            If all sources were files, and something was wrong with one.
        """
        with logs_in_a_thread():
            await self._run()
        if self._failure:
            raise self._failure
        if self._file_failure and self._code is None:
            raise self._file_failure
        return self._code or 0

    async def _run(self) -> None:
        self._wake = asyncio.Event()
        self._is_reload_wanted = asyncio.Event()
        await self._reporter.start()
        await self._start_wyoming()
        self._listen_to_signals()
        reloader = asyncio.create_task(self._reload_for_ever())
        for source in self._setup.config.every_source:
            self._open(source, self._setup)
        self._deliver(StateChange(event="start", time=wall_time()))
        self._notifier.ready()
        self._say_status()
        try:
            await self._process()
        except Exception as error:  # noqa: BLE001  raised again when all is let go of
            self._failure = error
        reloader.cancel()
        await self._end()

    async def _start_wyoming(self) -> None:
        try:
            await self._wyoming.change(self._setup.config)
        except KwsError:
            await self._reporter.close()
            raise

    async def _process(self) -> None:
        """Process audio until there is none any more, or a signal or an error ends it."""
        while self._code is None and self._failure is None:
            self._wake.clear()
            any_taken = self._take_turns()
            self._notifier.ping()
            if any_taken:
                await asyncio.sleep(0)
            elif all(channel.is_done for channel in self._channels) and not self._is_switching:
                return
            else:
                await self._wait(self._notifier.ping_every_s or _IDLE_S)

    def _take_turns(self) -> bool:
        """Process one piece of each source; return whether there was any."""
        return max([self._turn(channel) for channel in self._channels], default=False)

    def _turn(self, channel: Channel) -> bool:
        """Process one piece of a source; return whether there was one."""
        piece = channel.ear.take()
        if piece is not None:
            # Hooks of before a reload mute until they have ended, too.
            is_muted = any(map(_is_muting, (self._hooks, *self._retired)))
            self._hear(channel, piece, is_muted=is_muted and not channel.ear.is_file)
        if channel.ear.is_over and not channel.is_done:
            channel.is_done = True
            if channel.ear.last_error:
                self._file_failure = AudioError(channel.ear.last_error)
            self._deliver(channel.balance())
        return piece is not None

    def _hear(self, channel: Channel, piece: Piece, *, is_muted: bool = False) -> None:
        """Process a piece of a source, deliver what is heard, and record it where that is on."""
        recording = self._setup.recording
        if not is_muted:
            recording.hear(channel.ear.label, piece.audio, start_sample=piece.start_sample)
        for detection in channel.hear(piece, is_muted=is_muted):
            self._deliver(detection)
        for near_miss in channel.near_misses():
            recording.send(near_miss)

    async def _wait(self, most_s: float) -> None:
        try:
            async with asyncio.timeout(most_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _deliver(self, event: Event) -> None:
        """Hand an event to every outlet; none of them waits."""
        if isinstance(event, Detection):
            _log.info(
                "%s: heard `%s` (%.2f).",
                event.source,
                event.keyword,
                event.score,
                extra=msgspec.structs.asdict(event),
            )
        self._reporter.send(event)
        self._setup.recording.send(event)
        for outlet in (self._hooks, *self._printers):
            outlet.put(event)

    def _tell(self, change: StateChange) -> None:
        self._deliver(change)
        self._say_status()

    def _say_status(self) -> None:
        keywords = len(self._setup.keywords)
        heard = "; ".join(channel.ear.status() for channel in self._channels)
        self._notifier.status(f"{keywords} keywords. {heard}.")

    # Sources

    def _open(self, source: SourceSettings, setup: Setup) -> None:
        """Add a channel for a source, and begin to hear it."""
        ear = Ear(
            source,
            backlog_s=setup.config.daemon.backlog_s,
            tell=self._tell,
            wake=self._wake.set,
            command=self._recorder,
        )
        self._channels.append(Channel(ear, setup.listeners[source.label]))
        task = asyncio.create_task(ear.run())
        task.add_done_callback(self._see_end)
        self._tasks[ear] = task

    def _see_end(self, task: asyncio.Task[None]) -> None:
        """End the daemon on an error of its own; systemd starts it anew."""
        if not task.cancelled() and (error := task.exception()):
            self._failure = error
        self._wake.set()

    async def _retire(self, channel: Channel) -> None:
        """End a source that is wanted no more, and hear all that came of it."""
        task = self._tasks[channel.ear]
        _cancel_once(task)
        await asyncio.wait([task])
        del self._tasks[channel.ear]
        while piece := channel.ear.take():
            self._hear(channel, piece)
            await asyncio.sleep(0)
        for detection in channel.end():
            self._deliver(detection)

    # Reload

    async def _reload_for_ever(self) -> None:
        while True:
            await self._is_reload_wanted.wait()
            self._is_reload_wanted.clear()
            self._notifier.reloading()
            await self._reload()
            self._notifier.ready()
            self._say_status()

    async def _reload(self) -> None:
        """Read kws.toml again; switch to it when everything it asks for is open."""
        old, channels = self._setup, list(self._channels)
        try:
            setup = await in_thread(functools.partial(Setup.read, self._path, old, channels))
            try:
                await self._wyoming.change(setup.config)
                await self._reporter.change(setup.config.daemon)
            except KwsError:
                if setup.recording is not old.recording:
                    setup.recording.close()
                raise
        except (KwsError, OSError) as error:
            _log.error("The new configuration is refused, and the old one kept: %s", error)
            refused = StateChange(event="error", time=wall_time(), detail=str(error))
            self._tell(refused)
            return
        await self._switch(setup)
        _log.info("The configuration was read again.")

    async def _switch(self, setup: Setup) -> None:
        """Replace models, hooks and sources at once, between two pieces of audio."""
        old, self._setup = self._setup, setup
        if self._change_log:
            self._change_log(setup.config.daemon.log_format)
        if setup.recording is not old.recording:
            # Its last clips are written beside the listening.
            threading.Thread(target=old.recording.close, name="kws-recording", daemon=True).start()
        if setup.hooks is not old.hooks:
            self._hooks.begin_close()
            retired = (*self._retired, self._hooks)
            self._retired = [one for one in retired if _is_muting(one) or not one.join(0)]
            self._hooks = Outlet("hooks", setup.hooks)
        wanted = setup.config.every_source
        leaving = [one for one in self._channels if one.ear.settings not in wanted]
        self._channels = [one for one in self._channels if one.ear.settings in wanted]
        for channel in self._channels:
            channel.ear.backlog.most_s = setup.config.daemon.backlog_s
            for detection in channel.adopt(setup.listeners[channel.ear.label]):
                self._deliver(detection)
        heard = [channel.ear.settings for channel in self._channels]
        self._is_switching = True
        # A microphone that is only set otherwise must be let go before it is opened again.
        await asyncio.gather(*map(self._retire, leaving))
        for source in wanted:
            if source not in heard:
                self._open(source, setup)
        self._is_switching = False
        self._wake.set()

    # The end

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._finish, 0)
        loop.add_signal_handler(signal.SIGINT, self._finish, _INTERRUPTED)
        loop.add_signal_handler(signal.SIGHUP, self._is_reload_wanted.set)

    def _finish(self, code: int) -> None:
        self._code = code if self._code is None else self._code
        self._wake.set()

    async def _end(self) -> None:
        """Let go of everything, within two seconds where a signal asked for the end."""
        self._notifier.stopping()
        for task in self._tasks.values():
            _cancel_once(task)
        await self._hear_the_rest()
        self._deliver(StateChange(event="stop", time=wall_time()))
        closing = asyncio.create_task(self._close_outlets())
        reporting = asyncio.create_task(self._reporter.close())
        leaving = asyncio.create_task(self._wyoming.close())
        saving = asyncio.create_task(in_thread(self._setup.recording.close))
        await asyncio.wait([saving], timeout=_SAVE_S)
        await asyncio.wait([closing, reporting, leaving, *self._tasks.values()])
        for task in (closing, reporting, leaving):
            task.result()
        self._notifier.close()

    async def _hear_the_rest(self) -> None:
        """Process what waits, as far as time allows; what was heard last is heard to its end."""
        deadline_s = time.monotonic() + _LAST_AUDIO_S
        await asyncio.sleep(0)
        while self._take_turns() and time.monotonic() < deadline_s:
            await asyncio.sleep(0)
        for channel in self._channels:
            for detection in channel.end():
                self._deliver(detection)

    async def _close_outlets(self) -> None:
        """Deliver what is queued and wait for hooks; kill them if a signal asked for the end."""
        outlets = [self._hooks, *self._printers, *self._retired]
        for outlet in outlets:
            outlet.begin_close()
        deadline_s = time.monotonic() + _LAST_HOOKS_S
        while not all(one.join(0) for one in outlets):
            if self._code is None and self._failure is None:
                deadline_s = time.monotonic() + _LAST_HOOKS_S
            if time.monotonic() > deadline_s:
                break
            self._notifier.ping()
            await asyncio.sleep(_POLL_S)
        self._kill_hooks(outlets)
        deadline_s = time.monotonic() + _KILL_S
        while not all(one.join(0) for one in outlets) and time.monotonic() < deadline_s:
            await asyncio.sleep(_POLL_S)
        for outlet in outlets:
            if not outlet.join(0):
                _log.error("%s did not end in time; events may be lost.", outlet.name)

    def _kill_hooks(self, outlets: Sequence[Outlet[Event]]) -> None:
        for outlet in outlets:
            if isinstance(outlet.sink, Hooks) and not outlet.join(0):
                kill = functools.partial(outlet.sink.close, kill=True)
                threading.Thread(target=kill, name="kws-kill", daemon=True).start()


def _is_muting(outlet: Outlet[Event]) -> bool:
    return isinstance(outlet.sink, Hooks) and outlet.sink.muted


def _cancel_once(task: asyncio.Task[None]) -> None:
    """End an ear; a second cancel would cut its recorder's end short."""
    if not task.cancelling():
        task.cancel()
