"""Prefetching: results computed ahead by a forked process, which shares this one's memory."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from kws.errors import KwsError

__all__ = ["prefetch"]

_Result = TypeVar("_Result")

_work: list[Callable[[int], Any]] = []  # in the other process; too large to send with each number


@contextlib.contextmanager
def prefetch(
    work: Callable[[int], _Result], numbers: Iterable[int], *, n_ahead: int = 8
) -> Iterator[Iterator[_Result]]:
    """Yield a function's results in the order of the numbers; the next few are computed ahead.

    Enter it from the main thread: a process forked from another thread returns memory to the system
    after every batch and allocates it again, which takes as long as the work itself.

    Parameters
    ----------
    work : callable
        From a number to its result. State that it keeps between calls stays in the other process.
    numbers : iterable of int
        May be infinite.
    n_ahead : int
        How many results are computed ahead.

    Raises
    ------
    KwsError
        `work` raised it, or the other process was killed. It is raised at the end of the block,
        even if the block turned it into another exception.
    """
    failed: list[KwsError] = []
    fork = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    executor = ProcessPoolExecutor(1, fork, _initialize, (work,))
    try:
        executor.submit(int).result()
        yield _results(executor, iter(numbers), n_ahead, failed)
    except Exception:
        if failed:
            raise failed[0] from None
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _results(
    executor: ProcessPoolExecutor, numbers: Iterator[int], n_ahead: int, failed: list[KwsError]
) -> Iterator[Any]:
    pending: deque[Future[Any]] = deque()
    try:
        for number in numbers:
            pending.append(executor.submit(_call, number))
            if len(pending) > n_ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except KwsError as error:
        failed.append(error)
        raise
    except BrokenProcessPool as error:
        failed.append(
            KwsError(
                "The process that prepares batches was killed, probably because memory ran out. "
                "Free memory, or use fewer clips or less speech; the same command resumes after "
                "the last completed epoch."
            )
        )
        raise failed[0] from error


def _initialize(work: Callable[[int], Any]) -> None:
    """Set up the other process."""
    _work[:] = [work]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent acts
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _call(number: int) -> Any:
    return _work[0](number)


def _exit_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
