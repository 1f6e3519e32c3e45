"""A bounded queue and worker thread for the log: a blocked standard error must not stop audio."""

import contextlib
import logging
from collections.abc import Iterator, Sequence

from kws.daemon.sink_queue import SinkQueue

__all__ = ["log_in_thread"]

_CLOSE_S = 0.3


@contextlib.contextmanager
def log_in_thread() -> Iterator[None]:
    """Run the root logger's handlers in a thread, behind a bounded queue."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    log_queue = SinkQueue("the log", _Handlers(handlers))
    root.handlers[:] = [_QueueHandler(log_queue)]
    try:
        yield
    finally:
        root.handlers[:] = handlers
        log_queue.begin_close()
        log_queue.join(_CLOSE_S)


class _QueueHandler(logging.Handler):
    """Queue each record."""

    def __init__(self, log_queue: SinkQueue[logging.LogRecord]) -> None:
        super().__init__()
        self._log_queue = log_queue
        self._is_queuing = False

    def emit(self, record: logging.LogRecord) -> None:
        if self._is_queuing:  # a warning of the queue about itself, which is full or slow
            return
        self._is_queuing = True
        try:
            self._log_queue.put(record)
        finally:
            self._is_queuing = False


class _Handlers:
    """The handlers of the root logger, as the end of a queue."""

    def __init__(self, handlers: Sequence[logging.Handler]) -> None:
        self._handlers = handlers

    def send(self, record: logging.LogRecord) -> None:
        for handler in self._handlers:
            if record.levelno >= handler.level:
                handler.handle(record)

    def close(self) -> None:
        """Do nothing: the handlers remain in use."""
