"""Is a phrase a good one to wake a machine with? Said before it is trained, with figures."""

import msgspec

from kws_train.synth.negatives import common_words, holds
from kws_train.synth.phonemes import (
    VOWELS,
    Phonemes,
    dictionary,
    distances,
    ipa,
    probability,
    pronunciations_of_words,
)
from kws_train.synth.phrases import Phrase

__all__ = ["WORDS_PER_HOUR", "Advice", "advise"]

WORDS_PER_HOUR = 10_000
"""Of speech without long pauses; 10,191 were counted in half of LibriSpeech dev-clean."""

_FEWEST_PHONEMES = 6
_OFTEN_PER_HOUR = 0.5
_NEAR_PER_HOUR = 5.0
_NEAR = 0.2  # distance by the phrase's phonemes
_N_EXAMPLES = 5


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be expected of a phrase.

    Attributes
    ----------
    phrase : str
    phonemes : tuple of str
        Of its first pronunciation; in other languages than English, the characters of its IPA.
    n_syllables : int or None
        None where only English is known.
    per_hour : float or None
        How often an hour of everyday English speech holds the phrase itself, as words of their own
        or within others; each is rightly a detection.
    near : dict of str to float
        Words that sound much like it, and how often an hour holds each; the commonest first.
    near_per_hour : float or None
        All of them together.
    warnings : tuple of str
        Plain sentences; none if the phrase is good.
    """

    phrase: str
    phonemes: tuple[str, ...]
    n_syllables: int | None
    per_hour: float | None
    near: dict[str, float]
    near_per_hour: float | None
    warnings: tuple[str, ...]


def advise(phrase: Phrase) -> Advice:
    """Count a phrase's phonemes, and how often it and its neighbours are said by chance.

    By the probabilities of words in pocketsphinx's model of American English, times
    `WORDS_PER_HOUR`: of the words said ten times or more in half of LibriSpeech dev-clean, 79 % are
    estimated right within a factor of three.

    Raises
    ------
    ConfigError
        If it is not known how an English word sounds.
    """
    if phrase.language != "en":
        return _foreign(phrase)
    ways = pronunciations_of_words(phrase.words)
    near, within = _alike(ways)
    per_hour = WORDS_PER_HOUR * (probability(*phrase.words) + within)
    examples = dict(sorted(near.items(), key=lambda one: -one[1])[:_N_EXAMPLES])
    near_per_hour = sum(near.values())
    warnings = [
        *_too_short(phrase, min(map(len, ways))),
        *_too_common(phrase, per_hour),
        *_too_like(phrase, examples, near_per_hour),
    ]
    return Advice(
        phrase=phrase.text,
        phonemes=ways[0],
        n_syllables=sum(one in VOWELS for one in ways[0]),
        per_hour=per_hour,
        near=examples,
        near_per_hour=near_per_hour,
        warnings=tuple(warnings),
    )


def _foreign(phrase: Phrase) -> Advice:
    said = ipa(phrase.text, language=phrase.language)
    phonemes = tuple(one for one in said or "" if one.isalpha() and one not in "ːʰʲ")
    return Advice(
        phrase=phrase.text,
        phonemes=phonemes,
        n_syllables=None,
        per_hour=None,
        near={},
        near_per_hour=None,
        warnings=tuple(_too_short(phrase, len(phonemes)) if phonemes else ()),
    )


def _alike(ways: tuple[Phonemes, ...]) -> tuple[dict[str, float], float]:
    """Return near words with how often they are said, and the probability of those that hold it."""
    near: dict[str, float] = {}
    within = 0.0
    words = common_words()
    spoken = [dictionary()[word][0] for word in words]
    apart = [distances(way, spoken) / len(way) for way in ways]
    for i, word in enumerate(words):
        distance = min(one[i] for one in apart)
        if distance == 0:
            continue
        if holds(spoken[i], ways):
            within += probability(word)
        elif distance < _NEAR:
            near[word] = WORDS_PER_HOUR * probability(word)
    return near, within


def _too_short(phrase: Phrase, n: int) -> list[str]:
    if n >= _FEWEST_PHONEMES:
        return []
    longer = f"{phrase.text} computer" if "hey" in phrase.words else f"hey {phrase.text}"
    return [
        f"`{phrase.text}` is short: {n} phonemes, where {_FEWEST_PHONEMES} or more are reliable. "
        f"Expect more misses and false alarms than of a longer phrase, such as `{longer}`."
    ]


def _too_common(phrase: Phrase, per_hour: float) -> list[str]:
    if per_hour < _OFTEN_PER_HOUR:
        return []
    return [
        f"`{phrase.text}` is everyday speech: said about {per_hour:.2g} times in an hour of talk, "
        f"and every time it fires, rightly. Put a word before it, or choose a rarer one."
    ]


def _too_like(phrase: Phrase, examples: dict[str, float], near_per_hour: float) -> list[str]:
    if near_per_hour < _NEAR_PER_HOUR:
        return []
    return [
        f"`{phrase.text}` is like everyday words ({', '.join(examples)}), said about "
        f"{near_per_hour:.2g} times in an hour of talk; some will fire."
    ]
