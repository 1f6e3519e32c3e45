"""The audio of each source through its models, block by block; what they find to the sinks."""

import asyncio
import logging
import time
from collections.abc import Callable

from kws.daemon.backlog import AudioBlock
from kws.daemon.listeners import SourceListeners
from kws.daemon.muting import Muting
from kws.daemon.source_supervisor import SourceSupervisor, wall_time
from kws.daemon.ui_service import UiService
from kws.errors import AudioError
from kws.events import Event, StateChange
from kws.sinks.clip_recorder import ClipRecorder

__all__ = ["AudioLoop"]

_LAST_AUDIO_S = 0.3

_log = logging.getLogger("kws.daemon")


class AudioLoop:
    """Process one block of each source in turn; nothing here waits for a source or a sink.

    Parameters
    ----------
    deliver : callable
        Takes each event, without waiting.
    clip_recorder : callable
        Returns the recorder of the current configuration.
    muting : Muting
    ui : UiService

    Attributes
    ----------
    sources : list of SourceListeners
    file_failure : AudioError or None
        The last error in a file.
    """

    def __init__(
        self,
        *,
        deliver: Callable[[Event], None],
        clip_recorder: Callable[[], ClipRecorder],
        muting: Muting,
        ui: UiService,
    ) -> None:
        self.sources: list[SourceListeners] = []
        self.file_failure: AudioError | None = None
        self._deliver, self._clip_recorder = deliver, clip_recorder
        self._muting, self._ui = muting, ui

    @property
    def are_all_finished(self) -> bool:
        """Whether all sources were files and have ended."""
        return all(source.is_finished for source in self.sources)

    def muted_by(self, supervisor: SourceSupervisor) -> list[str]:
        """Return what mutes a source."""
        return self._muting.reasons(supervisor.label, is_file=supervisor.is_file)

    def process_each_source(self) -> bool:
        """Process one block of each source; return whether there was any."""
        return max([self._process_source(source) for source in self.sources], default=False)

    def process_block(
        self, source: SourceListeners, block: AudioBlock, *, is_muted: bool = False
    ) -> None:
        """Process a block of a source; deliver its detections and record their clips."""
        clip_recorder = self._clip_recorder()
        if not is_muted:
            label = source.supervisor.label
            clip_recorder.feed(label, block.audio, start_sample=block.start_sample)
        self._ui.prepare(source)
        for detection in source.process(block, is_muted=is_muted):
            self._deliver(detection)
        for near_miss in source.take_near_misses():
            clip_recorder.send(near_miss)
            self._ui.send(near_miss)
        self._ui.put(source, block)
        for peak in source.take_peaks():
            self._deliver(peak)
        self.report_failures(source)

    def report_failures(self, source: SourceListeners) -> None:
        """Report the models that have ended by an error of the interpreter."""
        failures, source.failures = source.failures, []
        for detail in failures:
            _log.error("%s", detail)
            label = source.supervisor.label
            self._deliver(StateChange(event="error", time=wall_time(), source=label, detail=detail))

    def flush(self, source: SourceListeners) -> None:
        """End the stream of a source; deliver its last detections."""
        for detection in source.flush():
            self._deliver(detection)

    async def process_remaining(self) -> None:
        """Process audio in the backlogs for up to 0.3 s, and end every stream."""
        deadline_s = time.monotonic() + _LAST_AUDIO_S
        await asyncio.sleep(0)
        while self.process_each_source() and time.monotonic() < deadline_s:
            await asyncio.sleep(0)
        for source in self.sources:
            self.flush(source)

    def _process_source(self, source: SourceListeners) -> bool:
        """Process one block of a source; return whether there was one."""
        supervisor = source.supervisor
        block = supervisor.take()
        if block is not None:
            self.process_block(source, block, is_muted=bool(self.muted_by(supervisor)))
        if supervisor.has_ended and not source.is_finished:
            source.is_finished = True
            if supervisor.last_error:
                self.file_failure = AudioError(supervisor.last_error)
            self._deliver(source.end_event())
        return block is not None
