"""Training targets of a scene: the labels that are right at each output of the model.

====================================  =========================
silence, noise                        `_silence_`
continuous speech                     `_silence_`, `_unknown_`
from `MAY_FROM_S` of a word's end on  the word, `_silence_`
`ANSWER_FROM_S` after a word's end    the word alone
after `ANSWER_TO_S`                   the word, `_silence_`
====================================  =========================

A command is said by itself: the answer is due after the pause behind the word has begun, so that
the model can tell *up* from *upper*. The loss is the negative logarithm of the posterior of the
whole set of right labels (`kws_train.fit.losses.SetLoss`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.manifest import SILENCE, UNKNOWN, FeatureSettings
from kws_train.data.corpus import Probabilities
from kws_train.data.speech_span import Span

__all__ = ["PAUSE_S", "Marker", "Targets", "n_frames", "output_ends"]

MAY_FROM_S = -0.06
ANSWER_FROM_S = 0.1
ANSWER_TO_S = 0.32
SILENT_AGAIN_S = 0.48
PAUSE_S = 0.15
"""With less than this to other speech, the answer to a word is optional."""
ANSWER_WEIGHT = 4.0  # an answer lasts 10 outputs among 120; the rest is silence

Outputs: TypeAlias = npt.NDArray[np.bool_]
"""A mask over the outputs of the model."""


@dataclass(frozen=True)
class Targets:
    """The right labels and the loss weight of each output of the model.

    Attributes
    ----------
    allowed : uint8 [shape=(outputs, labels)]
        1 where a label is right.
    weight : float32 [shape=(outputs,)]
    soft : float32 [shape=(outputs, labels)]
        What a teacher says of the word that is required; 0 where none is, or there is no teacher.
    """

    allowed: npt.NDArray[np.uint8]
    weight: npt.NDArray[np.float32]
    soft: npt.NDArray[np.float32]


def output_ends(
    n_samples: int, features: FeatureSettings, *, time_stride: int
) -> npt.NDArray[np.int_]:
    """Return the end of the last frame of each output, in samples [shape=(outputs,)]."""
    n_outputs = n_frames(n_samples, features) // time_stride
    last_frame = np.arange(n_outputs) * time_stride + time_stride - 1
    return last_frame * features.hop_samples + features.window_samples


def n_frames(n_samples: int, features: FeatureSettings) -> int:
    """Return the number of whole frames of a signal."""
    return 1 + (n_samples - features.window_samples) // features.hop_samples


class Marker:
    """Write words and speech of a scene into its targets.

    Parameters
    ----------
    labels : sequence of str
        In the order of the model's outputs.
    ends : int [shape=(outputs,)]
        Of `output_ends`.
    """

    def __init__(self, labels: Sequence[str], ends: npt.NDArray[np.int_]) -> None:
        self._labels, self._ends = list(labels), ends
        self._silence, self._unknown = self._labels.index(SILENCE), self._labels.index(UNKNOWN)

    def silence(self) -> Targets:
        """Return the targets of a silent scene, to be marked."""
        allowed = np.zeros((len(self._ends), len(self._labels)), np.uint8)
        allowed[:, self._silence] = 1
        soft = np.zeros(allowed.shape, np.float32)
        return Targets(allowed, np.ones(len(allowed), np.float32), soft)

    def add_speech(self, targets: Targets, span: Span) -> None:
        """Permit `_unknown_` during speech and for a quarter of a second after it."""
        inside = (self._ends > span[0]) & (self._ends <= span[1] + RATE_HZ // 4)
        targets.allowed[inside, self._unknown] = 1

    def permit(self, targets: Targets, keyword: str, span: Span) -> None:
        """Permit an answer to a keyword close to other speech, without requiring it."""
        late = self._ends - span[1]
        inside = (self._ends > span[0]) & (late < SILENT_AGAIN_S * RATE_HZ)
        targets.allowed[inside, self._unknown] = 1
        targets.allowed[inside, self._labels.index(keyword)] = 1

    def require(
        self, targets: Targets, word: str, span: Span, soft: Probabilities | None = None
    ) -> None:
        """Require an answer to an isolated word, after its end."""
        late_s = (self._ends - span[1]) / RATE_HZ
        may = (late_s >= MAY_FROM_S) & (late_s < SILENT_AGAIN_S)
        must = (late_s >= ANSWER_FROM_S) & (late_s < ANSWER_TO_S)
        self._require(targets, word, may=may, must=must, weight=ANSWER_WEIGHT)
        if soft is not None:
            targets.soft[must] = soft

    def require_from_middle(self, targets: Targets, word: str, span: Span) -> None:
        """Require an answer to the word of a single clip, from its middle on.

        A loss that pools over time requires one answer in that time. The total weight is that of
        `require`.
        """
        late_s = (self._ends - span[1]) / RATE_HZ
        after = self._ends >= (span[0] + span[1]) // 2
        may, must = after & (late_s < SILENT_AGAIN_S), after & (late_s < ANSWER_TO_S)
        n_required = (ANSWER_TO_S - ANSWER_FROM_S) * RATE_HZ / np.diff(self._ends[:2])[0]
        weight = ANSWER_WEIGHT * n_required / max(1, must.sum())
        self._require(targets, word, may=may, must=must, weight=weight)

    def _require(
        self, targets: Targets, word: str, *, may: Outputs, must: Outputs, weight: float
    ) -> None:
        """Permit a word at some outputs; make it the only right label at others, with a weight."""
        label = self._labels.index(word)
        targets.allowed[may, label] = 1
        targets.allowed[must] = 0
        targets.allowed[must, label] = 1
        targets.weight[must] = weight
