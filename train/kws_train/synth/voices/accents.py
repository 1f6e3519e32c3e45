"""Random accents: consistent substitutions of English phonemes.

A voice that speaks from a dictionary pronounces a word in one way; people say *computer* with
different first vowels, different final Rs, with T, D or a tap. An accent replaces some phonemes of
the International Phonetic Alphabet by others that learners and dialects confuse them with, each
always by the same one. The number of an accent is its random seed. A voice with an accent is named
`VOICE~NUMBER`.
"""

import re

import numpy as np

__all__ = ["N_ACCENTS", "apply_accent", "draw_accent", "split_accent"]

N_ACCENTS = 1000

_SHARE = 0.6  # of clips
_STRENGTH = (0.1, 0.55)  # probability of each substitution
_STRESS, _LENGTH = 0.4, 0.8  # probability that marks are dropped, relative to the strength

# A substitute may be several phonemes or none. Capitals are Kokoro's diphthongs.
_SUBSTITUTES: dict[str, tuple[str, ...]] = {
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
_RARE = 0.5  # of phonemes with a single substitute, which often gives another word


def draw_accent(voice: str, random: np.random.Generator) -> str:
    """Return the name of a voice, in 60 % of all draws with a random accent."""
    return f"{voice}~{random.integers(N_ACCENTS)}" if random.random() < _SHARE else voice


def split_accent(voice: str) -> tuple[str, int | None]:
    """Return the name of a voice without its accent, and the number of the accent or None."""
    found = re.fullmatch(r"(.*)~(\d+)", voice)
    return (found[1], int(found[2])) if found else (voice, None)


def apply_accent(phonemes: str, number: int) -> str:
    """Return phonemes with the substitutions of an accent.

    Parameters
    ----------
    phonemes : str
        In the International Phonetic Alphabet.
    number : int
        Of the accent, 0 to `N_ACCENTS` - 1.
    """
    random = np.random.default_rng([number, 53])
    strength = random.uniform(*_STRENGTH)
    substitutes = {}
    for phoneme, others in _SUBSTITUTES.items():
        chance = strength * (_RARE if len(others) == 1 else 1.0)
        other = others[int(random.integers(len(others)))]
        substitutes[phoneme] = other if random.random() < chance else phoneme
    for marks, share in (("ˈˌ", _STRESS), ("ː", _LENGTH)):
        if random.random() < share * strength:
            substitutes |= dict.fromkeys(marks, "")
    return "".join(substitutes.get(one, one) for one in phonemes)
