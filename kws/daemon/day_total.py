"""The total of what was counted in the last 24 hours."""

import time
from collections import deque
from collections.abc import Callable

__all__ = ["DayTotal"]

_DAY_S = 86_400.0
_STEP_S = 600.0


class DayTotal:
    """Sum amounts over the last 24 hours, in steps of ten minutes.

    Parameters
    ----------
    clock : callable
        Gives seconds, which never run backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steps: deque[tuple[float, float]] = deque()

    def add(self, amount: float = 1.0) -> None:
        """Add an amount now."""
        step_s = self._clock() // _STEP_S * _STEP_S
        if self._steps and self._steps[-1][0] == step_s:
            step_s, former = self._steps.pop()
            amount += former
        self._steps.append((step_s, amount))

    def total(self) -> float:
        """Return the sum of the last 24 hours, or since the start."""
        while self._steps and self._steps[0][0] <= self._clock() - _DAY_S - _STEP_S:
            self._steps.popleft()
        return sum(amount for _, amount in self._steps)
