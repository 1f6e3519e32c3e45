"""What is like a phrase and must not be taken for it: to be synthesised and trained against."""

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec
import numpy as np

from kws_train.synth.phonemes import (
    Phonemes,
    dictionary,
    distances,
    probability,
    pronunciations,
    pronunciations_of_words,
    splits,
)
from kws_train.synth.phrases import Phrase

_Item = TypeVar("_Item")

__all__ = [
    "WAKE_WORDS",
    "Negative",
    "apart_from",
    "common_words",
    "holds",
    "negatives",
    "share_out",
]

WAKE_WORDS = (
    "alexa", "hey siri", "siri", "ok google", "hey google", "hey cortana", "hi bixby", "computer",
    "hey computer", "amazon", "echo", "hey mycroft", "hey jarvis", "jarvis", "hey rhasspy",
    "ok nabu", "snowboy", "hey snips", "porcupine", "picovoice", "bumblebee", "grasshopper",
    "terminator", "americano", "blueberry", "grapefruit", "smart mirror", "view glass",
)  # fmt: skip
"""What other machines answer to."""

_LEAST_PROBABLE = 2e-7  # of words; rarer ones are names that hardly anyone says
_SAME = 0.3  # pronunciations that differ by less are the phrase itself, said by someone else
_ACCENT = 1.0  # an accent may change as much: only what people really say is told apart from it
_UNSAID = 5e-7  # of rows of words; once in 200 hours of talk
_NEAREST = 12  # neighbours of each word that are combined with those of the others
_SHARES = {"near": 0.5, "start": 0.25, "end": 0.25}
_EDGE = 0.5  # of its first or last word's phonemes that other words share
_SOFTENING = 0.15


class Negative(msgspec.Struct, frozen=True, kw_only=True):
    """Something to say, and how near it is.

    Attributes
    ----------
    text : str
    kind : str
        `part` of the phrase, `near` it as a whole, sharing its `start` or its `end`, or another
        machine's `wake` word.
    distance : float
        Weighted edit distance (see `kws_train.synth.phonemes.distances`) to the phrase, by the
        phonemes of the phrase: 0 is the same, 1 nothing alike.
    """

    text: str
    kind: str
    distance: float


def negatives(phrase: Phrase, *, n: int = 100, seed: int = 1) -> list[Negative]:
    """Return what is like a phrase, the nearest first.

    All of its parts and all other wake words; the rest are, half and half, what is nearest as a
    whole, and words drawn from those that share its start or end. What sounds like the phrase, and
    what holds the whole of it (`computers` holds `computer`), is left out: a model that answers to
    it is right. So is what an accent may make of the phrase, less than a phoneme apart, unless
    people say it: `few glass` is left out for `view glass`, `a computer` stays for `hey computer`.
    In other languages than English there are only parts and wake words, without an
    order: the distance is 1.

    Parameters
    ----------
    phrase : Phrase
    n : int
        At most.
    seed : int
        Decides which words with its start and end are taken.

    Raises
    ------
    ConfigError
        If it is not known how an English word of the phrase sounds.
    """
    if phrase.language != "en":
        texts = dict.fromkeys([*_parts(phrase), *WAKE_WORDS])
        kinds = {text: "wake" if text in WAKE_WORDS else "part" for text in texts}
        others = [text for text in texts if text != phrase.text]
        return [Negative(text=one, kind=kinds[one], distance=1.0) for one in others][:n]
    chosen = {one.text: one for one in _rated(phrase, _parts(phrase), kind="part")}
    for one in _rated(phrase, WAKE_WORDS, kind="wake"):
        chosen.setdefault(one.text, one)
    rest = max(0, n - len(chosen))
    random = np.random.default_rng(seed)
    for kind, share in _SHARES.items():
        found = [one for one in _candidates(phrase, kind) if one.text not in chosen]
        wanted = min(len(found), round(share * rest))
        if kind != "near" and found:
            weights = np.array([1 / (_SOFTENING + one.distance) ** 2 for one in found])
            picked = random.choice(len(found), wanted, replace=False, p=weights / weights.sum())
            found = [found[i] for i in picked]
        chosen |= {one.text: one for one in found[:wanted]}
    return sorted(chosen.values(), key=lambda one: (one.distance, one.text))[:n]


def apart_from(found: Iterable[Negative], phrases: Iterable[Phrase]) -> list[Negative]:
    """Return those that neither are one of some other phrases, nor sound like one, nor hold one.

    A model of several keywords is right to answer to them: `no` is like `go`, and so is `know`.
    """
    kept = list(found)
    for phrase in phrases:
        texts = [one.text for one in kept]
        clear = (
            {one.text for one in _rated(phrase, texts, kind="near")}
            if phrase.language == "en"
            else {*texts} - {phrase.text}
        )
        kept = [one for one in kept if one.text in clear]
    return kept


