"""Scenes: stretches of continuous audio mixed from clips, with a target for every model output.

A keyword spotter runs on a stream of speech and noise and must answer once, just after a word has
ended. So it is not trained on clips but on scenes of a few seconds: words at any place, next to
other speech, in noise and rooms, its state carried through. `kws_train.scenes.targets` has the
rules for what is right at each output.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError
from kws.manifest import UNKNOWN, FeatureSettings
from kws_train.data.corpus import Corpus, Spoken
from kws_train.data.speech_span import Span
from kws_train.recipe import AugmentRecipe, DataRecipe
from kws_train.scenes import augment
from kws_train.scenes.acoustics import Acoustics, happens, level
from kws_train.scenes.augment import Random, Wave
from kws_train.scenes.targets import PAUSE_S, Marker, Targets, output_ends
from kws_train.scenes.word_draw import WordDraw

__all__ = ["Scene", "Scenes"]

_CLIP_SAMPLES = RATE_HZ
_AUDIBLE_SAMPLES = RATE_HZ // 50  # less of a keyword cannot be recognised
_MARGIN_S = 0.3


@dataclass(frozen=True)
class Scene:
    """Audio and its targets; `samples` is float32 on the scale of 16-bit samples."""

    samples: Wave
    targets: Targets


class Scenes:
    """Make scenes out of a corpus; the same random generator gives the same scene.

    Parameters
    ----------
    corpus : Corpus
        One split.
    data, recipe : DataRecipe, AugmentRecipe
        Keywords, and how scenes are made.
    labels : sequence of str
        In the order of the model's outputs.
    features : FeatureSettings
    time_stride : int
        Frames per output of the model.
    mined : sequence of (Spoken, int)
        False alarms of a model in continuous speech, in samples; `mined_share` of the speech in
        scenes is around one of them.

    Raises
    ------
    ConfigError
        If the split has no clip of a keyword, or none of another word.
    """

    def __init__(
        self,
        corpus: Corpus,
        data: DataRecipe,
        recipe: AugmentRecipe,
        *,
        labels: Sequence[str],
        features: FeatureSettings,
        time_stride: int,
        mined: Sequence[tuple[Spoken, int]] = (),
    ) -> None:
        _check_clips(corpus)
        self.recipe = recipe
        self.labels = list(labels)
        self.n_samples = round(recipe.scene_s * RATE_HZ)
        self.output_ends = output_ends(self.n_samples, features, time_stride=time_stride)
        self.left_out = corpus.left_out
        self.clips = [clip for clips in corpus.clips.values() for clip in clips]
        self.sources: list[Path] | None = None
        """The files used so far; None: not recorded."""
        self._speech, self._mined = corpus.speech, mined
        self._ambiguous = _ambiguous(data)
        self._marker = Marker(labels, self.output_ends)
        self._words = WordDraw(corpus, recipe, keywords=data.keywords, ambiguous=self._ambiguous)
        self._acoustics = Acoustics.of(
            corpus, recipe, keywords=self._words.keywords, note=self._note
        )

    def make(self, random: Random) -> Scene:
        """Make one scene."""
        samples = np.zeros(self.n_samples, np.float32)
        targets = self._marker.silence()
        last_word_end = 0
        kind = random.random()
        is_clip = happens(self.recipe.clip_share, random)
        is_silent = is_clip and happens(self.recipe.silence_share, random)
        is_recorded = False  # in a room and by a microphone of its own
        if is_clip:
            is_recorded = is_silent or self._add_clip(samples, targets, random)
        elif kind < self.recipe.speech_share and self._speech:
            self._add_speech(samples, targets, (0, self.n_samples), random)
        elif kind > self.recipe.speech_share + self.recipe.silence_share:
            last_word_end = self._add_words(samples, targets, random)
        noise_share = 1.0 if is_silent else self.recipe.noise_share
        samples = self._disturb(samples, random, noise_share=noise_share, is_recorded=is_recorded)
        if is_clip:
            samples[_CLIP_SAMPLES:] = 0.0
        elif random.random() < self.recipe.cut_share:
            samples[int(random.uniform(last_word_end, self.n_samples)) :] = 0.0
        return Scene(np.clip(samples, -32768, 32767), targets)

    def recording_sources(self) -> "Scenes":
        """Return a maker of the same scenes that lists the files it uses in `sources`."""
        again = copy.copy(self)
        again.sources = []
        again._acoustics = replace(self._acoustics, note=again._note)
        return again

    def unknown_words(self) -> list[tuple[str, str, int, float]]:
        """Return (word, `clip` or `speech`, how many, probability) of all that is `_unknown_`.

        Probabilities are those of a draw of an unknown word, and add up to 1.
        """
        return self._words.unknown_words()

    def _note(self, path: Path) -> None:
        if self.sources is not None:
            self.sources.append(path)

    def _disturb(
        self, samples: Wave, random: Random, *, noise_share: float, is_recorded: bool
    ) -> Wave:
        """Add room, babble, background, microphone and codec; only babble and noise if recorded."""
        acoustics = self._acoustics
        if not is_recorded:
            samples = acoustics.add_room(samples, random)
        samples = acoustics.add_babble(samples, random)
        samples = acoustics.add_background(samples, random, noise_share=noise_share)
        return samples if is_recorded else acoustics.record(samples, random)

    def _add_words(self, samples: Wave, targets: Targets, random: Random) -> int:
        """Add one or two words to the scene, with other speech around them in some scenes.

        Returns the sample at which the last word ends.
        """
        words = self._place_words(samples, random)
        before_s, after_s = np.inf, np.inf
        if words and self._speech and random.random() < self.recipe.context_share:
            before_s, after_s = random.uniform(0.05, 0.5, 2)
            begin = words[0][1][0] - int(before_s * RATE_HZ)
            end = words[-1][1][1] + int(after_s * RATE_HZ)
            self._add_speech(samples, targets, (0, begin), random)
            self._add_speech(samples, targets, (end, self.n_samples), random)
        for i, (label, span) in enumerate(words):
            is_close = (i == 0 and before_s < PAUSE_S) or (
                i == len(words) - 1 and after_s < PAUSE_S
            )
            mark = self._marker.permit if is_close else self._marker.require
            mark(targets, label, span)
        return words[-1][1][1] if words else 0

    def _place_words(self, samples: Wave, random: Random) -> list[tuple[str, Span]]:
        """Add one or two words at random places; return each with its span in the scene."""
        at = int(random.uniform(0.0, 0.4) * self.n_samples)
        last_end: int | None = None
        words: list[tuple[str, Span]] = []
        for _ in range(2 if random.random() < 0.5 else 1):
            label, wave, (start, end), _ = self._draw(random)
            latest = self.n_samples - int(0.35 * RATE_HZ) - end
            if last_end is None:
                at = min(at, latest)
            else:
                at = last_end + int(random.uniform(0.1, 0.6) * RATE_HZ)
            if at < 0 or at > latest:
                continue
            samples[at : at + len(wave)] += wave[: self.n_samples - at]
            words.append((label, (at + start, at + end)))
            last_end = at + len(wave)
        return words

    def _add_clip(self, samples: Wave, targets: Targets, random: Random) -> bool:
        """Add one whole clip, margins included, to the first second of the scene.

        Returns whether it was recorded; False: synthetic.
        """
        label, wave, (start, end), is_real = self._draw(random, most_s=1.0)
        earliest = -min(start, RATE_HZ // 10)
        at = int(random.uniform(earliest, max(earliest, _CLIP_SAMPLES - end)))
        piece = wave[max(0, -at) :][: _CLIP_SAMPLES - max(0, at)]
        samples[max(0, at) : max(0, at) + len(piece)] = piece
        span = at + start, min(at + end, _CLIP_SAMPLES)
        self._marker.require_from_middle(targets, label, span)
        return is_real

    def _add_speech(self, samples: Wave, targets: Targets, where: Span, random: Random) -> None:
        """Add a random stretch of continuous speech at `where`, at the level of speech."""
        n = where[1] - where[0]
        if n < 0.1 * RATE_HZ:
            return
        speed = random.uniform(*self.recipe.speed)
        n_said = round(n * speed)
        spoken, offset = self._draw_speech(n_said, random)
        self._note(spoken.path)
        said = spoken.samples[offset : offset + n_said].astype(np.float32)
        piece = augment.fade(level(augment.change_speed(said, speed)[:n], random.uniform(-6, 3)))
        samples[where[0] : where[0] + len(piece)] += piece
        self._marker.add_speech(targets, where)
        for word, start, end in spoken.words:
            if min(end, offset + len(said)) - max(start, offset) < _AUDIBLE_SAMPLES:
                continue
            first, last = (where[0] + round((edge - offset) / speed) for edge in (start, end))
            for keyword in self._ambiguous.get(word, ()):
                self._marker.permit(targets, keyword, (first, last))

    def _draw_speech(self, n_samples: int, random: Random) -> tuple[Spoken, int]:
        """Draw an utterance and an offset in it; for `mined_share`, around a mined false alarm."""
        if self._mined and happens(self.recipe.mined_share, random):
            spoken, at = self._mined[int(random.integers(len(self._mined)))]
            first = at - int(random.uniform(0.2, 0.9) * n_samples)
            return spoken, max(0, min(first, len(spoken.samples) - n_samples))
        spoken = self._speech[int(random.integers(len(self._speech)))]
        return spoken, int(random.integers(max(1, len(spoken.samples) - n_samples)))

    def _draw(self, random: Random, *, most_s: float = _MARGIN_S) -> tuple[str, Wave, Span, bool]:
        """Draw an isolated word at random speed, pitch and level.

        Returns its label, its sound with margins of up to `most_s`, the span of the word in that,
        and whether it was recorded.
        """
        word = self._words.draw(random, most_s=most_s)
        self._note(word.path)
        speed = random.uniform(*self.recipe.speed)
        wave = augment.change_speed(word.samples.astype(np.float32), speed)
        wave = self._acoustics.change_voice(wave, random)
        wave = level(augment.fade(wave), random.uniform(-6, 3))
        start, end = (round(edge / speed) for edge in word.span)
        return word.label, wave, (start, end), word.is_real


def _check_clips(corpus: Corpus) -> None:
    n_clips = sum(map(len, corpus.clips.values()))
    n_unknown = len(corpus.clips[UNKNOWN])
    if not n_unknown or n_unknown == n_clips:
        raise ConfigError(
            f"Every split must have clips of keywords and of other words. Received: "
            f"{n_clips - n_unknown} and {n_unknown}. Add clips of more speakers to the recipe's "
            f"`[[data.words]]`."
        )


def _ambiguous(data: DataRecipe) -> dict[str, list[str]]:
    """Return the keywords that each word of speech sounds like: itself and its homophones."""
    ambiguous = {keyword.lower(): [keyword] for keyword in data.keywords}
    for keyword, words in data.homophones.items():
        for word in words:
            ambiguous.setdefault(word.lower(), []).append(keyword)
    return ambiguous
