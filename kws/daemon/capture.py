"""What runs in the process that records: one source, which can be killed when it hangs.

`python -m kws.daemon.capture` takes the settings of a source as one line of JSON on standard input.
Audio goes to standard output as raw s16le, 16 kHz, mono; reports go to standard error, each a line
of JSON. When standard input ends, the daemon is gone, and the process group is killed.
"""

import os
import signal
import sys
import threading
from typing import NoReturn

import msgspec

from kws.config import SourceSettings
from kws.errors import ConfigError, KwsError
from kws.sources import Source, open_source

__all__ = ["Failed", "Lost", "Opened", "Report", "main"]

_GONE = 141


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag_field="report", tag="opened"):
    """The source is open: `name` says what it is, for people."""

    name: str


class Lost(msgspec.Struct, frozen=True, kw_only=True, tag_field="report", tag="lost"):
    """So many chunks of audio were lost since it was opened, for want of a reader."""

    n_chunks: int


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag_field="report", tag="failed"):
    """The source cannot be opened, or has ended with this error."""

    message: str


Report = Opened | Lost | Failed


def main() -> int:
    """Record until the source ends; return the exit code, that of the error or 0."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the daemon decides
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no audio
    settings = msgspec.json.decode(_first_line(), type=SourceSettings)
    threading.Thread(target=_end_with_the_daemon, daemon=True).start()
    try:
        _record(settings, out)
    except KwsError as error:
        _report(Failed(message=str(error)))
        return error.exit_code
    except BrokenPipeError:
        return _GONE
    return 0


def _record(settings: SourceSettings, out: int) -> None:
    if settings.input == "-" and not settings.command:
        raise ConfigError(
            "A source of the daemon must be a microphone, a file, a command or a port. Received: "
            "`-`, standard input. Use `kws listen --input -`."
        )
    n_told = 0
    with open_source(settings) as source:
        _report(Opened(name=source.name))
        try:
            for chunk in source:
                _write(out, chunk.astype("<i2", copy=False).tobytes())
                n_told = _tell_losses(source, n_told)
        finally:
            _tell_losses(source, n_told)


def _tell_losses(source: Source, n_told: int) -> int:
    if source.dropped_chunks > n_told:
        _report(Lost(n_chunks=source.dropped_chunks))
    return source.dropped_chunks


def _first_line() -> bytes:
    """Read settings past Python's buffers, whose locks a thread at the exit must not hold."""
    line = b""
    while not line.endswith(b"\n") and (data := os.read(0, 65_536)):
        line += data
    return line


def _end_with_the_daemon() -> NoReturn:
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
