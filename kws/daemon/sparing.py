"""Warnings that would fill the log: the first at once, then one a minute."""

import logging
import time

__all__ = ["Sparing"]

_PAUSE_S = 60.0


class Sparing:
    """Log a warning unless another was logged in the last minute.

    Parameters
    ----------
    log : logging.Logger
        Where to.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._last_s = -_PAUSE_S

    def warning(self, text: str, *values: object) -> None:
        """Log it, if it is time; `text` should carry a count, as some are passed over."""
        now_s = time.monotonic()
        if now_s - self._last_s >= _PAUSE_S:
            self._last_s = now_s
            self._log.warning(text, *values)
