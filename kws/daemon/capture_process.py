"""The capture process as the daemon's loop controls it: start, read, pause, and stop."""

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
from kws.daemon.capture import Failed, Logged, Lost, Opened, Report
from kws.errors import printable
from kws.logs import last_words

__all__ = ["CAPTURE_COMMAND", "REAL_TIME_CAPTURE", "CaptureProcess"]

CAPTURE_COMMAND = (sys.executable, "-P", "-m", "kws.daemon.capture")
REAL_TIME_CAPTURE = (*CAPTURE_COMMAND, "--real-time")
"""The same, which reads a file no faster than it would be spoken."""
_READ_BYTES = 16_384  # half a second: no source occupies the loop for long
_MAX_LINE_BYTES = 65_536
_STDERR_LINES = 3
_MAX_NAME = 200
_MAX_MESSAGE = 2000
_TERMINATE_S = 0.5
_KILL_S = 1.0
_POLL_S = 0.005

_log = logging.getLogger("kws.daemon")
_unkillable: list[subprocess.Popen[bytes]] = []


class CaptureProcess:
    """Start a capture process in a session of its own; `stop` must be awaited in any case.

    Parameters
    ----------
    settings : SourceSettings
        The source it opens.
    on_audio : callable
        Called in the loop with raw s16le; the data may end within a sample.
    on_loss : callable
        Called in the loop with the number of new losses of audio, in the process or before it.
    on_log : callable
        Called in the loop with the level and the text of a message of the source.
    command : sequence of str
        Program and arguments, with the interface of `kws.daemon.capture`.

    Attributes
    ----------
    name : str or None
        Name of the source, once it is open.
    last_activity_s : float
        The loop's time at which the source was opened, or audio was last read.
    ended : asyncio.Event
        Set at the end of the audio.

    Raises
    ------
    OSError
        If the process cannot be started.
    """

    def __init__(
        self,
        settings: SourceSettings,
        *,
        on_audio: Callable[[bytes], None],
        on_loss: Callable[[int], None] = lambda n: None,
        on_log: Callable[[int, str], None] = lambda level, message: None,
        command: Sequence[str] = CAPTURE_COMMAND,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_audio, self._on_loss, self._on_log = on_audio, on_loss, on_log
        self.name: str | None = None
        self._n_lost = 0
        self.ended = asyncio.Event()
        self.is_paused = False
        self._failure = ""
        self._partial_line = b""
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self.last_activity_s = self._loop.time()
        _unkillable[:] = [process for process in _unkillable if process.poll() is None]
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
        with contextlib.suppress(OSError):  # it has ended already; its stderr has the reason
            self._in.write(msgspec.json.encode(settings) + b"\n")
        self._loop.add_reader(self._out, self._read_audio)
        self._loop.add_reader(self._err, self._read_reports)

    @property
    def pid(self) -> int:
        """Number of the process, and of its group."""
        return self._process.pid

    def pause(self) -> None:
        """Stop reading audio: the process blocks as soon as the pipe is full."""
        if not self.is_paused and not self.ended.is_set():
            self.is_paused = True
            self._loop.remove_reader(self._out)

    def resume(self) -> None:
        """Read audio again."""
        if self.is_paused:
            self.is_paused = False
            self.last_activity_s = self._loop.time()
            self._loop.add_reader(self._out, self._read_audio)

    async def stop(self) -> str | None:
        """End the whole process group: SIGTERM, and SIGKILL half a second later.

        A process that survives SIGKILL, as it is stuck in a driver, is left and reaped later.

        Returns
        -------
        str or None
            The reason, if the process had failed before; else None.
        """
        had_ended = self.ended.is_set()
        self._loop.remove_reader(self._out)
        if not had_ended:
            os.kill(self.pid, signal.SIGTERM)  # `Popen.terminate` would reap one that has ended
        has_exited = await self._until(self._has_exited, _TERMINATE_S)
        # Not reaped yet, so the group's number is still its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if not await self._until(lambda: self._process.poll() is not None, _KILL_S):
            _log.error("Capture process %d cannot be killed.", self.pid)
            _unkillable.append(self._process)
        self._loop.remove_reader(self._err)
        self._read_reports()
        for pipe in (self._in, self._out, self._err):
            pipe.close()
        return self._failure_reason(has_exited=has_exited) if had_ended else None

    async def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline_s = self._loop.time() + timeout_s
        while not (holds := condition()) and self._loop.time() < deadline_s:
            await asyncio.sleep(_POLL_S)
        return holds

    def _has_exited(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _read_audio(self) -> None:
        try:
            data = os.read(self._out.fileno(), _READ_BYTES)
        except BlockingIOError:
            return
        if self.name is None:
            self._read_reports()  # `Opened` may still be in the other pipe
        if data:
            self.last_activity_s = self._loop.time()
            self._on_audio(data)
        else:
            self._loop.remove_reader(self._out)
            self.ended.set()

    def _read_reports(self) -> None:
        try:
            data = os.read(self._err.fileno(), _MAX_LINE_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._err)
        *lines, self._partial_line = (self._partial_line + data)[-_MAX_LINE_BYTES:].split(b"\n")
        for line in lines:
            self._handle_line(line)

    def _handle_line(self, line: bytes) -> None:
        try:
            report = msgspec.json.decode(line, type=Report)
        except (msgspec.DecodeError, UnicodeDecodeError):
            if text := last_words(line.decode(errors="replace")):
                self._stderr.append(text)
            return
        match report:
            case Opened():
                self.name = printable(report.name)[:_MAX_NAME]
                self.last_activity_s = self._loop.time()
            case Lost():
                self._on_loss(report.n_chunks - self._n_lost)
                self._n_lost = report.n_chunks
            case Logged():
                self._on_log(report.level, printable(report.message)[:_MAX_MESSAGE])
            case Failed():
                self._failure = printable(report.message)[:_MAX_MESSAGE]

    def _failure_reason(self, *, has_exited: bool) -> str | None:
        """Return the error it reported, or else its exit status and the end of standard error."""
        status = self._process.returncode
        if self._failure or status == 0 or not has_exited:
            return self._failure or None
        how = f"signal {-status}" if status and status < 0 else f"exit status {status}"
        return f"The capture process ended with {how}. stderr: {'; '.join(self._stderr) or 'none'}."
