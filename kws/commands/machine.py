"""The interpreter and the machine that figures are measured on."""

import contextlib
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["interpreter_name", "machine_name"]


def interpreter_name() -> str:
    """Return the name and version of the package that runs the models, or "none"."""
    for name in ("ai-edge-litert", "tflite-runtime"):
        with contextlib.suppress(PackageNotFoundError):
            return f"{name} {version(name)}"
    return "none"


def machine_name() -> str:
    """Return the architecture and, if Linux knows it, the board or the processor."""
    board = Path("/proc/device-tree/model")
    processors = Path("/proc/cpuinfo")
    name = board.read_text().strip("\0\n") if board.exists() else ""
    if not name and processors.exists():
        found = re.search(r"^model name\s*: (.+)$", processors.read_text(), re.MULTILINE)
        name = found.group(1) if found else ""
    return f"{platform.machine()}, {name}" if name else platform.machine()
