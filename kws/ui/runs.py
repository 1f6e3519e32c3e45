"""Runs of `kws new`: stages and time left, figures, and the report, shown apart from the page."""

import hashlib
import math
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from kws.run_progress import is_running, read_progress
from kws.threads import in_thread
from kws.ui.folders import PageFolders
from kws.ui.host import Host, HostLoop
from kws.ui.requests import NotThereError, body_of, json_answer

__all__ = ["run_routes"]

_T = TypeVar("_T")

_MAX_RUNS = 100
_TICKET_S = 60.0
_MAX_TICKETS = 64
_REPORT_POLICY = (
    "sandbox; default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
)


class _Request(msgspec.Struct, frozen=True):
    """As much of request.json as is shown."""

    phrases: list[str]


class _Point(msgspec.Struct, frozen=True):
    """As much of an operating point as the DET curve needs; `budget` is None at the threshold."""

    budget: float | None
    fa_per_hour: float
    threshold: float
    miss_rate: float
    miss_low: float
    miss_high: float


class _Figures(msgspec.Struct, frozen=True):
    """As much of figures.json as is shown; see `kws_train.own_word.figures`."""

    tested_on: str
    n_words: int
    hours: float
    points: dict[str, list[_Point]]
    n_bytes: int


class _Stage(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    minutes: float
    state: str


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run as the page shows it.

    Attributes
    ----------
    id : str
    folder : str
    phrases : list of str
    state : str
        `running`, `finished`, `failed` or `stopped`.
    stages : list
        Each `done`, `now` or `next`, with its estimate in minutes.
    minutes_left : float or None
        Of all stages; None unless it runs.
    text : str
        The last message, or the error.
    figures : object or None
    has_report : bool
    """

    id: str
    folder: str
    phrases: list[str]
    state: str
    stages: list[_Stage]
    minutes_left: float | None
    text: str
    figures: _Figures | None
    has_report: bool


class _Runs(msgspec.Struct, frozen=True, kw_only=True):
    folders: list[str]
    runs: list[_Run]


class _Ticket(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    run: str


class _Tickets:
    """Addresses of reports that serve for a minute.

    A new tab cannot send the token, and a report must not be part of the page: it may be of
    anybody's making.
    """

    def __init__(self) -> None:
        self._paths: dict[str, tuple[Path, float]] = {}

    def add(self, path: Path) -> str:
        now_s = time.monotonic()
        self._paths = {key: one for key, one in self._paths.items() if one[1] > now_s}
        while len(self._paths) >= _MAX_TICKETS:
            del self._paths[next(iter(self._paths))]
        ticket = secrets.token_urlsafe(24)
        self._paths[ticket] = path, now_s + _TICKET_S
        return ticket

    def path(self, ticket: str) -> Path:
        found = self._paths.get(ticket)
        if found is None or found[1] < time.monotonic():
            raise NotThereError("This address of a report is over. Open it again from the page.")
        return found[0]


def run_routes(host: Host, loop: HostLoop) -> list[BaseRoute]:
    """Return the routes of the view."""
    tickets = _Tickets()

    async def folders() -> list[Path]:
        return PageFolders(await loop.run(host.page_config), host.config_path).runs

    async def runs(_request: Request) -> Response:
        where = await folders()
        return await json_answer(lambda: _list(where))

    async def open_report(request: Request) -> Response:
        wanted = (await body_of(request, _Ticket)).run
        where = await folders()

        def find() -> Path:
            return next((one for one in _workspaces(where) if _id(one) == wanted), Path())

        report = _report(await in_thread(find))
        if not report.is_file():
            raise NotThereError(f"The run has no report, or no longer. Received: {wanted[:40]!r}.")

        async def answer() -> dict[str, str]:
            return {"url": f"/report/{tickets.add(report)}"}

        return await json_answer(answer())

    async def report(request: Request) -> Response:
        path = tickets.path(request.path_params["ticket"])
        content = await in_thread(path.read_bytes)
        return Response(
            content,
            media_type="text/html",
            headers={"content-security-policy": _REPORT_POLICY},
        )

    return [
        Route("/api/runs", runs),
        Route("/api/runs/report", open_report, methods=["POST"]),
        Route("/report/{ticket}", report),
    ]


def _list(folders: list[Path]) -> _Runs:
    found = sorted(map(_run, _workspaces(folders)), key=lambda one: one.state != "running")
    return _Runs(folders=list(map(str, folders)), runs=found)


def _workspaces(folders: list[Path]) -> Iterator[Path]:
    """Yield the working folders in some folders, the newest first."""
    found: list[Path] = []
    for folder in folders:
        try:
            inside = [one for one in folder.iterdir() if one.is_dir()]
        except OSError:
            continue
        found += [one for one in (folder, *inside) if (one / "request.json").is_file()]
    newest = sorted(dict.fromkeys(found), key=_changed_s, reverse=True)
    yield from newest[:_MAX_RUNS]


def _changed_s(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _id(folder: Path) -> str:
    return hashlib.sha256(str(folder).encode()).hexdigest()[:16]


def _report(folder: Path) -> Path:
    return folder / "run" / "report.html"


def _run(folder: Path) -> _Run:
    request = _read(folder / "request.json", _Request)
    figures = _read(folder / "figures.json", _Figures)
    progress = read_progress(folder)
    stages, left, text = [], None, ""
    if figures:
        state = "finished"
    elif is_running(folder):
        state = "running"
    else:
        state = "failed" if progress and progress.error else "stopped"
    if progress:
        text = progress.error or progress.text
        names = list(progress.stages)
        at = names.index(progress.stage) if progress.stage in names else -1
        at = len(names) if figures else at
        for i, (name, minutes) in enumerate(progress.stages.items()):
            kind = "done" if i < at else "now" if i == at else "next"
            stages.append(_Stage(name=name, minutes=minutes, state=kind))
        if state == "running":
            spent = (time.time() - progress.began_s) / 60 if progress.began_s else 0.0
            left = sum(one.minutes for one in stages if one.state == "next")
            left += sum(max(0.0, one.minutes - spent) for one in stages if one.state == "now")
    return _Run(
        id=_id(folder),
        folder=str(folder),
        phrases=request.phrases if request else [folder.name],
        state=state,
        stages=stages,
        minutes_left=None if left is None else math.ceil(10 * left) / 10,
        text=text,
        figures=figures,
        has_report=_report(folder).is_file(),
    )


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
