"""Parallel map over the items of a corpus: threads, processes or a Dask cluster, results in order.

Results are those of a plain loop, on every backend, even where a worker is lost and its items are
processed again.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from kws.errors import ConfigError, KwsError
from kws_train.optional import load_library

__all__ = ["Failure", "JoblibBackend", "map_corpus"]

JoblibBackend: TypeAlias = Literal["loky", "threading", "dask"]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_CONNECT_S = 10


@dataclass(frozen=True)
class Failure(Generic[_Item]):
    """An item that failed, and the reason."""

    item: _Item
    reason: str


def map_corpus(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    n_jobs: int = 1,
    backend: JoblibBackend = "loky",
    scheduler: str | None = None,
) -> Iterator[_Result | Failure[_Item]]:
    """Yield a function's result for each item, in the order of the items, as they become ready.

    An item for which it raises `KwsError`, `OSError` or `ValueError` yields a `Failure`; the others
    continue.

    Parameters
    ----------
    function : callable
        Must depend on its item alone: items of a lost worker are processed again.
    items : iterable
    n_jobs : int
        Processes or threads; -1 is one per core. A cluster uses all of its workers.
    backend : "loky", "threading" or "dask"
        Processes of this machine, threads, or a Dask cluster.
    scheduler : str, optional
        The cluster's address, such as tcp://host:8786; default: that of the current Dask client.

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
                "A worker process was killed, usually because memory ran out. Give fewer --jobs."
            ) from error


@contextlib.contextmanager
def _backend(backend: JoblibBackend, n_jobs: int, scheduler: str | None) -> Iterator[None]:
    """Configure joblib's backend; the client of a cluster is closed at the end."""
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
