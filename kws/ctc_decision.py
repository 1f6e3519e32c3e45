"""Decision on phrases: decodes the outputs of a CTC network, one utterance at a time.

Connectionist temporal classification (Graves et al. 2006): at every output the network gives the
posteriors of its labels and of a blank. An alignment is a label or the blank for each output; it
stands for the sequence that remains when repeated labels are merged and blanks removed. The
probability of a sequence is the sum over its alignments.

`PhraseDecision` takes the place of `kws.decision.Decision` for a manifest whose `decision.kind` is
"ctc".
"""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kws.config import DecisionSettings
from kws.decision import Hit
from kws.errors import ConfigError
from kws.manifest import SILENCE, Manifest

__all__ = [
    "LabelSequence",
    "PhraseDecision",
    "greedy",
    "log_probability",
    "phrases_for",
    "prefix_beam",
]

LabelSequence: TypeAlias = tuple[int, ...]

_IMPOSSIBLE = -np.inf
_LEAD = 10  # outputs before the first word that are decoded with it
_LONGEST_MS = 10_000
_LEAST = np.float32(1e-7)
_SILENT = 0.8  # below it the beam may find a word, even where no output is sure of one


class PhraseDecision:
    """Turn a stream of CTC posteriors into hits, at most one for each utterance.

    An utterance begins where the posterior of the blank, the label of silence, falls below 0.8, and
    ends after `n_pause` outputs above that. Its most probable sequence then fires if its posterior
    reaches the threshold of each of its words. Labels that are no keywords divide a sequence; the
    longest part counts, or with phrases the longest phrase that a part holds.

    Parameters
    ----------
    labels : sequence of str
        The model's outputs.
    thresholds : mapping of str to float
        For each keyword.
    phrases : sequence of str
        Phrases to detect, words separated by spaces; none: every sequence.
    n_pause : int
        Outputs.
    n_longest : int
        Outputs after which an utterance is decoded, ended or not.
    beam : int
        Width of the beam.

    Attributes
    ----------
    smoothed : float32 [shape=(labels,)]
        The last posteriors; the name is that of `Decision`.
    rejected : Hit or None
        If the last output ended an utterance without a hit: the most probable sequence in the beam
        that is a phrase, with its posterior as score.
    peaks : list of (str, float)
        Keyword and score of each hit; the caller removes them.
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
        self.reset()

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
        self.peaks: list[tuple[str, float]] = []
        self.restart()

    def restart(self) -> None:
        """Forget the posteriors, as after a gap in them."""
        self._rows: deque[npt.NDArray[Any]] = deque(maxlen=_LEAD)
        self._n_since_start = self._n_quiet = 0
        self.smoothed = np.zeros(len(self._labels), np.float32)
        self.rejected: Hit | None = None

    def skip(self, n_steps: int) -> None:
        """Do nothing: outputs without posteriors do not count."""

    def step(self, posteriors: npt.NDArray[Any], /) -> Hit | None:
        """Process the posteriors of one output.

        Parameters
        ----------
        posteriors : float [shape=(labels,)]

        Returns
        -------
        Hit or None
            Its keyword is the words of the sequence, separated by spaces.
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
            self.peaks.append((first.keyword, first.score))
            return first
        self.rejected = next((hit for hit in (first, *others) if hit), None)
        return None

    def end_rises(self) -> None:
        """Do nothing: a phrase has no rise."""

    def _decoded(self) -> list[Hit | None]:
        """Return a hit for each sequence, the most probable first; None: it holds no phrase."""
        log_probs = np.log(np.maximum(np.stack(self._rows), _LEAST))
        hits: list[Hit | None] = []
        for sequence, log_p in prefix_beam(log_probs, beam=self._beam, blank=self._blank):
            keyword, score = " ".join(self._wanted(sequence)), min(1.0, float(np.exp(log_p)))
            hit = Hit(keyword, score, self._n_since_start, self._n_quiet)
            hits.append(hit if keyword else None)
        return hits

    def _wanted(self, sequence: LabelSequence) -> tuple[str, ...]:
        """Return the part of a sequence that counts, or an empty tuple."""
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
    """Return the phrases to detect: those of the settings, or those of the manifest.

    Raises
    ------
    ConfigError
        If the model does not decode sequences, or a word is not one of its keywords.
    """
    if not settings.phrases:
        return manifest.decision.phrases
    if manifest.decision.kind != "ctc":
        raise ConfigError(
            f"`[decision] phrases` needs a model of word sequences. Received: "
            f"`{manifest.name}`, a model of single words. Choose another model, or remove the key."
        )
    for phrase in settings.phrases:
        if not phrase.split() or set(phrase.split()) - set(manifest.keywords):
            raise ConfigError(
                f"`[decision] phrases` must be made of words of the model `{manifest.name}`. "
                f"Received: `{phrase}`. It knows: {', '.join(manifest.keywords)}."
            )
    return tuple(" ".join(phrase.split()) for phrase in settings.phrases)


def greedy(log_probs: npt.NDArray[Any], *, blank: int = 0) -> LabelSequence:
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
) -> list[tuple[LabelSequence, float]]:
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
    kept: dict[LabelSequence, tuple[float, float]] = {(): (0.0, _IMPOSSIBLE)}
    for row in log_probs.astype(float).tolist():
        grown: dict[LabelSequence, list[float]] = defaultdict(lambda: [_IMPOSSIBLE, _IMPOSSIBLE])
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


def log_probability(
    log_probs: npt.NDArray[Any], sequence: LabelSequence, *, blank: int = 0
) -> float:
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


def _holds(words: tuple[str, ...], phrase: tuple[str, ...]) -> bool:
    last = len(words) - len(phrase)
    return any(words[i : i + len(phrase)] == phrase for i in range(last + 1))
