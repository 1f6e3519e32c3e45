"""The routes of the page, and the files that it is made of."""

import hashlib
from importlib.resources import files
from pathlib import PurePosixPath

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from kws.ui.access import SUBPROTOCOL
from kws.ui.clips import ClipLibrary
from kws.ui.feed import LiveFeed
from kws.ui.host import Host, HostLoop
from kws.ui.labelling import labelling_routes
from kws.ui.live_pages import LivePages
from kws.ui.requests import ERROR_HANDLERS, NotThereError, json_answer
from kws.ui.runs import run_routes
from kws.ui.takes import take_routes
from kws.ui.tuning import tuning_routes

__all__ = ["build_app"]

_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


def build_app(host: Host, loop: HostLoop, feed: LiveFeed, pages: LivePages) -> Starlette:
    """Return the application; `Guard` must stand before it."""
    static = _StaticFiles()
    library = ClipLibrary()

    async def state(_request: Request) -> Response:
        return await json_answer(loop.run(host.page_state))

    async def live(socket: WebSocket) -> None:
        await socket.accept(SUBPROTOCOL)
        await pages.serve(socket)

    return Starlette(
        routes=[
            Route("/api/state", state),
            WebSocketRoute("/api/live", live),
            *tuning_routes(host, loop, library),
            *labelling_routes(host, loop, library),
            *take_routes(host, loop, feed),
            *run_routes(host, loop),
            Route("/{name:path}", static.answer),
        ],
        exception_handlers=ERROR_HANDLERS,
    )


class _StaticFiles:
    """The files of the page, read once: a request names one of them, and no path."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}
        for file in files("kws.ui").joinpath("static").iterdir():
            if kind := _TYPES.get(PurePosixPath(file.name).suffix):
                content = file.read_bytes()
                tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
                self._files[file.name] = content, kind, tag

    async def answer(self, request: Request) -> Response:
        name = request.path_params["name"] or "index.html"
        if name not in self._files:
            raise NotThereError(
                f"There is no page of this name. Received: /{name[:100]}. Open the link that kws "
                f"prints."
            )
        content, kind, tag = self._files[name]
        headers = {"etag": tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)
