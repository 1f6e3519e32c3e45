"""Delivery of events to hooks and other sinks, each behind a queue of its own."""

import asyncio
import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence

from kws.daemon.sink_queue import SinkQueue
from kws.events import Event
from kws.sinks import Sink
from kws.sinks.hooks import Hooks

__all__ = ["Delivery"]

_LAST_HOOKS_S = 0.7
_KILL_S = 0.8
_POLL_S = 0.01

_log = logging.getLogger("kws.daemon")


class Delivery:
    """Send events to the hooks, and to a sink for standard output.

    Parameters
    ----------
    hooks : Hooks
    printer : Sink or None

    Attributes
    ----------
    hooks : SinkQueue
        Of the current hooks.
    """

    def __init__(self, hooks: Hooks, *, printer: Sink | None = None) -> None:
        self.hooks: SinkQueue[Event] = SinkQueue("hooks", hooks)
        self._printers = [SinkQueue[Event]("standard output", printer)] if printer else []
        self._retired: list[SinkQueue[Event]] = []

    @property
    def is_muting(self) -> bool:
        """Whether a hook mutes the sources; one from before a reload does until it has ended."""
        return any(map(_is_muting, (self.hooks, *self._retired)))

    def send(self, event: Event) -> None:
        """Queue an event for every sink, without waiting for any."""
        for sink_queue in (self.hooks, *self._printers):
            sink_queue.put(event)

    def replace_hooks(self, hooks: Hooks) -> None:
        """Send later events to other hooks; the old ones finish their runs."""
        self.hooks.begin_close()
        retired = (*self._retired, self.hooks)
        self._retired = [one for one in retired if _is_muting(one) or not one.join(0)]
        self.hooks = SinkQueue("hooks", hooks)

    async def close(
        self, *, is_urgent: Callable[[], bool], keep_alive: Callable[[], None] = lambda: None
    ) -> None:
        """Deliver queued events and wait for hooks; kill hooks that take too long.

        Parameters
        ----------
        is_urgent : callable
            Hooks are waited for without limit while it returns False, then for 0.7 s.
        keep_alive : callable
            Called about every 10 ms while waiting for hooks.
        """
        queues = [self.hooks, *self._printers, *self._retired]
        for one in queues:
            one.begin_close()
        deadline_s = time.monotonic() + _LAST_HOOKS_S
        while not all(one.join(0) for one in queues):
            if not is_urgent():
                deadline_s = time.monotonic() + _LAST_HOOKS_S
            if time.monotonic() > deadline_s:
                break
            keep_alive()
            await asyncio.sleep(_POLL_S)
        _kill_hooks(queues)
        deadline_s = time.monotonic() + _KILL_S
        while not all(one.join(0) for one in queues) and time.monotonic() < deadline_s:
            await asyncio.sleep(_POLL_S)
        for one in queues:
            if not one.join(0):
                _log.error("%s did not end in time; events may be lost.", one.name)


def _is_muting(sink_queue: SinkQueue[Event]) -> bool:
    return isinstance(sink_queue.sink, Hooks) and sink_queue.sink.muted


def _kill_hooks(queues: Sequence[SinkQueue[Event]]) -> None:
    for one in queues:
        if isinstance(one.sink, Hooks) and not one.join(0):
            kill = functools.partial(one.sink.close, kill=True)
            threading.Thread(target=kill, name="kws-kill", daemon=True).start()
