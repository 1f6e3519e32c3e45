"""How words sound, in the 39 phonemes of ARPAbet, and how unlike two of them are.

Pronunciations are those of the CMU dictionary that pocketsphinx brings; what it lacks is put
together of two words it has, or asked of espeak-ng. All of it is English.
"""

import functools
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from pocketsphinx import Config, LogMath, NGramModel, get_model_path

from kws.errors import ConfigError

__all__ = [
    "VOWELS",
    "Codes",
    "Phonemes",
    "dictionary",
    "distances",
    "ipa",
    "probability",
    "pronunciations",
    "pronunciations_of_words",
    "splits",
]

Phonemes: TypeAlias = tuple[str, ...]
Codes: TypeAlias = npt.NDArray[np.int_]

_TIMEOUT_S = 30
_GAP = {"AH": 0.5, "HH": 0.5, "IH": 0.6, "ER": 0.8, "Y": 0.7}  # what is easily left out
_COMMON = 2e-6  # how probable both parts of a compound are, at least
_UNLIKE = 1.0  # a vowel for a consonant, and the most that two phonemes can differ by
_GLIDES = {
    frozenset(("W", "UW")): 0.4,
    frozenset(("Y", "IY")): 0.4,
    frozenset(("R", "ER")): 0.4,
    frozenset(("L", "R")): 0.4,
    frozenset(("L", "AH")): 0.7,
    frozenset(("W", "UH")): 0.5,
    frozenset(("Y", "IH")): 0.5,
}

# height (0 close to 1 open), backness (0 front to 1 back), roundness, and what it glides to
_VOWELS = {
    "IY": (0.0, 0.0, 0, 0.0, 0.0), "IH": (0.2, 0.15, 0, 0.2, 0.15), "EY": (0.4, 0.1, 0, 0.1, 0.05),
    "EH": (0.6, 0.15, 0, 0.6, 0.15), "AE": (0.85, 0.2, 0, 0.85, 0.2), "AA": (1.0, 0.8, 0, 1.0, 0.8),
    "AO": (0.7, 1.0, 1, 0.7, 1.0), "OW": (0.45, 0.85, 1, 0.2, 0.95), "UH": (0.2, 0.8, 1, 0.2, 0.8),
    "UW": (0.0, 0.9, 1, 0.0, 0.9), "AH": (0.6, 0.55, 0, 0.6, 0.55), "ER": (0.5, 0.5, 0, 0.5, 0.5),
    "AY": (0.95, 0.5, 0, 0.15, 0.1), "AW": (0.95, 0.5, 0, 0.2, 0.9),
    "OY": (0.65, 1.0, 1, 0.15, 0.1),
}  # fmt: skip
_VOWEL_WEIGHTS = (0.35, 0.35, 0.1, 0.25, 0.25)
_OTHER_VOWEL = 0.1

# place (0 lips to 1 throat), manner (stop, affricate, fricative, nasal, liquid, glide), voice
_CONSONANTS = {
    "P": (0.0, "stop", 0), "B": (0.0, "stop", 1), "T": (0.4, "stop", 0), "D": (0.4, "stop", 1),
    "K": (0.8, "stop", 0), "G": (0.8, "stop", 1), "CH": (0.55, "affricate", 0),
    "JH": (0.55, "affricate", 1), "F": (0.1, "fricative", 0), "V": (0.1, "fricative", 1),
    "TH": (0.25, "fricative", 0), "DH": (0.25, "fricative", 1), "S": (0.4, "fricative", 0),
    "Z": (0.4, "fricative", 1), "SH": (0.55, "fricative", 0), "ZH": (0.55, "fricative", 1),
    "HH": (1.0, "fricative", 0), "M": (0.0, "nasal", 1), "N": (0.4, "nasal", 1),
    "NG": (0.8, "nasal", 1), "L": (0.4, "liquid", 1), "R": (0.5, "liquid", 1),
    "W": (0.0, "glide", 1), "Y": (0.65, "glide", 1),
}  # fmt: skip
_MANNERS = {  # how unlike; the rest is 0.6
    frozenset(("stop", "affricate")): 0.3,
    frozenset(("affricate", "fricative")): 0.3,
    frozenset(("liquid", "glide")): 0.25,
    frozenset(("stop", "fricative")): 0.4,
    frozenset(("nasal", "liquid")): 0.4,
}
_OTHER_MANNER = 0.6

