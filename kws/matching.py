"""Match detections to the words that were spoken: the one rule for hits, misses and false alarms.

The demonstration and every evaluation use it.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import force_setattr

from kws.events import Detection
from kws.names import nfc

__all__ = ["TOLERANCE_S", "LabelledRecording", "Matcher", "Matches", "Word", "match"]

TOLERANCE_S = 0.5
"""How long after a word's end a detection still counts as its own, in seconds."""

Mark = Literal["ok", "wrong", "false"]


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """A spoken word; times in seconds from the start of the recording."""

    word: str
    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        force_setattr(self, "word", nfc(self.word))


class LabelledRecording(msgspec.Struct, frozen=True, kw_only=True):
    """A recording and the words spoken in it, keywords and others."""

    recording: str
    duration_s: float
    words: list[Word]


class Matches(NamedTuple):
    """Hits, misses and false alarms."""

    hits: list[tuple[Word, Detection]]
    missed: list[Word]
    false: list[Detection]


class Matcher:
    """Match detections one by one, as they come.

    Parameters
    ----------
    words : iterable of Word
        All spoken words.
    keywords : collection of str
        Those that can be detected; other words are neither hits nor misses.
    tolerance_s : float
        How long after a word's end a detection still counts as its own.
    """

    def __init__(
        self,
        words: Iterable[Word],
        *,
        keywords: Collection[str],
        tolerance_s: float = TOLERANCE_S,
    ) -> None:
        self._words = sorted(words, key=lambda word: word.end_s)
        self._tolerance_s = tolerance_s
        # A millisecond more against rounding.
        self._longest_s = 0.001 + max((w.end_s - w.start_s for w in self._words), default=0.0)
        self._n_over = 0
        self._hit: set[int] = set()
        self._keywords = keywords
        self._hits: list[tuple[Word, Detection]] = []
        self._false: list[Detection] = []

    def mark(self, detection: Detection, /) -> Mark:
        """Take the next detection, oldest first.

        Returns
        -------
        {"ok", "wrong", "false"}
            A hit; a detection at another word; or a detection at no word. The last two are false
            alarms.
        """
        near = [(i, word) for i, word in self._near(detection) if self._belongs(detection, word)]
        # The first to end of the words it can belong to: no other choice gives more hits.
        for i, word in near:
            wanted = word.word == detection.keyword and word.word in self._keywords
            if wanted and i not in self._hit:
                self._hit.add(i)
                self._hits.append((word, detection))
                return "ok"
        self._false.append(detection)
        return "wrong" if any(word.word != detection.keyword for _, word in near) else "false"

    def result(self) -> Matches:
        """Return the matches so far; misses are in order of their end."""
        missed = [
            word
            for i, word in enumerate(self._words)
            if word.word in self._keywords and i not in self._hit
        ]
        return Matches(list(self._hits), missed, list(self._false))

    def _near(self, detection: Detection) -> Iterator[tuple[int, Word]]:
        """Yield the words that a detection at its time can belong to."""
        while (
            self._n_over < len(self._words)
            and self._words[self._n_over].end_s + self._tolerance_s < detection.end_s
        ):
            self._n_over += 1
        for i in range(self._n_over, len(self._words)):
            word = self._words[i]
            if word.end_s - self._longest_s > detection.end_s:
                return
            yield i, word

    def _belongs(self, detection: Detection, word: Word) -> bool:
        return word.start_s <= detection.end_s <= word.end_s + self._tolerance_s


def match(
    words: Iterable[Word],
    detections: Iterable[Detection],
    *,
    keywords: Collection[str],
    tolerance_s: float = TOLERANCE_S,
) -> Matches:
    """Match detections to spoken words.

    A hit is a detection of the word's own keyword whose `end_s` lies between the word's start and
    `tolerance_s` after its end. Each word has one hit at most; all other detections are false
    alarms.

    Parameters
    ----------
    words : iterable of Word
        In any order.
    detections : iterable of Detection
        In any order.
    keywords : collection of str
        Those that can be detected; other words are neither hits nor misses.
    tolerance_s : float

    Returns
    -------
    Matches
        The matching with the most hits.
    """
    matcher = Matcher(words, keywords=keywords, tolerance_s=tolerance_s)
    for detection in sorted(detections, key=lambda detection: detection.end_s):
        matcher.mark(detection)
    return matcher.result()
