"""Another user, whom a hook is to run as."""

import os
import pwd
from typing import NamedTuple

from kws.errors import HookError, did_you_mean

__all__ = ["Account", "account_of"]


class Account(NamedTuple):
    """What the kernel, and programs that look into their environment, take for the user."""

    uid: int
    gid: int
    groups: list[int]
    environment: dict[bytes, bytes]


def account_of(user: str, *, place: str) -> Account:
    """Look a user up.

    Raises
    ------
    HookError
        If there is no such user, or kws may not change to them; the message names the `place`.
    """
    try:
        entry = pwd.getpwnam(user)
    except (KeyError, ValueError):
        known = [one.pw_name for one in pwd.getpwall()]
        raise HookError(
            f"A hook's `user` must be a user of this system. Received: `{user}` in {place}."
            f"{did_you_mean(user, known)} `getent passwd` lists them."
        ) from None
    if os.geteuid() not in {0, entry.pw_uid}:
        raise HookError(
            f"Only root may run a hook as another `user`. Received: `{user}` in {place}, and kws "
            f"run by {pwd.getpwuid(os.geteuid()).pw_name}. Leave `user` out, or use sudo in the "
            f"command."
        )
    names = {"HOME": entry.pw_dir, "USER": user, "LOGNAME": user}
    environment = {key.encode(): value.encode() for key, value in names.items()}
    return Account(entry.pw_uid, entry.pw_gid, os.getgrouplist(user, entry.pw_gid), environment)