VOWELS = frozenset(_VOWELS)

_ALL = (*_VOWELS, *_CONSONANTS)
_INDEX = {phoneme: i for i, phoneme in enumerate(_ALL)}

_IPA = {
    "iːɹ": "IH R", "ɪɹ": "IH R", "ɛɹ": "EH R", "ɑːɹ": "AA R", "ɔːɹ": "AO R", "oːɹ": "AO R",
    "ʊɹ": "UH R", "aɪɚ": "AY ER", "aɪə": "AY AH", "tʃ": "CH", "dʒ": "JH", "eɪ": "EY", "aɪ": "AY",
    "aʊ": "AW", "ɔɪ": "OY", "oʊ": "OW", "əʊ": "OW", "iː": "IY", "uː": "UW", "ɑː": "AA", "ɔː": "AO",
    "ɜː": "ER", "i": "IY", "ɪ": "IH", "ᵻ": "IH", "ɛ": "EH", "e": "EH", "æ": "AE", "a": "AE",
    "ɐ": "AH", "ʌ": "AH", "ə": "AH", "ɚ": "ER", "ɑ": "AA", "ɒ": "AA", "ɔ": "AO", "o": "OW",
    "ʊ": "UH", "u": "UW", "əl": "AH L", "n̩": "AH N", "l̩": "AH L", "p": "P", "b": "B", "t": "T",
    "ɾ": "T", "d": "D", "k": "K", "ɡ": "G", "g": "G", "f": "F", "v": "V", "θ": "TH", "ð": "DH",
    "s": "S", "z": "Z", "ʃ": "SH", "ʒ": "ZH", "h": "HH", "x": "K", "m": "M", "n": "N", "ŋ": "NG",
    "l": "L", "ɹ": "R", "r": "R", "w": "W", "j": "Y", "ʔ": "T",
}  # fmt: skip
_IPA_PATTERN = re.compile("|".join(sorted(_IPA, key=len, reverse=True)))


@functools.cache
def dictionary() -> Mapping[str, tuple[Phonemes, ...]]:
    """Return the pronunciations of the 120,000 words of the CMU dictionary, without stress."""
    found: dict[str, list[Phonemes]] = {}
    path = Path(get_model_path("en-us/cmudict-en-us.dict"))
    for line in path.read_text(encoding="utf-8").splitlines():
        word, _, phonemes = line.partition(" ")
        found.setdefault(word.partition("(")[0], []).append(tuple(phonemes.split()))
    return {word: tuple(ways) for word, ways in found.items()}


def pronunciations(word: str) -> tuple[Phonemes, ...]:
    """Return the ways to say an English word.

    Raises
    ------
    ConfigError
        If the dictionary lacks it, it is not two of its words, and espeak-ng cannot be asked.
    """
    if ways := dictionary().get(word):
        return ways
    if found := _spoken(word):
        return (found,)
    if parts := splits(word):
        return tuple(a + b for a in dictionary()[parts[0]] for b in dictionary()[parts[1]])
    raise ConfigError(
        f"How a word sounds must be known. Received: `{word}`, which is not in the dictionary. "
        f"Run `sudo apt install espeak-ng`, or write it as words that are, such as `snow boy`."
    )


def pronunciations_of_words(words: Sequence[str], *, most: int = 8) -> tuple[Phonemes, ...]:
    """Return the ways to say words one after another, at most so many."""
    ways: list[Phonemes] = [()]
    for word in words:
        ways = [way + one for way in ways for one in pronunciations(word)][:most]
    return tuple(dict.fromkeys(ways))


def splits(word: str) -> tuple[str, str] | None:
    """Return the two words of three letters or more that a word is made of, the likeliest ones."""
    pairs = [(word[:i], word[i:]) for i in range(3, len(word) - 2)]
    likely = [
        (min(map(probability, pair)), pair)
        for pair in pairs
        if all(one in dictionary() for one in pair)
    ]
    best, pair = max(likely, default=(0.0, ("", "")))
    return pair if best >= _COMMON else None


