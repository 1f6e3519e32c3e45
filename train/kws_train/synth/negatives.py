"""Confusable phrases: similar to a keyword, synthesised and trained against as negatives."""

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec
import numpy as np

from kws_train.synth.lexicon import (
    common_words,
    dictionary,
    phrase_pronunciations,
    probability,
    pronunciations,
    split_compound,
)
from kws_train.synth.phonemes import Phonemes, distances
from kws_train.synth.phrases import Phrase

__all__ = [
    "WAKE_WORDS",
    "Negative",
    "allocate_clips",
    "contains",
    "find_negatives",
    "without_keywords",
]

_Item = TypeVar("_Item")

WAKE_WORDS = (
    "alexa", "hey siri", "siri", "ok google", "hey google", "hey cortana", "hi bixby", "computer",
    "hey computer", "amazon", "echo", "hey mycroft", "hey jarvis", "jarvis", "hey rhasspy",
    "ok nabu", "snowboy", "hey snips", "porcupine", "picovoice", "bumblebee", "grasshopper",
    "terminator", "americano", "blueberry", "grapefruit", "smart mirror", "view glass",
)  # fmt: skip
"""Wake words of other devices."""

_MIN_DISTANCE = 0.3  # in phonemes; nearer pronunciations are variants of the phrase itself
_MIN_DISTANCE_RARE = 1.0  # accents vary a phrase by as much; nearer negatives have to be in use
_MIN_SEQUENCE_PROBABILITY = 5e-7  # of a sequence in use: once in 200 hours of talk
_N_NEIGHBOURS = 12  # of each word, combined with those of the others
_SHARES = {"near": 0.5, "start": 0.25, "end": 0.25}
_EDGE_SHARE = 0.5  # of the phonemes of the first or last word, shared with other words
_SOFTENING = 0.15


class Negative(msgspec.Struct, frozen=True, kw_only=True):
    """A confusable phrase.

    Attributes
    ----------
    text : str
    kind : str
        `part` of the keyword, `near` the whole keyword, with the same `start` or `end`, or another
        device's `wake` word.
    distance : float
        Weighted edit distance (see `kws_train.synth.phonemes.distances`) to the keyword, divided by
        its number of phonemes: 0 is the same, 1 has nothing in common.
    """

    text: str
    kind: str
    distance: float


def find_negatives(phrase: Phrase, *, n: int = 100, seed: int = 1) -> list[Negative]:
    """Return confusable phrases, nearest first.

    All parts of the phrase and all other wake words; of the remaining number, half are the nearest
    to the whole phrase, half are words drawn from those with the same start or end. Phrases that
    sound like the keyword or contain it (`computers` contains `computer`) are excluded: a detection
    of them is correct. Phrases less than a phoneme away, as an accent may pronounce the keyword,
    are excluded unless they are in use: `few glass` is for `view glass`, `a computer` is not for
    `hey computer`. In languages other than English there are only parts and wake words, in no
    order, with a distance of 1.

    Parameters
    ----------
    phrase : Phrase
    n : int
        At most.
    seed : int
        Of the draw of words with the same start or end.

    Raises
    ------
    ConfigError
        If the pronunciation of an English word of the phrase is unknown.
    """
    if phrase.language != "en":
        return _negatives_without_dictionary(phrase)[:n]
    chosen = {one.text: one for one in _rate(phrase, _parts(phrase), kind="part")}
    for one in _rate(phrase, WAKE_WORDS, kind="wake"):
        chosen.setdefault(one.text, one)
    n_left = max(0, n - len(chosen))
    random = np.random.default_rng(seed)
    for kind, share in _SHARES.items():
        found = [one for one in _candidates(phrase, kind) if one.text not in chosen]
        n_wanted = min(len(found), round(share * n_left))
        if kind != "near" and found:
            found = _draw(found, n_wanted, random)
        chosen |= {one.text: one for one in found[:n_wanted]}
    return sorted(chosen.values(), key=lambda one: (one.distance, one.text))[:n]


def without_keywords(found: Iterable[Negative], phrases: Iterable[Phrase]) -> list[Negative]:
    """Return the negatives that are no other keyword, do not sound like one and contain none.

    A model of several keywords has to detect them: `no` is similar to `go`, and so is `know`.
    """
    kept = list(found)
    for phrase in phrases:
        texts = [one.text for one in kept]
        clear = (
            {one.text for one in _rate(phrase, texts, kind="near")}
            if phrase.language == "en"
            else {*texts} - {phrase.text}
        )
        kept = [one for one in kept if one.text in clear]
    return kept


def allocate_clips(found: Sequence[Negative], *, n_clips: int) -> dict[str, int]:
    """Distribute a number of clips over negatives: more to parts and to near ones.

    Returns
    -------
    dict of str to int
        Clips per text, for `synthesize`; sums up to `n_clips`.
    """
    if not found:
        return {}
    weights = [1 / (_SOFTENING + one.distance) * (2 if one.kind == "part" else 1) for one in found]
    edges = np.round(np.cumsum(weights) / sum(weights) * n_clips).astype(int)
    counts = np.diff(edges, prepend=0).tolist()
    return {one.text: n for one, n in zip(found, counts, strict=True) if n}