def share_out(found: Sequence[Negative], *, n_clips: int) -> dict[str, int]:
    """Say how many of so many clips each is to have: parts and near ones more than others.

    Returns
    -------
    dict of str to int
        For `synthesize`; sums up to `n_clips`.
    """
    if not found:
        return {}
    weights = [1 / (_SOFTENING + one.distance) * (2 if one.kind == "part" else 1) for one in found]
    edges = np.round(np.cumsum(weights) / sum(weights) * n_clips).astype(int)
    counts = np.diff(edges, prepend=0).tolist()
    return {one.text: n for one, n in zip(found, counts, strict=True) if n}


def holds(phonemes: Phonemes, ways: Iterable[Phonemes]) -> bool:
    """Say whether one of the ways to say a phrase is somewhere in a pronunciation."""
    return any(
        phonemes[i : i + len(way)] == way
        for way in ways
        for i in range(len(phonemes) - len(way) + 1)
    )


@functools.cache
def common_words() -> tuple[str, ...]:
    """Return the words of the dictionary that people say, about 40,000."""
    plain = (word for word in dictionary() if word.isalpha())
    return tuple(word for word in plain if probability(word) >= _LEAST_PROBABLE)


def _parts(phrase: Phrase) -> list[str]:
    """Return runs of its words; of a single word, the two words that it is made of."""
    words, n = phrase.words, len(phrase.words)
    if n == 1:
        return list(splits(words[0]) or ()) if phrase.language == "en" else []
    runs = [words[i:j] for i in range(n) for j in range(i + 1, n + 1) if (i, j) != (0, n)]
    return [Phrase(run, phrase.language).text for run in runs]


def _candidates(phrase: Phrase, kind: str) -> list[Negative]:
    """Return all there are of a kind; near ones in the order in which they are to be taken."""
    if kind == "near":
        texts = [
            *_combined(phrase),
            *_nearest(pronunciations_of_words(phrase.words), 10 * _NEAREST),
        ]
    else:
        ways = pronunciations(phrase.words[0 if kind == "start" else -1])
        n = max(2, round(_EDGE * len(ways[0])))
        cut = slice(None, n) if kind == "start" else slice(-n, None)
        edges = {way[cut] for way in ways}
        texts = [w for w in common_words() if any(p[cut] in edges for p in dictionary()[w])]
    return _rated(phrase, texts, kind=kind)


def _combined(phrase: Phrase) -> list[str]:
    """Return the phrase with one or two of its words replaced by what is near, of each by turns."""
    words = phrase.words
    if len(words) == 1:
        return []
    near = [_nearest(pronunciations(word), _NEAREST) for word in words]
    runs = [[(*words[:i], new, *words[i + 1 :]) for new in those] for i, those in enumerate(near)]
    for i, (those, others) in enumerate(itertools.pairwise(near)):
        runs.append(
            [(*words[:i], a, b, *words[i + 2 :]) for a, b in zip(those, others, strict=False)]
        )
    return [" ".join(run) for run in _interleaved(runs)]


def _nearest(ways: Sequence[Phonemes], n: int) -> list[str]:
    """Return the common words nearest to a pronunciation, without those that sound the same."""
    words, spoken = _common_pronunciations()
    apart = np.min([distances(way, spoken) for way in ways], axis=0)
    order = [int(i) for i in np.argsort(apart, kind="stable") if apart[i] >= _SAME]
    by_sound: dict[Phonemes, str] = {}
    for i in order[: 5 * n]:
        by_sound[spoken[i]] = max(by_sound.get(spoken[i], words[i]), words[i], key=probability)
    return list(dict.fromkeys(by_sound.values()))[:n]


def _interleaved(runs: Iterable[Sequence[_Item]]) -> list[_Item]:
    """Take one of each by turns, until all are at their end."""
    rounds = itertools.zip_longest(*runs)
    return [one for turn in rounds for one in turn if one is not None]


@functools.cache
def _common_pronunciations() -> tuple[list[str], list[Phonemes]]:
    pairs = [(word, way) for word in common_words() for way in dictionary()[word]]
    return [word for word, _ in pairs], [way for _, way in pairs]


def _rated(phrase: Phrase, texts: Iterable[str], *, kind: str) -> list[Negative]:
    """Return those of some texts that do not sound like the phrase or hold it, with distances."""
    ways = pronunciations_of_words(phrase.words)
    spoken = {text: pronunciations_of_words(text.lower().split()) for text in dict.fromkeys(texts)}
    pairs = [(text, way) for text, those in spoken.items() for way in those]
    if not pairs:
        return []
    apart = np.min([distances(way, [one for _, one in pairs]) for way in ways], axis=0)
    least: dict[str, float] = {}
    barred = {text for text, way in pairs if holds(way, ways)}
    for (text, _), distance in zip(pairs, apart.tolist(), strict=True):
        least[text] = min(distance, least.get(text, distance))
    n = min(map(len, ways))
    return [
        Negative(text=text, kind=kind, distance=round(min(1.0, distance / n), 3))
        for text, distance in least.items()
        if text not in barred and distance >= _SAME
        if distance >= _ACCENT or probability(*text.lower().split()) >= _UNSAID
    ]
