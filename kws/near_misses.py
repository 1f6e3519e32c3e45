"""Near misses: what rose close to a threshold and fell again without a detection.

`RisesBelow` finds them in smoothed posteriors, `RejectedPhrases` in what a CTC decision rejected;
`near_misses_of` chooses by the model's manifest.
"""

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kws.ctc_decision import PhraseDecision
from kws.decision import Decision, Hit
from kws.manifest import Manifest

__all__ = ["NearMisses", "RejectedPhrases", "RisesBelow", "near_misses_of"]


class NearMisses(Protocol):
    """Finds near misses, output by output."""

    def reset(self) -> None:
        """Forget the stream."""

    def step(self, decision: Any, /, *, has_fired: bool) -> list[Hit]:
        """Return the near misses that ended at the decision's last output.

        Parameters
        ----------
        decision : Decision or PhraseDecision
        has_fired : bool
            Whether the last output gave a detection.
        """

    def finish(self) -> list[Hit]:
        """Return the near misses under way as if they ended here, and forget them."""


class RisesBelow:
    """Find the highest point of each rise over `least` without a detection.

    Parameters
    ----------
    labels : sequence of str
        The model's outputs.
    keywords : collection of str
        Those of them that count.
    least : float
        Smoothed posterior, 0..1.
    """

    def __init__(self, labels: Sequence[str], *, keywords: Collection[str], least: float) -> None:
        self._labels = labels
        # Labels that are no keywords never rise so far.
        self._least = np.array([least if one in keywords else np.inf for one in labels])
        self.reset()

    def reset(self) -> None:
        """Forget the rises under way."""
        self._n_steps = 0
        self._rises: dict[int, tuple[float, int]] = {}
        self._fired: set[int] = set()

    def step(self, decision: Decision, /, *, has_fired: bool) -> list[Hit]:
        """Return the rises that ended here, with the outputs since their peak in `n_since_end`."""
        smoothed = decision.smoothed
        self._n_steps += 1
        is_high = smoothed >= self._least
        if not self._rises and not self._fired and not is_high.any():  # nearly always
            return []
        ended = [i for i in (*self._rises, *self._fired) if not is_high[i]]
        found = [self._hit(i) for i in ended if i in self._rises]
        for i in ended:
            self._rises.pop(i, None)
            self._fired.discard(i)
        self._follow(smoothed, np.flatnonzero(is_high).tolist(), has_fired=has_fired)
        return found

    def finish(self) -> list[Hit]:
        """Return the rises under way as if they ended here, as before a gap, and forget them."""
        found = [self._hit(i) for i in self._rises]
        self._rises.clear()
        self._fired.clear()
        return found

    def _follow(self, smoothed: npt.NDArray[Any], high: list[int], *, has_fired: bool) -> None:
        """Update the peaks of what is high; with a detection, all of it belongs to that."""
        if has_fired:
            self._fired.update(high)
            self._rises.clear()
        for i in high:
            score = float(smoothed[i])
            if i not in self._fired and score > self._rises.get(i, (0.0, 0))[0]:
                self._rises[i] = (score, self._n_steps)

    def _hit(self, i: int) -> Hit:
        score, at = self._rises[i]
        return Hit(self._labels[i], score, n_since_end=self._n_steps - at)


class RejectedPhrases:
    """Find utterances whose most probable phrase had a posterior of `least` or more.

    Parameters
    ----------
    least : float
        Posterior of a phrase, 0..1.
    """

    def __init__(self, *, least: float) -> None:
        self._least = least

    def reset(self) -> None:
        """Do nothing: the decision holds the utterance."""

    def step(self, decision: PhraseDecision, /, *, has_fired: bool) -> list[Hit]:
        """Return the phrase that the last output rejected, if it came near."""
        rejected = decision.rejected
        return [rejected] if rejected and not has_fired and rejected.score >= self._least else []

    def finish(self) -> list[Hit]:
        """Return nothing: an utterance that did not end has no posterior."""
        return []


def near_misses_of(manifest: Manifest, *, least: float | None) -> NearMisses | None:
    """Return what finds the near misses of a model; None where `least` is None."""
    if least is None:
        return None
    if manifest.decision.kind == "ctc":
        return RejectedPhrases(least=least)
    return RisesBelow(manifest.labels, keywords=manifest.keywords, least=least)
