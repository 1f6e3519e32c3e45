"""One model on a stream of frames: gate, pre-roll, decision, and the times of its events."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kws.config import DecisionSettings
from kws.ctc_decision import PhraseDecision, phrases_for
from kws.decision import Decision, Hit, thresholds_for
from kws.events import Detection, NearMiss, Peak
from kws.gate import Gate
from kws.model import Model
from kws.near_misses import near_misses_of

__all__ = ["Detector", "Spotted"]

_MOST_KEPT = 256


class Spotted(NamedTuple):
    """A detection, and the sample at which it was known: later than its word's end."""

    known_sample: int
    detection: Detection


class Detector:
    """Run one model on feature frames and turn its posteriors into detections.

    Parameters
    ----------
    model : Model
        Opened by `open_model`; used by this detector alone.
    gate : Gate or None
        The gate of the stream, for the onset of speech; None: the model runs on every frame.
    pre_roll_ms : int
        Frames before the gate's opening that the model is run on first.
    decision : DecisionSettings
        What overrides the decision settings of the model's manifest.
    near_miss_score : float or None
        Least score of near misses; None: none are collected.

    Attributes
    ----------
    manifest : Manifest
    keywords : tuple of str
        What can be detected: the model's keywords, or phrases of them.
    thresholds : dict of str to float
        Threshold of each keyword of the model.
    near_misses : deque of NearMiss
        Oldest first, 256 at most; the caller removes them.
    peaks : deque of Peak
        Likewise.
    gate_open : bool
        Whether the model ran on the last frames.

    Raises
    ------
    ConfigError
        If the settings do not fit the model.
    """

    def __init__(
        self,
        model: Model,
        *,
        gate: Gate | None,
        pre_roll_ms: int,
        decision: DecisionSettings,
        near_miss_score: float | None,
    ) -> None:
        manifest = model.manifest
        self.manifest = manifest
        self._model = model
        self._gate = gate
        self._step_samples = manifest.call_samples
        self._output_samples = self._step_samples // model.n_outputs
        self.keywords = phrases_for(decision, manifest) or manifest.keywords
        self.thresholds = thresholds_for(decision, manifest)
        decide = PhraseDecision if manifest.decision.kind == "ctc" else Decision
        self._decision: Decision | PhraseDecision = decide.of(
            manifest, thresholds=self.thresholds, settings=decision, n_outputs=model.n_outputs
        )
        self._near_misses = near_misses_of(manifest, least=near_miss_score)
        self.near_misses: deque[NearMiss] = deque(maxlen=_MOST_KEPT)
        self.peaks: deque[Peak] = deque(maxlen=_MOST_KEPT)
        n_kept = round(pre_roll_ms / manifest.call_ms)
        self._pre_roll: deque[npt.NDArray[Any]] = deque(maxlen=n_kept)
        self.reset()

    def reset(self) -> None:
        """Start a new stream at time zero."""
        self._model.reset()
        self._decision.reset()
        self._near_misses.reset()
        self._pre_roll.clear()
        self._frames = np.empty((0, self.manifest.features.n_features), np.float32)
        self._verdicts: deque[bool] = deque()
        self._rising: dict[str, Detection] = {}
        self._n_blocks_passed = 0
        self._n_steps = 0
        self._n_skipped = 0
        self._last_end_s = 0.0
        self._now_sample = 0
        self.gate_open = False

    @property
    def posteriors(self) -> dict[str, float]:
        """The last smoothed posterior of each keyword of the model; 0 while the gate is closed.

        A CTC model has no smoothing: its last posteriors.
        """
        values = self._decision.smoothed.tolist() if self.gate_open else ()
        known = dict(zip(self.manifest.labels, values, strict=False))
        return {keyword: known.get(keyword, 0.0) for keyword in self.manifest.keywords}

    def process(
        self, frames: npt.NDArray[Any], /, verdicts: Sequence[bool] = ()
    ) -> Iterator[Spotted]:
        """Consume frames, and the gate's verdicts on the same samples; yield detections.

        Parameters
        ----------
        frames : float32 [shape=(k, n_features)]
            Any `k`, including 0.
        verdicts : sequence of bool
            One for each block that the samples of the frames completed; none without a gate.
        """
        self._verdicts.extend(verdicts)
        for step_frames in self._steps(frames):
            yield from self._gated(step_frames)

    def finish(self) -> None:
        """End the rises under way, as at the end of a stream: to near misses and peaks."""
        for hit in self._near_misses.finish():
            self.near_misses.append(NearMiss(**self._fields(hit)))
        self._decision.end_rises()
        self._collect_peaks()

    def _steps(self, frames: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
        """Collect frames until they fill a step of the model."""
        if len(self._frames):
            frames = np.concatenate((self._frames, frames))
        hop = self.manifest.hop_frames
        n_ready = len(frames) // hop
        self._frames = frames[n_ready * hop :]
        for i in range(n_ready):
            yield frames[i * hop : (i + 1) * hop]

    def _gated(self, frames: npt.NDArray[Any]) -> Iterator[Spotted]:
        """Run the model if the gate is open, first on the frames before its opening.

        After a closure shorter than the pre-roll no frame is missing and the model continues.
        After a longer one its states are reset and it starts from the pre-roll.
        """
        step = self._n_steps
        self._n_steps += 1
        self.gate_open = self._is_open(step)
        if not self.gate_open:
            self._pre_roll.append(frames)
            self._n_skipped += 1
            return
        if n_lost := self._n_skipped - len(self._pre_roll):
            self.finish()
            self._model.reset()
            self._decision.restart()
            self._decision.skip(n_lost * self._model.n_outputs)
        replayed = (*self._pre_roll, frames)
        self._pre_roll.clear()
        self._n_skipped = 0
        known_sample = self._end_sample(step, self._model.n_outputs - 1)
        for i, late in enumerate(replayed, start=step + 1 - len(replayed)):
            for detection in self._run(late, i):
                yield Spotted(known_sample, detection)

    def _is_open(self, step: int) -> bool:
        """Return the verdict on the last block that was complete when the step's last frame was."""
        if self._gate is None:
            return True
        block = self._end_sample(step, self._model.n_outputs - 1) // self._gate.block_samples - 1
        if block < 0:
            return False
        while self._n_blocks_passed < block:
            self._verdicts.popleft()
            self._n_blocks_passed += 1
        return self._verdicts[0]

    def _run(self, frames: npt.NDArray[Any], step: int) -> Iterator[Detection]:
        for output, posteriors in enumerate(self._model.step(frames)):
            hit = self._decision.step(posteriors)
            self._now_sample = self._end_sample(step, output)
            for missed in self._near_misses.step(self._decision, has_fired=hit is not None):
                self.near_misses.append(NearMiss(**self._fields(missed)))
            detection = self._detection(hit) if hit else None
            self._collect_peaks()
            if detection:
                yield detection

    def _detection(self, hit: Hit) -> Detection:
        detection = Detection(**self._fields(hit))
        self._last_end_s = detection.end_s
        self._rising[hit.keyword] = detection
        return detection

    def _collect_peaks(self) -> None:
        for keyword, peak in self._decision.take_peaks():
            fields = self._rising.pop(keyword).fields()
            self.peaks.append(Peak(**fields, peak=round(peak, 3)))

    def _end_sample(self, step: int, output: int) -> int:
        """Return the end of the last frame behind an output."""
        n_seen = step * self._step_samples + (output + 1) * self._output_samples
        settings = self.manifest.features
        return n_seen - settings.hop_samples + settings.window_samples

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
