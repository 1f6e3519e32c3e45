"""The pipeline: samples in, detections out.

::

    samples ─┬─▶ Gate ───────── open? ──┐
             └─▶ Features ─ frames ─▶ Model ─ posteriors ─▶ Decision ─▶ Detection

`Spotter` is synchronous and deterministic: no thread, no clock, no randomness, no I/O. Time is a
sample index, and the detections do not depend on how the samples were cut into chunks.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from kws.config import DecisionSettings, GateSettings
from kws.ctc_decision import PhraseDecision, phrases_for
from kws.decision import Decision, Hit, thresholds_for
from kws.events import Detection, NearMiss
from kws.features import Features
from kws.gate import Gate
from kws.model import Model
from kws.near_misses import Peaks

__all__ = ["Spotter"]

_BLOCK_S = 1  # longer input is worked through in blocks, so that memory stays bounded
_MOST_NEAR_MISSES = 256
_TAIL_S = 0.6  # a model answers up to half a second after a word's end


class Spotter:
    """Listen to one stream of samples.

    Parameters
    ----------
    model : Model
        Opened by `open_model`; the spotter is its only user.
    gate : GateSettings
        With `enabled` false the model sees every frame.
    decision : DecisionSettings
        What the user wants otherwise than the model's manifest says.
    near_miss_score : float or None
        From which score on near misses are gathered, 0..1; None gathers none. It is a smoothed
        posterior, and with a model that hears sequences that of the best rejected one.

    Raises
    ------
    ConfigError
        If thresholds name unknown keywords, or a budget was never calibrated, or phrases are not
        the model's.

    Attributes
    ----------
    keywords : tuple of str
        What can be detected: the model's keywords, or the phrases asked for.
    thresholds : dict of str to float
        Of each of the model's keywords.
    gate_open : bool
        Whether the model ran on the last frames.
    """

    def __init__(
        self,
        model: Model,
        *,
        gate: GateSettings | None = None,
        decision: DecisionSettings | None = None,
        near_miss_score: float | None = None,
    ) -> None:
        manifest = model.manifest
        gate, decision = gate or GateSettings(), decision or DecisionSettings()
        self.manifest = manifest
        self.sample_rate_hz = manifest.features.sample_rate_hz
        self._model = model
        self._features = Features(manifest.features)
        self._gate = Gate(gate, sample_rate_hz=self.sample_rate_hz) if gate.enabled else None
        self._step_samples = manifest.call_samples
        self._output_samples = self._step_samples // model.n_outputs
        self.keywords = phrases_for(decision, manifest) or manifest.keywords
        decide = PhraseDecision if manifest.decision.kind == "ctc" else Decision
        self.thresholds = thresholds_for(decision, manifest)
        self._decision: Decision | PhraseDecision = decide.of(
            manifest,
            thresholds=self.thresholds,
            settings=decision,
            n_outputs=model.n_outputs,
        )
        self._least_score = near_miss_score
        self._peaks: Peaks | None = None
        if near_miss_score is not None and isinstance(self._decision, Decision):
            self._peaks = Peaks(manifest.labels, keywords=manifest.keywords, least=near_miss_score)
        self._near_misses: deque[NearMiss] = deque(maxlen=_MOST_NEAR_MISSES)
        n_kept = round(gate.pre_roll_ms / manifest.call_ms)
        self._backlog: deque[npt.NDArray[Any]] = deque(maxlen=n_kept)
        self.reset()

    def reset(self) -> None:
        """Start a new stream at time zero."""
        if self._gate:
            self._gate.reset()
        self._features.reset()
        self._model.reset()
        self._decision.reset()
        if self._peaks:
            self._peaks.reset()
        self._backlog.clear()
        self._frames = np.empty((0, self.manifest.features.n_features), np.float32)
        self._verdicts: deque[bool] = deque()
        self._n_blocks_passed = 0
        self._n_samples = 0
        self._n_steps = 0
        self._n_skipped = 0
        self._last_end_s = 0.0
        self._now_sample = 0
        self.gate_open = False

    @property
    def posteriors(self) -> dict[str, float]:
        """The last smoothed posterior of each of the model's keywords; 0 while the gate is closed.

        A model that hears sequences has no smoothing: it is the last posterior then.
        """
        values = self._decision.smoothed.tolist() if self.gate_open else ()
        known = dict(zip(self.manifest.labels, values, strict=False))
        return {keyword: known.get(keyword, 0.0) for keyword in self.manifest.keywords}

    def process(self, samples: npt.NDArray[np.int16], /) -> list[Detection]:
        """Consume any number of samples; return what was heard in them.

        Parameters
        ----------
        samples : int16 [shape=(n,)]
            Mono PCM at `sample_rate_hz`; any `n`, including 0.

        Returns
        -------
        list of Detection
            Oldest first, usually empty.

        Raises
        ------
        FormatError
            If `samples` is not one-dimensional int16.
        """
        detections: list[Detection] = []
        block = _BLOCK_S * self.sample_rate_hz
        for start in range(0, max(1, len(samples)), block):
            piece = samples[start : start + block]
            frames = self._features.process(piece)
            self._n_samples += len(piece)
            if self._gate:
                self._verdicts.extend(self._gate.process(piece))
            for step in self._steps(frames):
                detections += self._gated(step)
        return detections

    def flush(self) -> list[Detection]:
        """End the stream: let it fall silent, return what is still heard, and reset.

        No detection ends after the stream's last sample.
        """
        duration_s = round(self._n_samples / self.sample_rate_hz, 3)
        detections = self.process(np.zeros(int(_TAIL_S * self.sample_rate_hz), np.int16))
        self._end_rises()
        self.reset()
        return [
            replace(one, start_s=min(one.start_s, duration_s), end_s=min(one.end_s, duration_s))
            for one in detections
        ]

    def take_near_misses(self) -> list[NearMiss]:
        """Return the near misses that have ended since the last call, oldest first.

        At most 256 are kept. Like detections they do not depend on how the samples were cut.
        """
        taken = list(self._near_misses)
        self._near_misses.clear()
        return taken

    def _steps(self, frames: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
        """Gather frames until they fill a step of the model."""
        if len(self._frames):
            frames = np.concatenate((self._frames, frames))
        hop = self.manifest.hop_frames
        n_ready = len(frames) // hop
        self._frames = frames[n_ready * hop :]
        for i in range(n_ready):
            yield frames[i * hop : (i + 1) * hop]

    def _gated(self, frames: npt.NDArray[Any]) -> list[Detection]:
        """Run the model if the gate is open, first on the frames before the opening.

        After a short closure nothing was lost: the model goes on where it stopped. After a longer
        one it starts anew from the pre-roll.
        """
        step = self._n_steps
        self._n_steps += 1
        self.gate_open = self._is_open(step)
        if not self.gate_open:
            self._backlog.append(frames)
            self._n_skipped += 1
            return []
        if n_lost := self._n_skipped - len(self._backlog):
            self._end_rises()
            self._model.reset()
            self._decision.restart()
            self._decision.skip(n_lost * self._model.n_outputs)
        detections: list[Detection] = []
        for i, late in enumerate(self._backlog, start=step - len(self._backlog)):
            detections += self._run(late, i)
        self._backlog.clear()
        self._n_skipped = 0
        detections += self._run(frames, step)
        return detections

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
            missed = self._missed(has_fired=hit is not None)
            self._near_misses.extend(map(self._near_miss, missed))
            if hit:
                yield self._detection(hit, self._now_sample)

    def _missed(self, *, has_fired: bool) -> list[Hit]:
        """Return what has come near a detection, as the last output shows."""
        if isinstance(self._decision, PhraseDecision):
            rejected, least = self._decision.rejected, self._least_score
            is_near = rejected and least is not None and rejected.score >= least
            return [rejected] if rejected and is_near else []
        return self._peaks.step(self._decision.smoothed, has_fired=has_fired) if self._peaks else []

    def _end_sample(self, step: int, output: int) -> int:
        """Return where the last frame ends that an output has seen."""
        n_seen = step * self._step_samples + (output + 1) * self._output_samples
        settings = self.manifest.features
        return n_seen - settings.hop_samples + settings.window_samples

    def _end_rises(self) -> None:
        if self._peaks:
            self._near_misses.extend(map(self._near_miss, self._peaks.finish()))

    def _near_miss(self, peak: Hit) -> NearMiss:
        return NearMiss(**self._heard(peak, *self._place(peak, self._now_sample)))

    def _place(self, hit: Hit, now_sample: int) -> tuple[float, float]:
        """Return where in the stream the word of a hit begins and ends, in seconds."""
        defaults = self.manifest.decision
        rate_hz = self.sample_rate_hz
        end_sample = now_sample - hit.n_since_end * self._output_samples
        end_s = max(0.0, end_sample / rate_hz - defaults.delay_ms / 1000)
        if hit.n_since_start is None:
            start_s = end_s - defaults.word_ms / 1000
        else:
            start_s = (now_sample - hit.n_since_start * self._output_samples) / rate_hz
        return min(end_s, max(self._last_end_s, start_s)), end_s

    def _detection(self, hit: Hit, now_sample: int) -> Detection:
        start_s, end_s = self._place(hit, now_sample)
        self._last_end_s = end_s
        return Detection(**self._heard(hit, start_s, end_s))

    def _heard(self, hit: Hit, start_s: float, end_s: float) -> dict[str, Any]:
        return {
            "keyword": hit.keyword,
            "score": round(hit.score, 3),
            "start_s": round(start_s, 3),
            "end_s": round(end_s, 3),
            "model": self.manifest.name,
        }
