"""The supervised sources of a daemon: opened at its start, changed at a reload."""

import asyncio
from collections.abc import Callable, Sequence

from kws.config import SourceSettings
from kws.daemon.audio_loop import AudioLoop
from kws.daemon.listeners import SourceListeners
from kws.daemon.loaded_config import LoadedConfig
from kws.daemon.source_supervisor import SourceSupervisor
from kws.events import Detection, StateChange

__all__ = ["OpenSources"]


class OpenSources:
    """Supervise the sources of a configuration, each in a task.

    Parameters
    ----------
    audio : AudioLoop
        Whose `sources` these are.
    capture_command : sequence of str
        Command of the capture processes.
    deliver : callable
        Takes the last detections of a model that is replaced.
    on_change : callable
        Takes each change of a source's state.
    on_audio : callable
        Called when there is audio to process, or a task has ended.

    Attributes
    ----------
    is_switching : bool
        Whether a reload opens and closes sources.
    failure : BaseException or None
        An unexpected error of a supervisor.
    """

    def __init__(
        self,
        audio: AudioLoop,
        *,
        capture_command: Sequence[str],
        deliver: Callable[[Detection], None],
        on_change: Callable[[StateChange], None],
        on_audio: Callable[[], None],
    ) -> None:
        self.is_switching = False
        self.failure: BaseException | None = None
        self._audio = audio
        self._capture_command = capture_command
        self._deliver, self._on_change, self._on_audio = deliver, on_change, on_audio
        self._tasks: dict[SourceSupervisor, asyncio.Task[None]] = {}

    def open_all(self, loaded: LoadedConfig) -> None:
        """Open the sources of a configuration."""
        for settings in loaded.config.every_source:
            self._open(settings, loaded)

    async def switch(self, loaded: LoadedConfig) -> None:
        """End removed sources, give new models to the others, and open new sources."""
        wanted, audio = loaded.config.every_source, self._audio
        removed = [one for one in audio.sources if one.supervisor.settings not in wanted]
        audio.sources = [one for one in audio.sources if one.supervisor.settings in wanted]
        for source in audio.sources:
            source.supervisor.backlog.max_s = loaded.config.daemon.backlog_s
            listeners = loaded.listeners[source.supervisor.label]
            for detection in source.replace_listeners(listeners):
                self._deliver(detection)
            audio.report_failures(source)
        kept = [source.supervisor.settings for source in audio.sources]
        self.is_switching = True
        # A microphone with changed settings must be closed before it is opened again.
        await asyncio.gather(*map(self._retire, removed))
        for settings in wanted:
            if settings not in kept:
                self._open(settings, loaded)
        self.is_switching = False
        self._on_audio()

    def begin_close(self) -> None:
        """Have every capture process ended; return at once."""
        for task in self._tasks.values():
            _cancel_once(task)

    async def closed(self) -> None:
        """Wait until no capture process runs."""
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def _open(self, settings: SourceSettings, loaded: LoadedConfig) -> None:
        """Add a source, and start to supervise it."""
        supervisor = SourceSupervisor(
            settings,
            backlog_s=loaded.config.daemon.backlog_s,
            on_change=self._on_change,
            on_audio=self._on_audio,
            capture_command=self._capture_command,
        )
        self._audio.sources.append(SourceListeners(supervisor, loaded.listeners[settings.label]))
        task = asyncio.create_task(supervisor.run())
        task.add_done_callback(self._check_task)
        self._tasks[supervisor] = task

    def _check_task(self, task: asyncio.Task[None]) -> None:
        """End the daemon on an unexpected error of a supervisor; systemd restarts it."""
        if not task.cancelled() and (error := task.exception()):
            self.failure = error
        self._on_audio()

    async def _retire(self, source: SourceListeners) -> None:
        """End a removed source, and process its remaining audio."""
        task = self._tasks[source.supervisor]
        _cancel_once(task)
        await asyncio.wait([task])
        del self._tasks[source.supervisor]
        while block := source.supervisor.take():
            self._audio.process_block(source, block)
            await asyncio.sleep(0)
        self._audio.flush(source)


def _cancel_once(task: asyncio.Task[None]) -> None:
    """Cancel a supervisor; a second cancel would interrupt the end of its capture process."""
    if not task.cancelling():
        task.cancel()
