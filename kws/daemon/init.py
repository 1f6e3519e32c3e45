"""The work of PID 1 in a container: reap orphans, forward signals.

Orphans of hooks become children of PID 1 and stay zombies until it reaps them. The daemon reaps its
own children only, by their number, so it runs in a child where it would be PID 1.
"""

import os
import signal
from types import FrameType

__all__ = ["run_below_init", "supervise"]

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_SIGNALLED = 128


def run_below_init() -> None:
    """Return in a child where this process is PID 1, else at once; PID 1 ends as the child does."""
    if os.getpid() != 1:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    child = os.fork()
    if child:
        os._exit(supervise(child))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)


def supervise(child: int) -> int:
    """Forward signals to a child and reap every process until it ends; return its exit code."""

    def forward(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else _SIGNALLED - code
