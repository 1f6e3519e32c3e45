"""Several models on one source: a spotter each, one stream of detections."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import cast

from kws.audio import Samples
from kws.commands.listen import open_spotter
from kws.config import GateSettings, ListenerSettings
from kws.events import Detection
from kws.spotter import Spotter

__all__ = ["open_spotters"]


def open_spotters(models: Sequence[ListenerSettings], *, gate: GateSettings) -> Spotter:
    """Open a spotter per model and join them into one; errors as in `open_spotter`."""
    spotters = [open_spotter(one, gate=gate, decision=one.decision) for one in models]
    if len(spotters) == 1:
        return spotters[0]
    return cast(Spotter, _Joined(spotters))


class _Joined:
    """What `kws listen` uses of a spotter, of several."""

    def __init__(self, spotters: Sequence[Spotter]) -> None:
        self._spotters = spotters

    @property
    def keywords(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(chain.from_iterable(one.keywords for one in self._spotters)))

    @property
    def gate_open(self) -> bool:
        return any(one.gate_open for one in self._spotters)

    @property
    def posteriors(self) -> Mapping[str, float]:
        return _merged(one.posteriors for one in self._spotters)

    @property
    def thresholds(self) -> Mapping[str, float]:
        return _merged(one.thresholds for one in self._spotters)

    def process(self, samples: Samples, /) -> list[Detection]:
        return _by_end(one.process(samples) for one in self._spotters)

    def flush(self) -> list[Detection]:
        return _by_end(one.flush() for one in self._spotters)


def _merged(values: Iterable[Mapping[str, float]]) -> Mapping[str, float]:
    return {keyword: value for one in values for keyword, value in one.items()}


def _by_end(detections: Iterable[list[Detection]]) -> list[Detection]:
    return sorted(chain.from_iterable(detections), key=lambda one: one.end_s)
