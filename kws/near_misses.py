"""Smoothed posteriors in, near misses out: what rose far, and fell again without a detection."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kws.decision import Hit

__all__ = ["Peaks"]


class Peaks:
    """Find the highest point of each rise over `least` in which nothing fired.

    Parameters
    ----------
    labels : sequence of str
        The model's outputs.
    keywords : collection of str
        Those of them that count.
    least : float
        Smoothed posterior, 0..1.
    """

    def __init__(self, labels: Sequence[str], *, keywords: Collection[str], least: float) -> None:
        self._labels = labels
        # What is no keyword can never rise so far.
        self._least = np.array([least if one in keywords else np.inf for one in labels])
        self.reset()

    def reset(self) -> None:
        """Forget the rises under way."""
        self._n_steps = 0
        self._rises: dict[int, tuple[float, int]] = {}
        self._fired: set[int] = set()

    def step(self, smoothed: npt.NDArray[Any], /, *, has_fired: bool) -> list[Hit]:
        """Take the smoothed posteriors of one step.

        Parameters
        ----------
        smoothed : float [shape=(labels,)]
        has_fired : bool
            Whether a detection was made in this step: what is high now belongs to it.

        Returns
        -------
        list of Hit
            Rises that ended here, each with the steps since its highest point in `n_since_end`.
        """
        self._n_steps += 1
        is_high = smoothed >= self._least
        if not self._rises and not self._fired and not is_high.any():  # nearly always
            return []
        ended = [i for i in (*self._rises, *self._fired) if not is_high[i]]
        found = [self._hit(i) for i in ended if i in self._rises]
        for i in ended:
            self._rises.pop(i, None)
            self._fired.discard(i)
        high = np.flatnonzero(is_high).tolist()
        if has_fired:
            self._fired.update(high)
            self._rises.clear()
        for i in high:
            score = float(smoothed[i])
            if i not in self._fired and score > self._rises.get(i, (0.0, 0))[0]:
                self._rises[i] = (score, self._n_steps)
        return found

    def finish(self) -> list[Hit]:
        """Return the rises under way as if they ended here, as before a gap, and forget them."""
        found = [self._hit(i) for i in self._rises]
        self._rises.clear()
        self._fired.clear()
        return found

    def _hit(self, i: int) -> Hit:
        score, at = self._rises[i]
        return Hit(self._labels[i], score, n_since_end=self._n_steps - at)
