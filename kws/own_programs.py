"""Programs of this installation as a user can type them: `kws`, or `.venv/bin/kws`."""

import shlex
import shutil
import sys
from pathlib import Path

__all__ = ["as_typed", "with_own_pip"]


def as_typed(name: str) -> str:
    """Return a program's name where it is the one found in PATH, else its path."""
    own = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if not own.exists() or (found and Path(found).samefile(own)):
        return name
    folder = Path.cwd()
    return shlex.quote(str(own.relative_to(folder) if own.is_relative_to(folder) else own))


def with_own_pip(message: str) -> str:
    """Name the pip of this installation in a message; that of the system installs elsewhere."""
    return message.replace("pip install", f"{as_typed('pip')} install")
