"""Logs on standard error: plain, for the journal, or as JSON lines; and the last errors, kept.

`configure` is called once by a command; modules log as ever, with fields for programs in `extra`::

    _log.info("heard `%s`", keyword, extra={"keyword": keyword, "score": score})
"""

import contextlib
import logging
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import msgspec

from kws.daemon.snapshot import LogLine
from kws.events import rfc3339

__all__ = ["JournalFormatter", "JsonFormatter", "LastErrors", "LogFormat", "Repeats", "configure"]

LogFormat = Literal["text", "json"]

_TEXT = "%(levelname)s: %(message)s"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LONGEST = 2000
_MOST_KINDS = 256


def configure(log_format: LogFormat = "text", *, verbose: bool = False) -> None:
    """Send the logs to standard error; a second call goes before the first.

    Parameters
    ----------
    log_format : "text" or "json"
        `text` gets the journal's level prefixes if standard error is the journal.
    verbose : bool
        Show what is no warning too.
    """
    handler = _ToStandardError()
    handler.setFormatter(_formatter(log_format))
    handler.addFilter(Repeats())
    root = logging.getLogger()
    for other in [one for one in root.handlers if isinstance(one, _ToStandardError)]:
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(logging.INFO if verbose else logging.WARNING)
    logging.getLogger("kws").setLevel(logging.NOTSET)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, then what `extra` held."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, Any] = {
            "time": _wall(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        return msgspec.json.encode({**extra, **line}, enc_hook=str).decode()


class JournalFormatter(logging.Formatter):
    """Text with the level before each line as `<N>`, which journald takes off and keeps.

    The numbers are those of syslog (RFC 5424, section 6.2.1): 3 error, 4 warning, 6 information.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record, each of its lines with the prefix."""
        level = next((n for at, n in _SYSLOG if record.levelno >= at), 7)
        lines = super().format(record).splitlines() or [""]
        return "\n".join(f"<{level}>{line}" for line in lines)


class LastErrors(logging.Handler):
    """Keep the last warnings and errors, one for each line of code; add it to the logger `kws`.

    Parameters
    ----------
    most : int
        How many; each is cut after 2000 characters, so memory is bounded.
    """

    def __init__(self, most: int = 20) -> None:
        super().__init__(logging.WARNING)
        self._most = most
        self._lines: dict[tuple[str, int], LogLine] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record in place of the one before it from the same line of code."""
        place = (record.pathname, record.lineno)
        before = self._lines.pop(place, None)
        self._lines[place] = LogLine(
            time_s=record.created,
            level=record.levelname.lower(),
            logger=record.name,
            message=record.getMessage()[:_LONGEST],
            n=before.n + 1 if before else 1,
        )
        if len(self._lines) > self._most:
            del self._lines[next(iter(self._lines))]

    def lines(self) -> list[LogLine]:
        """Return them, the latest last."""
        with self.lock or contextlib.nullcontext():
            return list(self._lines.values())


class Repeats(logging.Filter):
    """Let a warning pass `most` times in `period_s`, then only count it.

    Warnings are the same if they come from the same line of code, whatever values they show. The
    next that passes says how many did not. What is no warning always passes.

    Parameters
    ----------
    most : int
    period_s : float
        Seconds.
    """

    def __init__(self, *, most: int = 10, period_s: float = 60.0) -> None:
        super().__init__()
        self._most, self._period_s = most, period_s
        self._kinds: dict[tuple[str, int], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record passes; the count of those that did not is added to it."""
        if record.levelno < logging.WARNING:
            return True
        if len(self._kinds) > _MOST_KINDS:
            self._kinds.clear()
        now_s = time.monotonic()
        kind = self._kinds.setdefault((record.pathname, record.lineno), _Kind(now_s))
        n_hidden = 0
        if now_s - kind.since_s >= self._period_s:
            n_hidden, kind.n_hidden = kind.n_hidden, 0
            kind.since_s, kind.n = now_s, 0
        kind.n += 1
        if kind.n > self._most:
            kind.n_hidden += 1
            return False
        if n_hidden:
            record.msg = f"{record.getMessage()} ({n_hidden} more like it were left out.)"
            record.args = ()
        return True


class _Kind:
    """How often a warning came since a moment."""

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.n = self.n_hidden = 0


class _ToStandardError(logging.StreamHandler[TextIO]):
    """Write to what is `sys.stderr` at the time: a live meter puts itself in between."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


_SYSLOG = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)


def _formatter(log_format: LogFormat) -> logging.Formatter:
    if log_format == "json":
        return JsonFormatter()
    return JournalFormatter("%(message)s") if _is_journal() else logging.Formatter(_TEXT)


def _is_journal() -> bool:
    """Whether standard error is the journal's: systemd gives device and inode of its socket."""
    try:
        at = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{at.st_dev}:{at.st_ino}"


def _wall(time_s: float) -> str:
    return rfc3339(datetime.fromtimestamp(time_s, UTC))
