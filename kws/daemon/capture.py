"""The program of the capture process: one source, in a process that can be killed when it hangs.

`python -m kws.daemon.capture` reads the settings of a source as one line of JSON from standard
input. It writes audio to standard output as raw s16le, 16 kHz, mono, and reports to standard error,
each a line of JSON. At the end of standard input, when the daemon has ended, it kills its process
group. With `--real-time`, a file is read no faster than it would be spoken.
"""

import logging
import os
import signal
import sys
import threading
import time
from typing import NoReturn

import msgspec

from kws.audio import SAMPLE_RATE_HZ
from kws.config import SourceSettings
from kws.errors import ConfigError, KwsError
from kws.sources import Source, open_source

__all__ = ["Failed", "Logged", "Lost", "Opened", "Report", "main"]

_NO_READER = 141


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag_field="report", tag="opened"):
    """The source is open; `name` is for people."""

    name: str


class Lost(msgspec.Struct, frozen=True, kw_only=True, tag_field="report", tag="lost"):
    """Total of losses of audio since the source was opened."""

    n_chunks: int


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag_field="report", tag="failed"):
    """The source could not be opened, or ended with this error."""

    message: str


class Logged(msgspec.Struct, frozen=True, kw_only=True, tag_field="report", tag="logged"):
    """The source has logged a message, of a level of `logging`."""

    level: int
    message: str


Report = Opened | Lost | Failed | Logged


def main() -> int:
    """Record until the source ends; return the exit code, that of the error or 0."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the daemon decides
    out = os.dup(1)
    os.dup2(2, 1)  # libraries must not print into the audio
    log = logging.getLogger("kws")
    log.addHandler(_LogReports())
    log.setLevel(logging.INFO)
    log.propagate = False
    settings = msgspec.json.decode(_first_line(), type=SourceSettings)
    threading.Thread(target=_kill_at_end_of_input, daemon=True).start()
    try:
        _record(settings, out, is_paced="--real-time" in sys.argv[1:])
    except KwsError as error:
        _report(Failed(message=str(error)))
        return error.exit_code
    except BrokenPipeError:
        return _NO_READER
    return 0


class _LogReports(logging.Handler):
    """Report what sources log, for the daemon's log."""

    def emit(self, record: logging.LogRecord) -> None:
        _report(Logged(level=record.levelno, message=record.getMessage()))


def _record(settings: SourceSettings, out: int, *, is_paced: bool) -> None:
    if settings.input == "-" and not settings.command:
        raise ConfigError(
            "A source of the daemon must be a microphone, a file, a command or a port. Received: "
            "`-`, standard input. Use `kws listen --input -`."
        )
    n_reported = n_samples = 0
    with open_source(settings) as source:
        _report(Opened(name=source.name))
        started_s = time.monotonic()
        try:
            for chunk in source:
                n_samples += len(chunk)
                if is_paced and not source.live:
                    time.sleep(max(0.0, started_s + n_samples / SAMPLE_RATE_HZ - time.monotonic()))
                _write(out, chunk.astype("<i2", copy=False).tobytes())
                n_reported = _report_losses(source, n_reported)
        finally:
            _report_losses(source, n_reported)


def _report_losses(source: Source, n_reported: int) -> int:
    if source.dropped_chunks > n_reported:
        _report(Lost(n_chunks=source.dropped_chunks))
    return source.dropped_chunks


def _first_line() -> bytes:
    """Read the settings without Python's buffers, whose locks would block the exit."""
    line = b""
    while not line.endswith(b"\n") and (data := os.read(0, 65_536)):
        line += data
    return line


def _kill_at_end_of_input() -> NoReturn:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)
    raise SystemExit  # never reached


def _report(report: Report) -> None:
    _write(2, msgspec.json.encode(report) + b"\n")


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


if __name__ == "__main__":
    sys.exit(main())
