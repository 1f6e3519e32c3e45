"""A command in a terminal of its own, and what a person sees there at the end."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence

import pyte

SIZES = [(80, 24), (60, 20), (200, 50)]
"""Columns and lines."""
ABOVE = ["line above 1", "line above 2"]


class Screen:
    """Run `kws` on a screen that already shows two lines.

    Parameters
    ----------
    arguments : sequence of str
        Of `kws`.
    columns, lines : int
    environment : str
        Further variables.
    """

    def __init__(
        self, arguments: Sequence[str], *, columns: int, lines: int, **environment: str
    ) -> None:
        self._leader, follower = pty.openpty()
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(follower, termios.TIOCSWINSZ, size)
        os.write(follower, "".join(f"{line}\r\n" for line in ABOVE).encode())
        known = {
            name: text for name, text in os.environ.items() if name not in {"COLUMNS", "LINES"}
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kws", *arguments],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=follower,
            stderr=follower,
            env={**known, "TERM": "xterm-256color", "LANG": "C.UTF-8"} | environment,
        )
        os.close(follower)
        self._screen = pyte.HistoryScreen(columns, lines, history=1000)
        self._stream = pyte.ByteStream(self._screen)

    def run(self, chunks: Sequence[bytes] = (), *, pause_s: float = 0.0) -> Iterator[list[str]]:
        """Feed standard input; yield what is shown after each chunk, and at the end."""
        with contextlib.suppress(BrokenPipeError), self._process:
            for chunk in chunks:
                self._process.stdin.write(chunk)
                self._process.stdin.flush()
                self._pump(pause_s)
                yield self.rows()
            self._process.stdin.close()
            while self._process.poll() is None:
                self._pump(0.05)
                yield self.rows()
        self._pump(0.0)
        os.close(self._leader)
        yield self.rows()

    @property
    def code(self) -> int:
        """The exit code."""
        return self._process.wait(10)

    @property
    def is_cursor_shown(self) -> bool:
        return not self._screen.cursor.hidden

    def rows(self) -> list[str]:
        """Return all rows with text, from those that have scrolled away to the last."""
        columns = range(self._screen.columns)
        above = ["".join(row[i].data for i in columns) for row in self._screen.history.top]
        return [row.rstrip() for row in (*above, *self._screen.display) if row.strip()]

    def _pump(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while select.select([self._leader], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
            try:
                data = os.read(self._leader, 65_536)
            except OSError:  # Linux says so of the end
                return
            if not data:
                return
            self._stream.feed(data)
