"""Frames behind the gate: steps of a model, those before an opening first."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kws.gate import Gate
from kws.manifest import FeatureSettings

__all__ = ["GatedSteps", "Step"]


class Step(NamedTuple):
    """The input of one step of a model.

    Attributes
    ----------
    frames : float32 [shape=(hop_frames, n_features)]
    start_sample : int
        First sample of the stream that the step's frames advance over.
    known_sample : int
        End of the last frame that was there when the step was run: later than the step's own end
        for steps from before an opening of the gate.
    n_lost : int
        Steps that were skipped just before this one; if any, models start anew.
    """

    frames: npt.NDArray[Any]
    start_sample: int
    known_sample: int
    n_lost: int


class GatedSteps:
    """Collect frames into steps, and pass them on while the gate is open.

    After a closure shorter than the pre-roll no step is missing. After a longer one the steps begin
    with the pre-roll.

    Parameters
    ----------
    features : FeatureSettings
        Of the frames.
    hop_frames : int
        Frames of a step.
    gate : Gate or None
        Its verdicts are passed to `process`; None: every step is passed on.
    pre_roll_ms : float
        Frames before an opening that are kept.

    Attributes
    ----------
    is_open : bool
        Whether the last step was passed on.
    """

    def __init__(
        self, features: FeatureSettings, *, hop_frames: int, gate: Gate | None, pre_roll_ms: float
    ) -> None:
        self._features = features
        self._hop_frames = hop_frames
        self._step_samples = hop_frames * features.hop_samples
        self._gate = gate
        n_kept = round(pre_roll_ms * features.sample_rate_hz / 1000 / self._step_samples)
        self._pre_roll: deque[npt.NDArray[Any]] = deque(maxlen=n_kept)
        self.reset()

    def reset(self) -> None:
        """Start a new stream at time zero."""
        self._pre_roll.clear()
        self._frames = np.empty((0, self._features.n_features), np.float32)
        self._verdicts: deque[bool] = deque()
        self._n_blocks_passed = 0
        self._n_steps = 0
        self._n_skipped = 0
        self.is_open = False

    def process(self, frames: npt.NDArray[Any], /, verdicts: Sequence[bool] = ()) -> Iterator[Step]:
        """Consume frames, and the gate's verdicts on the same samples; yield steps to run.

        Parameters
        ----------
        frames : float32 [shape=(k, n_features)]
            Any `k`, including 0.
        verdicts : sequence of bool
            One for each block that the samples of the frames completed; none without a gate.
        """
        self._verdicts.extend(verdicts)
        for step_frames in self._complete(frames):
            yield from self._gated(step_frames)

    def _complete(self, frames: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
        """Collect frames until they fill a step."""
        if len(self._frames):
            frames = np.concatenate((self._frames, frames))
        hop = self._hop_frames
        n_ready = len(frames) // hop
        self._frames = frames[n_ready * hop :]
        for i in range(n_ready):
            yield frames[i * hop : (i + 1) * hop]

    def _gated(self, frames: npt.NDArray[Any]) -> Iterator[Step]:
        index = self._n_steps
        self._n_steps += 1
        hop, window = self._features.hop_samples, self._features.window_samples
        end_sample = self._n_steps * self._step_samples - hop + window
        self.is_open = self._verdict(end_sample)
        if not self.is_open:
            self._pre_roll.append(frames)
            self._n_skipped += 1
            return
        n_lost = self._n_skipped - len(self._pre_roll)
        replayed = (*self._pre_roll, frames)
        self._pre_roll.clear()
        self._n_skipped = 0
        for i, late in enumerate(replayed, start=index + 1 - len(replayed)):
            yield Step(late, i * self._step_samples, end_sample, n_lost)
            n_lost = 0

    def _verdict(self, end_sample: int) -> bool:
        """Return the verdict on the last block that was complete at a sample."""
        if self._gate is None:
            return True
        block = end_sample // self._gate.block_samples - 1
        if block < 0:
            return False
        while self._n_blocks_passed < block:
            self._verdicts.popleft()
            self._n_blocks_passed += 1
        return self._verdicts[0]
