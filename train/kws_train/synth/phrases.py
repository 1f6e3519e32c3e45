"""Text normalisation of phrases: to lower-case words without digits and punctuation."""

import functools
import re
import unicodedata
from typing import Any

import msgspec

from kws.errors import ConfigError
from kws_train.optional import load_library

__all__ = ["Phrase"]

_MAX_WORDS = 8
_MAX_LETTERS = 60
_TOKENS = re.compile(
    r"\d+(?:\.\d+)?(?:st|nd|rd|th)?(?![^\W\d_])|\d+(?:\.\d+)?|[^\W\d_]+(?:'[^\W\d_]+)*"
)
_VOWELS = set("aeiouy")


class Phrase(msgspec.Struct, frozen=True):
    """A normalised phrase.

    Attributes
    ----------
    words : tuple of str
        In lower case, numbers written out, without punctuation except apostrophes within words.
    language : str
        Such as `en`.
    """

    words: tuple[str, ...]
    language: str = "en"

    @property
    def text(self) -> str:
        """The text for speech synthesis; single letters are capitals, which voices spell."""
        single_words = {"a", "i", "o"} if self.language == "en" else set()
        capitals = (w.upper() if len(w) == 1 and w not in single_words else w for w in self.words)
        return " ".join(capitals)

    @property
    def label(self) -> str:
        """The name of the keyword, and of the folder of its clips, such as `hey_computer`."""
        return "_".join(self.words).replace("'", "")

    @classmethod
    def of(cls, text: str, /, *, language: str = "en") -> "Phrase":
        """Normalise a text.

        Hyphens and other punctuation separate words. In English, `&` is `and`, numbers are written
        out (`7th` is `seventh`, `R2D2` is `r two d two`), accents are removed (`Café` is `cafe`),
        and a word of consonants only that is not in the dictionary is spelled (`KWS` is `k w s`).
        In other languages letters keep their accents, and digits are kept.

        Raises
        ------
        ConfigError
            If it has no letters or digits, is too long, or has letters that English lacks.
        """
        plain = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
        if language == "en":
            plain = _without_accents(plain).replace("&", " and ")
        words = tuple(
            word for token in _TOKENS.findall(plain) for word in _words_of(token, language=language)
        )
        _check(text, words, language=language)
        return cls(words, language)


def _check(text: str, words: tuple[str, ...], *, language: str) -> None:
    if not any(character.isalnum() for character in "".join(words)):
        raise ConfigError(
            f"A phrase must have letters or digits, to be said. Received: {text!r}. "
            f"Write it as it is spoken."
        )
    if len(words) > _MAX_WORDS or sum(map(len, words)) > _MAX_LETTERS:
        raise ConfigError(
            f"A phrase must have at most {_MAX_WORDS} words and {_MAX_LETTERS} letters. "
            f"Received: {text!r}, {len(words)} words. Two or three words are best."
        )
    foreign = sorted({one for one in "".join(words) if not one.isascii()})
    if language == "en" and foreign:
        raise ConfigError(
            f"English has the letters a to z. Received: {text!r}, with {', '.join(foreign)}. "
            f"Write it in Latin letters as it sounds, or name its language: `--language`."
        )


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text)
    return "".join(one for one in decomposed if not unicodedata.combining(one))


def _words_of(token: str, *, language: str) -> list[str]:
    """Return the words that a token is read as."""
    if language != "en":
        return [token]
    if token[0].isdigit():
        written: str = _numbers().number_to_words(token, andword="")
        return re.findall(r"[a-z]+", written)
    if token.isascii() and not _VOWELS & set(token) and token not in _dictionary_words():
        return [letter for letter in token if letter != "'"]
    return [token]


@functools.cache
def _numbers() -> Any:
    return load_library("inflect", purpose="A number in a phrase").engine()


@functools.cache
def _dictionary_words() -> frozenset[str]:
    from kws_train.synth.lexicon import dictionary

    return frozenset(dictionary())
