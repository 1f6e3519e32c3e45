"""Files that root runs or obeys must not be open to every user."""

import os
import stat
from pathlib import Path

from kws.errors import KwsError
from kws.platforms import is_root

__all__ = ["check_trusted"]


def check_trusted(path: str | os.PathLike[str], *, what: str, error: type[KwsError]) -> None:
    """As root, check that not every user may change a file, or put another in its place.

    Folders with the sticky bit, such as /tmp, pass: only an owner may replace a file in them.

    Parameters
    ----------
    path : str or path
        Links are followed; a missing file passes, as its use is the error.
    what : str
        For the message, such as "The configuration".
    error : type
        Raised if the file, or a folder above it, is writable by everybody.
    """
    if not is_root():
        return
    named = Path(os.path.abspath(path))  # noqa: PTH100  `resolve` follows links
    real = named.resolve()
    for part in (real, *real.parents, *named.parents):
        try:
            mode = part.stat().st_mode
        except OSError:
            continue
        is_sticky = stat.S_ISDIR(mode) and mode & stat.S_ISVTX
        if (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) and mode & stat.S_IWOTH and not is_sticky:
            raise error(
                f"{what} of root must not be writable by every user. Received: {named}, where "
                f"{part} has mode {stat.S_IMODE(mode):o}. Run `chmod o-w {part}`."
            )
