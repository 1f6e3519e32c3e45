"""Bars and live displays for the terminal: level, gate, posteriors against thresholds, progress.

They are drawn on standard error at most ten times a second, in the caller's thread, below all other
output (`kws.live_lines`).
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from kws.live_lines import Part, live_lines

if TYPE_CHECKING:
    from kws.arrays import Samples
    from kws.events import Detection
    from kws.spotter import Spotter

__all__ = ["Meter", "bar", "level_share", "live_meter", "live_progress", "progress_line"]

_FLOOR_DBFS = -60.0
_LEVEL_HOLD_S = 1.5
_KEYWORD_HOLD_S = 2.0
_N_KEYWORDS = 3
_LAST_S = 10.0
_LABEL, _NUMBERS = 10, 12
_MOST_CELLS = 40
_PROGRESS_CELLS = 20


def bar(share: float, *, cells: int, mark: float | None = None, ascii_only: bool = False) -> str:
    """Return a bar of characters, empty at 0 and full at 1.

    Parameters
    ----------
    share : float
        The filled part, 0..1; values outside are clipped.
    cells : int
        Width in characters.
    mark : float or None
        Position of a mark on the bar, 0..1.
    ascii_only : bool
        Use ASCII characters only.
    """
    full, rest, marked = ("#", ".", "|") if ascii_only else ("█", "░", "│")
    n_full = round(min(1.0, max(0.0, share)) * cells)
    drawn = full * n_full + rest * (cells - n_full)
    if mark is None:
        return drawn
    at = min(cells - 1, int(max(0.0, mark) * cells))
    return drawn[:at] + marked + drawn[at + 1 :]


def level_share(level_dbfs: float) -> float:
    """Return the filled part of a level bar: 0 at -60 dBFS and below, 1 at 0 dBFS."""
    return min(1.0, max(0.0, 1 - level_dbfs / _FLOOR_DBFS))


class Meter:
    """State and layout of the meter; `live_meter` draws it.

    Parameters
    ----------
    clock : callable
        Returns seconds of a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._level_dbfs = self._peak_dbfs = -100.0
        self._peak_s = clock()
        self._gate_open = False
        self._held: dict[str, tuple[float, float]] = {}
        self._thresholds: Mapping[str, float] = {}
        self._last: deque[tuple[float, Detection]] = deque(maxlen=3)

    def update(self, samples: "Samples", spotter: "Spotter") -> None:
        """Take a chunk [int16, shape=(n,)] and the spotter that has processed it."""
        from kws.audio import level_dbfs  # `bar` alone needs no numpy

        now_s = self._clock()
        self._level_dbfs = level_dbfs(samples)
        if self._level_dbfs >= self._peak_dbfs or now_s - self._peak_s > _LEVEL_HOLD_S:
            self._peak_dbfs, self._peak_s = self._level_dbfs, now_s
        self._gate_open = spotter.gate_open
        self._thresholds = spotter.thresholds
        for keyword, posterior in spotter.posteriors.items():
            self._hold(keyword, posterior, now_s)

    def add_detection(self, detection: "Detection") -> None:
        """Keep a detection on the meter for ten seconds, and its score on its bar for two."""
        now_s = self._clock()
        self._last.append((now_s, detection))
        self._hold(detection.keyword, detection.score, now_s)

    def lines(self, width: int, *, ascii_only: bool = False) -> list[list[Part]]:
        """Return the meter for a width in columns, in the same number of lines each time.

        The bar of a keyword shows its highest posterior of the last two seconds.
        """
        cells = max(4, min(_MOST_CELLS, width - _LABEL - _NUMBERS - 2))
        gate = Part("open", "green") if self._gate_open else Part("closed", is_dim=True)
        lines = [self._level(cells, ascii_only=ascii_only), [_label("gate"), gate]]
        top = sorted(self._held, key=self._held.__getitem__, reverse=True)
        for keyword in top[:_N_KEYWORDS]:
            value, threshold = self._held[keyword][0], self._thresholds.get(keyword, 1.0)
            drawn = bar(value, mark=threshold, cells=cells, ascii_only=ascii_only)
            is_over = value >= threshold
            shown = Part(drawn, "green" if is_over else "cyan", is_bold=is_over)
            lines.append([_label(keyword), shown, Part(f" {value:.2f} /{threshold:.2f}")])
        now_s = self._clock()
        last = [one for at_s, one in reversed(self._last) if now_s - at_s < _LAST_S]
        recent = ", ".join(f"{one.keyword} {one.score:.2f}" for one in last)
        return [*lines, [_label("detected"), Part(recent, is_bold=True)]]

    def _hold(self, keyword: str, posterior: float, now_s: float) -> None:
        """Let a bar rise at once, and fall two seconds after its highest point."""
        highest, at_s = self._held.get(keyword, (0.0, 0.0))
        if posterior >= highest or now_s - at_s > _KEYWORD_HOLD_S:
            self._held[keyword] = (posterior, now_s)

    def _level(self, cells: int, *, ascii_only: bool) -> list[Part]:
        value, peak = map(level_share, (self._level_dbfs, self._peak_dbfs))
        colour = (
            "red" if self._peak_dbfs > -3.0 else "yellow" if self._peak_dbfs > -9.0 else "green"
        )
        drawn = bar(value, mark=peak, cells=cells, ascii_only=ascii_only)
        return [_label("level"), Part(drawn, colour), Part(f" {self._level_dbfs:4.0f} dBFS")]


