"""Audio from the standard output of any program: arecord, parec, ffmpeg, sox."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import IO, cast

from kws.arrays import Samples
from kws.command_lines import interpreter_problem
from kws.errors import ConfigError, DeviceError, FormatError, printable
from kws.sources.pcm import Layout, read_pcm
from kws.sources.source import STALL_S, PolledSource, require_pipes
from kws.trusted_files import check_trusted

__all__ = ["CommandSource", "check_command"]

_TERMINATE_S = 1.0
_PIPE_BYTES = 1 << 20  # half a minute; a program that may not have so much gets the usual 64 KiB
_STDERR_BYTES = 65_536
_KEPT_BYTES = 2048
_LINE_CHARACTERS = 200
_OVERRUN = re.compile(rb"(?i)\b(overrun|xrun)\b")  # as arecord and ffmpeg write it


class CommandSource(PolledSource):
    """Raw PCM, or a WAV, from a program's standard output; can be iterated once.

    Parameters
    ----------
    command : list of str, or str
        Program and arguments; a string is split like a shell line, without a shell running it.
    chunk_ms : int
        Length of a chunk.
    layout : Layout or None
        Of raw samples; None is 16 kHz mono.
    stall_s : float or None
        Without audio for so long, iteration raises DeviceError; None waits for ever.
    environment : mapping of str to str, or None
        Variables set for the program beside those of this process.

    Raises
    ------
    ConfigError
        If the command is empty or ill-quoted.
    DeviceError
        If there is no such program. Iteration raises it if the program fails or stalls.
    """

    def __init__(
        self,
        command: list[str] | str,
        *,
        chunk_ms: int,
        layout: Layout | None = None,
        stall_s: float | None = STALL_S,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        require_pipes("A command as a source")
        words = _words(command)
        program = _program(words[0])
        self._layout = layout or Layout()
        self._stall_s = stall_s
        self._stderr_tail = self._stderr_line = b""
        self._is_stderr_open = True
        self._n_overruns = 0
        self._group = _process_group()
        self._process = _start(words, program, group=self._group, environment=environment or {})
        super().__init__(f"`{shlex.join(words)}`", chunk_ms=chunk_ms)
        self._out = cast(IO[bytes], self._process.stdout)
        self._err = cast(IO[bytes], self._process.stderr)
        os.set_blocking(self._err.fileno(), False)

    @property
    def dropped_chunks(self) -> int:
        """Number of lines on the program's standard error that report an overrun or an xrun."""
        return self._n_overruns

    @property
    def exit_reason(self) -> str | None:
        """`exit status N` or `signal N`, once the program has ended and was waited for."""
        status = self._process.returncode
        if status is None:
            return None
        return f"signal {-status}" if status < 0 else f"exit status {status}"

    def stderr_lines(self, n: int) -> list[str]:
        """Return the last lines of standard error, at most `n`, without reports of overruns.

        Each is escaped, and cut to 200 characters.
        """
        lines = [line for line in self._stderr_tail.split(b"\n") if not _OVERRUN.search(line)]
        shown = [line.decode(errors="replace").strip() for line in lines]
        return [printable(line[:_LINE_CHARACTERS]) for line in shown if line][-n:]

    def read1(self, n_bytes: int, /) -> bytes:
        """Return up to `n_bytes` of the program's output as soon as there are any.

        Returns
        -------
        bytes
            Empty when the program has ended with status 0, or the source was closed.

        Raises
        ------
        DeviceError
            If there is no output for `stall_s`, or the program has failed.
        """
        started_s = time.monotonic()
        left_s = self._stall_s
        with self._using() as is_open:
            while is_open and not self._closed:
                errors = [self._err.fileno()] if self._is_stderr_open else []
                if self._stall_s is not None:
                    left_s = started_s + self._stall_s - time.monotonic()
                ready = self._wait(self._out.fileno(), *errors, timeout_s=left_s)
                if self._err.fileno() in ready:
                    self._read_stderr()
                if self._out.fileno() in ready:
                    return os.read(self._out.fileno(), n_bytes) or self._end()
                if left_s is not None and left_s <= 0 and not self._closed:
                    raise self._stalled()
        return b""

    def _read(self) -> Iterator[Samples]:
        samples = read_pcm(
            self,
            self._layout,
            name=f"the output of {self.name}",
            decode="Let the command decode it, as `ffmpeg -i … -f s16le -ar 16000 -ac 1 -` does.",
            check="its options and what it prints in a terminal",
        )
        try:
            yield from samples
        except FormatError:
            if not self._closed:  # else `close` cut it short
                raise

    def _release(self) -> None:
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(_TERMINATE_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in a driver
            self._process.wait(_TERMINATE_S)
        self._out.close()
        self._err.close()

    def _signal(self, number: signal.Signals) -> None:
        """Signal the whole group, where it is the program's own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._group is None:
                self._process.send_signal(number)
            else:
                os.killpg(self._process.pid, number)

    def _read_stderr(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._err.fileno(), _STDERR_BYTES)
            self._is_stderr_open = bool(data)
            self._stderr_tail = (self._stderr_tail + data)[-_KEPT_BYTES:]
            *lines, rest = (self._stderr_line + data).split(b"\n")
            self._stderr_line = rest[-_KEPT_BYTES:]
            self._n_overruns += sum(bool(_OVERRUN.search(line)) for line in lines)

    def _end(self) -> bytes:
        """Return no bytes if the program has succeeded; raise DeviceError if it has failed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_TERMINATE_S)
        self._read_stderr()
        if self._process.returncode == 0:
            return b""
        raise DeviceError(
            f"The command of a source ended: {self.name}, with "
            f"{self.exit_reason or 'its output closed'}. stderr: {self._last_line()}. Try it in a "
            f"terminal."
        )

    def _stalled(self) -> DeviceError:
        return DeviceError(
            f"The command of a source wrote no audio for {self._stall_s:g} s: {self.name}. "
            f"stderr: {self._last_line()}. Try it in a terminal."
        )

    def _last_line(self) -> str:
        return "".join(self.stderr_lines(1)).rstrip(".") or "none"


