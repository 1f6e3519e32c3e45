"""Posteriors in, phrases out: the decision for models that spell out sequences of words.

What `Decision` is for single words, `PhraseDecision` is for a manifest whose `decision.kind` is
"ctc": it gathers the outputs of an utterance, and decodes them once nothing has been said for a
while.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kws.config import DecisionSettings
from kws.ctc import Labels, prefix_beam
from kws.decision import Hit
from kws.errors import ConfigError
from kws.manifest import SILENCE, Manifest

__all__ = ["PhraseDecision", "phrases_for"]

_LEAD = 10  # outputs before the first word that are decoded with it
_LONGEST_MS = 10_000
_LEAST = np.float32(1e-7)
_SILENT = 0.8  # a word that no output is sure of is still one for the beam


class PhraseDecision:
    """Turn a stream of CTC posteriors into hits, one an utterance at most.

    An utterance begins where the blank, which is the label of silence, has a posterior below 0.8,
    and ends after `n_pause` outputs where it has more. Its most probable sequence then fires if
    its posterior reaches the threshold of each of its words. Labels that are no keywords divide a
    sequence; the longest part counts, or with phrases the longest of them that is in a part.

    Parameters
    ----------
    labels : sequence of str
        The model's outputs.
    thresholds : mapping of str to float
        For each keyword.
    phrases : sequence of str
        What to detect, words with a space between; none: every sequence.
    n_pause : int
        Outputs.
    n_longest : int
        Outputs after which an utterance is decoded, ended or not.
    beam : int
        Of the decoding.

    Attributes
    ----------
    smoothed : float32 [shape=(labels,)]
        The last posteriors, named as those of `Decision` are.
    rejected : Hit or None
        Where the last output ended an utterance without a hit: the most probable sequence in the
        beam that could have been one, scored by its posterior.
    """

    def __init__(
        self,
        labels: tuple[str, ...],
        *,
        thresholds: Mapping[str, float],
        phrases: Sequence[str] = (),
        n_pause: int,
        n_longest: int = 500,
        beam: int = 8,
    ) -> None:
        self._labels = labels
        self._blank = labels.index(SILENCE)
        self._thresholds = thresholds
        self._phrases = sorted((tuple(one.split()) for one in phrases), key=len, reverse=True)
        self._n_pause, self._n_longest = max(1, n_pause), n_longest
        self._beam = beam
        self.restart()

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        *,
        thresholds: Mapping[str, float],
        settings: DecisionSettings | None = None,
        n_outputs: int = 1,
    ) -> "PhraseDecision":
        """Return the decision for a model that gives `n_outputs` vectors of posteriors a call."""
        defaults = manifest.decision
        return cls(
            manifest.labels,
            thresholds=thresholds,
            phrases=phrases_for(settings or DecisionSettings(), manifest),
            n_pause=round(defaults.pause_ms * n_outputs / manifest.call_ms),
            n_longest=round(_LONGEST_MS * n_outputs / manifest.call_ms),
            beam=defaults.beam,
        )

    def reset(self) -> None:
        """Forget all posteriors."""
        self.restart()

    def restart(self) -> None:
        """Forget the posteriors, as after a gap in them."""
        self._rows: deque[npt.NDArray[Any]] = deque(maxlen=_LEAD)
        self._n_since_start = self._n_quiet = 0
        self.smoothed = np.zeros(len(self._labels), np.float32)
        self.rejected: Hit | None = None

    def skip(self, n_steps: int) -> None:
        """Let time pass without posteriors: nothing here depends on it."""

    def step(self, posteriors: npt.NDArray[Any], /) -> Hit | None:
        """Take the posteriors of one output.

        Parameters
        ----------
        posteriors : float [shape=(labels,)]

        Returns
        -------
        Hit or None
            The words of a sequence with a space between as its keyword.
        """
        self.rejected = None
        speaks = bool(posteriors[self._blank] < _SILENT)
        if speaks and not self._n_since_start:
            self._rows = deque(self._rows, maxlen=self._n_longest + _LEAD)
        self.smoothed = np.array(posteriors, np.float32)
        self._rows.append(self.smoothed)
        if not speaks and not self._n_since_start:
            return None
        self._n_since_start += 1
        self._n_quiet = 0 if speaks else self._n_quiet + 1
        if self._n_quiet < self._n_pause and self._n_since_start < self._n_longest:
            return None
        first, *others = self._decoded()
        self.restart()
        if first and first.score >= max(self._thresholds[one] for one in first.keyword.split()):
            return first
        self.rejected = next((hit for hit in (first, *others) if hit), None)
        return None

    def _decoded(self) -> list[Hit | None]:
        """Return what each sequence comes to, the most probable first; None: nothing wanted."""
        log_probs = np.log(np.maximum(np.stack(self._rows), _LEAST))
        hits: list[Hit | None] = []
        for sequence, log_p in prefix_beam(log_probs, beam=self._beam, blank=self._blank):
            keyword, score = " ".join(self._wanted(sequence)), min(1.0, float(np.exp(log_p)))
            hit = Hit(keyword, score, self._n_since_start, self._n_quiet)
            hits.append(hit if keyword else None)
        return hits

    def _wanted(self, sequence: Labels) -> tuple[str, ...]:
        """Return the part of a sequence that counts; empty if none does."""
        parts: list[tuple[str, ...]] = [()]
        for label in sequence:
            word = self._labels[label]
            if word in self._thresholds:
                parts[-1] = (*parts[-1], word)
            else:
                parts.append(())
        if not self._phrases:
            return max(parts, key=len)
        found = (one for one in self._phrases if any(_holds(part, one) for part in parts))
        return next(found, ())


def phrases_for(settings: DecisionSettings, manifest: Manifest) -> tuple[str, ...]:
    """Return the phrases to detect: the user's, or the model's own.

    Raises
    ------
    ConfigError
        If the model does not spell out sequences, or does not know a word.
    """
    if not settings.phrases:
        return manifest.decision.phrases
    if manifest.decision.kind != "ctc":
        raise ConfigError(
            f"`[decision] phrases` needs a model that hears sequences of words. Received: "
            f"`{manifest.name}`, which hears single ones. Choose another model, or remove the key."
        )
    for phrase in settings.phrases:
        if not phrase.split() or set(phrase.split()) - set(manifest.keywords):
            raise ConfigError(
                f"`[decision] phrases` must be made of words of the model `{manifest.name}`. "
                f"Received: `{phrase}`. It knows: {', '.join(manifest.keywords)}."
            )
    return tuple(" ".join(phrase.split()) for phrase in settings.phrases)


def _holds(words: tuple[str, ...], phrase: tuple[str, ...]) -> bool:
    last = len(words) - len(phrase)
    return any(words[i : i + len(phrase)] == phrase for i in range(last + 1))
