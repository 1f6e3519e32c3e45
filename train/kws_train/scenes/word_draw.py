"""Random draws of isolated words, from clips and from continuous speech."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.manifest import UNKNOWN
from kws_train.data.corpus import Clip, Corpus, Probabilities, Spoken
from kws_train.data.speech_span import Span, speech_span
from kws_train.recipe import AugmentRecipe
from kws_train.scenes.augment import Random

__all__ = ["DrawnWord", "WordDraw"]

_SHORTEST_CUT_S = 0.2  # of a word cut out of continuous speech
_SPEECH_MARGIN_S, _CLIP_MARGIN_S = 0.04, 0.3


class DrawnWord(NamedTuple):
    """A word, cut out of its file.

    Attributes
    ----------
    label : str
    samples : int16 [shape=(n,)]
    span : (int, int)
        Where in `samples` the word is spoken.
    is_real : bool
        False: synthetic.
    path : Path
        Its file.
    soft : float32 [shape=(labels,)] or None
        What a teacher says of it.
    """

    label: str
    samples: npt.NDArray[Any]
    span: Span
    is_real: bool
    path: Path
    soft: Probabilities | None = None


class WordDraw:
    """Draw keywords and other words as a recipe's shares ask for.

    Parameters
    ----------
    corpus : Corpus
        One split.
    recipe : AugmentRecipe
    keywords : sequence of str
    ambiguous : mapping of str to list of str
        Words that sound like a keyword, in lower case; they are not cut out of speech as unknown.
    rate_hz : float
        Samples in a second; frames, of a corpus in bands.
    """

    def __init__(
        self,
        corpus: Corpus,
        recipe: AugmentRecipe,
        *,
        keywords: Sequence[str],
        ambiguous: Mapping[str, Sequence[str]],
        rate_hz: float = RATE_HZ,
    ) -> None:
        self._recipe, self._rate_hz = recipe, rate_hz
        self._clips = {label: _ClipDraw(corpus.clips[label]) for label in corpus.clips}
        self.keywords = [word for word in keywords if corpus.clips[word]]
        """Those that have clips."""
        cuttable = [
            (word, spoken, (start, end))
            for spoken in corpus.speech
            for word, start, end in spoken.words
            if word not in ambiguous and end - start > _SHORTEST_CUT_S * rate_hz
        ]
        self._cuttable: list[tuple[Spoken, Span]] = [(spoken, span) for _, spoken, span in cuttable]
        self._n_cuttable = Counter(word for word, _, _ in cuttable)

    def draw(self, random: Random, *, most_s: float) -> DrawnWord:
        """Draw a word with as much as `most_s` of its file before and after it."""
        if random.random() < self._recipe.keyword_share:
            label = self.keywords[int(random.integers(len(self.keywords)))]
        else:
            label = UNKNOWN
        if label == UNKNOWN and self._cuttable and random.random() < self._recipe.speech_word_share:
            spoken, span = self._cuttable[int(random.integers(len(self._cuttable)))]
            samples, span = self._cut(spoken.samples, span, random, most_s=_SPEECH_MARGIN_S)
            return DrawnWord(label, samples, span, is_real=True, path=spoken.path)
        clip, span = self._clips[label].draw(random)
        most_s = _CLIP_MARGIN_S if clip.cut else most_s
        samples, span = self._cut(clip.samples, span, random, most_s=most_s)
        return DrawnWord(label, samples, span, clip.real, clip.path, clip.soft)

    def _cut(
        self, samples: npt.NDArray[Any], span: Span, random: Random, *, most_s: float
    ) -> tuple[npt.NDArray[Any], Span]:
        """Cut out a word with random margins of up to `most_s`; return it and its span in that."""
        before, after = (int(m) for m in random.uniform(0.01, most_s, 2) * self._rate_hz)
        start, end = max(0, span[0] - before), min(len(samples), span[1] + after)
        return samples[start:end], (span[0] - start, span[1] - start)

    def unknown_words(self) -> list[tuple[str, str, int, float]]:
        """Return (word, `clip` or `speech`, how many, probability) of all that is `_unknown_`.

        Probabilities are those of a draw of an unknown word, and add up to 1.
        """
        share = self._recipe.speech_word_share if self._cuttable else 0.0
        counts = self._clips[UNKNOWN].counts()
        roots = sum(count**0.5 for count in counts.values())
        rows = [
            (word, "clip", count, (1 - share) * count**0.5 / roots)
            for word, count in sorted(counts.items())
        ]
        return rows + [
            (word, "speech", count, share * count / len(self._cuttable))
            for word, count in sorted(self._n_cuttable.items())
        ]


class _ClipDraw:
    """Draw clips of one label: a word by the root of its number of clips, then a clip by weight."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        words: dict[str, list[Clip]] = {}
        for clip in clips:
            words.setdefault(clip.word, []).append(clip)
        self._words = [
            [(clip, clip.span or speech_span(clip.samples, said=clip.word)) for clip in word]
            for word in words.values()
        ]
        self._word_edges = _edges(np.sqrt([len(word) for word in self._words]))
        self._clip_edges = [
            _edges(np.array([clip.weight for clip, _ in word])) for word in self._words
        ]

    def counts(self) -> dict[str, int]:
        """Return the number of clips of each word."""
        return {word[0][0].word: len(word) for word in self._words}

    def draw(self, random: Random) -> tuple[Clip, Span]:
        """Return a clip and the span of its word, in samples."""
        i = int(np.searchsorted(self._word_edges, random.random()))
        return self._words[i][int(np.searchsorted(self._clip_edges[i], random.random()))]


def _edges(weights: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the cumulative shares of weights in 0..1; the last is infinite, against rounding."""
    edges = np.cumsum(weights / weights.sum()) if len(weights) else np.zeros(1)
    edges[-1] = np.inf
    return edges