@contextmanager
def live_meter() -> Iterator[
    tuple[Callable[["Samples", "Spotter"], None], Callable[["Detection"], None]]
]:
    """Show a meter on standard error until the end, then leave the terminal as it was.

    Yields two callables. The first takes every chunk and the spotter. The second takes a detection
    before it is printed: it clears the meter, which returns with the next chunk.
    """
    meter = Meter()
    with live_lines() as screen:

        def update(samples: "Samples", spotter: "Spotter") -> None:
            meter.update(samples, spotter)
            if screen.is_due:
                screen.draw(meter.lines(screen.columns, ascii_only=screen.ascii_only))

        def make_way(detection: "Detection") -> None:
            meter.add_detection(detection)
            screen.clear()

        yield update, make_way


@contextmanager
def live_progress(
    name: str, total_s: float
) -> Iterator[tuple[Callable[[float], None], Callable[[], None]]]:
    """Show how much of some audio is done, on standard error, until the end.

    Parameters
    ----------
    name : str
        What is processed.
    total_s : float
        Its seconds.

    Yields two callables. The first takes the seconds done so far. The second clears the line before
    something is printed; it returns with the next call of the first.
    """
    started_s = time.monotonic()
    with live_lines() as screen:

        def update(done_s: float) -> None:
            if screen.is_due:
                share = min(1.0, done_s / total_s) if total_s else 1.0
                left_s = (time.monotonic() - started_s) * (1 - share) / max(share, 1e-3)
                width, ascii_only = screen.columns, screen.ascii_only
                screen.draw([progress_line(name, share, left_s, width, ascii_only=ascii_only)])

        yield update, screen.clear


def progress_line(
    name: str, share: float, left_s: float, width: int, *, ascii_only: bool = False
) -> list[Part]:
    """Return a line of name, bar, per cent and time left; the name is cut at its start."""
    from rich.cells import cell_len

    minutes, seconds = divmod(round(left_s), 60)
    numbers = f" {100 * share:3.0f} %  {minutes}:{seconds:02d} left"
    cells = max(4, min(_PROGRESS_CELLS, width - len(numbers) - _LABEL))
    n_name = width - cells - len(numbers) - 1
    if cell_len(name) > n_name:
        gap = "..." if ascii_only else "…"
        while name and cell_len(gap + name) > n_name:
            name = name[1:]
        name = gap + name if name else ""
    return [Part(f"{name} "), Part(bar(share, cells=cells, ascii_only=ascii_only)), Part(numbers)]


@cache
def _label(text: str) -> Part:
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) >= _LABEL:
        text = set_cell_size(text, _LABEL - 1)
    return Part(set_cell_size(text, _LABEL))
