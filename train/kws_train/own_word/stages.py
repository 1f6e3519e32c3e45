"""Progress of `kws new`: which stage of how many it is in, and the time left."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import keras

from kws.run_progress import ProgressWriter

__all__ = ["EpochProgress", "Stages", "describe_minutes"]

_EVERY_S = 15.0


class Stages:
    """The stages of a run in order, with an estimate of each in minutes.

    Parameters
    ----------
    minutes : mapping of str to float
        Estimate of each stage, in order.
    notify : callable
        Receives a line at the beginning of each stage.
    progress : ProgressWriter or None
        Told of each stage, for the page in the browser.
    """

    def __init__(
        self,
        minutes: Mapping[str, float],
        *,
        notify: Callable[[str], None],
        progress: ProgressWriter | None = None,
    ) -> None:
        self._minutes = dict(minutes)
        self._notify, self._progress = notify, progress

    def begin(self, name: str) -> None:
        """Announce a stage: `2 of 7, training: about 15 min left in all`."""
        names = list(self._minutes)
        at = names.index(name)
        left = sum(self._minutes[one] for one in names[at:])
        if self._progress:
            self._progress.begin(name)
        self._notify(f"{at + 1} of {len(names)}, {name}: {describe_minutes(left)} left in all")


class EpochProgress(keras.callbacks.Callback):
    """Notify of a training's progress every quarter of a minute, in place of Keras' own lines.

    Parameters
    ----------
    n_epochs : int
        Of all stages of the training together.
    notify : callable
    """

    def __init__(self, n_epochs: int, *, notify: Callable[[str], None]) -> None:
        super().__init__()
        self._n_epochs, self._notify = n_epochs, notify
        self._n_done = 0
        self._started_s = self._said_s = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Count an epoch, and estimate the time left from those before."""
        self._n_done += 1
        now_s = time.monotonic()
        if now_s - self._said_s < _EVERY_S and self._n_done < self._n_epochs:
            return
        self._said_s = now_s
        left_s = (now_s - self._started_s) / self._n_done * (self._n_epochs - self._n_done)
        self._notify(
            f"  epoch {self._n_done} of {self._n_epochs}: {describe_minutes(left_s / 60)} left"
        )


def describe_minutes(minutes: float) -> str:
    """Return a time in words, such as `about 3 min`."""
    return "less than 1 min" if minutes < 1 else f"about {round(minutes)} min"
