"""Systems that kws runs on: everything on Linux, files and microphones elsewhere."""

import os
import platform
import sys

from kws.errors import KwsError

__all__ = ["is_linux", "is_posix", "is_root", "require_linux", "require_posix"]


def is_linux() -> bool:
    """Return whether this is Linux."""
    return sys.platform.startswith("linux")


def is_posix() -> bool:
    """Return whether this system has users, process groups and pipes that can be waited for."""
    return os.name == "posix"


def is_root() -> bool:
    """Return whether this process runs as root; nobody is root on Windows."""
    user = getattr(os, "geteuid", None)
    return user is not None and user() == 0


def require_linux(what: str, *, error: type[KwsError], remedy: str) -> None:
    """Check that this is Linux.

    Raises
    ------
    error
        If it is not; the message begins with `what`.
    """
    if not is_linux():
        raise error(f"{what} needs Linux. Received: {_name()}. {remedy}")


def require_posix(what: str, *, error: type[KwsError], remedy: str) -> None:
    """Check that this is Linux, macOS or the like; as `require_linux`."""
    if not is_posix():
        raise error(f"{what} needs Linux or macOS. Received: {_name()}. {remedy}")


def _name() -> str:
    return {"Darwin": "macOS"}.get(name := platform.system(), name)
