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
from kws_train.data.corpus import Corpus, Probabilities, Spoken
from kws_train.data.speech_span import Span
from kws_train.recipe import AugmentRecipe, DataRecipe
from kws_train.scenes.acoustics import Acoustics, happens
from kws_train.scenes.augment import Random, Wave
from kws_train.scenes.band_acoustics import BandAcoustics
from kws_train.scenes.targets import PAUSE_S, Marker, Targets, n_frames, output_ends
from kws_train.scenes.word_draw import DrawnWord, WordDraw

__all__ = ["Scene", "Scenes"]

_CLIP_S = 1.0
_AUDIBLE_S = 0.02  # less of a keyword cannot be recognised
_MARGIN_S = 0.3


@dataclass(frozen=True)
class Scene:
    """Audio and its targets.

    Attributes
    ----------
    samples : float32
        On the scale of 16-bit samples [shape=(n,)], or powers of bands [shape=(frames, bands + 1)].
    targets : Targets
    """

    samples: Wave
    targets: Targets


class Scenes:
    """Make scenes out of a corpus; the same random generator gives the same scene.

    Parameters
    ----------
    corpus : Corpus
        One split; in bands (`kws_train.scenes.bands`) where `recipe.domain` is `bands`.
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
        n_samples = round(recipe.scene_s * RATE_HZ)
        self.output_ends = output_ends(n_samples, features, time_stride=time_stride)
        self.left_out = corpus.left_out
        self.clips = [clip for clips in corpus.clips.values() for clip in clips]
        self.sources: list[Path] | None = None
        """The files used so far; None: not recorded."""
        self._speech, self._mined = corpus.speech, mined
        self._ambiguous = _ambiguous(data)
        self._marker = Marker(labels, self.output_ends)
        in_bands = recipe.domain == "bands"
        self._rate_hz = RATE_HZ / features.hop_samples if in_bands else RATE_HZ
        self.n_samples = n_frames(n_samples, features) if in_bands else n_samples
        self._words = WordDraw(
            corpus,
            recipe,
            keywords=data.keywords,
            ambiguous=self._ambiguous,
            rate_hz=self._rate_hz,
        )
        kind = BandAcoustics if in_bands else Acoustics
        self._acoustics: Acoustics | BandAcoustics = kind.of(
            corpus, recipe, keywords=self._words.keywords, note=self._note, features=features
        )

    def make(self, random: Random) -> Scene:
        """Make one scene."""
        samples = self._acoustics.silence(self.n_samples)
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
            samples[self._samples(_CLIP_S) :] = 0.0
        elif random.random() < self.recipe.cut_share:
            samples[int(random.uniform(last_word_end, self.n_samples)) :] = 0.0
        return Scene(self._acoustics.limit(samples), targets)

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
            begin = words[0][1][0] - self._samples(before_s)
            end = words[-1][1][1] + self._samples(after_s)
            self._add_speech(samples, targets, (0, begin), random)
            self._add_speech(samples, targets, (end, self.n_samples), random)
        for i, (label, span, soft) in enumerate(words):
            is_close = (i == 0 and before_s < PAUSE_S) or (
                i == len(words) - 1 and after_s < PAUSE_S
            )
            if is_close:
                self._marker.permit(targets, label, self._at_16_khz(span))
            else:
                self._marker.require(targets, label, self._at_16_khz(span), soft)
        return words[-1][1][1] if words else 0

    def _place_words(
        self, samples: Wave, random: Random
    ) -> list[tuple[str, Span, Probabilities | None]]:
        """Add one or two words at random places.

        Returns the label, the span in the scene and the soft target of each.
        """
        at = int(random.uniform(0.0, 0.4) * self.n_samples)
        last_end: int | None = None
        words: list[tuple[str, Span, Probabilities | None]] = []
        for _ in range(2 if random.random() < 0.5 else 1):
            word, wave, (start, end) = self._draw(random)
            latest = self.n_samples - self._samples(0.35) - end
            if last_end is None:
                at = min(at, latest)
            else:
                at = last_end + self._samples(random.uniform(0.1, 0.6))
            if at < 0 or at > latest:
                continue
            samples[at : at + len(wave)] += wave[: self.n_samples - at]
            words.append((word.label, (at + start, at + end), word.soft))
            last_end = at + len(wave)
        return words

    def _add_clip(self, samples: Wave, targets: Targets, random: Random) -> bool:
        """Add one whole clip, margins included, to the first second of the scene.

        Returns whether it was recorded; False: synthetic.
        """
        word, wave, (start, end) = self._draw(random, most_s=1.0)
        n_clip = self._samples(_CLIP_S)
        earliest = -min(start, self._samples(0.1))
        at = int(random.uniform(earliest, max(earliest, n_clip - end)))
        piece = wave[max(0, -at) :][: n_clip - max(0, at)]
        samples[max(0, at) : max(0, at) + len(piece)] = piece
        span = at + start, min(at + end, n_clip)
        self._marker.require_from_middle(targets, word.label, self._at_16_khz(span))
        return word.is_real

    def _add_speech(self, samples: Wave, targets: Targets, where: Span, random: Random) -> None:
        """Add a random stretch of continuous speech at `where`, at the level of speech."""
        n = where[1] - where[0]
        if n < 0.1 * self._rate_hz:
            return
        speed = random.uniform(*self.recipe.speed)
        n_said = round(n * speed)
        spoken, offset = self._draw_speech(n_said, random)
        self._note(spoken.path)
        said = spoken.samples[offset : offset + n_said]
        piece = self._acoustics.said(said, speed, n, random)
        samples[where[0] : where[0] + len(piece)] += piece
        self._marker.add_speech(targets, self._at_16_khz(where))
        for word, start, end in spoken.words:
            if min(end, offset + len(said)) - max(start, offset) < _AUDIBLE_S * self._rate_hz:
                continue
            first, last = (where[0] + round((edge - offset) / speed) for edge in (start, end))
            for keyword in self._ambiguous.get(word, ()):
                self._marker.permit(targets, keyword, self._at_16_khz((first, last)))

    def _draw_speech(self, n_samples: int, random: Random) -> tuple[Spoken, int]:
        """Draw an utterance and an offset in it; for `mined_share`, around a mined false alarm."""
        if self._mined and happens(self.recipe.mined_share, random):
            spoken, at = self._mined[int(random.integers(len(self._mined)))]
            first = at - int(random.uniform(0.2, 0.9) * n_samples)
            return spoken, max(0, min(first, len(spoken.samples) - n_samples))
        spoken = self._speech[int(random.integers(len(self._speech)))]
        return spoken, int(random.integers(max(1, len(spoken.samples) - n_samples)))

    def _draw(self, random: Random, *, most_s: float = _MARGIN_S) -> tuple[DrawnWord, Wave, Span]:
        """Draw an isolated word at random speed, pitch and level.

        Returns the word, its sound with margins of up to `most_s`, and its span in that.
        """
        word = self._words.draw(random, most_s=most_s)
        self._note(word.path)
        speed = random.uniform(*self.recipe.speed)
        wave = self._acoustics.word(word.samples, speed, random)
        start, end = (round(edge / speed) for edge in word.span)
        return word, wave, (start, end)

    def _samples(self, seconds: float) -> int:
        """Return a time in samples, or in frames where scenes are made of bands."""
        return int(seconds * self._rate_hz)

    def _at_16_khz(self, span: Span) -> Span:
        """Return a span in samples of 16 kHz, as targets are marked by."""
        start, end = (round(edge * RATE_HZ / self._rate_hz) for edge in span)
        return start, end


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
