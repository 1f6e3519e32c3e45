"""Lines below the output of a command, redrawn in place: meters and progress.

Standard error only; the cursor stays in the last line. Before anything else is written, the lines
are taken off the screen, so that output stands above them and stays. Frames are written by hand:
ten a second cost rich some 20 ms of CPU, ten times as much as the detection that they show.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

import click

__all__ = ["LiveLines", "Part", "is_live_terminal", "live_lines"]

_PERIOD_S = 0.1
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_ERASE_BELOW, _ERASE_RIGHT = "\x1b[J", "\x1b[K"


class Part(NamedTuple):
    """A piece of a line, and how it looks."""

    text: str
    colour: str | None = None
    is_bold: bool = False
    is_dim: bool = False


class LiveLines:
    """Lines at the end of what a terminal shows.

    Parameters
    ----------
    stream : text stream
        Of the terminal.
    has_colour : bool
        Use colours and weights.
    """

    def __init__(self, stream: IO[str], *, has_colour: bool = True) -> None:
        self._stream = stream
        self._has_colour = has_colour
        self._drawn: list[str] = []
        self._n_cells: list[int] = []
        self._columns = 0
        self._drawn_s = float("-inf")
        self.ascii_only = not (getattr(stream, "encoding", "") or "").lower().startswith("utf")

    @property
    def is_due(self) -> bool:
        """Whether the last lines are at least a tenth of a second old."""
        return time.monotonic() - self._drawn_s >= _PERIOD_S

    @property
    def columns(self) -> int:
        """Width that a line may have; the last column stays free, as some terminals wrap there."""
        return max(1, self._size().columns - 1)

    def draw(self, lines: Sequence[Sequence[Part]]) -> None:
        """Draw lines in place of the last ones; each is cut at the width of the terminal."""
        self._drawn_s = time.monotonic()
        size = self._size()
        cut = [
            self._cut(line, max(1, size.columns - 1)) for line in lines[: max(1, size.lines - 1)]
        ]
        drawn = [text for text, _ in cut]
        is_in_place = len(drawn) == len(self._drawn) and size.columns == self._columns
        if is_in_place and drawn == self._drawn:
            return
        if is_in_place:  # a line that has not changed is passed over
            pairs = zip(drawn, self._drawn, strict=True)
            rows = "\n".join("" if new == old else new + _ERASE_RIGHT for new, old in pairs)
            self._write(self._back(size.columns) + rows)
        else:
            rows = f"{_ERASE_RIGHT}\n".join(drawn)
            self._write(self._back(size.columns) + _HIDE + rows + _ERASE_BELOW)
        self._drawn, self._n_cells = drawn, [n for _, n in cut]
        self._columns = size.columns

    def clear(self) -> None:
        """Take the lines off the screen; they return with the next `draw`."""
        if self._drawn:
            columns = self._size().columns
            self._drawn, back = [], self._back(columns)
            self._write(f"{back}{_ERASE_BELOW}{_SHOW}")
            self._drawn_s = float("-inf")

    def _back(self, columns: int) -> str:
        """Return what moves the cursor to the start of the first line drawn."""
        # A terminal that became narrower has wrapped them.
        n_rows = sum(max(1, -(-n // columns)) for n in self._n_cells) if self._n_cells else 1
        self._n_cells = []
        return f"\r\x1b[{n_rows - 1}A" if n_rows > 1 else "\r"

    def _cut(self, line: Sequence[Part], n_most: int) -> tuple[str, int]:
        """Return a line with its styles, and its width in cells."""
        from rich.cells import cell_len, set_cell_size

        text, n_left = "", n_most
        for part in line:
            piece = part.text
            if (n_cells := cell_len(piece)) > n_left:
                piece, n_cells = set_cell_size(piece, n_left), n_left
            n_left -= n_cells
            if piece and self._has_colour and (part.colour or part.is_bold or part.is_dim):
                bold, dim = part.is_bold or None, part.is_dim or None
                piece = click.style(piece, fg=part.colour, bold=bold, dim=dim)
            text += piece
        return text, n_most - n_left

    def _size(self) -> os.terminal_size:
        """Return the size of the terminal now; COLUMNS and LINES override it, as everywhere."""
        try:
            found = os.get_terminal_size(self._stream.fileno())
        except (AttributeError, OSError, ValueError):
            found = os.terminal_size((0, 0))
        columns, lines = (
            int(text) if (text := os.environ.get(name, "")).isdecimal() else 0
            for name in ("COLUMNS", "LINES")
        )
        return os.terminal_size((columns or found.columns or 80, lines or found.lines or 24))

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def is_live_terminal() -> bool:
    """Return whether standard error is a terminal on which lines can be redrawn."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    return is_terminal and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}


@contextmanager
def live_lines() -> Iterator[LiveLines]:
    """Draw lines on standard error until the end, then leave the terminal as it was.

    What is written to `sys.stderr` meanwhile, such as logs, appears above them, line by line.
    Before a write to standard output, call `LiveLines.clear`.
    """
    stderr = sys.stderr
    lines = LiveLines(stderr, has_colour=not os.environ.get("NO_COLOR"))
    above = _Above(stderr, lines)
    sys.stderr = above
    try:
        yield lines
    finally:
        sys.stderr = stderr
        lines.clear()
        above.finish()


class _Above:
    """Standard error above the lines: whole lines at once; the rest of one waits for its end."""

    def __init__(self, stream: IO[str], lines: LiveLines) -> None:
        self._stream = stream
        self._lines = lines
        self._rest = ""

    def write(self, text: str) -> int:
        whole, newline, self._rest = (self._rest + text).rpartition("\n")
        if newline:
            self._lines.clear()
            self._stream.write(whole + newline)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def finish(self) -> None:
        """Write the rest of a line."""
        self._stream.write(self._rest)
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
