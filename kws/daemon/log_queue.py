"""Logging that never waits: a standard error that nobody reads must not stop the audio."""

import contextlib
import logging
from collections.abc import Iterator, Sequence

from kws.daemon.sink_queue import Outlet

__all__ = ["logs_in_a_thread"]

_LAST_S = 0.3


@contextlib.contextmanager
def logs_in_a_thread() -> Iterator[None]:
    """Hand what is logged to the root logger's handlers in a thread, through a bounded queue."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    outlet = Outlet("the log", _Handlers(handlers))
    root.handlers[:] = [_ToOutlet(outlet)]
    try:
        yield
    finally:
        root.handlers[:] = handlers
        outlet.begin_close()
        outlet.join(_LAST_S)


class _ToOutlet(logging.Handler):
    """Queue each record."""

    def __init__(self, outlet: Outlet[logging.LogRecord]) -> None:
        super().__init__()
        self._outlet = outlet

    def emit(self, record: logging.LogRecord) -> None:
        self._outlet.put(record)


class _Handlers:
    """The handlers that there were, as a sink."""

    def __init__(self, handlers: Sequence[logging.Handler]) -> None:
        self._handlers = handlers

    def send(self, record: logging.LogRecord) -> None:
        for handler in self._handlers:
            if record.levelno >= handler.level:
                handler.handle(record)

    def close(self) -> None:
        """Do nothing: the handlers live on."""
