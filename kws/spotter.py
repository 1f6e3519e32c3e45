"""The pipeline: samples in, detections out.

::

    samples ─┬─▶ Gate ───────── open? ──┐
             └─▶ Features ─ frames ─▶ Model ─ posteriors ─▶ Decision ─▶ Detection

`Spotter.process` is synchronous and deterministic: no thread, no clock, no randomness, no I/O. Time
is a sample index, and the detections do not depend on how the samples were cut into chunks.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from msgspec.structs import replace

from kws.arrays import AnySamples, Samples
from kws.audio import SAMPLE_RATE_HZ, to_samples
from kws.config import DecisionSettings, GateSettings, ModelSettings, SourceSettings
from kws.detector import Detector, Posteriors
from kws.errors import AudioError, ConfigError, ModelError, did_you_mean
from kws.events import Detection, NearMiss, Peak
from kws.features import open_features
from kws.gate import Gate
from kws.manifest import Manifest
from kws.model import Model, model_path, open_model
from kws.model_group import grouped, merged
from kws.surest import SurestDetections, Timed

__all__ = ["AudioSource", "ModelSource", "Spotter", "open_for_sources"]

ModelSource: TypeAlias = str | os.PathLike[str] | ModelSettings | Model
"""A bundled model's name, a path, settings, or an opened model.

