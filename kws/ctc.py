"""Decoding of connectionist temporal classification (Graves et al. 2006): outputs to sequences.

A network trained so gives at every output the posteriors of its labels and of a blank. An alignment
is a label or the blank for each output; it stands for the sequence that is left when repeated
labels are merged and blanks taken out. A sequence is as probable as all its alignments together.
"""

from collections import defaultdict
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Labels", "greedy", "log_probability", "prefix_beam"]

Labels: TypeAlias = tuple[int, ...]

_IMPOSSIBLE = -np.inf


def greedy(log_probs: npt.NDArray[Any], *, blank: int = 0) -> Labels:
    """Return the sequence of the most probable alignment.

    Parameters
    ----------
    log_probs : float [shape=(outputs, labels)]
        Logarithms of posteriors.
    blank : int
        Index of the blank.
    """
    best = log_probs.argmax(axis=1).tolist()
    merged = [label for i, label in enumerate(best) if i == 0 or label != best[i - 1]]
    return tuple(label for label in merged if label != blank)


def prefix_beam(
    log_probs: npt.NDArray[Any], *, beam: int, blank: int = 0
) -> list[tuple[Labels, float]]:
    """Return the most probable sequences and their log-probabilities, the best one first.

    Prefix beam search (Graves 2012, section 7.5.3; Hannun et al. 2014, algorithm 1): alignments of
    one sequence are added up as they go, and after each output the `beam` most probable beginnings
    are kept. With a beam wide enough to keep all of them the result is exact; otherwise the
    probabilities are lower bounds.

    Parameters
    ----------
    log_probs : float [shape=(outputs, labels)]
    beam : int
    blank : int
    """
    # For each beginning: the log-probability of its alignments that end in a blank, and of others.
    kept: dict[Labels, tuple[float, float]] = {(): (0.0, _IMPOSSIBLE)}
    for row in log_probs.astype(float).tolist():
        grown: dict[Labels, list[float]] = defaultdict(lambda: [_IMPOSSIBLE, _IMPOSSIBLE])
        for prefix, (ends_blank, ends_label) in kept.items():
            either = _add(ends_blank, ends_label)
            same = grown[prefix]
            same[0] = _add(same[0], either + row[blank])
            if prefix:
                same[1] = _add(same[1], ends_label + row[prefix[-1]])
            for label, log_p in enumerate(row):
                if label == blank:
                    continue
                # A label that comes twice needs a blank between.
                before = ends_blank if prefix and prefix[-1] == label else either
                longer = grown[(*prefix, label)]
                longer[1] = _add(longer[1], before + log_p)
        ranked = sorted(grown.items(), key=lambda item: -_add(*item[1]))
        kept = {prefix: (ends[0], ends[1]) for prefix, ends in ranked[:beam]}
    return [(prefix, _add(*ends)) for prefix, ends in kept.items()]


def log_probability(log_probs: npt.NDArray[Any], sequence: Labels, *, blank: int = 0) -> float:
    """Return the log-probability of a sequence, all alignments together (the forward algorithm).

    Parameters
    ----------
    log_probs : float [shape=(outputs, labels)]
    sequence : tuple of int
        Without blanks.
    blank : int
    """
    states = [blank]
    for label in sequence:
        states += [label, blank]
    forward = np.full(len(states), _IMPOSSIBLE)
    forward[0] = 0.0
    # Where a label may follow the one before without a blank.
    skips = np.array(
        [i >= 3 and one != blank and one != states[i - 2] for i, one in enumerate(states)]
    )
    for t, row in enumerate(log_probs.astype(float)):
        if t == 0:
            forward[1:2] = 0.0
        else:
            moved = np.concatenate(([_IMPOSSIBLE], forward[:-1]))
            skipped = np.concatenate(([_IMPOSSIBLE] * 2, forward[:-2]))[: len(states)]
            skipped[~skips] = _IMPOSSIBLE
            forward = np.logaddexp(np.logaddexp(forward, moved), skipped)
        forward = forward + row[states]
    return float(np.logaddexp.reduce(forward[-2:]))


def _add(one: float, other: float) -> float:
    """Return log(exp(one) + exp(other))."""
    if one < other:
        one, other = other, one
    if other == _IMPOSSIBLE:
        return one
    return float(one + np.log1p(np.exp(other - one)))
