"""The interpreter and the machine that figures are measured on."""

import contextlib
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from kws.commands.probe import run_probe

__all__ = ["KernelCosts", "interpreter_name", "kernel_costs", "machine_name"]

_LIMIT_S = 60.0
_FAST = 2.0  # times faster than the built-in kernels; XNNPACK's int8 is about ten times


class KernelCosts(NamedTuple):
    """Milliseconds of CPU that the speech embedding takes per second of audio."""

    fastest_ms: float
    """On the kernels that the interpreter chooses."""
    built_in_ms: float

    @property
    def are_fast(self) -> bool:
        """Whether the interpreter has fast kernels of eight bits for this processor."""
        return self.built_in_ms >= _FAST * self.fastest_ms


def kernel_costs() -> KernelCosts | None:
    """Measure the interpreter of this machine in a fresh process; None if that fails."""
    try:
        run = run_probe("kernels", limit_s=_LIMIT_S)
    except (subprocess.TimeoutExpired, OSError):
        return None
    try:
        fastest_ms, built_in_ms = map(float, run.stdout.split())
    except ValueError:
        return None
    return None if run.returncode else KernelCosts(fastest_ms, built_in_ms)


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
