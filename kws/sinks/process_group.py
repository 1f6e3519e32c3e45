"""A command in a process group of its own, which is waited for and ended as a whole."""

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

from kws.logs import last_words
from kws.sinks.hook_command import Account

__all__ = ["ProcessGroup"]

_GRACE_S = 0.5
_KILL_S = 5.0  # the kernel needs milliseconds; a process stuck in a driver may never die
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.1
_PIPE_BYTES = 65_536
_KEPT_BYTES = 2048


class ProcessGroup:
    """Start a command. Used by one thread; `close` it at the end.

    A group is signalled by its number, the PID of its leader, which the kernel may reuse for
    another process. It does not while the leader is not reaped, and only this object reaps it, in
    `is_alive`, in the thread that also sends the signals. After that the number stays with the
    group while it has a member, as the kernel does not give a group's number to a new process.
    `is_alive` checks for members every `_LONGEST_PAUSE_S` and before each signal, and once there
    are none the number is not used again. To be reused in between, all PIDs would have to pass.

    Parameters
    ----------
    words : sequence of str
        Program and arguments.
    executable : str
        Path of the program.
    environment : mapping of bytes to bytes
        The whole environment.
    payload : bytes
        Standard input; cut at what a pipe holds (64 KiB).
    account : Account or None
        The user it runs as; None is that of this process.
    directory : str or None
        Working directory; None is that of this process.

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
        """Return whether any process of the group runs."""
        if not self._is_gone and self._leader.poll() is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-self.pid, os.WNOHANG)  # as PID 1, kws must reap orphans
            try:
                os.killpg(self.pid, 0)
            except ProcessLookupError:
                self._is_gone = True
            except PermissionError:
                pass  # the rest of the group has another user, as after sudo
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
        """Send SIGTERM to the whole group, and SIGKILL after half a second.

        Returns
        -------
        bool
            False if it may not be signalled, or the leader is stuck in the kernel.
        """
        self._signal(signal.SIGTERM)
        if self.wait(_GRACE_S):
            return True
        is_sent = self._signal(signal.SIGKILL)
        # Orphans may stay zombies until init reaps them: this process can wait for the leader only.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._leader.wait(_KILL_S)
        return is_sent and self._leader.returncode is not None

    def close(self) -> tuple[int | None, str]:
        """Close the pipes.

        Returns
        -------
        int or None, str
            The leader's exit status, negative for a signal, None if it runs on; the last lines
            of its standard error, escaped.
        """
        self._read_errors(0.0)
        if self._leader.stderr:
            self._leader.stderr.close()
        return self._leader.returncode, last_words(self._tail.decode(errors="replace"))

    def _feed(self, payload: bytes) -> None:
        if stdin := self._leader.stdin:
            os.set_blocking(stdin.fileno(), False)  # the command may never read
            with contextlib.suppress(BrokenPipeError):
                stdin.write(payload)
            stdin.close()

    def _read_errors(self, timeout_s: float) -> bool:
        """Read standard error when there is any; return whether there was."""
        for descriptor, _ in self._errors.poll(1000 * timeout_s):
            chunk = os.read(descriptor, _PIPE_BYTES)
            self._tail = (self._tail + chunk)[-_KEPT_BYTES:]
            if not chunk:
                self._errors.unregister(descriptor)
            return bool(chunk)
        return False

    def _signal(self, number: signal.Signals) -> bool:
        """Signal the group if it is alive; return False if that is not permitted."""
        if self.is_alive():
            self.was_signalled = True
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                pass
            except PermissionError:
                return False
        return True
