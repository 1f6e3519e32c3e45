"""Takes of a word from a microphone, the model that is enrolled from them, and its trial."""

import contextlib
import os
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from kws.arrays import Samples
from kws.commands.enroll import enroll
from kws.commands.enrolment_takes import recordings_in
from kws.commands.record import Take, TakeCutter, check_name, loudest_dbfs, write_take
from kws.errors import KwsError
from kws.sources.silence import CHECK_MUTED, SilenceWatch
from kws.threads import in_thread
from kws.ui.access import SUBPROTOCOL
from kws.ui.audio_input import BROWSER, AudioRequest, read_audio, receive, send
from kws.ui.feed import LiveFeed
from kws.ui.folders import PageFolders
from kws.ui.host import Host, HostLoop
from kws.ui.requests import NotThereError, body_of, json_answer
from kws.ui.trial import try_model

__all__ = ["take_routes"]

_TAKE = re.compile(r"[^\W_][\w '-]{0,63}_nohash_\d{1,9}")
_LEVEL_S = 0.05
_SILENT_S = 5.0
_FLOOR_DBFS = -90.0


class _Word(msgspec.Struct, frozen=True, kw_only=True):
    """A word with its takes, by name; `model` is the file that was enrolled from them."""

    word: str
    takes: list[str]
    model: str | None


class _Words(msgspec.Struct, frozen=True, kw_only=True):
    folder: str
    words: list[_Word]


