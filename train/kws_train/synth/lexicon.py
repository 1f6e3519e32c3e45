"""English pronunciations and word probabilities.

Pronunciations are those of the CMU dictionary in pocketsphinx. For words that it lacks, espeak-ng
is run, or the pronunciations of the two words of a compound are joined.
"""

import functools
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from pocketsphinx import Config, LogMath, NGramModel, get_model_path

from kws.errors import ConfigError
from kws_train.synth.phonemes import Phonemes

__all__ = [
    "common_words",
    "dictionary",
    "espeak_ipa",
    "phrase_pronunciations",
    "probability",
    "pronunciations",
    "split_compound",
]

_TIMEOUT_S = 30
_MIN_WORD_PROBABILITY = 2e-7  # of common words; rarer ones are mostly names
_MIN_PART_PROBABILITY = 2e-6  # of both parts of a compound
_MIN_PART_LETTERS = 3

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


@functools.cache
def common_words() -> tuple[str, ...]:
    """Return the words of the dictionary that are in common use, about 40,000."""
    plain = (word for word in dictionary() if word.isalpha())
    return tuple(word for word in plain if probability(word) >= _MIN_WORD_PROBABILITY)


def pronunciations(word: str) -> tuple[Phonemes, ...]:
    """Return the pronunciations of an English word.

    Raises
    ------
    ConfigError
        If the dictionary lacks it, it is no compound, and espeak-ng is not installed.
    """
    if ways := dictionary().get(word):
        return ways
    if found := _espeak_phonemes(word):
        return (found,)
    if parts := split_compound(word):
        return tuple(a + b for a in dictionary()[parts[0]] for b in dictionary()[parts[1]])
    raise ConfigError(
        f"The pronunciation of a word must be known. Received: `{word}`, which is not in the "
        f"dictionary. Run `sudo apt install espeak-ng`, or write it as words that are, such as "
        f"`snow boy`."
    )


def phrase_pronunciations(words: Sequence[str], *, most: int = 8) -> tuple[Phonemes, ...]:
    """Return the pronunciations of words in sequence, at most `most`."""
    ways: list[Phonemes] = [()]
    for word in words:
        ways = [way + one for way in ways for one in pronunciations(word)][:most]
    return tuple(dict.fromkeys(ways))


def split_compound(word: str) -> tuple[str, str] | None:
    """Return the two common words that make up a compound, the most probable pair, or None."""
    n = _MIN_PART_LETTERS
    pairs = [(word[:i], word[i:]) for i in range(n, len(word) - n + 1)]
    likely = [
        (min(map(probability, pair)), pair)
        for pair in pairs
        if all(one in dictionary() for one in pair)
    ]
    best, pair = max(likely, default=(0.0, ("", "")))
    return pair if best >= _MIN_PART_PROBABILITY else None


def espeak_ipa(text: str, *, language: str) -> str | None:
    """Return the pronunciation of a text by espeak-ng, in IPA; None if it is not installed."""
    if not shutil.which("espeak-ng"):
        return None
    command = ["espeak-ng", "-q", "--ipa", "-v", language, "--", text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    return re.sub(r"[ˈˌ‿\u200d]|\(\w+\)", "", done.stdout).strip()


def probability(*words: str) -> float:
    """Return the probability of a sequence of words in English speech.

    By the trigrams of pocketsphinx's language model of American English; 0 for unknown words.
    """
    model, log_math = _language_model()
    total = 1.0
    for i in range(len(words)):
        total *= log_math.exp(model.prob(list(reversed(words[max(0, i - 2) : i + 1]))))
    return total if all(_is_known(word) for word in words) else 0.0


def _is_known(word: str) -> bool:
    model, log_math = _language_model()
    return bool(log_math.exp(model.prob([word])) > 0)


@functools.cache
def _language_model() -> tuple[NGramModel, LogMath]:
    log_math = LogMath()
    path = get_model_path("en-us/en-us.lm.bin")
    return NGramModel(Config(), log_math, path), log_math


@functools.cache
def _espeak_phonemes(word: str) -> Phonemes | None:
    """Return espeak-ng's pronunciation in ARPAbet."""
    ipa = espeak_ipa(word, language="en-us")
    return tuple(" ".join(_IPA[one] for one in _IPA_PATTERN.findall(ipa)).split()) if ipa else None
