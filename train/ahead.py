"""Work done ahead of time, in a process of its own, which has all that this one has in memory."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Generic, TypeVar

from kws.errors import KwsError

__all__ = ["Ahead"]

_Result = TypeVar("_Result")

_held: list[Callable[[int], Any]] = []  # in the other process; too large to go with each number


class Ahead(Generic[_Result]):
    """Results of a function of 0, 1, 2 and so on, the next few of them worked out beforehand.

    To be entered from the main thread: a process forked from another gives memory back to the
    system after every batch and asks for it anew, which takes it as long as the work itself.

    Parameters
    ----------
    work : callable
        From a number to its result; what it remembers from one call to the next stays in the other
        process.
    n_ahead : int
        How many results may wait.
    """

    def __init__(self, work: Callable[[int], _Result], *, n_ahead: int = 8) -> None:
        self._work, self._n_ahead = work, n_ahead
        self._coming: dict[int, Future[_Result]] = {}

    def __enter__(self) -> "Ahead[_Result]":
        fork = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        self._executor = ProcessPoolExecutor(1, fork, _begin, (self._work,))
        self._executor.submit(int).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._executor.shutdown(cancel_futures=True)

    def __getitem__(self, number: int) -> _Result:
        """Return the result for a number; soonest for the number after the last one.

        Raises
        ------
        KwsError
            If the other process was killed. Whatever `work` raises is raised, too.
        """
        wanted = range(number, number + self._n_ahead)
        for other in self._coming.keys() - set(wanted):
            self._coming.pop(other).cancel()
        try:
            for one in wanted:
                if one not in self._coming:
                    self._coming[one] = self._executor.submit(_do, one)
            return self._coming.pop(number).result()
        except BrokenProcessPool as error:
            raise KwsError(
                "The process that makes scenes must live as long as the training. Received: it was "
                "killed, as happens where memory runs out. Free some, or take fewer clips or less "
                "speech; the same command goes on after the last whole epoch."
            ) from error


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
