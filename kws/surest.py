"""One detection for one utterance where several models share a keyword: that of the surest model.

A detection of a shared keyword is held for `HOLD_S`, until the other models have had their time.
Keywords of a single model pass at once.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kws.events import Detection, Peak

__all__ = ["HOLD_S", "SurestDetections", "Timed"]

HOLD_S = 0.2
"""How long a detection of a shared keyword waits for a surer one."""
_SAME_WORD_S = 0.5  # detections that end within this time are of the same word
_N_REMEMBERED = 64


class Timed(NamedTuple):
    """A detection, when it was made, in the time of the stream, and what tells its model."""

    known_s: float
    detection: Detection
    origin: object


class SurestDetections:
    """Choose among the detections of several models.

    Parameters
    ----------
    keywords : iterable of iterable of str
        Those of each model.
    """

    def __init__(self, keywords: Iterable[Iterable[str]]) -> None:
        n_models = Counter(word for words in keywords for word in set(words))
        self._shared = {word for word, n in n_models.items() if n > 1}
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        self._held: dict[str, Timed] = {}
        self._given: dict[str, Timed] = {}
        self._dropped: list[Detection] = []
        self._waiting_peaks: list[Peak] = []

    def process(self, found: Sequence[Timed], /, *, now_s: float) -> list[Detection]:
        """Return the detections that are chosen by now.

        Parameters
        ----------
        found : sequence of Timed
            New detections, in the order of their times.
        now_s : float
            End of the audio processed so far.
        """
        chosen: list[Detection] = []
        for one in found:
            chosen += self._release(one.known_s)
            if one.detection.keyword in self._shared:
                chosen += self._hold(one)
            else:
                chosen.append(one.detection)
        return chosen + self._release(now_s)

    def flush(self) -> list[Detection]:
        """Return what is held, at the end of a stream."""
        return self._release(float("inf"))

    def peaks(self, new: Iterable[Peak]) -> list[Peak]:
        """Return the peaks of chosen detections; those of held ones come after them."""
        ready, waiting = [], []
        for peak in (*self._waiting_peaks, *new):
            if any(_is_of(peak, held.detection) for held in self._held.values()):
                waiting.append(peak)
            elif not any(_is_of(peak, dropped) for dropped in self._dropped):
                ready.append(peak)
        self._waiting_peaks = waiting
        return ready

    def _hold(self, new: Timed) -> list[Detection]:
        """Hold a detection, or drop it for a surer or an earlier one; return what it releases."""
        keyword = new.detection.keyword
        held, given = self._held.get(keyword), self._given.get(keyword)
        if held is None:
            if given is not None and _is_same_word(new, given):
                self._drop(new.detection)
            else:
                self._held[keyword] = new
            return []
        if not _is_same_word(new, held):
            self._held[keyword] = new
            return [self._give(held)]
        if new.detection.score > held.detection.score:
            self._held[keyword] = new._replace(known_s=held.known_s)
            self._drop(held.detection)
        else:
            self._drop(new.detection)
        return []

    def _release(self, now_s: float) -> list[Detection]:
        due = [one for one in self._held.values() if one.known_s + HOLD_S <= now_s]
        for one in due:
            del self._held[one.detection.keyword]
        return [self._give(one) for one in due]

    def _give(self, one: Timed) -> Detection:
        self._given[one.detection.keyword] = one
        return one.detection

    def _drop(self, detection: Detection) -> None:
        self._dropped = [*self._dropped, detection][-_N_REMEMBERED:]


def _is_same_word(one: Timed, other: Timed) -> bool:
    """Return whether detections by two models are of one utterance."""
    is_near = abs(one.detection.end_s - other.detection.end_s) < _SAME_WORD_S
    return one.origin is not other.origin and is_near


def _is_of(peak: Peak, detection: Detection) -> bool:
    return (peak.keyword, peak.model, peak.end_s) == (
        detection.keyword,
        detection.model,
        detection.end_s,
    )
