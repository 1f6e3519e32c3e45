"""Logging to standard error: plain text, text for the journal, or JSON lines.

A command calls `configure` once. Modules use `logging`, with fields for the JSON lines in `extra`::

    _log.info("detected `%s`", keyword, extra={"keyword": keyword, "score": score})
"""

import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import msgspec

from kws.errors import printable
from kws.events import rfc3339

__all__ = [
    "JournalFormatter",
    "JsonFormatter",
    "LogFormat",
    "RepeatFilter",
    "configure",
    "last_words",
]

LogFormat = Literal["text", "json"]

_TEXT = "%(levelname)s: %(message)s"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_MAX_PLACES = 256
_LAST_LINES = 3
_LINE_CHARACTERS = 200


def configure(
    log_format: LogFormat = "text", *, verbose: bool = False
) -> Callable[[LogFormat], None]:
    """Send the logs to standard error; a second call replaces the first.

    Parameters
    ----------
    log_format : "text" or "json"
        `text` gets the journal's level prefixes if standard error is the journal.
    verbose : bool
        Show messages below warnings too.

    Returns
    -------
    callable
        Changes the format of later messages, also while the handlers run in a thread.
    """
    handler = _ToStandardError()
    handler.setFormatter(_formatter(log_format))
    handler.addFilter(RepeatFilter())
    root = logging.getLogger()
    for other in [one for one in root.handlers if isinstance(one, _ToStandardError)]:
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(logging.INFO if verbose else logging.WARNING)
    logging.getLogger("kws").setLevel(logging.NOTSET)
    return lambda other: handler.setFormatter(_formatter(other))


def last_words(stderr: str) -> str:
    """Return the last lines that a program wrote to standard error, for one line of a log.

    At most three, each escaped and cut to 200 characters, joined by "; ".
    """
    lines = [line.strip() for line in stderr.splitlines()]
    cut = [
        line if len(line) <= _LINE_CHARACTERS else f"{line[:_LINE_CHARACTERS]}..." for line in lines
    ]
    return "; ".join(printable(line) for line in [one for one in cut if one][-_LAST_LINES:])


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, and the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, Any] = {
            "time": _wall_time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        return msgspec.json.encode({**extra, **line}, enc_hook=str).decode()


class JournalFormatter(logging.Formatter):
    """Text with the level before each line as `<N>`, which journald parses.

    The numbers are those of syslog (RFC 5424, section 6.2.1): 3 error, 4 warning, 6 information.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with the prefix before each line."""
        level = next((n for at, n in _SYSLOG if record.levelno >= at), 7)
        lines = super().format(record).splitlines() or [""]
        return "\n".join(f"<{level}>{line}" for line in lines)


class RepeatFilter(logging.Filter):
    """Pass a warning at most `max_n` times in `period_s`; count the rest.

    Warnings from the same line of code are the same, whatever their values. The next one that
    passes has the count of those that did not. Records below warnings always pass.

    Parameters
    ----------
    max_n : int
    period_s : float
    """

    def __init__(self, *, max_n: int = 10, period_s: float = 60.0) -> None:
        super().__init__()
        self._max_n, self._period_s = max_n, period_s
        self._places: dict[tuple[str, int], _Place] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record passes; append the count of those that did not."""
        if record.levelno < logging.WARNING:
            return True
        if len(self._places) > _MAX_PLACES:
            self._places.clear()
        now_s = time.monotonic()
        place = self._places.setdefault((record.pathname, record.lineno), _Place(now_s))
        n_hidden = 0
        if now_s - place.since_s >= self._period_s:
            n_hidden, place.n_hidden = place.n_hidden, 0
            place.since_s, place.n = now_s, 0
        place.n += 1
        if place.n > self._max_n:
            place.n_hidden += 1
            return False
        if n_hidden:
            record.msg = f"{record.getMessage()} ({n_hidden} more like it were left out.)"
            record.args = ()
        return True


class _Place:
    """Counts of the warnings of one line of code, in the current period."""

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.n = self.n_hidden = 0


class _ToStandardError(logging.StreamHandler[TextIO]):
    """Write to the current `sys.stderr`: a live meter replaces it."""

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
    """Whether standard error is the journal: systemd sets the device and inode of its socket."""
    try:
        at = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{at.st_dev}:{at.st_ino}"


def _wall_time(time_s: float) -> str:
    return rfc3339(datetime.fromtimestamp(time_s, UTC))
