"""Verification of the speaker: whether a word was said by the voice that it was enrolled by.

A word is described by statistics of the cepstra of its frames: over its loud frames the mean and
the standard deviation, and the mean of each third. Speakers who say the same word differ in them. A
linear function of the statistics is the score, 1 for the mean of the enrolled recordings and about
0 for other speakers. It is computed at detections only.
"""

from collections import deque
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kws.cepstra import cosines
from kws.errors import ModelError
from kws.gated_steps import Step
from kws.manifest import Manifest
from kws.word_span import PHRASE_PAUSE_FRAMES, WORD_PAUSE_FRAMES, word_span

__all__ = ["N_STATISTICS", "SpeakerVerifier", "word_statistics"]

Array: TypeAlias = npt.NDArray[Any]

_N_CEPSTRA, _N_PARTS = 28, 3
N_STATISTICS = (2 + _N_PARTS) * _N_CEPSTRA
"""Numbers that describe a word."""

_QUIET_PERCENTILE = 30  # frames below it do not count for mean and deviation
_MARGIN_FRAMES = 3  # around the loud span
_BEFORE, _BEFORE_MS, _AFTER_MS = 1.25, 100, 150  # of the usual length of the word; around it


def word_statistics(frames: Array, *, is_phrase: bool = False) -> npt.NDArray[np.float64]:
    """Describe the voice and the pronunciation of a word.

    Parameters
    ----------
    frames : float [shape=(k, n)]
        Log-mel frames of a recording, or of a stretch of a stream, with one word in it; `n` at
        least 29, `k` at least 3.
    is_phrase : bool
        Whether it is several words.

    Returns
    -------
    float64 [shape=(N_STATISTICS,)]
    """
    levels = frames.mean(axis=1)
    pause = PHRASE_PAUSE_FRAMES if is_phrase else WORD_PAUSE_FRAMES
    start, end = word_span(levels, pause_frames=pause)
    if end - start < _N_PARTS:
        start, end = 0, len(frames)
    word = frames[max(0, start - _MARGIN_FRAMES) : end + _MARGIN_FRAMES]
    cepstra = word.astype(np.float64) @ cosines(frames.shape[1], 1 + _N_CEPSTRA)[:, 1:]
    levels = word.mean(axis=1)
    loud = cepstra[levels >= np.percentile(levels, _QUIET_PERCENTILE)]
    parts = [part.mean(axis=0) for part in np.array_split(cepstra, _N_PARTS)]
    return np.concatenate((loud.mean(axis=0), loud.std(axis=0), *parts))


class SpeakerVerifier:
    """Score the speaker of detected words in a stream.

    Parameters
    ----------
    manifest : Manifest
        Of a model with `speaker`.

    Raises
    ------
    ModelError
        If its weights do not fit the statistics, or its features are not log-mel.
    """

    def __init__(self, manifest: Manifest) -> None:
        check, features = manifest.speaker, manifest.features
        if check is None:
            raise ModelError(f"`{manifest.name}` must have `speaker`. Received: none.")
        n_values = features.n_values
        if features.kind != "logmel" or n_values <= _N_CEPSTRA:
            raise ModelError(
                f"A model that verifies the speaker must have log-mel features of more than "
                f"{_N_CEPSTRA} values. Received: `{manifest.name}` with {n_values} of "
                f"{features.kind}. Enroll the word again."
            )
        if len(check.weights) != N_STATISTICS:
            raise ModelError(
                f"`speaker.weights` must be {N_STATISTICS} numbers. Received: "
                f"{len(check.weights)} in `{manifest.name}`. Enroll the word again."
            )
        self._weights = np.array(check.weights)
        self._bias, self.threshold = check.bias, check.threshold
        self._hop_samples = features.hop_samples
        self._is_phrase = len(manifest.keywords[0].split()) > 1
        ms = features.sample_rate_hz / 1000 / self._hop_samples  # frames in a millisecond
        word_ms = manifest.decision.word_ms
        self._n_before = round((_BEFORE * word_ms + _BEFORE_MS) * ms)
        self._n_after = round(_AFTER_MS * ms)
        n_kept = self._n_before + self._n_after + round(manifest.decision.delay_ms * ms)
        self._n_kept = n_kept + manifest.call_samples // self._hop_samples
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self._steps: deque[Array] = deque()
        self._n_frames = self._end_frame = 0

    def hear(self, step: Step, /) -> None:
        """Keep the frames of a step, and forget those that no word reaches back to."""
        if step.n_lost:
            self.reset()
        self._steps.append(step.frames)
        self._n_frames += len(step.frames)
        self._end_frame = step.start_sample // self._hop_samples + len(step.frames)
        while self._n_frames - len(self._steps[0]) >= self._n_kept:
            self._n_frames -= len(self._steps.popleft())

    def score(self, end_sample: int, /) -> float:
        """Return how like the enrolled recordings the word is that ended at a sample.

        Around 1 for the enrolled speaker, around 0 for others; 0 for a word of which too little was
        heard.
        """
        frames = np.concatenate(list(self._steps)) if self._steps else np.empty((0, 0))
        end = end_sample // self._hop_samples - (self._end_frame - len(frames))
        word = frames[max(0, end - self._n_before) : max(0, end + self._n_after)]
        if len(word) < _N_PARTS:
            return 0.0
        return float(word_statistics(word, is_phrase=self._is_phrase) @ self._weights + self._bias)