def ipa(text: str, *, language: str) -> str | None:
    """Return how espeak-ng would say a text, in IPA; None if it is not installed."""
    if not shutil.which("espeak-ng"):
        return None
    command = ["espeak-ng", "-q", "--ipa", "-v", language, "--", text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    return re.sub(r"[ˈˌ‿\u200d]|\(\w+\)", "", done.stdout).strip()


def distances(phonemes: Phonemes, others: Sequence[Phonemes]) -> npt.NDArray[np.float64]:
    """Return the weighted edit distances between a pronunciation and others.

    A phoneme for another costs what their features differ by, 0..1; one too few or too many costs
    1, or less where it is easily swallowed.

    Returns
    -------
    float64 [shape=(others,)]
    """
    result = np.empty(len(others))
    for chosen, codes in _coded(tuple(others)):
        result[chosen] = _distances(phonemes, codes)
    return result


def probability(*words: str) -> float:
    """Return how probable words are, one after another, among all that is said in English.

    By the trigrams of pocketsphinx's language model of American English; 0 for unknown words.
    """
    model, log_math = _language_model()
    total = 1.0
    for i in range(len(words)):
        total *= log_math.exp(model.prob(list(reversed(words[max(0, i - 2) : i + 1]))))
    return total if all(_known(word) for word in words) else 0.0


def _known(word: str) -> bool:
    model, log_math = _language_model()
    return bool(log_math.exp(model.prob([word])) > 0)


@functools.cache
def _language_model() -> tuple[NGramModel, LogMath]:
    log_math = LogMath()
    path = get_model_path("en-us/en-us.lm.bin")
    return NGramModel(Config(), log_math, path), log_math


@functools.cache
def _spoken(word: str) -> Phonemes | None:
    """Ask espeak-ng."""
    said = ipa(word, language="en-us")
    return (
        tuple(" ".join(_IPA[one] for one in _IPA_PATTERN.findall(said)).split()) if said else None
    )


@functools.lru_cache(maxsize=8)
def _coded(spoken: tuple[Phonemes, ...]) -> list[tuple[Codes, Codes]]:
    """Return pronunciations as numbers, by length: which, and a row each."""
    lengths = np.array([len(one) for one in spoken], int)
    groups = []
    for length in np.unique(lengths):
        chosen = np.flatnonzero(lengths == length)
        codes = np.array([[_INDEX[one] for one in spoken[i]] for i in chosen], int)
        groups.append((chosen, codes.reshape(len(chosen), length)))
    return groups


def _distances(phonemes: Phonemes, codes: Codes) -> npt.NDArray[np.float64]:
    """Levenshtein's distance with weights, over all rows of codes at once."""
    swap, gap = _costs()
    row = np.concatenate([np.zeros((len(codes), 1)), np.cumsum(gap[codes], axis=1)], axis=1)
    for phoneme in phonemes:
        i = _INDEX[phoneme]
        new = np.empty_like(row)
        new[:, 0] = row[:, 0] + gap[i]
        for j in range(codes.shape[1]):
            new[:, j + 1] = np.minimum(
                row[:, j] + swap[i, codes[:, j]],
                np.minimum(row[:, j + 1] + gap[i], new[:, j] + gap[codes[:, j]]),
            )
        row = new
    return row[:, -1]


@functools.cache
def _costs() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the cost of each phoneme for each other, and of each that is too few or too many."""
    swap = np.array([[_unlike(a, b) for b in _ALL] for a in _ALL])
    return swap, np.array([_GAP.get(one, 1.0) for one in _ALL])


def _unlike(one: str, other: str) -> float:
    if one == other:
        return 0.0
    if (glide := _GLIDES.get(frozenset((one, other)))) is not None:
        return glide
    if one in _VOWELS and other in _VOWELS:
        difference = np.abs(np.subtract(_VOWELS[one], _VOWELS[other]))
        rhotic = 0.25 * ((one == "ER") != (other == "ER"))
        apart = float(np.dot(difference, _VOWEL_WEIGHTS)) + _OTHER_VOWEL
        return min(_UNLIKE, apart + rhotic)
    if one in _CONSONANTS and other in _CONSONANTS:
        (place, manner, voice), (place2, manner2, voice2) = _CONSONANTS[one], _CONSONANTS[other]
        apart = (
            0.0 if manner == manner2 else _MANNERS.get(frozenset((manner, manner2)), _OTHER_MANNER)
        )
        return min(_UNLIKE, apart + 0.7 * abs(place - place2) + 0.25 * (voice != voice2) + 0.05)
    return _UNLIKE
