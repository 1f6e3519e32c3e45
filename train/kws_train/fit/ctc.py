"""Connectionist temporal classification (Graves et al. 2006): the loss over sequences of words.

The model gives logits over labels at every output; the label of silence, the first one, is the
blank. `kws.ctc_decision` decodes them.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kws.errors import ConfigError

__all__ = ["CtcLoss", "edit_distance", "word_error_rate"]

_BLANK = 0


class CtcLoss(keras.losses.Loss):
    """Negative log of the probability of a sequence of words, over all its alignments, per output.

    Takes targets (batch, words), indices of labels with 0 behind the last, and logits (batch,
    outputs, labels).
    """

    def call(self, words: Any, logits: Any) -> Any:
        """Return the loss of each utterance (batch,), divided by its outputs."""
        words = ops.cast(words, "int32")
        n_outputs = logits.shape[1]
        n_words = ops.sum(ops.cast(words != _BLANK, "int32"), axis=1)
        lengths = ops.full_like(n_words, n_outputs)
        logits = ops.cast(logits, "float32")
        return ops.ctc_loss(words, logits, n_words, lengths, mask_index=_BLANK) / n_outputs


def word_error_rate(said: Sequence[Sequence[str]], heard: Sequence[Sequence[str]]) -> float:
    """Return substitutions, deletions and insertions over the number of words said.

    Raises
    ------
    ConfigError
        If no word was said.
    """
    n_words = sum(len(one) for one in said)
    if not n_words:
        raise ConfigError(
            "A word error rate needs words that were said. Received: none. Give other data."
        )
    pairs = zip(said, heard, strict=True)
    return sum(edit_distance(one, other) for one, other in pairs) / n_words


def edit_distance(said: Sequence[str], heard: Sequence[str]) -> int:
    """Return the least number of words to change, leave out or put in (Levenshtein 1966)."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, start=1):
        before, row = row, [i]
        for j, other in enumerate(heard, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (word != other)))
    return row[-1]
