"""Bars and a live meter for the terminal: level, gate, posteriors against thresholds, detections.

The meter draws on standard error at most ten times a second, in the caller's thread, and takes
itself off the screen before anything else is written there.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from kws.audio import Samples
    from kws.events import Detection
    from kws.spotter import Spotter

__all__ = ["Meter", "bar", "level_share", "live_meter"]

_FLOOR_DBFS = -60.0
_PERIOD_S = 0.1
_HOLD_S = 1.5
_N_KEYWORDS = 3
_LAST_S = 10.0
_LABEL, _NUMBERS = 10, 12
_MOST_CELLS = 40


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
        self._posteriors: Mapping[str, float] = {}
        self._thresholds: Mapping[str, float] = {}
        self._last: deque[tuple[float, Detection]] = deque(maxlen=3)

    def update(self, samples: "Samples", spotter: "Spotter") -> None:
        """Take a chunk [int16, shape=(n,)] and the spotter that has processed it."""
        from kws.audio import level_dbfs  # `bar` alone needs no numpy

        now_s = self._clock()
        self._level_dbfs = level_dbfs(samples)
        if self._level_dbfs >= self._peak_dbfs or now_s - self._peak_s > _HOLD_S:
            self._peak_dbfs, self._peak_s = self._level_dbfs, now_s
        self._gate_open = spotter.gate_open
        self._posteriors, self._thresholds = spotter.posteriors, spotter.thresholds

    def add_detection(self, detection: "Detection") -> None:
        """Keep a detection on the meter for ten seconds."""
        self._last.append((self._clock(), detection))

    def render(self, width: int, *, ascii_only: bool = False) -> "Text":
        """Return the meter: a constant number of lines, none longer than `width` columns."""
        from rich.text import Text

        cells = max(4, min(_MOST_CELLS, width - _LABEL - _NUMBERS - 2))
        lines = [
            self._level(cells, ascii_only=ascii_only),
            _line("gate", ("open", "green") if self._gate_open else ("closed", "dim")),
        ]
        top = sorted(self._posteriors, key=self._posteriors.__getitem__, reverse=True)
        for keyword in top[:_N_KEYWORDS]:
            value, threshold = self._posteriors[keyword], self._thresholds.get(keyword, 1.0)
            drawn = bar(value, mark=threshold, cells=cells, ascii_only=ascii_only)
            style = "bold green" if value >= threshold else "cyan"
            lines.append(_line(keyword, (drawn, style), (f" {value:.2f} /{threshold:.2f}", "")))
        now_s = self._clock()
        last = [one for at_s, one in reversed(self._last) if now_s - at_s < _LAST_S]
        recent = ", ".join(f"{one.keyword} {one.score:.2f}" for one in last)
        lines.append(_line("detected", (recent, "bold")))
        for line in lines:
            line.truncate(width)
        return Text("\n", no_wrap=True, end="").join(lines)

    def _level(self, cells: int, *, ascii_only: bool) -> "Text":
        value, peak = map(level_share, (self._level_dbfs, self._peak_dbfs))
        colour = (
            "red" if self._peak_dbfs > -3.0 else "yellow" if self._peak_dbfs > -9.0 else "green"
        )
        drawn = bar(value, mark=peak, cells=cells, ascii_only=ascii_only)
        return _line("level", (drawn, colour), (f" {self._level_dbfs:4.0f} dBFS", ""))


@contextmanager
def live_meter() -> Iterator[
    tuple[Callable[["Samples", "Spotter"], None], Callable[["Detection"], None]]
]:
    """Show a meter on standard error until the end, then leave the terminal as it was.

    Yields two callables. The first takes every chunk and the spotter. The second takes a detection
    before it is printed: it clears the meter, which returns with the next chunk.
    """
    from rich.console import Console
    from rich.live import Live

    console, meter = Console(stderr=True), Meter()
    with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False) as live:
        drawn_s = 0.0

        def update(samples: "Samples", spotter: "Spotter") -> None:
            nonlocal drawn_s
            meter.update(samples, spotter)
            if (now_s := time.monotonic()) - drawn_s >= _PERIOD_S:
                drawn_s = now_s
                live.start()
                live.update(_rendered(meter, console), refresh=True)

        def make_way(detection: "Detection") -> None:
            meter.add_detection(detection)
            live.stop()

        yield update, make_way


def _rendered(meter: Meter, console: "Console") -> "Text":
    # The last column stays free: some terminals begin a new line after it.
    return meter.render(console.width - 1, ascii_only=console.options.ascii_only)


def _line(label: str, *parts: tuple[str, str]) -> "Text":
    from rich.text import Text

    return Text.assemble((f"{label[: _LABEL - 1]:<{_LABEL}}", ""), *parts, no_wrap=True)