Of `ListenerSettings`, their own decision settings hold for the model.
"""
AudioSource: TypeAlias = str | os.PathLike[str] | SourceSettings | AnySamples | Iterable[AnySamples]
"""`"mic"`, a file, `"-"`, `"udp://..."`, settings, samples, or chunks of samples."""

_BLOCK_S = 1  # longer input is processed in blocks, so that memory stays bounded
_TAIL_S = 0.6  # a model answers up to half a second after a word's end


class Spotter:
    """Detect keywords in one stream of audio.

    Parameters
    ----------
    model : str, path, ModelSettings, Model, or a sequence of these
        A bundled model's name (`kws models` lists them), the path of a .tflite, or a model opened
        by `open_model`, which the spotter then uses alone. Several models share one gate, and the
        features where their settings are equal.
    threshold : float or None
        Smoothed posterior at which any keyword fires, 0..1; None: as `decision` says.
    false_alarms_per_hour : float or None
        A budget in place of a threshold, converted by the model's calibration table.
    gate : GateSettings, bool or None
        Voice activity detection; False runs the model on every frame, None and True are the
        defaults.
    decision : DecisionSettings or None
        What overrides the decision settings in the model's manifest.
    near_miss_score : float or None
        Least score of the near misses that are collected, 0..1; None collects none.

    Raises
    ------
    ModelError
        If a model cannot be used.
    ConfigError
        If a setting breaks its rule, names an unknown keyword, or does not fit the model.

    Attributes
    ----------
    keywords : tuple of str
        What can be detected.
    thresholds : dict of str to float
        Threshold of each keyword.
    manifests : tuple of Manifest
        One for each model.
    sample_rate_hz : int
        Of the samples that `process` takes: 16,000 for all models opened by name or path.

    Examples
    --------
    ::

        spotter = kws.Spotter("computer")
        for detection in spotter.listen("recording.wav"):
            print(detection.keyword, detection.score, detection.end_s)
    """

    def __init__(
        self,
        model: ModelSource | Sequence[ModelSource] = "commands",
        *,
        threshold: float | None = None,
        false_alarms_per_hour: float | None = None,
        gate: GateSettings | bool | None = None,
        decision: DecisionSettings | None = None,
        near_miss_score: float | None = None,
    ) -> None:
        gate = _gate_settings(gate)
        decision = _decision_settings(decision, threshold, false_alarms_per_hour)
        _check_score(near_miss_score)
        sources = _as_list(model)
        models = [open_for_sources(one) for one in sources]
        self.manifests: tuple[Manifest, ...] = tuple(one.manifest for one in models)
        self.sample_rate_hz = _common_rate_hz(self.manifests)
        self._gate = Gate(gate, sample_rate_hz=self.sample_rate_hz) if gate.enabled else None
        self._features = {
            manifest.features: open_features(manifest.features) for manifest in self.manifests
        }
        self._detectors = [
            Detector(
                one,
                gate=self._gate,
                decision=_of_model(
                    getattr(source, "decision", None) or decision, one.manifest, self.manifests
                ),
                near_miss_score=near_miss_score,
            )
            for source, one in zip(sources, models, strict=True)
        ]
        self._surest = SurestDetections(one.keywords for one in self._detectors)
        self._groups = grouped(models, self._detectors, gate=self._gate, settings=gate)
        self.keywords = tuple(dict.fromkeys(k for one in self._detectors for k in one.keywords))
        self.thresholds = merged(one.thresholds for one in self._detectors)
        self._peaks: list[Peak] = []
        self._n_samples = 0

    def reset(self) -> None:
        """Start a new stream at time zero."""
        if self._gate:
            self._gate.reset()
        for features in self._features.values():
            features.reset()
        for group in self._groups:
            group.reset()
        self._surest.reset()
        self._n_samples = 0

    @property
    def posteriors(self) -> dict[str, float]:
        """The last smoothed posterior of each keyword; 0 while the gate is closed."""
        return merged(group.posteriors() for group in self._groups)

    @property
    def gate_open(self) -> bool:
        """Whether the models ran on the last frames."""
        return any(group.steps.is_open for group in self._groups)

    def listen(self, source: AudioSource, /) -> Iterator[Detection]:
        """Process a source to its end, and yield each detection as soon as it is made.

        The stream starts anew; a source that ends is flushed.

        Parameters
        ----------
        source : str, path, SourceSettings, samples, or an iterable of samples
            `"mic"`, a file, `"-"`, `"udp://HOST:PORT"`, `"tcp://..."`, settings of a source; or
            samples as `process` takes them, in one piece or in chunks.

        Yields
        ------
        Detection

        Raises
        ------
        AudioError
            If the source cannot be opened or read. What was read before is processed first.
        """
        self.reset()
        if isinstance(source, str | os.PathLike):
            source = SourceSettings(input=os.fspath(source))
        if isinstance(source, SourceSettings):
            from kws.sources import open_source

            with open_source(source) as opened:
                yield from self._listen(opened)
        else:
            yield from self._listen(_chunks(source))

    def process(self, samples: AnySamples, /) -> list[Detection]:
        """Consume any number of samples; return the detections that they complete.

        Parameters
        ----------
        samples : int16 or float [shape=(n,)], or bytes
            Mono at `sample_rate_hz`; floats in -1..1; bytes are s16le. Any `n`, including 0.

        Returns
        -------
        list of Detection
            Oldest first, usually empty.

        Raises
        ------
        FormatError
            If `samples` is anything else.
        """
        samples = to_samples(samples)
        detections: list[Detection] = []
        block = _BLOCK_S * self.sample_rate_hz
        for start in range(0, max(1, len(samples)), block):
            detections += self._process_block(samples[start : start + block])
        return detections

    def flush(self) -> list[Detection]:
        """End the stream: append silence, return what is still detected, and reset.

        No detection ends after the stream's last sample.
        """
        duration_s = round(self._n_samples / self.sample_rate_hz, 3)
        detections = self.process(np.zeros(int(_TAIL_S * self.sample_rate_hz), np.int16))
        detections += self._surest.flush()
        for detector in self._detectors:
            detector.finish()
        self._peaks += self._surest.peaks(_taken([one.peaks for one in self._detectors]))
        self.reset()
        return [one.until(duration_s) for one in detections]

    def take_near_misses(self) -> list[NearMiss]:
        """Return the near misses that have ended since the last call, oldest first.

        At most 256 of each model are kept. They do not depend on how the samples were cut.
        """
        return _taken([one.near_misses for one in self._detectors])

    def take_peaks(self) -> list[Peak]:
        """Return the peaks of the detections whose posterior has fallen since the last call.

        At most 256 of each model are kept. They do not depend on how the samples were cut.
        """
        peaks = self._surest.peaks(_taken([one.peaks for one in self._detectors]))
        ended, self._peaks = self._peaks, []
        return ended + peaks

    def keep_posteriors(self, keep: bool, /) -> None:
        """Keep the smoothed posteriors of every output for `take_posteriors`, or no longer."""
        for detector in self._detectors:
            detector.keeps_posteriors = keep
            if not keep:
                detector.posteriors_of_outputs.clear()

    def take_posteriors(self) -> list[Posteriors]:
        """Return the posteriors of all outputs since the last call, oldest first.

        At most 256 of each model are kept, and none while the gate is closed.
        """
        return _taken([one.posteriors_of_outputs for one in self._detectors])

    def _listen(self, chunks: Iterable[AnySamples]) -> Iterator[Detection]:
        failure = None
        try:
            for chunk in chunks:
                yield from self.process(chunk)
        except AudioError as error:
            failure = error
        yield from self.flush()
        if failure:
            raise failure

    def _process_block(self, samples: Samples) -> list[Detection]:
        frames = {settings: one.process(samples) for settings, one in self._features.items()}
        self._n_samples += len(samples)
        verdicts = self._gate.process(samples) if self._gate else ()
        spotted = [
            one for group in self._groups for one in group.process(frames[group.features], verdicts)
        ]
        if len(self._detectors) == 1:
            return [one.detection for one in spotted]
        rate_hz = self.sample_rate_hz
        found = [Timed(one.known_sample / rate_hz, one.detection, one.detector) for one in spotted]
        found.sort(key=lambda one: one.known_s)
        return self._surest.process(found, now_s=self._n_samples / rate_hz)


def open_for_sources(model: Any) -> Model:
    """Open a model for the audio of sources; an opened one is returned as it is.

    Files that do not come with kws are run in a process of their own first.

    Parameters
    ----------
    model : str, path, ModelSettings or Model

    Raises
    ------
    ModelError
        If it cannot be used, has no keywords, or takes another sample rate than sources give.
    """
    if isinstance(model, str | os.PathLike):
        model = ModelSettings(name=os.fspath(model))
    if not isinstance(model, ModelSettings):
        if not hasattr(model, "manifest"):
            raise ConfigError(
                f"A model must be a bundled name, a path, ModelSettings or what `kws.open_model` "
                f'returns. Received: {model!r}. Pass "commands", for example.'
            )
        return model  # type: ignore[no-any-return]
    from kws.model_check import check_model  # a subprocess, for files that are not bundled

    path = model_path(model.name)
    check_model(path, n_threads=model.n_threads)
    opened = open_model(path, n_threads=model.n_threads)
    if not opened.manifest.keywords:
        raise ModelError(
            f"A model that detects keywords must have some. Received: {model.name}, which gives "
            f"embeddings only. Enroll a word on it with `kws enroll`."
        )
    if (rate_hz := opened.manifest.features.sample_rate_hz) != SAMPLE_RATE_HZ:
        raise ModelError(
            f"A model must take audio at {SAMPLE_RATE_HZ} Hz, the rate of every source. "
            f"Received: `{opened.manifest.name}` at {rate_hz} Hz. Train it again at that rate."
        )
    return opened


def _as_list(model: Any) -> list[ModelSource]:
    models = list(model) if isinstance(model, list | tuple) else [model]
    if not models:
        raise ConfigError("A spotter needs a model. Received: none. Name at least one.")
    return models


def _common_rate_hz(manifests: Sequence[Manifest]) -> int:
    rates_hz = {one.features.sample_rate_hz for one in manifests}
    if len(rates_hz) > 1:
        raise ModelError(
            f"Models of one spotter must take one sample rate. Received: {sorted(rates_hz)} Hz. "
            f"Use a spotter for each."
        )
    return rates_hz.pop()


def _gate_settings(gate: Any) -> GateSettings:
    if gate is None or isinstance(gate, bool):
        return GateSettings(enabled=gate is not False)
    if not isinstance(gate, GateSettings):
        raise ConfigError(
            f"`gate` must be GateSettings, True or False. Received: {gate!r}. "
            f"Pass GateSettings(hangover_ms=500), for example."
        )
    return gate


def _check_score(near_miss_score: Any) -> None:
    is_number = isinstance(near_miss_score, int | float)
    if near_miss_score is not None and not (is_number and 0 <= near_miss_score <= 1):
        raise ConfigError(
            f"`near_miss_score` must lie in 0..1. Received: {near_miss_score!r}. "
            f"Pass half of the threshold, for example."
        )


def _decision_settings(
    decision: Any, threshold: float | None, false_alarms_per_hour: float | None
) -> DecisionSettings:
    """Put the thresholds over the settings: they replace all thresholds in them."""
    decision = DecisionSettings() if decision is None else decision
    if not isinstance(decision, DecisionSettings):
        raise ConfigError(
            f"`decision` must be DecisionSettings. Received: {decision!r}. "
            f"Pass DecisionSettings(refractory_ms=1000), for example."
        )
    if threshold is None and false_alarms_per_hour is None:
        return decision
    return replace(
        decision, threshold=threshold, thresholds={}, false_alarms_per_hour=false_alarms_per_hour
    )


def _of_model(
    decision: DecisionSettings, manifest: Manifest, manifests: Sequence[Manifest]
) -> DecisionSettings:
    """Leave to one of several models the thresholds of its own keywords."""
    if len(manifests) == 1:
        return decision
    known = [keyword for one in manifests for keyword in one.keywords]
    for keyword in decision.thresholds:
        if keyword not in known:
            raise ConfigError(
                f"`thresholds` must name keywords of the models. Received: `{keyword}`."
                f"{did_you_mean(keyword, known)} They know: {', '.join(known)}."
            )
    own = {k: p for k, p in decision.thresholds.items() if k in manifest.keywords}
    return replace(decision, thresholds=own)


def _chunks(source: Any) -> Iterable[AnySamples]:
    """Return chunks of samples; samples in one piece are one chunk."""
    if isinstance(source, np.ndarray | bytes | bytearray | memoryview):
        return (source,)
    if not isinstance(source, Iterable):
        raise ConfigError(
            f"A source must be `mic`, a file, a URL, SourceSettings, samples, or an iterable of "
            f'samples. Received: {source!r}. Pass "mic", for example.'
        )
    return source


def _taken(queues: Sequence[Any]) -> list[Any]:
    """Empty the queues; return what was in them by its end."""
    taken = [one for queue in queues for one in queue]
    for queue in queues:
        queue.clear()
    return sorted(taken, key=lambda one: one.end_s) if len(queues) > 1 else taken
