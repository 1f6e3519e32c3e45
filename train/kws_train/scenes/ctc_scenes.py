"""Utterances of several words, with the sequence of words as the target.

For models with a CTC loss (`kws_train.fit.losses`), which learn the alignment themselves.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kws.manifest import UNKNOWN
from kws_train.data.corpus import Spoken
from kws_train.scenes.augment import Random, Wave
from kws_train.scenes.scenes import Scenes

__all__ = ["MOST_WORDS", "Sequence", "SequenceScenes"]

MOST_WORDS = 8
_MOST_TARGETS = 24
_LEAST_GAP_S, _LONGEST_GAP_S = -0.04, 0.3  # connected words run into one another
_KEYWORD_UTTERANCES = 0.7  # share among utterances with words; the others are sentences
_RICH_SENTENCES = 0.5  # share of sentences drawn by the share of keywords among their words


@dataclass(frozen=True)
class Sequence:
    """Audio, float32 on the scale of 16-bit samples, and its words.

    Attributes
    ----------
    samples : float32 [shape=(n,)]
    words : uint8 [shape=(24,)]
        Label indices of the words in the order they are said; 0 after the last.
    """

    samples: Wave
    words: npt.NDArray[np.uint8]


class SequenceScenes(Scenes):
    """Make utterances of one to eight isolated words, of sentences, or of nothing.

    Words other than keywords are among them, with the label of unknown words. The pauses between
    words are as long as the utterance is slow. Half of the sentences are those with many keywords
    for their length: read numbers among books. Parameters are those of `Scenes`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        keywords = {label.lower() for label in self.labels}
        self._sentences = [spoken for spoken in self._speech if spoken.words]
        shares = [
            np.mean([word in keywords for word, *_ in spoken.words]) for spoken in self._sentences
        ]
        self._keywords_up_to = np.cumsum(shares)

    def make(self, random: Random) -> Sequence:  # type: ignore[override]
        """Make one utterance."""
        samples = self._acoustics.silence(self.n_samples)
        words: list[int] = []
        if random.random() > self.recipe.silence_share:
            if random.random() < _KEYWORD_UTTERANCES or not self._sentences:
                words = self._add_sequence(samples, random)
            else:
                words = self._add_sentence(samples, random)
        samples = self._acoustics.add_room(samples, random)
        samples = self._acoustics.add_background(
            samples, random, noise_share=self.recipe.noise_share
        )
        targets = np.zeros(_MOST_TARGETS, np.uint8)
        targets[: len(words)] = words[:_MOST_TARGETS]
        return Sequence(self._acoustics.limit(samples), targets)

    def _add_sequence(self, samples: Wave, random: Random) -> list[int]:
        """Add a random number of words one after another, as many as fit."""
        words: list[int] = []
        at = self._samples(random.uniform(0.05, 0.5))
        longest_gap_s = random.uniform(_LEAST_GAP_S, _LONGEST_GAP_S)
        for _ in range(int(random.integers(1, MOST_WORDS + 1))):
            word, wave, (start, end) = self._draw(random)
            if at + end - start + 0.2 * self._rate_hz > self.n_samples:
                break
            first = max(0, at - start)
            piece = wave[max(0, start - at) :][: self.n_samples - first]
            samples[first : first + len(piece)] += piece
            words.append(self.labels.index(word.label))
            at += end - start + self._samples(random.uniform(_LEAST_GAP_S, longest_gap_s))
        return words

    def _add_sentence(self, samples: Wave, random: Random) -> list[int]:
        """Add a stretch of whole words of continuous speech."""
        spoken = self._draw_sentence(random)
        first = int(random.integers(len(spoken.words)))
        start = spoken.words[first][1]
        room = self.n_samples - self._samples(0.3)
        said = [word for word in spoken.words[first:] if word[2] - start <= room][:_MOST_TARGETS]
        if not said:
            return []
        piece = self._acoustics.sentence(spoken.samples[start : said[-1][2]])
        at = self._samples(random.uniform(0.05, 0.2))
        samples[at : at + len(piece)] += piece[: self.n_samples - at]
        return [self._label(word) for word, *_ in said]

    def _draw_sentence(self, random: Random) -> Spoken:
        total = float(self._keywords_up_to[-1])
        if total > 0 and random.random() < _RICH_SENTENCES:
            at = np.searchsorted(self._keywords_up_to, random.uniform(0.0, total), side="right")
            return self._sentences[min(int(at), len(self._sentences) - 1)]
        return self._sentences[int(random.integers(len(self._sentences)))]

    def _label(self, word: str) -> int:
        keywords = self._ambiguous.get(word)
        return self.labels.index(keywords[0]) if keywords else self.labels.index(UNKNOWN)