class _Take(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    word: str
    take: str


class _Enroll(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    word: str
    only_me: bool = False


class _Enrolled(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of an enrolment, with the names of takes."""

    model: str
    scores: dict[str, float]
    refused: dict[str, str]


def take_routes(host: Host, loop: HostLoop, feed: LiveFeed) -> list[BaseRoute]:
    """Return the routes of the view."""

    async def folders() -> PageFolders:
        return PageFolders(await loop.run(host.page_config), host.config_path)

    async def words(_request: Request) -> Response:
        where = await folders()
        return await json_answer(lambda: _words(where))

    async def audio(request: Request) -> Response:
        path = _take_path(await folders(), request.path_params["word"], request.path_params["take"])
        return Response(await in_thread(lambda: _read(path)), media_type="audio/wav")

    async def delete(request: Request) -> Response:
        one = await body_of(request, _Take)
        path = _take_path(await folders(), one.word, one.take)
        return await json_answer(lambda: _delete(path))

    async def enrol(request: Request) -> Response:
        wanted = await body_of(request, _Enroll)
        where = await folders()
        return await json_answer(lambda: _enrol(where, wanted))

    async def check_input(name: str) -> None:
        sources = [one.name for one in (await loop.run(host.page_state)).sources]
        if name not in {BROWSER, *sources}:
            raise NotThereError(
                f"The microphone must be that of the browser or a source of kws. Received: "
                f"{name[:80]!r}. Choose one of {', '.join(sources)}."
            )

    async def record(socket: WebSocket) -> None:
        async def work(request: AudioRequest) -> None:
            await check_input(request.input)
            await _record(socket, feed, request, await folders())

        await _serve(socket, work)

    async def trial(socket: WebSocket) -> None:
        async def work(request: AudioRequest) -> None:
            await check_input(request.input)
            check_name(request.word)
            model = (await folders()).models / f"{request.word}.tflite"
            await try_model(socket, feed, request, model)

        await _serve(socket, work)

    return [
        Route("/api/takes", words),
        Route("/api/takes/{word}/{take}.wav", audio),
        Route("/api/takes/delete", delete, methods=["POST"]),
        Route("/api/enroll", enrol, methods=["POST"]),
        WebSocketRoute("/api/record", record),
        WebSocketRoute("/api/try", trial),
    ]


async def _serve(socket: WebSocket, work: Callable[[AudioRequest], Awaitable[None]]) -> None:
    """Accept a page, and tell it of errors."""
    await socket.accept(SUBPROTOCOL)
    with contextlib.suppress(WebSocketDisconnect, OSError, RuntimeError):  # it is gone
        try:
            await work(await receive(socket))
        except (KwsError, OSError) as error:
            text = str(error) if isinstance(error, KwsError) else f"{error}. Check the disk."
            await send(socket, "error", text=text)
        await socket.close()


async def _record(
    socket: WebSocket, feed: LiveFeed, request: AudioRequest, folders: PageFolders
) -> None:
    """Cut audio into takes, check each, and keep those that can be used."""
    check_name(request.word)
    check_name(request.speaker)
    folder = folders.takes / request.word
    cutter, silence, level = TakeCutter(), SilenceWatch(_SILENT_S), _Level()
    n = _count(folder, request.speaker)
    await send(socket, "ready", n=n)
    if n >= request.n_takes:
        await send(socket, "done", n=n)
        return
    async with read_audio(socket, feed, request) as audio:
        async for samples in audio:
            if silence.process(samples.tobytes()) and silence.is_silent:
                await send(socket, "problem", text=f"only digital silence. {CHECK_MUTED}")
            if (db := level.process(samples)) is not None:
                await send(socket, "level", db=db, speaking=cutter.speaking)
            for take in cutter.process(samples):
                n = await _keep(socket, take, folder, speaker=request.speaker)
                if n >= request.n_takes:
                    await send(socket, "done", n=n)
                    return


async def _keep(socket: WebSocket, take: Take, folder: Path, *, speaker: str) -> int:
    """Write a take that can be used, and tell the page; return the number of the speaker's."""
    if take.problem:
        await send(socket, "problem", text=take.problem)
        return 0
    path = await in_thread(lambda: write_take(folder, take.samples, speaker=speaker))
    n = _count(folder, speaker)
    await send(socket, "take", take=path.stem, n=n, db=round(loudest_dbfs(take.samples)))
    return n


class _Level:
    """The level of the last samples, twenty times a second."""

    def __init__(self) -> None:
        self._loudest = _FLOOR_DBFS
        self._told_s = 0.0

    def process(self, samples: Samples) -> float | None:
        self._loudest = max(self._loudest, loudest_dbfs(samples))
        now_s = time.monotonic()
        if now_s - self._told_s < _LEVEL_S:
            return None
        self._told_s = now_s
        found, self._loudest = self._loudest, _FLOOR_DBFS
        return round(found, 1)


def _words(folders: PageFolders) -> _Words:
    try:
        names = sorted(one.name for one in folders.takes.iterdir() if one.is_dir())
    except OSError:
        names = []
    found = []
    for name in names:
        if takes := _takes(folders.takes / name):
            model = folders.models / f"{name}.tflite"
            found.append(
                _Word(word=name, takes=takes, model=str(model) if model.is_file() else None)
            )
    return _Words(folder=str(folders.takes), words=found)


def _takes(folder: Path) -> list[str]:
    """Return the names of the takes in a folder, in the order of their numbers."""
    try:
        names = [one.stem for one in folder.iterdir() if one.suffix == ".wav"]
    except OSError:
        return []
    return sorted(
        (one for one in names if _TAKE.fullmatch(one)),
        key=lambda one: (one.rpartition("_")[0], int(one.rpartition("_")[2])),
    )


def _count(folder: Path, speaker: str) -> int:
    """Return the number of a speaker's takes, as `kws record` counts them."""
    return sum(one.startswith(f"{speaker}_nohash_") for one in _takes(folder))


def _take_path(folders: PageFolders, word: str, take: str) -> Path:
    """Return the file of a take; a name with a slash or a dot is none of a take."""
    check_name(word)
    if not _TAKE.fullmatch(take):
        raise _gone(take)
    return folders.takes / word / f"{take}.wav"


def _read(path: Path) -> bytes:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return file.read()
    except OSError as error:
        raise _gone(path.stem) from error


def _delete(path: Path) -> dict[str, str]:
    try:
        path.unlink()
    except FileNotFoundError as error:
        raise _gone(path.stem) from error
    return {"deleted": path.stem}


def _gone(take: str) -> NotThereError:
    return NotThereError(f"The take is not there, or no longer: {take[:80]}. Load the page again.")


def _enrol(folders: PageFolders, request: _Enroll) -> _Enrolled:
    word = request.word
    check_name(word)
    folder = folders.takes / word
    takes = [folder / f"{one}.wav" for one in _takes(folder)]
    model = folders.models / f"{word}.tflite"
    done = enroll(word, recordings_in(takes), model, only_me=request.only_me)
    return _Enrolled(
        model=str(model),
        scores={path.stem: round(score, 3) for path, score in done.scores.items()},
        refused={path.stem: reason for path, reason in done.refused.items()},
    )