def check_command(command: list[str] | str, *, must_exist: bool = False) -> None:
    """Check a command before it is needed.

    Parameters
    ----------
    command : list of str, or str
    must_exist : bool
        False: a program that is missing may be installed until then.

    Raises
    ------
    ConfigError
        If the command is empty or ill-quoted.
    DeviceError
        If the interpreter of its program is missing, or the program, and it must exist.
    """
    words = _words(command)
    if must_exist:
        _program(words[0])
    elif program := shutil.which(words[0]):
        _check_interpreter(program)


def _words(command: list[str] | str) -> list[str]:
    try:
        words = shlex.split(command) if isinstance(command, str) else command
    except ValueError as error:
        raise ConfigError(
            f"`[source] command` must have its quotes in pairs. Received: `{command}` ({error}). "
            f"Add the missing quote, or write it as a list of words."
        ) from error
    if not words or not words[0].strip() or any("\0" in word for word in words):
        raise ConfigError(
            f"`[source] command` must name a program, without NUL characters. Received: "
            f'{command!r}. Write one, such as `command = ["parec", "--raw"]`.'
        )
    return words


def _program(word: str) -> str:
    program = shutil.which(word)
    if program is None:
        raise DeviceError(
            f"The program of `[source] command` must exist and be executable. Received: `{word}`. "
            f"Install it, or write its whole path."
        )
    _check_interpreter(program)
    check_trusted(program, what="The program of a source", error=DeviceError)
    return os.path.abspath(program)  # noqa: PTH100  a link may name one program of several


def _check_interpreter(program: str) -> None:
    if problem := interpreter_problem(program):
        raise DeviceError(
            f"The program of a source must have its interpreter. Received: {program}; {problem}."
        )


def _process_group() -> int | None:
    """Return the process group for the program: 0 is a new one, None that of kws.

    Ctrl-C is for kws, which then ends the program. But where kws leads a session of its own, as
    the daemon's capture processes do, no Ctrl-C comes, and killing its group must end both.
    """
    return None if os.getsid(0) == os.getpid() else 0


def _start(
    words: list[str], program: str, *, group: int | None, environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    is_linux = sys.platform == "linux"
    for pipe_bytes in (_PIPE_BYTES, -1) if is_linux else (-1,):
        try:
            return subprocess.Popen(
                words,
                executable=program,
                bufsize=0,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=group,
                pipesize=pipe_bytes,
                env={**os.environ, **environment},
            )
        except PermissionError as error:  # more than /proc/sys/fs/pipe-user-pages-soft allows
            if pipe_bytes < 0:
                raise _unstartable(program, error) from error
        except OSError as error:
            raise _unstartable(program, error) from error
    raise AssertionError  # never reached


def _unstartable(program: str, error: OSError) -> DeviceError:
    return DeviceError(
        f"The program of a source cannot be started: {program} ({error.strerror}). Check its first "
        f"line and its permissions."
    )
