"""Any program that writes audio to its standard output: arecord, parec, ffmpeg, sox."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO, cast

from kws.audio import Samples
from kws.errors import ConfigError, DeviceError, FormatError
from kws.sources.microphone import STALL_S, group_of_recorder
from kws.sources.pcm import Layout, read_pcm
from kws.sources.polled import PolledSource

__all__ = ["CommandSource"]

_END_S = 1.0
_PIPE_BYTES = 1 << 20  # half a minute; a program that may not have so much gets the usual 64 KiB
_KEPT_BYTES = 2048
_OVERRUN = re.compile(rb"(?i)\b(overrun|xrun)\b")  # as arecord and ffmpeg say it


class CommandSource(PolledSource):
    """A program's raw s16le, or a WAV, which it says of itself; it can be iterated once.

    Parameters
    ----------
    command : list of str, or str
        Program and arguments; a string is split like a shell line, without a shell running it.
    chunk_ms : int
        Length of a chunk.
    layout : Layout or None
        Of raw samples; None is 16 kHz mono.
    stall_s : float
        Without audio for so long, iteration raises DeviceError.

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
        stall_s: float = STALL_S,
    ) -> None:
        words = _words(command)
        program = _program(words[0])
        self._layout = layout or Layout()
        self._stall_s = stall_s
        self._said = self._cut_line = b""
        self._hears_words = True
        self._n_overruns = 0
        self._group = group_of_recorder()
        self._process = _start(words, program, group=self._group)
        super().__init__(f"`{shlex.join(words)}`", chunk_ms=chunk_ms)
        self._out = cast(IO[bytes], self._process.stdout)
        self._err = cast(IO[bytes], self._process.stderr)
        os.set_blocking(self._err.fileno(), False)

    @property
    def dropped_chunks(self) -> int:
        """How often the program has said that it lost audio: lines of an overrun or an xrun."""
        return self._n_overruns

    def read1(self, n_bytes: int, /) -> bytes:
        """Return up to `n_bytes` of the program's output as soon as there are any.

        Returns
        -------
        bytes
            None of them at its good end, and when the source is closed.

        Raises
        ------
        DeviceError
            If there are none for `stall_s`, or the program has failed.
        """
        deadline_s = time.monotonic() + self._stall_s
        with self._using() as is_open:
            while is_open and not self._closed:
                errors = [self._err.fileno()] if self._hears_words else []
                left_s = deadline_s - time.monotonic()
                ready = self._wait(self._out.fileno(), *errors, timeout_s=left_s)
                if self._err.fileno() in ready:
                    self._hear_words()
                if self._out.fileno() in ready:
                    return os.read(self._out.fileno(), n_bytes) or self._ended()
                if left_s <= 0 and not self._closed:
                    raise self._stalled()
        return b""

    def _read(self) -> Iterator[Samples]:
        samples = read_pcm(
            self,
            self._layout,
            name=f"the output of {self.name}",
            decode="Let the command decode it, as `ffmpeg … -f s16le -` does.",
            check="its options and what it says in a terminal",
        )
        try:
            yield from samples
        except FormatError:
            if not self._closed:  # else it was we who cut it short
                raise

    def _let_go(self) -> None:
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in a driver
            self._process.wait(_END_S)
        self._out.close()
        self._err.close()

    def _signal(self, number: signal.Signals) -> None:
        """Signal the whole group, where it is the program's own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._group is None:
                self._process.send_signal(number)
            else:
                os.killpg(self._process.pid, number)

    def _hear_words(self) -> None:
        with contextlib.suppress(BlockingIOError):
            words = os.read(self._err.fileno(), 65_536)
            self._hears_words = bool(words)
            self._said = (self._said + words)[-_KEPT_BYTES:]
            *lines, rest = (self._cut_line + words).split(b"\n")
            self._cut_line = rest[-_KEPT_BYTES:]
            self._n_overruns += sum(bool(_OVERRUN.search(line)) for line in lines)

    def _ended(self) -> bytes:
        """Return nothing after a good end; say what was wrong after another."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self._hear_words()
        status = self._process.returncode
        if status == 0:
            return b""
        how = "the end of its output"
        if status is not None:
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
        raise DeviceError(
            f"The command of a source must run on. Received: {how} from {self.name}. "
            f"Its last words: {self._last_words()}. Try it in a terminal."
        )

    def _stalled(self) -> DeviceError:
        return DeviceError(
            f"The command of a source must deliver audio without pause. Received: nothing for "
            f"{self._stall_s:g} s from {self.name}. Its last words: {self._last_words()}. Try it "
            f"in a terminal."
        )

    def _last_words(self) -> str:
        lines = self._said.decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return said[-1].rstrip(".") if said else "none"


def _words(command: list[str] | str) -> list[str]:
    try:
        words = shlex.split(command) if isinstance(command, str) else command
    except ValueError as error:
        raise ConfigError(
            f"`[source] command` must have its quotes in pairs. Received: `{command}` ({error}). "
            f"Mend it, or write it as a list of words."
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
    return program


def _start(words: list[str], program: str, *, group: int | None) -> "subprocess.Popen[bytes]":
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
            )
        except PermissionError as error:  # more than /proc/sys/fs/pipe-user-pages-soft allows
            if pipe_bytes < 0:
                raise _unstartable(program, error) from error
        except OSError as error:
            raise _unstartable(program, error) from error
    raise AssertionError  # never reached


def _unstartable(program: str, error: OSError) -> DeviceError:
    return DeviceError(
        f"The program of `[source] command` must be able to run. Received: {error.strerror} from "
        f"{program}. Check its first line and its permissions."
    )
