"""A recording that comes with kws, heard by the model that comes with kws, and marked.

`match` is the one rule for what counts as a hit; evaluation uses it too.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from kws.audio import SAMPLE_RATE_HZ, Samples
from kws.errors import ConfigError
from kws.events import Detection
from kws.spotter import Spotter

__all__ = ["TOLERANCE_S", "Labels", "Matcher", "Matches", "Word", "load_demo", "match", "play"]

TOLERANCE_S = 0.5
"""How long after a word's end a detection still belongs to it."""

Mark = Literal["ok", "wrong", "false"]


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """A word that was said, in seconds from the recording's start."""

    word: str
    start_s: float
    end_s: float


class Labels(msgspec.Struct, frozen=True, kw_only=True):
    """What is said in a recording, keywords and others."""

    recording: str
    duration_s: float
    words: list[Word]


class Matches(NamedTuple):
    """How detections fit the words that were said."""

    hits: list[tuple[Word, Detection]]
    missed: list[Word]
    false: list[Detection]


class Matcher:
    """Mark detections as they come.

    Parameters
    ----------
    words : iterable of Word
        All that were said.
    keywords : collection of str
        Those that can be detected; other words can neither be hit nor missed.
    tolerance_s : float
        How long after a word's end a detection still belongs to it.
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
        # A millisecond more, for what subtraction rounds off.
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
            A hit; a keyword taken for another word; or anything else. The last two both count as
            false.
        """
        near = [(i, word) for i, word in self._near(detection) if self._belongs(detection, word)]
        # The earliest to end of the words it can belong to: any other choice hits no more of them.
        for i, word in near:
            wanted = word.word == detection.keyword and word.word in self._keywords
            if wanted and i not in self._hit:
                self._hit.add(i)
                self._hits.append((word, detection))
                return "ok"
        self._false.append(detection)
        return "wrong" if any(word.word != detection.keyword for _, word in near) else "false"

    def result(self) -> Matches:
        """Return how all detections so far fit the words; what is missed comes by its end."""
        missed = [
            word
            for i, word in enumerate(self._words)
            if word.word in self._keywords and i not in self._hit
        ]
        return Matches(list(self._hits), missed, list(self._false))

    def _near(self, detection: Detection) -> Iterator[tuple[int, Word]]:
        """Give the words that are not over yet, up to where none can have begun."""
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
    """Match detections to the words that were said.

    A hit is a detection of the word's own keyword whose `end_s` lies between the word's start and
    `tolerance_s` after its end. Each word is hit at most once; all other detections are false.

    Parameters
    ----------
    words : iterable of Word
        In any order.
    detections : iterable of Detection
        In any order.
    keywords : collection of str
        Those that can be detected; other words can neither be hit nor missed.
    tolerance_s : float

    Returns
    -------
    Matches
        As many hits as there can be.
    """
    matcher = Matcher(words, keywords=keywords, tolerance_s=tolerance_s)
    for detection in sorted(detections, key=lambda detection: detection.end_s):
        matcher.mark(detection)
    return matcher.result()


def load_demo(folder: Path | None = None) -> tuple[Labels, Path]:
    """Return what is said in the bundled recording, and where the recording is.

    Raises
    ------
    ConfigError
        If they do not come with this installation, or the labels are damaged.
    """
    folder = folder or Path(str(files("kws.models")))
    path = folder / "demo.json"
    try:
        labels = msgspec.json.decode(path.read_bytes(), type=Labels)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The demo needs its labels, demo.json. Received: {error}. "
            f"Run `pip install --force-reinstall kws`."
        ) from error
    return labels, folder / labels.recording


def play(
    source: Iterable[Samples],
    spotter: Spotter,
    labels: Labels,
    *,
    echo: Callable[[str], object] = print,
) -> Matches:
    """Stream a recording through a spotter, and say of every detection whether it is right.

    Parameters
    ----------
    source : iterable of int16 [shape=(n,)]
        The recording at 16 kHz.
    spotter : Spotter
        At the start of a stream.
    labels : Labels
        What is said.
    echo : callable
        Takes each line.
    """
    keywords = spotter.manifest.keywords
    matcher = Matcher(labels.words, keywords=keywords)

    def say(detections: Sequence[Detection]) -> None:
        for heard in detections:
            mark = matcher.mark(heard)
            echo(f"{heard.end_s:8.2f} s  {heard.keyword:<10} {heard.score:.2f}  {mark}")

    n_samples = 0
    started_s = time.process_time()
    for chunk in source:
        say(spotter.process(chunk))
        n_samples += len(chunk)
    say(spotter.flush())
    cpu_s, audio_s = time.process_time() - started_s, n_samples / SAMPLE_RATE_HZ
    matches = matcher.result()
    for word in matches.missed:
        echo(f"{word.end_s:8.2f} s  {word.word:<10}       missed")
    echo(
        f"{len(matches.hits)} matched, {len(matches.missed)} missed, {len(matches.false)} false; "
        f"{1000 * cpu_s / max(audio_s, 1e-9):.1f} ms CPU per second of audio"
    )
    return matches
