"""Limits of this process, for programs that run what they do not trust; none where Linux is not.

The kernel enforces them, as nothing in a process can interrupt C++ that does not return.
"""

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

__all__ = ["end_with", "limit_cpu", "limit_memory", "no_core", "peak_mb"]

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_STATUS = Path("/proc/self/status")


def end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, whatever it is doing."""
    if not hasattr(signal, "SIGKILL"):  # Windows
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, int(signal.SIGKILL))
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def no_core() -> None:
    """Write no file of the memory if this process crashes."""
    _limit("RLIMIT_CORE", 0, hard=True)


def limit_cpu(seconds: int) -> None:
    """End this process by SIGXCPU before it has taken so many more seconds of CPU time [s].

    The kernel counts whole seconds, so that one less may be the end.
    """
    _limit("RLIMIT_CPU", int(time.process_time() + seconds), hard=False)


def limit_memory(more_mb: float, *, n_threads: int = 1) -> None:
    """Refuse this process more than `more_mb` of memory beyond its present one [MiB].

    The stacks of `n_threads` threads do not count.
    """
    if present_mb := _status_mb("VmData"):
        most_mb = present_mb + more_mb + (n_threads - 1) * _stack_mb()
        _limit("RLIMIT_DATA", int(most_mb * 2**20), hard=True)


def peak_mb() -> float:
    """Return the peak memory of this program [MiB]; rusage would include its parent's."""
    return _status_mb("VmHWM")


def _limit(name: str, limit: int, *, hard: bool) -> None:
    """Lower a limit; a lower one that holds already stays."""
    try:
        import resource
    except ImportError:  # Windows
        return
    what = getattr(resource, name)
    with contextlib.suppress(ValueError, OSError):
        present, most = resource.getrlimit(what)
        if present == resource.RLIM_INFINITY or limit <= present:
            resource.setrlimit(what, (limit, limit if hard else most))


def _stack_mb() -> float:
    try:
        import resource
    except ImportError:
        return 0.0
    size, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return 8.0 if size == resource.RLIM_INFINITY else size / 2**20


def _status_mb(key: str) -> float:
    """Return a size of this process from /proc [MiB]; 0 where there is none."""
    try:
        status = _STATUS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    return int(status.partition(f"{key}:")[2].split()[0]) / 1024
