"""Who may use the page: token, Host and Origin of every request, headers of every answer.

- The Host must be an address or name of this machine: no page in a browser can reach the server by
  pointing a host name of its own at it (DNS rebinding).
- A request that a page of another origin sends is refused.
- All but the files of the page itself needs the token, in the header Authorization, or for a
  WebSocket as its subprotocol. The printed link carries it in the fragment, which no browser sends.
- The policy in the headers lets the page load its own files and nothing else.
"""

import hmac
import ipaddress
import logging
import re
import secrets
import socket
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kws.config import UiSettings

__all__ = ["SUBPROTOCOL", "Access", "Guard", "new_token"]

SUBPROTOCOL = "kws"
_TOKEN_PREFIX = "token."  # noqa: S105  of the subprotocol, no secret
_LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}
_SAFE = {"GET", "HEAD"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "media-src 'self' blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "cache-control": "no-store",
}

_log = logging.getLogger("kws.ui")


def new_token() -> str:
    """Return a random token of 192 bits."""
    return secrets.token_urlsafe(24)


class Access:
    """The rules for requests.

    Parameters
    ----------
    settings : UiSettings
        With the address, and names of this machine.
    token : str
    """

    def __init__(self, settings: UiSettings, *, token: str) -> None:
        self._token = token
        self._is_local = settings.is_local
        self._names = _LOOPBACK | set(settings.hosts)
        if not self._is_local:
            own = socket.gethostname()
            self._names |= {own, f"{own}.local"}

    def refusal(self, scope: Scope) -> tuple[HTTPStatus, str] | None:
        """Return why a request is refused, as a status and a text; None if it is not."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_own(host):
            return HTTPStatus.FORBIDDEN, (
                f"The page must be called by a name or address of this machine. Received: "
                f"{host[:100]!r}. Use the link that kws prints, or add the name to `[ui] hosts`."
            )
        is_socket = scope["type"] == "websocket"
        is_foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        if is_foreign and (is_socket or scope["method"] not in _SAFE):
            return HTTPStatus.FORBIDDEN, (
                f"Requests must come from the page itself. Received: one from {origin!r:.100}. "
                f"Open the link that kws prints."
            )
        if is_socket:
            given = _token_of(scope["subprotocols"])
        elif scope["path"].startswith("/api/"):
            given = headers.get("authorization", "").removeprefix("Bearer ")
        else:
            return None
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return HTTPStatus.UNAUTHORIZED, (
                "This link is not, or no longer, valid. Open the link that `kws ui` printed; "
                "`kws status` shows that of a daemon."
            )
        return None

    def _is_own(self, host: str) -> bool:
        name = re.sub(r":\d+\Z", "", host.lower())
        if name in self._names:
            return True
        if self._is_local:
            return False
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True


class Guard:
    """An ASGI application that passes what `Access` permits on to another.

    Parameters
    ----------
    app : ASGI application
    access : Access
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] not in {"http", "websocket"}:
            return
        if refusal := self._access.refusal(scope):
            await _refuse(scope, receive, _with_headers(send), *refusal)
            return
        await self._app(scope, receive, _with_headers(send))


def _token_of(subprotocols: Iterable[str]) -> str:
    tokens = (one.removeprefix(_TOKEN_PREFIX) for one in subprotocols if _TOKEN_PREFIX in one)
    return next(tokens, "")


async def _refuse(
    scope: Scope, receive: Receive, send: Send, status: HTTPStatus, text: str
) -> None:
    _log.warning("A request for the page was refused: %d. %s", status, text)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    await JSONResponse({"error": text}, status_code=status)(scope, receive, send)


def _with_headers(send: Send) -> Send:
    """Return a `send` that adds the headers which an answer does not set itself."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers
