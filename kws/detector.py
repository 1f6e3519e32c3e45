"""One model on a stream of steps: its decision, and the times of its events."""

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from kws.config import DecisionSettings
from kws.ctc_decision import PhraseDecision, phrases_for
from kws.decision import Decision, Hit, thresholds_for
from kws.events import Detection, NearMiss, Peak
from kws.gate import Gate
from kws.gated_steps import Step
from kws.model import Model
from kws.near_misses import near_misses_of
from kws.speaker import SpeakerVerifier

__all__ = ["Detector", "Posteriors", "Spotted"]

_MOST_KEPT = 256


class Spotted(NamedTuple):
    """A detection, and the sample at which it was known: later than its word's end."""

    known_sample: int
    detection: Detection
    detector: "Detector"


class Posteriors(NamedTuple):
    """The smoothed posteriors of one output of a model, at the time of the events that it gives."""

    model: str
    end_s: float
    scores: list[float]
    """One for each keyword of the model, in its order."""


class Detector:
    """Run one model on steps of frames and turn its posteriors into detections.

    Parameters
    ----------
    model : Model
        Opened by `open_model`; used by this detector alone.
    gate : Gate or None
        The gate of the stream, which knows the onset of speech.
    decision : DecisionSettings
        What overrides the decision settings of the model's manifest.
    near_miss_score : float or None
        Least score of near misses; None: none are collected.

    Attributes
    ----------
    model : Model
    manifest : Manifest
    keywords : tuple of str
        What can be detected: the model's keywords, or phrases of them.
    thresholds : dict of str to float
        Threshold of each keyword of the model.
    near_misses : deque of NearMiss
        Oldest first, 256 at most; the caller removes them.
    peaks : deque of Peak
        Likewise.
    keeps_posteriors : bool
        Whether `posteriors_of_outputs` is filled; off at first.
    posteriors_of_outputs : deque of Posteriors
        Likewise.
    verifier : SpeakerVerifier or None
        Of a model that verifies the speaker; it must hear the frames behind each step first.

    Raises
    ------
    ConfigError
        If the settings do not fit the model.
    ModelError
        If the model's check of the speaker cannot be used.
    """

    def __init__(
        self,
        model: Model,
        *,
        gate: Gate | None,
        decision: DecisionSettings,
        near_miss_score: float | None,
    ) -> None:
        manifest = model.manifest
        self.manifest = manifest
        self.model = model
        self._gate = gate
        self._output_samples = manifest.call_samples // model.n_outputs
        self._overlap_samples = manifest.features.window_samples - manifest.features.hop_samples
        self.keywords = phrases_for(decision, manifest) or manifest.keywords
        self.thresholds = thresholds_for(decision, manifest)
        decide = PhraseDecision if manifest.decision.kind == "ctc" else Decision
        self._decision: Decision | PhraseDecision = decide.of(
            manifest, thresholds=self.thresholds, settings=decision, n_outputs=model.n_outputs
        )
        self._near_misses = near_misses_of(manifest, least=near_miss_score)
        self.near_misses: deque[NearMiss] = deque(maxlen=_MOST_KEPT)
        self.peaks: deque[Peak] = deque(maxlen=_MOST_KEPT)
        self.keeps_posteriors = False
        self.posteriors_of_outputs: deque[Posteriors] = deque(maxlen=_MOST_KEPT)
        self.verifier = SpeakerVerifier(manifest) if manifest.speaker else None
        self._keyword_at = [manifest.labels.index(one) for one in manifest.keywords]
        self.reset()

    def reset(self) -> None:
        """Start a new stream at time zero."""
        self.model.reset()
        self._decision.reset()
        if self.verifier:
            self.verifier.reset()
        if self._near_misses:
            self._near_misses.reset()
        self._rising: dict[str, Detection] = {}
        self._last_end_s = 0.0
        self._now_sample = 0
        self._n_until_warm = 0

    @property
    def posteriors(self) -> dict[str, float]:
        """The last smoothed posterior of each keyword; of a CTC model, the last posterior."""
        known = dict(zip(self.manifest.labels, self._decision.smoothed.tolist(), strict=True))
        return {keyword: known[keyword] for keyword in self.manifest.keywords}

    def step(self, step: Step, /, *, n_context: int = 0) -> Iterator[Spotted]:
        """Run the model on a step; yield the detections that it gives.

        Parameters
        ----------
        step : Step
        n_context : int
            Steps after a gap whose outputs are not decided on: they depend on what was before.
        """
        if step.n_lost:
            self.finish()
            self.model.reset()
            self._decision.restart()
            self._decision.skip(step.n_lost * self.model.n_outputs)
            self._n_until_warm = n_context
        decision, near_misses = self._decision, self._near_misses
        outputs = self.model.step(step.frames)
        if self._n_until_warm:
            self._n_until_warm -= 1
            decision.skip(len(outputs))
            return
        for output, posteriors in enumerate(outputs):
            hit = decision.step(posteriors)
            self._now_sample = self._end_sample(step, output)
            if self.keeps_posteriors:
                self._keep_posteriors()
            if near_misses:
                for missed in near_misses.step(decision, has_fired=hit is not None):
                    self.near_misses.append(NearMiss(**self._fields(missed)))
            detection = self._detection(hit) if hit else None
            if decision.peaks:
                self._collect_peaks()
            if detection:
                yield Spotted(step.known_sample, detection, self)

    def finish(self) -> None:
        """End the rises under way, as at the end of a stream: to near misses and peaks."""
        for hit in self._near_misses.finish() if self._near_misses else ():
            self.near_misses.append(NearMiss(**self._fields(hit)))
        self._decision.end_rises()
        self._collect_peaks()

    def _detection(self, hit: Hit) -> Detection | None:
        """Return a detection, unless another than the enrolled speaker said it: a near miss."""
        fields = self._fields(hit)
        if self.verifier:
            rate_hz = self.manifest.features.sample_rate_hz
            alike = self.verifier.score(round(fields["end_s"] * rate_hz))
            fields["speaker"] = round(alike, 3)
            if not alike >= self.verifier.threshold:
                if self._near_misses:
                    self.near_misses.append(NearMiss(**fields))
                return None
        detection = Detection(**fields)
        self._last_end_s = detection.end_s
        self._rising[hit.keyword] = detection
        return detection

    def _collect_peaks(self) -> None:
        for keyword, peak in self._decision.peaks:
            if detection := self._rising.pop(keyword, None):  # none of another speaker's word
                self.peaks.append(Peak(**detection.fields(), peak=round(peak, 3)))
        self._decision.peaks.clear()

    def _keep_posteriors(self) -> None:
        defaults, rate_hz = self.manifest.decision, self.manifest.features.sample_rate_hz
        end_s = max(0.0, self._now_sample / rate_hz - defaults.delay_ms / 1000)
        scores = self._decision.smoothed[self._keyword_at].tolist()
        self.posteriors_of_outputs.append(Posteriors(self.manifest.name, round(end_s, 3), scores))

    def _end_sample(self, step: Step, output: int) -> int:
        """Return the end of the last frame behind an output."""
        n_samples = step.start_sample + (output + 1) * self._output_samples
        return n_samples + self._overlap_samples

    def _fields(self, hit: Hit) -> dict[str, Any]:
        """Return the fields of the event that a hit at the current output becomes."""
        defaults = self.manifest.decision
        rate_hz = self.manifest.features.sample_rate_hz
        end_sample = self._now_sample - hit.n_since_end * self._output_samples
        end_s = max(0.0, end_sample / rate_hz - defaults.delay_ms / 1000)
        if hit.n_since_start is None:
            start_s = self._onset_s(end_s)
        else:
            start_s = (self._now_sample - hit.n_since_start * self._output_samples) / rate_hz
        if start_s is not None:
            start_s = round(min(end_s, max(self._last_end_s, start_s)), 3)
        return {
            "keyword": hit.keyword,
            "score": round(hit.score, 3),
            "start_s": start_s,
            "end_s": round(end_s, 3),
            "model": self.manifest.name,
        }

    def _onset_s(self, end_s: float) -> float | None:
        """Estimate a word's start: the onset of the speech that it ends, unless that is too long.

        Within running speech the onset of the speech says nothing of the word.
        """
        rate_hz = self.manifest.features.sample_rate_hz
        onset = self._gate.onset_sample(round(end_s * rate_hz)) if self._gate else None
        longest_s = 2 * self.manifest.decision.word_ms / 1000
        if onset is None or end_s - onset / rate_hz > longest_s:
            return None
        return onset / rate_hz
