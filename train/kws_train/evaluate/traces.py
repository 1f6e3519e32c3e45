"""Smoothed posteriors of a model over a stream, computed once for detections at any threshold.

The model runs inside the runtime's own `Spotter`, with the gate or without it.
`Trace.detections` returns what that spotter would have reported at given thresholds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kws.arrays import Samples
from kws.config import GateSettings
from kws.decision import Decision
from kws.events import Detection
from kws.manifest import Manifest
from kws.model import Model
from kws.spotter import Spotter

__all__ = ["TAIL_SAMPLES", "Trace", "posterior_trace", "silence_before"]

Scores: TypeAlias = npt.NDArray[np.float32]

TAIL_SAMPLES = 8000  # a model answers up to half a second after a word
_FLOOR = 0.2


@dataclass(frozen=True)
class Trace:
    """The decision's moving average over a stream, at every output of the model.

    Attributes
    ----------
    manifest : Manifest
    smoothed : float32 [shape=(outputs, keywords)]
        Zero where the gate was closed.
    n_outputs : int
        Outputs of the model per call.
    duration_s : float
    """

    manifest: Manifest
    smoothed: Scores
    n_outputs: int
    duration_s: float

    def detections(self, thresholds: float | Mapping[str, float]) -> list[Detection]:
        """Return what the spotter would have reported at these thresholds.

        Parameters
        ----------
        thresholds : float or mapping of str to float
            One for all keywords, or each keyword's own; at least 0.2.
        """
        keywords = self.manifest.keywords
        if not isinstance(thresholds, Mapping):
            thresholds = dict.fromkeys(keywords, thresholds)
        least = np.array([thresholds[keyword] for keyword in keywords], np.float32)
        at, now, before = self._high
        fires = (now >= least) & (before < least)  # a rising edge, as in `Decision.step`
        rows = np.flatnonzero(fires.any(axis=1))
        chosen = np.where(fires[rows], now[rows] - least, -1.0).argmax(axis=1)
        found, free_from = [], 0
        for row, keyword in zip(rows.tolist(), chosen.tolist(), strict=True):
            if (output := int(at[row])) >= free_from:
                free_from = output + self._n_refractory + 1
                found.append(self._detection(output, keywords[keyword], float(now[row, keyword])))
        return found

    def time_s(self, output: int) -> float:
        """Return the end of the last frame of an output, in seconds."""
        settings = self.manifest.features
        output_samples = self.manifest.call_samples // self.n_outputs
        overlap = settings.window_samples - settings.hop_samples
        return ((output + 1) * output_samples + overlap) / settings.sample_rate_hz

    def peak(self, keyword: str, start_s: float, end_s: float) -> float:
        """Return the highest score of a keyword between two times."""
        first, second = self.time_s(0), self.time_s(1)
        start, end = (round((at - first) / (second - first)) for at in (start_s, end_s))
        column = self.manifest.keywords.index(keyword)
        return float(self.smoothed[max(0, start) : max(0, end) + 1, column].max(initial=0.0))

    def levels(self) -> npt.NDArray[np.float32]:
        """Return the local maxima of the averages: only these thresholds change the detections."""
        padded = np.pad(self.smoothed, ((1, 1), (0, 0)))
        middle = padded[1:-1]
        tops = middle[(middle > padded[:-2]) & (middle >= padded[2:]) & (middle >= _FLOOR)]
        return np.unique(tops)

    def _detection(self, output: int, keyword: str, score: float) -> Detection:
        delay_s = self.manifest.decision.delay_ms / 1000
        end_s = round(min(max(0.0, self.time_s(output) - delay_s), self.duration_s), 3)
        return Detection(
            keyword=keyword,
            score=score,
            start_s=max(0.0, end_s - self.manifest.decision.word_ms / 1000),
            end_s=end_s,
            model=self.manifest.name,
        )

    @cached_property
    def _high(self) -> tuple[npt.NDArray[np.intp], Scores, Scores]:
        """Outputs with a keyword above the floor, their scores, and those one output before."""
        at = np.flatnonzero((self.smoothed >= _FLOOR).any(axis=1))
        before = np.where(at[:, None] > 0, self.smoothed[at - 1], np.float32(0))
        return at, self.smoothed[at], before

    @cached_property
    def _n_refractory(self) -> int:
        manifest = self.manifest
        return _decision(manifest, self.n_outputs).n_refractory


def posterior_trace(model: Model, samples: Samples, *, gate: GateSettings | None = None) -> Trace:
    """Run a spotter over samples from a fresh state, followed by half a second of silence.

    Parameters
    ----------
    model : Model
    samples : int16 [shape=(n,)]
    gate : GateSettings, optional
        Default: no gate, the model runs on every frame.
    """
    manifest = model.manifest
    recorder = _Recorder(model)
    spotter = Spotter(recorder, gate=gate or GateSettings(enabled=False))
    decision = _decision(manifest, model.n_outputs)
    settings = manifest.features
    step_samples = manifest.call_samples
    padded = np.concatenate((samples, np.zeros(TAIL_SAMPLES, np.int16)))
    # After the first frame's overlap, every `step_samples` complete exactly one step.
    start = settings.window_samples - settings.hop_samples
    n_steps = max(0, len(padded) - start) // step_samples
    smoothed = np.zeros((n_steps, model.n_outputs, len(manifest.labels)), np.float32)
    spotter.process(padded[:start])
    for step in range(n_steps):
        spotter.process(padded[start : start + step_samples])
        start += step_samples
        if recorder.was_reset:
            decision.restart()
        for i, rows in enumerate(recorder.rows, start=step + 1 - len(recorder.rows)):
            for output, row in enumerate(rows):
                decision.step(row)
                smoothed[i, output] = decision.smoothed
        recorder.clear()
    flat = smoothed.reshape(-1, len(manifest.labels))
    columns = [manifest.labels.index(keyword) for keyword in manifest.keywords]
    duration_s = len(samples) / settings.sample_rate_hz
    return Trace(manifest, flat[:, columns], model.n_outputs, round(duration_s, 3))


def silence_before(manifest: Manifest) -> Samples:
    """Return silence as long as the context of a model's output; of most models none is stated."""
    n = round(manifest.context_ms / 1000 * manifest.features.sample_rate_hz)
    return np.zeros(n, np.int16)


def _decision(manifest: Manifest, n_outputs: int) -> Decision:
    """Return the runtime's decision, with thresholds that no score reaches."""
    return Decision.of(manifest, thresholds={}, n_outputs=n_outputs)


class _Recorder(Model):
    """A model that forwards to another one and records its posteriors."""

    def __init__(self, model: Model) -> None:
        self.manifest = model.manifest
        self.n_outputs = model.n_outputs
        self._model = model
        self.clear()

    @property
    def embedding_inside(self) -> bytes | None:
        """The embedding in the file of the model that is recorded."""
        return self._model.embedding_inside

    def clear(self) -> None:
        self.was_reset = False
        self.rows: list[npt.NDArray[Any]] = []

    def reset(self) -> None:
        self._model.reset()
        self.was_reset = True

    def step(self, frames: npt.NDArray[Any], /) -> npt.NDArray[Any]:
        self.rows.append(self._model.step(frames))
        return self.rows[-1]
