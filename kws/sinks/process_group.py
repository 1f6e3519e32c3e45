"""A command in a process group of its own: fed once, watched, and ended as a whole."""

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

from kws.sinks.account import Account

__all__ = ["ProcessGroup"]

_GRACE_S = 0.5
_KILL_S = 5.0  # the kernel needs milliseconds; a process stuck in a driver may never die
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.1
_PIPE_BYTES = 65_536
_KEPT_BYTES = 2048


class ProcessGroup:
    """Start a command; to be used by one thread, and closed at the end.

    A group is signalled by its number, which is its leader's PID, and a number may pass to others.
    It cannot while the leader is not reaped, and only this object reaps it, in `is_alive`, in the
    thread that also sends the signals. Once it is reaped, the number stays with the group while a
    member is left, as the kernel gives no PID that is a group's: `is_alive` asks for one every
    `_LONGEST_PAUSE_S` and before each signal, and after the first no the number is not used again.
    For it to come back in between, the system would have to go through all PIDs.

    Parameters
    ----------
    words : sequence of str
        Program and arguments.
    executable : str
        The program's file.
    environment : mapping of bytes to bytes
        All of it.
    payload : bytes
        Standard input; what a pipe (64 KiB) does not hold is cut off.
    account : Account or None
        Who it runs as; None is who this process runs as.
    directory : str or None
        Where it runs; None is where this process does.

    Attributes
    ----------
    pid : int
        Of the leader, and of the group.
    was_signalled : bool
        Whether `end` has sent a signal.

    Raises
    ------
    OSError, ValueError
        If the command cannot be started.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        executable: str,
        environment: Mapping[bytes, bytes],
        payload: bytes,
        account: Account | None = None,
        directory: str | None = None,
    ) -> None:
        self._leader = subprocess.Popen(
            words,
            executable=executable,
            env=environment,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd=directory,
            user=account and account.uid,
            group=account and account.gid,
            extra_groups=account and account.groups,
        )
        self.pid = self._leader.pid
        self.was_signalled = False
        self._is_gone = False
        self._tail = b""
        self._errors = select.poll()
        self._feed(payload)
        if self._leader.stderr:
            self._errors.register(self._leader.stderr, select.POLLIN)

    def is_alive(self) -> bool:
        """Return whether the leader, or anything it left in the group, runs."""
        if not self._is_gone and self._leader.poll() is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-self.pid, os.WNOHANG)  # orphans are ours to reap where kws is PID 1
            try:
                os.killpg(self.pid, 0)
            except ProcessLookupError:
                self._is_gone = True
            except PermissionError:
                pass  # what is left belongs to another user, as after sudo
        return not self._is_gone

    def wait(self, timeout_s: float, *, cancelled: threading.Event | None = None) -> bool:
        """Wait for the end of the group, reading its standard error meanwhile.

        Returns
        -------
        bool
            False if it still runs, at the timeout or soon after `cancelled` was set.
        """
        deadline_s = time.monotonic() + timeout_s
        pause_s = _SHORTEST_PAUSE_S
        while self.is_alive():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or (cancelled and cancelled.is_set()):
                return False
            came = self._read_errors(min(pause_s, left_s))
            pause_s = _SHORTEST_PAUSE_S if came else min(2 * pause_s, _LONGEST_PAUSE_S)
        return True

    def end(self) -> bool:
        """Ask the whole group to end, after half a second force it.

        Returns
        -------
        bool
            False if it may not be signalled, or the leader is stuck in the kernel.
        """
        self._signal(signal.SIGTERM)
        if self.wait(_GRACE_S):
            return True
        is_sent = self._signal(signal.SIGKILL)
        # Orphans may stay for long as zombies, until somebody reaps them: only the leader is ours.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._leader.wait(_KILL_S)
        return is_sent and self._leader.returncode is not None

    def close(self) -> tuple[int | None, str]:
        """Give up the pipes.

        Returns
        -------
        int or None, str
            The leader's exit status, negative for a signal, None if it runs on; the last 2 kB of
            its standard error.
        """
        self._read_errors(0.0)
        if self._leader.stderr:
            self._leader.stderr.close()
        return self._leader.returncode, self._tail.decode(errors="replace").strip()

    def _feed(self, payload: bytes) -> None:
        if stdin := self._leader.stdin:
            os.set_blocking(stdin.fileno(), False)  # the command may never read
            with contextlib.suppress(BrokenPipeError):
                stdin.write(payload)
            stdin.close()

    def _read_errors(self, timeout_s: float) -> bool:
        """Wait until there is something to read, keep the end of it; return whether there was."""
        for descriptor, _ in self._errors.poll(1000 * timeout_s):
            chunk = os.read(descriptor, _PIPE_BYTES)
            self._tail = (self._tail + chunk)[-_KEPT_BYTES:]
            if not chunk:
                self._errors.unregister(descriptor)
            return bool(chunk)
        return False

    def _signal(self, number: signal.Signals) -> bool:
        """Signal the group if it is alive; return False if that is not allowed."""
        if self.is_alive():
            self.was_signalled = True
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                pass
            except PermissionError:
                return False
        return True