def contains(phonemes: Phonemes, ways: Iterable[Phonemes]) -> bool:
    """Return whether a pronunciation contains one of the pronunciations of a phrase."""
    return any(
        phonemes[i : i + len(way)] == way
        for way in ways
        for i in range(len(phonemes) - len(way) + 1)
    )


def _negatives_without_dictionary(phrase: Phrase) -> list[Negative]:
    texts = dict.fromkeys([*_parts(phrase), *WAKE_WORDS])
    return [
        Negative(text=text, kind="wake" if text in WAKE_WORDS else "part", distance=1.0)
        for text in texts
        if text != phrase.text
    ]


def _draw(found: Sequence[Negative], n: int, random: np.random.Generator) -> list[Negative]:
    """Draw n negatives, nearer ones with a higher probability."""
    weights = np.array([1 / (_SOFTENING + one.distance) ** 2 for one in found])
    picked = random.choice(len(found), n, replace=False, p=weights / weights.sum())
    return [found[i] for i in picked]


def _parts(phrase: Phrase) -> list[str]:
    """Return runs of the phrase's words; of a single compound word, its two parts."""
    words, n = phrase.words, len(phrase.words)
    if n == 1:
        return list(split_compound(words[0]) or ()) if phrase.language == "en" else []
    runs = [words[i:j] for i in range(n) for j in range(i + 1, n + 1) if (i, j) != (0, n)]
    return [Phrase(run, phrase.language).text for run in runs]


def _candidates(phrase: Phrase, kind: str) -> list[Negative]:
    """Return all negatives of a kind; near ones in order of preference."""
    if kind == "near":
        nearest = _nearest_words(phrase_pronunciations(phrase.words), 10 * _N_NEIGHBOURS)
        return _rate(phrase, [*_with_words_replaced(phrase), *nearest], kind=kind)
    ways = pronunciations(phrase.words[0 if kind == "start" else -1])
    n = max(2, round(_EDGE_SHARE * len(ways[0])))
    cut = slice(None, n) if kind == "start" else slice(-n, None)
    edges = {way[cut] for way in ways}
    texts = [w for w in common_words() if any(p[cut] in edges for p in dictionary()[w])]
    return _rate(phrase, texts, kind=kind)


def _with_words_replaced(phrase: Phrase) -> list[str]:
    """Return the phrase with one word or two neighbours replaced by similar ones, interleaved."""
    words = phrase.words
    if len(words) == 1:
        return []
    near = [_nearest_words(pronunciations(word), _N_NEIGHBOURS) for word in words]
    runs = [[(*words[:i], new, *words[i + 1 :]) for new in those] for i, those in enumerate(near)]
    for i, (those, others) in enumerate(itertools.pairwise(near)):
        runs.append(
            [(*words[:i], a, b, *words[i + 2 :]) for a, b in zip(those, others, strict=False)]
        )
    return [" ".join(run) for run in _interleave(runs)]


def _nearest_words(ways: Sequence[Phonemes], n: int) -> list[str]:
    """Return the common words nearest to a pronunciation, without homophones."""
    words, spoken = _common_pronunciations()
    apart = np.min([distances(way, spoken) for way in ways], axis=0)
    order = [int(i) for i in np.argsort(apart, kind="stable") if apart[i] >= _MIN_DISTANCE]
    by_sound: dict[Phonemes, str] = {}
    for i in order[: 5 * n]:
        by_sound[spoken[i]] = max(by_sound.get(spoken[i], words[i]), words[i], key=probability)
    return list(dict.fromkeys(by_sound.values()))[:n]


def _interleave(runs: Iterable[Sequence[_Item]]) -> list[_Item]:
    """Return the first item of each run, then the second of each, and so on."""
    rounds = itertools.zip_longest(*runs)
    return [one for turn in rounds for one in turn if one is not None]


@functools.cache
def _common_pronunciations() -> tuple[list[str], list[Phonemes]]:
    pairs = [(word, way) for word in common_words() for way in dictionary()[word]]
    return [word for word, _ in pairs], [way for _, way in pairs]


def _rate(phrase: Phrase, texts: Iterable[str], *, kind: str) -> list[Negative]:
    """Return texts that do not sound like the phrase or contain it, with their distances."""
    ways = phrase_pronunciations(phrase.words)
    spoken = {text: phrase_pronunciations(text.lower().split()) for text in dict.fromkeys(texts)}
    pairs = [(text, way) for text, those in spoken.items() for way in those]
    if not pairs:
        return []
    apart = np.min([distances(way, [one for _, one in pairs]) for way in ways], axis=0)
    least: dict[str, float] = {}
    excluded = {text for text, way in pairs if contains(way, ways)}
    for (text, _), distance in zip(pairs, apart.tolist(), strict=True):
        least[text] = min(distance, least.get(text, distance))
    n = min(map(len, ways))
    return [
        Negative(text=text, kind=kind, distance=round(min(1.0, distance / n), 3))
        for text, distance in least.items()
        if text not in excluded and distance >= _MIN_DISTANCE
        if distance >= _MIN_DISTANCE_RARE
        or probability(*text.lower().split()) >= _MIN_SEQUENCE_PROBABILITY
    ]
