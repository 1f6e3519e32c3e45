"""Models that take the same steps of one stream: the gate, and an embedding, run once for all."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from kws.config import GateSettings
from kws.detector import Detector, Spotted
from kws.gate import Gate
from kws.gated_steps import GatedSteps, Step
from kws.manifest import FeatureSettings
from kws.model import (
    Model,
    n_cold_vectors,
    n_context_vectors,
    open_embedding,
    share_inputs,
    start_after_silence,
)

__all__ = ["ModelGroup", "grouped", "merged"]


class ModelGroup:
    """Detectors whose models take the same steps: of frames, or of vectors of one embedding.

    Parameters
    ----------
    features : FeatureSettings
        Of the frames.
    steps : GatedSteps
    embedding : Model or None
        The speech embedding that turns steps of frames into steps of vectors.
    detectors : list of Detector
    """

    def __init__(
        self,
        features: FeatureSettings,
        steps: GatedSteps,
        embedding: Model | None,
        detectors: list[Detector],
    ) -> None:
        self.features = features
        self.steps = steps
        self._embedding = embedding
        self._detectors = detectors
        self._verifiers = [one.verifier for one in detectors if one.verifier]
        self._contexts = [0] * len(detectors)
        self._n_cold = self._n_until_warm = self._n_lost = 0
        if embedding:
            self._n_cold = n_cold_vectors(embedding.manifest)
            self._contexts = [
                n_context_vectors(one.manifest, embedding.manifest) for one in detectors
            ]
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        self.steps.reset()
        self._n_until_warm = self._n_lost = 0
        for detector in self._detectors:
            detector.reset()
        if self._embedding:
            models = [one.model for one in self._detectors]
            heads = dict(zip(models, self._contexts, strict=True))
            start_after_silence(self._embedding, heads)

    def posteriors(self) -> dict[str, float]:
        """Return the last smoothed posteriors; 0 while the gate is closed."""
        known = merged(one.posteriors for one in self._detectors)
        return known if self.steps.is_open else dict.fromkeys(known, 0.0)

    def process(self, frames: npt.NDArray[Any], verdicts: Sequence[bool]) -> Iterator[Spotted]:
        """Run all models on the steps that the frames complete."""
        for step in self.steps.process(frames, verdicts):
            for verifier in self._verifiers:
                verifier.hear(step)
            if self._embedding is None:
                yield from self._spotted(step)
            elif (embedded := self._embed(self._embedding, step)) is not None:
                yield from self._spotted(embedded)

    def _spotted(self, step: Step) -> Iterator[Spotted]:
        for detector, n_context in zip(self._detectors, self._contexts, strict=True):
            yield from detector.step(step, n_context=n_context)

    def _embed(self, embedding: Model, step: Step) -> Step | None:
        """Return the step's vectors; None after a gap until none depends on frames before it."""
        if step.n_lost:
            embedding.reset()
            self._n_until_warm = self._n_cold
            self._n_lost = step.n_lost
        vectors = embedding.step(step.frames)
        if self._n_until_warm:
            self._n_until_warm -= 1
            self._n_lost += 1
            return None
        n_lost, self._n_lost = self._n_lost, 0
        return step._replace(frames=vectors, n_lost=n_lost)


def grouped(
    models: Sequence[Model],
    detectors: Sequence[Detector],
    *,
    gate: Gate | None,
    settings: GateSettings,
) -> list[ModelGroup]:
    """Group the models that take the same steps, so that each is computed once."""
    members: dict[Any, list[int]] = {}
    for i, model in enumerate(models):
        manifest = model.manifest
        members.setdefault((manifest.features, manifest.call_samples, manifest.takes), []).append(i)
    groups = []
    for (features, call_samples, takes), indices in members.items():
        embedding = None
        if takes:
            embedding = open_embedding(*(models[i] for i in indices))
        if len(indices) > 1:
            share_inputs(models[i] for i in indices)
        context_ms = max(models[i].manifest.context_ms for i in indices)
        steps = GatedSteps(
            features,
            hop_frames=call_samples // features.hop_samples,
            gate=gate,
            pre_roll_ms=max(settings.pre_roll_ms, context_ms),
        )
        groups.append(ModelGroup(features, steps, embedding, [detectors[i] for i in indices]))
    return groups


def merged(values: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Join what is known by keyword; where models share one, the greater value."""
    joined: dict[str, float] = {}
    for one in values:
        for keyword, value in one.items():
            joined[keyword] = max(value, joined.get(keyword, value))
    return joined
