"""How many words of people a model misses that was tested on synthetic voices: an estimate.

Synthetic voices speak more clearly than people, so that their misses promise too much. For words of
which there are recordings, both were measured with the same model on the same speech; the odds of a
miss differ by a factor, which is applied to a word without recordings. Its spread over the words is
the spread of the estimate.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from scipy.special import expit, logit

__all__ = ["MEASURED", "Comparison", "Estimate", "estimate_misses"]


class Comparison(NamedTuple):
    """Misses of one model, made from text alone, at its own threshold for 0.5 per hour.

    Attributes
    ----------
    word : str
    voices, people : (int, int)
        Words missed, and words said, by synthetic voices that were held out, and by people.
    """

    word: str
    voices: tuple[int, int]
    people: tuple[int, int]


MEASURED: Mapping[str, Sequence[Comparison]] = {
    "clean": (
        Comparison("view glass", voices=(1, 65), people=(1, 100)),
        Comparison("computer", voices=(2, 67), people=(10, 103)),
        Comparison("snowboy", voices=(0, 55), people=(1, 101)),
    ),
    "10 dB": (
        Comparison("view glass", voices=(9, 65), people=(17, 100)),
        Comparison("computer", voices=(12, 67), people=(30, 103)),
        Comparison("snowboy", voices=(1, 55), people=(14, 101)),
    ),
}
"""By condition; `python benchmarks/own_word.py --recordings 0` prints these rows."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A miss rate that was not measured: in the middle, and for the least and most alike words."""

    miss_rate: float
    low: float
    high: float


def estimate_misses(n_missed: int, n_said: int, among: Sequence[Comparison]) -> Estimate | None:
    """Estimate the miss rate of people from misses of synthetic voices.

    Parameters
    ----------
    n_missed, n_said : int
        Of synthetic voices that were held out.
    among : sequence of Comparison
        Other words in the same condition.

    Returns
    -------
    Estimate or None
        None without a word to compare with. Rates lie above 0 even where no voice was missed.
    """
    if not among:
        return None
    shifts = [_log_odds(*one.people) - _log_odds(*one.voices) for one in among]
    start = _log_odds(n_missed, n_said)
    rates = (
        float(expit(start + shift))
        for shift in (math.fsum(shifts) / len(shifts), min(shifts), max(shifts))
    )
    return Estimate(**dict(zip(("miss_rate", "low", "high"), rates, strict=True)))


def _log_odds(n_missed: int, n_said: int) -> float:
    """Return the log odds of a miss, with half a miss and half a hit added (Haldane 1956)."""
    return float(logit((n_missed + 0.5) / (n_said + 1)))
