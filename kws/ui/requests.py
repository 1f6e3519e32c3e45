"""Requests of the page: bodies as structs, errors as answers, work in threads."""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kws.errors import KwsError
from kws.threads import in_thread
from kws.ui.host import HostBusyError

__all__ = [
    "ERROR_HANDLERS",
    "NotThereError",
    "OutdatedError",
    "body_of",
    "json_answer",
    "query_of",
]

_MAX_BODY_BYTES = 65_536

_T = TypeVar("_T")

_log = logging.getLogger("kws.ui")


class NotThereError(KwsError):
    """What a request names is not there, or no longer."""


class OutdatedError(KwsError):
    """What a request builds on has changed since."""


async def body_of(request: Request, kind: type[_T]) -> _T:
    """Return the JSON in a request.

    Raises
    ------
    HTTPException
        If it is longer than 64 kB, or not as it must be.
    """
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > _MAX_BODY_BYTES:
            raise HTTPException(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"A request must be at most {_MAX_BODY_BYTES} bytes. Received: more.",
            )
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HTTPException(
            HTTPStatus.BAD_REQUEST, f"A request must be as the page sends it. Received: {error}."
        ) from error


def query_of(request: Request, kind: type[_T]) -> _T:
    """Return the query of a request as a struct.

    Raises
    ------
    HTTPException
        If it is not as it must be.
    """
    try:
        return msgspec.convert(dict(request.query_params), kind, strict=False)
    except msgspec.ValidationError as error:
        raise HTTPException(
            HTTPStatus.BAD_REQUEST, f"A request must be as the page sends it. Received: {error}."
        ) from error


async def json_answer(work: Callable[[], Any] | Awaitable[Any]) -> Response:
    """Return what a function returns, called in a thread, or what can be awaited, as JSON."""
    result = await (in_thread(work) if callable(work) else work)
    return Response(msgspec.json.encode(result), media_type="application/json")


async def _on_error(_request: Request, error: Exception) -> Response:
    status = HTTPStatus.BAD_REQUEST
    if isinstance(error, NotThereError):
        status = HTTPStatus.NOT_FOUND
    elif isinstance(error, OutdatedError):
        status = HTTPStatus.CONFLICT
    elif isinstance(error, HostBusyError):
        status = HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse({"error": str(error)}, status_code=status)


async def _on_os_error(_request: Request, error: Exception) -> Response:
    text = f"A file could not be read or written: {error}. Check the disk and its permissions."
    return JSONResponse({"error": text}, status_code=HTTPStatus.INTERNAL_SERVER_ERROR)


async def _on_refusal(_request: Request, error: Exception) -> Response:
    status, text = (
        (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, str(error))
    )
    return JSONResponse({"error": text}, status_code=status)


async def _on_fault(request: Request, error: Exception) -> Response:
    _log.error("%s failed: %s: %s", request.url.path, type(error).__name__, error)
    text = f"kws failed here ({type(error).__name__}: {error}). Please report it, with the log."
    return JSONResponse({"error": text}, status_code=HTTPStatus.INTERNAL_SERVER_ERROR)


ERROR_HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    KwsError: _on_error,
    OSError: _on_os_error,
    HTTPException: _on_refusal,
    Exception: _on_fault,
}
"""For Starlette: every error becomes an answer with a text."""
