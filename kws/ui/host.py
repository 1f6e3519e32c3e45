"""What a page needs of the process that spots keywords: its state, and a reload."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from kws.config import Config
from kws.errors import KwsError

__all__ = ["Host", "HostBusyError", "HostLoop", "PageModel", "PageSource", "PageState"]

_ANSWER_S = 5.0

_T = TypeVar("_T")


class PageSource(msgspec.Struct, frozen=True, kw_only=True):
    """A source as pages show it; attributes as of `kws.daemon.snapshot.SourceState`."""

    name: str
    description: str
    state: str
    last_error: str | None


class PageModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as pages show it.

    Attributes
    ----------
    name : str
    keywords : list of str
        In the order of the posteriors in frames.
    thresholds : dict of str to float
        In effect.
    kind : str
        `words`, or `ctc` for sequences of them.
    """

    name: str
    keywords: list[str]
    thresholds: dict[str, float]
    kind: str


class PageState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the process, for every page.

    Attributes
    ----------
    version : str
        Of kws.
    config : str
        Path of kws.toml.
    sources : list of PageSource
    models : list of PageModel
        Those of every source.
    recording : str or None
        Folder of recorded clips.
    min_score : float or None
        Least score of recorded near misses.
    """

    version: str
    config: str
    sources: list[PageSource]
    models: list[PageModel]
    recording: str | None
    min_score: float | None


class Host(Protocol):
    """The process that spots keywords; its methods are called in its loop, and must be fast."""

    config_path: Path

    def page_state(self) -> PageState:
        """Return the state for pages."""

    def page_config(self) -> Config:
        """Return the configuration in effect."""

    def request_reload(self) -> None:
        """Have kws.toml read again soon."""


class HostBusyError(KwsError):
    """The loop of the host did not answer in time, or has ended."""


class HostLoop:
    """Runs functions in the loop of the host, for callers in other threads.

    Create it in that loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def run(self, work: Callable[[], _T]) -> _T:
        """Return what `work` returns in the host's loop.

        Raises
        ------
        HostBusyError
            If the loop is busy for five seconds, or has ended.
        """
        future: Future[_T] = Future()

        def answer() -> None:
            try:
                future.set_result(work())
            except Exception as error:  # noqa: BLE001  raised again for the caller
                future.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(answer)
            return await asyncio.wait_for(asyncio.wrap_future(future), _ANSWER_S)
        except (RuntimeError, TimeoutError) as error:
            raise HostBusyError(
                "kws is too busy to answer, or is ending. Load the page again in a moment."
            ) from error
