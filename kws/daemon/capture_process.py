"""A process that records, as the daemon's loop sees it: started, read, and ended as a whole."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO, cast

import msgspec

from kws.config import SourceSettings
from kws.daemon.capture import Failed, Lost, Opened, Report

__all__ = ["CAPTURE", "Recorder"]

CAPTURE = (sys.executable, "-P", "-m", "kws.daemon.capture")
_READ_BYTES = 16_384  # half a second: no source keeps the loop for long
_LONGEST_LINE_BYTES = 65_536
_GRACE_S = 0.5
_KILL_S = 1.0
_POLL_S = 0.005

_log = logging.getLogger("kws.daemon")
_stuck: list[subprocess.Popen[bytes]] = []


class Recorder:
    """Start a capture process in a session of its own; to be stopped in any case.

    Parameters
    ----------
    settings : SourceSettings
        What it is to open.
    hear : callable
        Called with raw s16le, in the loop; the pieces may end within a sample.
    lose : callable
        Called with how often audio was lost in the process or before it, each time it was.
    command : sequence of str
        What to run; takes settings and gives audio as `kws.daemon.capture` does.

    Attributes
    ----------
    name : str or None
        What the source calls itself, once it is open.
    last_sign_s : float
        The loop's time at which it was opened, or audio came last.
    over : asyncio.Event
        Set when no more audio will come.

    Raises
    ------
    OSError
        If no process can be started.
    """

    def __init__(
        self,
        settings: SourceSettings,
        *,
        hear: Callable[[bytes], None],
        lose: Callable[[int], None] = lambda n: None,
        command: Sequence[str] = CAPTURE,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._hear, self._lose = hear, lose
        self.name: str | None = None
        self._n_lost = 0
        self.over = asyncio.Event()
        self.is_paused = False
        self._failure = ""
        self._rest = b""
        self._said: deque[str] = deque(maxlen=3)
        self.last_sign_s = self._loop.time()
        _stuck[:] = [process for process in _stuck if process.poll() is None]
        self._process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._in = cast(IO[bytes], self._process.stdin)
        self._out = cast(IO[bytes], self._process.stdout)
        self._err = cast(IO[bytes], self._process.stderr)
        for pipe in (self._in, self._out, self._err):
            os.set_blocking(pipe.fileno(), False)
        with contextlib.suppress(OSError):  # why it is gone already, it has told its stderr
            self._in.write(msgspec.json.encode(settings) + b"\n")
        self._loop.add_reader(self._out, self._read_audio)
        self._loop.add_reader(self._err, self._read_reports)

    @property
    def pid(self) -> int:
        """The process, and its group."""
        return self._process.pid

    def pause(self) -> None:
        """Read no more audio: the process waits as soon as the pipe is full."""
        if not self.is_paused and not self.over.is_set():
            self.is_paused = True
            self._loop.remove_reader(self._out)

    def resume(self) -> None:
        """Read on."""
        if self.is_paused:
            self.is_paused = False
            self.last_sign_s = self._loop.time()
            self._loop.add_reader(self._out, self._read_audio)

    async def stop(self) -> str | None:
        """End the process and all it started; return what was wrong, or None after a good end.

        It is asked first, and killed half a second later. One that not even SIGKILL ends, as it is
        stuck in a driver, is left behind and reaped when it can be.
        """
        is_over = self.over.is_set()
        self._loop.remove_reader(self._out)
        if not is_over:
            os.kill(self.pid, signal.SIGTERM)  # `Popen.terminate` would reap one that has ended
        has_ended = await self._until(self._has_ended, _GRACE_S)
        # Not reaped yet, so the group's number is still its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if not await self._until(lambda: self._process.poll() is not None, _KILL_S):
            _log.error("Process %d, which records, cannot be killed.", self.pid)
            _stuck.append(self._process)
        self._loop.remove_reader(self._err)
        self._read_reports()
        for pipe in (self._in, self._out, self._err):
            pipe.close()
        return self._reason(has_ended=has_ended) if is_over else None

    async def _until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        deadline_s = self._loop.time() + limit_s
        while not (holds := condition()) and self._loop.time() < deadline_s:
            await asyncio.sleep(_POLL_S)
        return holds

    def _has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _read_audio(self) -> None:
        try:
            data = os.read(self._out.fileno(), _READ_BYTES)
        except BlockingIOError:
            return
        if self.name is None:
            self._read_reports()  # which may stand in the other pipe still
        if data:
            self.last_sign_s = self._loop.time()
            self._hear(data)
        else:
            self._loop.remove_reader(self._out)
            self.over.set()

    def _read_reports(self) -> None:
        try:
            data = os.read(self._err.fileno(), _LONGEST_LINE_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._err)
        *lines, self._rest = (self._rest + data)[-_LONGEST_LINE_BYTES:].split(b"\n")
        for line in lines:
            self._take_report(line)

    def _take_report(self, line: bytes) -> None:
        try:
            report = msgspec.json.decode(line, type=Report)
        except (msgspec.DecodeError, UnicodeDecodeError):
            if text := line.decode(errors="replace").strip():
                self._said.append(text)
            return
        match report:
            case Opened():
                self.name = report.name
                self.last_sign_s = self._loop.time()
            case Lost():
                self._lose(report.n_chunks - self._n_lost)
                self._n_lost = report.n_chunks
            case Failed():
                self._failure = report.message

    def _reason(self, *, has_ended: bool) -> str | None:
        """Return why it ended: its own error, or else its exit status and last words."""
        status = self._process.returncode
        if self._failure or status == 0 or not has_ended:
            return self._failure or None
        how = f"signal {-status}" if status and status < 0 else f"exit status {status}"
        last_words = "; ".join(self._said)
        return f"The process that records ended with {how}. Its last words: {last_words or 'none'}."
