"""The 39 phonemes of ARPAbet, and distances between pronunciations."""

import functools
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["VOWELS", "Phonemes", "distances"]

Phonemes: TypeAlias = tuple[str, ...]
_Codes: TypeAlias = npt.NDArray[np.int_]

_GAP = {"AH": 0.5, "HH": 0.5, "IH": 0.6, "ER": 0.8, "Y": 0.7}  # phonemes that are often elided
_MAX_COST = 1.0  # of a substitution; also of a vowel by a consonant
_GLIDES = {
    frozenset(("W", "UW")): 0.4,
    frozenset(("Y", "IY")): 0.4,
    frozenset(("R", "ER")): 0.4,
    frozenset(("L", "R")): 0.4,
    frozenset(("L", "AH")): 0.7,
    frozenset(("W", "UH")): 0.5,
    frozenset(("Y", "IH")): 0.5,
}

# height (0 close to 1 open), backness (0 front to 1 back), roundness; height, backness of the glide
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

# place (0 lips to 1 throat), manner (stop, affricate, fricative, nasal, liquid, glide), voicing
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
_MANNERS = {  # distances of manners; of all other pairs, _OTHER_MANNER
    frozenset(("stop", "affricate")): 0.3,
    frozenset(("affricate", "fricative")): 0.3,
    frozenset(("liquid", "glide")): 0.25,
    frozenset(("stop", "fricative")): 0.4,
    frozenset(("nasal", "liquid")): 0.4,
}
_OTHER_MANNER = 0.6

VOWELS = frozenset(_VOWELS)
"""The vowels of ARPAbet."""

_ALL = (*_VOWELS, *_CONSONANTS)
_INDEX = {phoneme: i for i, phoneme in enumerate(_ALL)}


def distances(phonemes: Phonemes, others: Sequence[Phonemes]) -> npt.NDArray[np.float64]:
    """Return the weighted edit distances between a pronunciation and others.

    A substitution costs the difference of the phonemes' articulatory features, 0..1; an insertion
    or deletion costs 1, or less for phonemes that are often elided.

    Returns
    -------
    float64 [shape=(others,)]
    """
    result = np.empty(len(others))
    for chosen, codes in _group_by_length(tuple(others)):
        result[chosen] = _distances(phonemes, codes)
    return result


@functools.lru_cache(maxsize=8)
def _group_by_length(ways: tuple[Phonemes, ...]) -> list[tuple[_Codes, _Codes]]:
    """Return pronunciations grouped by length: their indices, and their phonemes as numbers."""
    lengths = np.array([len(one) for one in ways], int)
    groups = []
    for length in np.unique(lengths):
        chosen = np.flatnonzero(lengths == length)
        codes = np.array([[_INDEX[one] for one in ways[i]] for i in chosen], int)
        groups.append((chosen, codes.reshape(len(chosen), length)))
    return groups


def _distances(phonemes: Phonemes, codes: _Codes) -> npt.NDArray[np.float64]:
    """Return weighted Levenshtein distances (rows,) to all rows of codes at once."""
    substitution, gap = _costs()
    row = np.concatenate([np.zeros((len(codes), 1)), np.cumsum(gap[codes], axis=1)], axis=1)
    for phoneme in phonemes:
        i = _INDEX[phoneme]
        new = np.empty_like(row)
        new[:, 0] = row[:, 0] + gap[i]
        for j in range(codes.shape[1]):
            new[:, j + 1] = np.minimum(
                row[:, j] + substitution[i, codes[:, j]],
                np.minimum(row[:, j + 1] + gap[i], new[:, j] + gap[codes[:, j]]),
            )
        row = new
    return row[:, -1]


@functools.cache
def _costs() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the costs of substitutions (phonemes, phonemes) and of insertions and deletions."""
    substitution = np.array([[_substitution_cost(a, b) for b in _ALL] for a in _ALL])
    return substitution, np.array([_GAP.get(one, 1.0) for one in _ALL])


def _substitution_cost(one: str, other: str) -> float:
    if one == other:
        return 0.0
    if (glide := _GLIDES.get(frozenset((one, other)))) is not None:
        return glide
    if one in _VOWELS and other in _VOWELS:
        difference = np.abs(np.subtract(_VOWELS[one], _VOWELS[other]))
        rhotic = 0.25 * ((one == "ER") != (other == "ER"))
        distance = float(np.dot(difference, _VOWEL_WEIGHTS)) + _OTHER_VOWEL
        return min(_MAX_COST, distance + rhotic)
    if one in _CONSONANTS and other in _CONSONANTS:
        (place, manner, voice), (place2, manner2, voice2) = _CONSONANTS[one], _CONSONANTS[other]
        distance = (
            0.0 if manner == manner2 else _MANNERS.get(frozenset((manner, manner2)), _OTHER_MANNER)
        )
        return min(
            _MAX_COST, distance + 0.7 * abs(place - place2) + 0.25 * (voice != voice2) + 0.05
        )
    return _MAX_COST
