"""The server of the metrics: prometheus_client's WSGI application, at a port of the loopback.

In the daemon, all in its loop::

    server = MetricsServer(9109, snapshot=take_snapshot)   # ConfigError without prometheus_client
    await server.start()                                   # ConfigError if the port is taken
    await server.close()

The loop accepts connections and takes the snapshots; at most 8 threads, of at most 5 s each, serve
the requests. A request must have a loopback address in its Host header, so that no page in a
browser can read the metrics by pointing its own host name at 127.0.0.1 (DNS rebinding).
"""

import asyncio
import contextlib
import re
import socket
import socketserver
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from kws.daemon.metrics import Collector
from kws.daemon.snapshot import Snapshot
from kws.errors import ConfigError

__all__ = ["MetricsServer"]

_ADDRESS = "127.0.0.1"
_LOOPBACK = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?", re.IGNORECASE)
_REQUEST_S = 5.0
_MAX_CLIENTS = 8
_TEXT = "text/plain; charset=utf-8"
_BUSY = b"HTTP/1.0 503 Service Unavailable\r\n\r\n"


class MetricsServer:
    """Serve /metrics on 127.0.0.1.

    Parameters
    ----------
    port : int
        0 takes a free one; `port` is its number after `start`.
    snapshot : callable
        Called in the loop at every request; must be fast.

    Raises
    ------
    ConfigError
        If prometheus_client is not installed.
    """

    def __init__(self, port: int, snapshot: Callable[[], Snapshot]) -> None:
        client = _prometheus_client()
        registry = client.CollectorRegistry(auto_describe=False)
        registry.register(Collector(self._take_snapshot))
        self._app = _guarded(client.make_wsgi_app(registry))
        self.port = port
        self._snapshot = snapshot
        self._server: _Server | None = None

    async def start(self) -> None:
        """Open the port.

        Raises
        ------
        ConfigError
            If it cannot be opened.
        """
        self._loop = asyncio.get_running_loop()
        try:
            self._server = _Server((_ADDRESS, self.port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"`[daemon] metrics_port` must be free. Received: {self.port} "
                f"({error.strerror or error}). Choose another."
            ) from error
        self._server.loop = self._loop
        self._server.set_app(self._app)
        self.port = self._server.server_port
        self._loop.add_reader(self._server, self._server.handle_request)

    async def close(self) -> None:
        """Close the port and every connection."""
        if self._server is None:
            return
        self._loop.remove_reader(self._server)
        self._server.server_close()
        self._server.disconnect_all()
        self._server = None

    def _take_snapshot(self) -> Snapshot:
        """Return a snapshot of the loop, for a thread that serves a request."""
        future: Future[Snapshot] = Future()
        self._loop.call_soon_threadsafe(lambda: future.set_result(self._snapshot()))
        return future.result(_REQUEST_S)


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """A WSGI server with a thread per connection, and limits of their number and time."""

    daemon_threads = True
    request_queue_size = 32
    timeout = 0  # `handle_request` is called when there is a connection
    loop: asyncio.AbstractEventLoop

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks the DNS for a host name
        self.socket.setblocking(False)
        self.server_name = _ADDRESS
        self.server_port = self.socket.getsockname()[1]
        self.setup_environ()
        self._open: set[socket.socket] = set()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse a connection above the limit."""
        if len(self._open) < _MAX_CLIENTS:
            return True
        with contextlib.suppress(OSError):
            request.send(_BUSY)
        return False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, for a limited time."""
        self._open.add(request)
        self.loop.call_later(_REQUEST_S, _disconnect, request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, in its thread."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that has disconnected."""

    def disconnect_all(self) -> None:
        """End every connection; their threads close them."""
        for request in list(self._open):
            _disconnect(request)


class _Handler(WSGIRequestHandler):
    """A handler that does not log requests."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name in the base
        """Do nothing."""


def _disconnect(request: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed already
        request.shutdown(socket.SHUT_RDWR)


def _guarded(app: WSGIApplication) -> WSGIApplication:
    """Return an application that passes GET and HEAD of /metrics at a loopback address to `app`."""

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if not _LOOPBACK.fullmatch(environ.get("HTTP_HOST", "")):
            return _refuse(start_response, "403 Forbidden", "The host must be 127.0.0.1.")
        if method not in {"GET", "HEAD"}:
            return _refuse(start_response, "405 Method Not Allowed", "The method must be GET.")
        if environ["PATH_INFO"] != "/metrics":
            return _refuse(start_response, "404 Not Found", "The metrics are at /metrics.")
        try:
            body = app({**environ, "REQUEST_METHOD": "GET"}, start_response)
        except (RuntimeError, TimeoutError):  # the loop has ended, or is blocked
            return _refuse(start_response, "503 Service Unavailable", "The daemon is busy.")
        return body if method == "GET" else [b""]

    return guarded


def _refuse(start_response: StartResponse, status: str, text: str) -> list[bytes]:
    headers = [("Content-Type", _TEXT)]
    if status.startswith("405"):
        headers.append(("Allow", "GET, HEAD"))
    start_response(status, headers)
    return [text.encode() + b"\n"]


def _prometheus_client() -> Any:
    try:
        import prometheus_client
    except ImportError as error:
        raise ConfigError(
            f"`[daemon] metrics_port` needs the package prometheus-client ({error}). Run `pip "
            f"install 'kws[metrics]'`, or remove the key."
        ) from error
    return prometheus_client
