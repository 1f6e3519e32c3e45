"""Accents: English phonemes as people of other tongues and places say them.

A voice that speaks from a dictionary says a word in one way; people say *computer* with another
vowel at its start, another R at its end, with T, D or a tap. An accent, drawn by its number, puts
some phonemes of the International Phonetic Alphabet in place of others that learners and dialects
confuse them with, the same one everywhere. A voice that has one is named `VOICE~NUMBER`.
"""

import re

import numpy as np

__all__ = ["N_ACCENTS", "accented", "split_accent", "with_accent"]

N_ACCENTS = 1000

_SHARE = 0.6  # of clips
_STRENGTH = (0.1, 0.55)  # chance of each phoneme to be another
_STRESS, _LENGTH = 0.4, 0.8  # the same of marks to be left out, as shares of the strength

# What stands for a phoneme may be more than one, or nothing. Capitals are Kokoro's diphthongs.
_OTHERS: dict[str, tuple[str, ...]] = {
    "ə": ("ɐ", "ʌ", "o", "a", "ɛ", "ɪ", "ʊ"),
    "ɐ": ("ə", "a", "ʌ"),
    "ʌ": ("a", "ɐ", "ɔ", "ɑ"),
    "æ": ("a", "ɛ"),
    "a": ("ɑ", "æ"),
    "ɑ": ("a", "ɔ"),
    "ɒ": ("ɔ", "ɑ"),
    "ɔ": ("o", "ɑ"),
    "o": ("ɔ",),
    "ɛ": ("e", "æ"),
    "e": ("ɛ",),
    "ɜ": ("ɛ", "e", "ɐ"),
    "ɪ": ("i",),
    "i": ("ɪ",),
    "ᵻ": ("ɪ", "i", "ɛ"),
    "ʊ": ("u",),
    "u": ("ʊ",),
    "O": ("o", "ɔ"),
    "A": ("e", "ɛ"),
    "I": ("aj",),
    "W": ("aw",),
    "Y": ("oj",),
    "ɚ": ("əɹ", "ə", "ɐ", "ɛɹ", "ɑ", "eɾ", "ɔɹ", "a"),
    "ɹ": ("r", "ɾ", ""),
    "ɾ": ("t", "d"),
    "t": ("d", "ʈ"),
    "d": ("t", "ɖ"),
    "b": ("p",),
    "ɡ": ("k",),
    "k": ("ɡ",),
    "θ": ("t", "s", "f"),
    "ð": ("d", "z"),
    "v": ("w", "b"),
    "w": ("v",),
    "z": ("s",),
    "s": ("z",),
    "ʧ": ("ʃ",),
    "ʤ": ("ʧ", "ʒ"),
    "ŋ": ("n", "ŋɡ"),
    "h": ("x", ""),
    "l": ("ɾ",),
    "j": ("i",),
}
_RARE = 0.5  # of phonemes with a single other one, which is often another word's


def with_accent(voice: str, random: np.random.Generator) -> str:
    """Return the name of a voice, as a rule with the accent that it is to have."""
    return f"{voice}~{random.integers(N_ACCENTS)}" if random.random() < _SHARE else voice


def split_accent(voice: str) -> tuple[str, int | None]:
    """Return the name of a voice without its accent, and the accent's number, if it has one."""
    found = re.fullmatch(r"(.*)~(\d+)", voice)
    return (found[1], int(found[2])) if found else (voice, None)


def accented(phonemes: str, number: int) -> str:
    """Return phonemes as an accent says them.

    Parameters
    ----------
    phonemes : str
        In the International Phonetic Alphabet.
    number : int
        Of the accent, 0 to `N_ACCENTS` - 1.
    """
    random = np.random.default_rng([number, 53])
    strength = random.uniform(*_STRENGTH)
    heard = {}
    for phoneme, others in _OTHERS.items():
        chance = strength * (_RARE if len(others) == 1 else 1.0)
        other = others[int(random.integers(len(others)))]
        heard[phoneme] = other if random.random() < chance else phoneme
    for marks, share in (("ˈˌ", _STRESS), ("ː", _LENGTH)):
        if random.random() < share * strength:
            heard |= dict.fromkeys(marks, "")
    return "".join(heard.get(one, one) for one in phonemes)
