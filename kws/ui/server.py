"""The server of the page, in a thread and a loop of its own: the audio never waits for it."""

import asyncio
import functools
import logging
import socket
import threading

import uvicorn
from starlette.routing import BaseRoute

from kws.config import UiSettings
from kws.errors import ConfigError
from kws.threads import in_thread
from kws.ui.access import Access, Guard
from kws.ui.app import build_app
from kws.ui.feed import LiveFeed
from kws.ui.host import Host, HostLoop
from kws.ui.live_pages import LivePages

__all__ = ["UiServer"]

_MAX_CONNECTIONS = 512
_MAX_MESSAGE_BYTES = 1 << 18
_CLOSE_S = 1.5


class UiServer:
    """Serve the page.

    Parameters
    ----------
    settings : UiSettings
        With a port; without one, a free port is taken.
    host : Host
    feed : LiveFeed
    token : str
        The secret in the link.

    Attributes
    ----------
    port : int
    pages : LivePages
        Those that are open.
    routes : list of starlette.routing.BaseRoute
    """

    def __init__(self, settings: UiSettings, *, host: Host, feed: LiveFeed, token: str) -> None:
        self._settings, self._host, self._feed, self._token = settings, host, feed, token
        self.port = settings.port or 0
        self.pages = LivePages(feed, max_pages=settings.max_pages)
        self.routes: list[BaseRoute] = []
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def link(self) -> str:
        """The link of the page, with the token in its fragment."""
        address = self._settings.address
        if address in {"0.0.0.0", "::"}:  # noqa: S104  as the user has set it, with a token
            address = socket.gethostname()
        name = f"[{address}]" if ":" in address else address
        return f"http://{name}:{self.port}/#token={self._token}"

    def start(self) -> None:
        """Open the port, and serve; call it in the loop of the host.

        Raises
        ------
        ConfigError
            If the port is taken, or the address is not of this machine.
        """
        self._socket = self._bind()
        self.port = self._socket.getsockname()[1]
        app = build_app(self._host, HostLoop(), self._feed, self.pages)
        self.routes = app.routes

        # A fault of one request is answered and logged by the application, in one line.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        config = uvicorn.Config(
            Guard(app, Access(self._settings, token=self._token)),
            loop="asyncio",
            http="h11",
            ws="wsproto",
            ws_max_size=_MAX_MESSAGE_BYTES,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="kws-ui", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Close the port and every page, within one and a half seconds."""
        if self._server is None or self._thread is None:
            return
        self._feed.is_watched = False
        self._server.should_exit = True
        await in_thread(functools.partial(self._thread.join, _CLOSE_S))
        self._server = None

    def _run(self) -> None:
        if self._server and self._socket:
            with self._socket as listening:
                asyncio.run(self._server.serve(sockets=[listening]))

    def _bind(self) -> socket.socket:
        address = self._settings.address
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((address, self.port))
            listening.listen(128)
        except OSError as error:
            listening.close()
            raise ConfigError(
                f"The page needs a free port at an address of this machine. Received: port "
                f"{self.port} at {address} ({error.strerror or error}). Choose another with "
                f"`--port` or `[ui] port`."
            ) from error
        return listening
