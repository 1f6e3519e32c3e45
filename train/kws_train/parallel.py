"""Work over the items of a corpus: in threads, in processes, or on a Dask cluster, always in order.

The result of each item is that of a plain loop, whoever did it and whatever became of a worker.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from kws.errors import ConfigError, KwsError
from kws_train.optional import load_library

__all__ = ["Backend", "Failure", "map_corpus"]

Backend: TypeAlias = Literal["loky", "threading", "dask"]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_CONNECT_S = 10


@dataclass(frozen=True)
class Failure(Generic[_Item]):
    """An item that could not be worked on, and why."""

    item: _Item
    reason: str


def map_corpus(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    n_jobs: int = 1,
    backend: Backend = "loky",
    scheduler: str | None = None,
) -> Iterator[_Result | Failure[_Item]]:
    """Give a function's result for each item, in the order of the items, as they become ready.

    An item for which it raises `KwsError`, `OSError` or `ValueError` gives a `Failure`, and the
    others go on.

    Parameters
    ----------
    function : callable
        Has to depend on its item alone: what a lost worker of a cluster did is done again.
    items : iterable
    n_jobs : int
        Processes or threads; -1 is one a core. A cluster uses all it has.
    backend : "loky", "threading" or "dask"
        Processes of this machine, threads, or a Dask cluster.
    scheduler : str, optional
        The cluster's address, such as tcp://host:8786; by default that of the present client.

    Raises
    ------
    ConfigError
        If the cluster cannot be reached, or dask is not installed.
    KwsError
        If a process of this machine was killed.
    """
    with _backend(backend, n_jobs, scheduler):
        work = joblib.Parallel(return_as="generator")(
            joblib.delayed(_attempt)(function, item) for item in items
        )
        try:
            yield from work
        except TerminatedWorkerError as error:
            raise KwsError(
                "Work in processes needs all of them to live. Received: one was killed, as a rule "
                "for want of memory. Give fewer --jobs."
            ) from error


@contextlib.contextmanager
def _backend(backend: Backend, n_jobs: int, scheduler: str | None) -> Iterator[None]:
    """Let joblib work there; a cluster's client lives as long."""
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"n_jobs": n_jobs}
        if backend == "dask":
            distributed = load_library(
                "distributed", purpose="Work on a cluster", package="dask[distributed]"
            )
            if scheduler is not None:
                options["client"] = stack.enter_context(_client(distributed, scheduler))
            options["n_jobs"] = -1
        stack.enter_context(joblib.parallel_config(backend=backend, **options))
        yield


def _client(distributed: Any, scheduler: str) -> Any:
    try:
        return distributed.Client(scheduler, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--scheduler must be the address of a running Dask scheduler. Received: {scheduler} "
            f"({error}). Start one with `dask scheduler`, and workers with `dask worker ADDRESS`."
        ) from error


def _attempt(function: Callable[[_Item], _Result], item: _Item) -> _Result | Failure[_Item]:
    try:
        return function(item)
    except (KwsError, OSError, ValueError) as error:
        return Failure(item, str(error))
