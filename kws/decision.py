"""Decision on words: smoothing, threshold, rising edge and refractory time."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kws.config import DecisionSettings
from kws.errors import ConfigError, did_you_mean
from kws.manifest import Manifest

__all__ = ["Decision", "Hit", "most_false_alarms_per_hour", "thresholds_for"]


class Hit(NamedTuple):
    """A keyword whose smoothed posterior has just risen above its threshold."""

    keyword: str
    score: float
    n_since_start: int | None = None
    """Outputs since its first sound; None: unknown."""
    n_since_end: int = 0
    """Outputs since its last sound."""


class Decision:
    """Turn a stream of posteriors into hits.

    A keyword fires when the moving average of its posterior rises above its threshold; of several
    at once, the one furthest above its own. It can fire again only after the average has fallen
    below the threshold and the refractory time, which is common to all keywords, is over. A rise
    during that time is not reported later.

    Parameters
    ----------
    labels : sequence of str
        The model's outputs.
    thresholds : mapping of str to float
        For each keyword.
    n_smoothing : int
        Length of the moving average, in steps; 1 is none.
    n_refractory : int
        Steps after a hit in which nothing fires.
    patience : int
        Averages in a row that must reach the threshold; 1 fires on the first.

    Attributes
    ----------
    smoothed : float32 [shape=(labels,)]
        The moving average after the last step; with a patience, the least of so many averages.
    n_refractory : int
    peaks : list of (str, float)
        Keyword and peak of each hit whose rise has ended; the caller removes them.
    """

    def __init__(
        self,
        labels: tuple[str, ...],
        *,
        thresholds: Mapping[str, float],
        n_smoothing: int,
        n_refractory: int,
        patience: int = 1,
    ) -> None:
        self._labels = labels
        # Labels that are no keywords never rise above their threshold.
        self._thresholds = np.array([thresholds.get(one, np.inf) for one in labels], np.float32)
        self._n_smoothing = max(1, n_smoothing)
        self.n_refractory = n_refractory
        self._patience = patience
        self._weight = np.float32(1 / self._n_smoothing)
        self.reset()

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        *,
        thresholds: Mapping[str, float],
        settings: DecisionSettings | None = None,
        n_outputs: int = 1,
    ) -> "Decision":
        """Return the decision for a model that gives `n_outputs` vectors of posteriors a call."""
        settings = settings or DecisionSettings()
        defaults = manifest.decision
        smoothing_ms = _chosen(settings.smoothing_ms, defaults.smoothing_ms)
        refractory_ms = _chosen(settings.refractory_ms, defaults.refractory_ms)
        return cls(
            manifest.labels,
            thresholds=thresholds,
            n_smoothing=round(smoothing_ms * n_outputs / manifest.call_ms),
            n_refractory=round(refractory_ms * n_outputs / manifest.call_ms),
            patience=settings.patience,
        )

    def reset(self) -> None:
        """Forget all posteriors and the refractory time."""
        self._refractory = 0
        self._rising: dict[int, float] = {}
        self.peaks: list[tuple[str, float]] = []
        self.restart()

    def restart(self) -> None:
        """Forget the posteriors, as after a gap in them, but not the refractory time."""
        self.end_rises()
        self._recent = np.zeros((self._n_smoothing, len(self._labels)), np.float32)
        self._at = 0
        self._averages = np.zeros((self._patience, len(self._labels)), np.float32)
        self._armed = np.ones(len(self._labels), bool)
        self._all_armed = True
        self.smoothed = np.zeros(len(self._labels), np.float32)

    def skip(self, n_steps: int) -> None:
        """Advance the refractory time by outputs without posteriors."""
        self._refractory = max(0, self._refractory - n_steps)

    def step(self, posteriors: npt.NDArray[Any], /) -> Hit | None:
        """Process the posteriors of one output.

        Parameters
        ----------
        posteriors : float [shape=(labels,)]
            What lies outside 0..1, as only a damaged or malicious model gives it, is taken for the
            nearer end; what is no number for 0.

        Returns
        -------
        Hit or None
        """
        np.minimum(np.fmax(posteriors, 0.0), 1.0, out=self._recent[self._at])
        self._at = (self._at + 1) % self._n_smoothing
        self.smoothed = np.add.reduce(self._recent) * self._weight
        if self._patience > 1:
            self._averages[:-1] = self._averages[1:]
            self._averages[-1] = self.smoothed
            self.smoothed = np.minimum.reduce(self._averages)
        resting = self._refractory > 0
        self._refractory -= resting
        above = self.smoothed - self._thresholds
        if max(above.tolist()) < 0:  # nearly always
            self._all_armed = True
            if self._rising:
                self.end_rises()
            return None
        fires = (above >= 0) & (self._all_armed | self._armed)
        self._armed = above < 0
        self._all_armed = False
        if self._rising:
            self._follow(self._armed)
        if resting or not fires.any():
            return None
        i = int(np.where(fires, above, -1.0).argmax())
        self._refractory = self.n_refractory
        self._rising[i] = float(self.smoothed[i])
        return Hit(self._labels[i], self._rising[i])

    def end_rises(self) -> None:
        """End the rises under way, as before a gap."""
        self.peaks += [(self._labels[i], peak) for i, peak in self._rising.items()]
        self._rising = {}

    def _follow(self, is_below: npt.NDArray[np.bool_]) -> None:
        """Update the peaks of the rises under way, and end those that are over."""
        for i, peak in tuple(self._rising.items()):
            if is_below[i]:
                self.peaks.append((self._labels[i], self._rising.pop(i)))
            else:
                self._rising[i] = max(peak, float(self.smoothed[i]))


def thresholds_for(settings: DecisionSettings, manifest: Manifest) -> dict[str, float]:
    """Return the threshold of each keyword: by name, by budget, or the default.

    Raises
    ------
    ConfigError
        If a named keyword is not one of the model, if both a threshold and a budget are given, or
        if the budget lies outside the calibration table.
    """
    for keyword in settings.thresholds:
        if keyword not in manifest.keywords:
            raise ConfigError(
                f"`[decision.thresholds]` must name keywords of the model `{manifest.name}`. "
                f"Received: `{keyword}`.{did_you_mean(keyword, manifest.keywords)} "
                f"It knows: {', '.join(manifest.keywords)}."
            )
    if settings.false_alarms_per_hour is not None:
        if settings.threshold is not None:
            raise ConfigError(
                "`threshold` and `false_alarms_per_hour` exclude each other. Received: both. "
                "Keep one."
            )
        chosen = _calibrated(settings.false_alarms_per_hour, manifest)
    else:
        value = manifest.decision.threshold if settings.threshold is None else settings.threshold
        chosen = dict.fromkeys(manifest.keywords, value)
    return chosen | settings.thresholds


def most_false_alarms_per_hour(thresholds: Mapping[str, float], manifest: Manifest) -> float | None:
    """Return the rate of the calibration table that some thresholds do not exceed.

    Parameters
    ----------
    thresholds : mapping of str to float
        For each keyword.
    manifest : Manifest

    Returns
    -------
    float or None
        The lowest rate whose thresholds, interpolated, are nowhere above the given ones; at least
        the lowest of the table. None if there is none, or no table.
    """
    points = sorted(manifest.calibration, key=lambda point: point.false_alarms_per_hour)
    log_rates = np.log([point.false_alarms_per_hour for point in points])
    most: list[float] = []
    for word in manifest.keywords if points else ():
        table = [point.thresholds.get(word, manifest.decision.threshold) for point in points]
        # Where several rates have the same threshold, the lowest counts.
        levels, first = np.unique(np.minimum.accumulate(table), return_index=True)
        if thresholds[word] < levels[0]:
            return None
        most.append(float(np.interp(thresholds[word], levels, log_rates[first])))
    return round(float(np.exp(max(most))), 6) if most else None


def _chosen(setting: int | None, default: int) -> int:
    return default if setting is None else setting


def _calibrated(false_alarms_per_hour: float, manifest: Manifest) -> dict[str, float]:
    """Interpolate the calibration table; linear in the logarithm of the rate."""
    points = sorted(manifest.calibration, key=lambda point: point.false_alarms_per_hour)
    rates = [point.false_alarms_per_hour for point in points]
    if not points or not rates[0] <= false_alarms_per_hour <= rates[-1]:
        known = f"{rates[0]:g} to {rates[-1]:g}" if points else "none: it has no calibration table"
        raise ConfigError(
            f"`false_alarms_per_hour` must lie in what the model `{manifest.name}` was calibrated "
            f"for: {known}. Received: {false_alarms_per_hour:g}. Choose from that, or set "
            f"`threshold`."
        )
    return {
        word: float(
            np.interp(
                np.log(false_alarms_per_hour),
                np.log(rates),
                [point.thresholds.get(word, manifest.decision.threshold) for point in points],
            )
        )
        for word in manifest.keywords
    }
