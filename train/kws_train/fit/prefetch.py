"""Work done ahead of time, in a process of its own, which has all that this one has in memory."""

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

__all__ = ["worked_ahead"]

_Result = TypeVar("_Result")

_held: list[Callable[[int], Any]] = []  # in the other process; too large to go with each number


@contextlib.contextmanager
def worked_ahead(
    work: Callable[[int], _Result], numbers: Iterable[int], *, n_ahead: int = 8
) -> Iterator[Iterator[_Result]]:
    """Give a function's results in the order of the numbers, the next few worked out beforehand.

    To be entered from the main thread: a process forked from another gives memory back to the
    system after every batch and asks for it anew, which takes it as long as the work itself.

    Parameters
    ----------
    work : callable
        From a number to its result. What it remembers from one call to the next stays in the other
        process.
    numbers : iterable of int
        May have no end.
    n_ahead : int
        How many results may wait.

    Raises
    ------
    KwsError
        At the end of the block, whatever became of it when it was raised within: `work` raised it,
        or the other process was killed.
    """
    failed: list[KwsError] = []
    fork = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    executor = ProcessPoolExecutor(1, fork, _begin, (work,))
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
    coming: deque[Future[Any]] = deque()
    try:
        for number in numbers:
            coming.append(executor.submit(_do, number))
            if len(coming) > n_ahead:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    except KwsError as error:
        failed.append(error)
        raise
    except BrokenProcessPool as error:
        failed.append(
            KwsError(
                "The process that makes scenes must live as long as the training. Received: it was "
                "killed, as happens where memory runs out. Free some, or take fewer clips or less "
                "speech; the same command goes on after the last whole epoch."
            )
        )
        raise failed[0] from error


def _begin(work: Callable[[int], Any]) -> None:
    """Get ready, in the other process."""
    _held[:] = [work]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; one is enough
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _do(number: int) -> Any:
    return _held[0](number)


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
