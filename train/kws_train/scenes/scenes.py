"""Scenes: stretches of continuous audio made of clips, with a target for every output of the model.

A keyword spotter hears words anywhere in a stream of speech and noise and must answer once, just
after a word has ended. So it is not trained on clips but on scenes of a few seconds: words at any
place, next to other speech, in noise and rooms, its state carried through. The target of an output
is the set of labels that are right at that moment:

====================================  =========================
silence, noise                        `_silence_`
continuous speech                     `_silence_`, `_unknown_`
from `MAY_FROM_S` of a word's end on  the word, `_silence_`
`ANSWER_FROM_S` after a word's end    the word alone
after `ANSWER_TO_S`                   the word, `_silence_`
====================================  =========================

A command is said by itself: the model hears the pause behind a word before it must answer, and so
can tell *up* from *upper*. A word with less than `PAUSE_S` to other speech may be answered to or
not; that is also so for keywords within sentences. Of a clip as its file holds it the word alone is
right from its middle on, and a loss that pools over time asks for it once.

The loss is the negative logarithm of the posterior of the whole set.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError
from kws.features import Samples
from kws.manifest import SILENCE, UNKNOWN, FeatureSettings
from kws_train.data.corpus import Clip, Corpus, Spoken
from kws_train.data.speech_span import Span, speech_span
from kws_train.recipe import AugmentRecipe, DataRecipe
from kws_train.scenes import augment
from kws_train.scenes.augment import Random, Wave
from kws_train.scenes.rooms import room_bank

__all__ = ["Scene", "Scenes", "Targets"]

MAY_FROM_S = -0.06
ANSWER_FROM_S = 0.1
ANSWER_TO_S = 0.32
SILENT_AGAIN_S = 0.48
PAUSE_S = 0.15
ANSWER_WEIGHT = 4.0  # an answer lasts 10 outputs among 120; the rest is silence
_ROOM_TONE_SAMPLES = 3200
_CLIP_SAMPLES = RATE_HZ
_HEARD_SAMPLES = RATE_HZ // 50  # less of a keyword cannot be recognised

Outputs: TypeAlias = npt.NDArray[np.bool_]
"""Which outputs of the model."""


@dataclass(frozen=True)
class Targets:
    """What is right at each output of the model.

    Attributes
    ----------
    allowed : uint8 [shape=(outputs, labels)]
        1 where a label is right.
    weight : float32 [shape=(outputs,)]
    """

    allowed: npt.NDArray[np.uint8]
    weight: npt.NDArray[np.float32]


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
        Frames to one output of the model.
    mined : sequence of (Spoken, int)
        Moments of continuous speech, in samples, that a model took for keywords; `mined_share` of
        the speech in scenes is around one of them.

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
        self.recipe = recipe
        self._mined = mined
        self.labels = list(labels)
        self.n_samples = round(recipe.scene_s * RATE_HZ)
        n_frames = 1 + (self.n_samples - features.window_samples) // features.hop_samples
        outputs = np.arange(n_frames // time_stride)
        last_frame = outputs * time_stride + time_stride - 1
        self.output_ends = last_frame * features.hop_samples + features.window_samples
        self._silence, self._unknown = labels.index(SILENCE), labels.index(UNKNOWN)
        self._speech = corpus.speech
        paths = corpus.noise_paths or [Path("noise")] * len(corpus.noise)
        self._noise = list(zip(corpus.noise, paths, strict=True))
        self.left_out = corpus.left_out
        self.sources: list[Path] | None = None
        self._rooms = room_bank(recipe.room_bank) if recipe.room == "pyroomacoustics" else ()
        self._ambiguous = {keyword.lower(): [keyword] for keyword in data.keywords}
        for keyword, words in data.homophones.items():
            for word in words:
                self._ambiguous.setdefault(word.lower(), []).append(keyword)
        self.clips = [clip for clips in corpus.clips.values() for clip in clips]
        n_unknown = len(corpus.clips[UNKNOWN])
        if not n_unknown or n_unknown == len(self.clips):
            raise ConfigError(
                f"Every split must have clips of keywords and of other words. Received: "
                f"{len(self.clips) - n_unknown} and {n_unknown}. Add clips of more speakers to "
                f"the recipe's `[[data.words]]`."
            )
        self._words = {label: _Drawer(corpus.clips[label]) for label in corpus.clips}
        self._keywords = [word for word in data.keywords if corpus.clips[word]]
        cuttable = [
            (word, spoken, (start, end))
            for spoken in corpus.speech
            for word, start, end in spoken.words
            if word not in self._ambiguous and end - start > 0.2 * RATE_HZ
        ]
        self._cuttable = [(spoken, span) for _, spoken, span in cuttable]
        self._cut_words = Counter(word for word, _, _ in cuttable)
        self._tones = [
            clip
            for label in self._keywords
            for clip in corpus.clips[label]
            if clip.real and clip.span is None
        ]

    def make(self, random: Random) -> Scene:
        """Make one scene."""
        samples = np.zeros(self.n_samples, np.float32)
        allowed = np.zeros((len(self.output_ends), len(self.labels)), np.uint8)
        allowed[:, self._silence] = 1
        targets = Targets(allowed, np.ones(len(allowed), np.float32))
        last_word_end = 0
        kind = random.random()
        is_clip = _happens(self.recipe.clip_share, random)
        is_silent = is_clip and _happens(self.recipe.silence_share, random)
        is_recorded = False  # in a room and by a microphone of its own
        if is_clip:
            is_recorded = is_silent or self._add_clip(samples, targets, random)
        elif kind < self.recipe.speech_share and self._speech:
            self._add_speech(samples, targets, (0, self.n_samples), random)
        elif kind > self.recipe.speech_share + self.recipe.silence_share:
            last_word_end = self._add_words(samples, targets, random)
        if not is_recorded:
            samples = self._put_into_room(samples, random)
        samples = self._add_babble(samples, random)
        noise_share = 1.0 if is_silent else self.recipe.noise_share
        samples = self._add_background(samples, random, noise_share=noise_share)
        if not is_recorded:
            samples = self._record(samples, random)
        if is_clip:
            samples[_CLIP_SAMPLES:] = 0.0
        elif random.random() < self.recipe.cut_share:
            samples[int(random.uniform(last_word_end, self.n_samples)) :] = 0.0
        return Scene(np.clip(samples, -32768, 32767), targets)

    def listening(self) -> "Scenes":
        """Return a maker of the same scenes that lists the files it uses in `sources`."""
        listening = copy.copy(self)
        listening.sources = []
        return listening

    def unknown_words(self) -> list[tuple[str, str, int, float]]:
        """Return (word, `clip` or `speech`, how many, probability) of all that is `_unknown_`.

        Probabilities are those of a draw of an unknown word, and add up to 1.
        """
        share = self.recipe.speech_word_share if self._cuttable else 0.0
        counts = self._words[UNKNOWN].counts()
        roots = sum(count**0.5 for count in counts.values())
        rows = [
            (word, "clip", count, (1 - share) * count**0.5 / roots)
            for word, count in sorted(counts.items())
        ]
        return rows + [
            (word, "speech", count, share * count / len(self._cuttable))
            for word, count in sorted(self._cut_words.items())
        ]

    def _note(self, path: Path) -> None:
        if self.sources is not None:
            self.sources.append(path)

    def _add_words(self, samples: Wave, targets: Targets, random: Random) -> int:
        """Lay one or two words into the scene, with other speech around them in some scenes.

        Returns the sample at which the last word ends.
        """
        at = int(random.uniform(0.0, 0.4) * self.n_samples)
        spans: list[Span] = []
        words: list[tuple[str, Span]] = []
        for _ in range(2 if random.random() < 0.5 else 1):
            label, wave, (start, end), _ = self._draw(random)
            if spans:
                at = spans[-1][1] + int(random.uniform(0.1, 0.6) * RATE_HZ)
            room = self.n_samples - int(0.35 * RATE_HZ) - end
            at = min(at, room) if not spans else at
            if at < 0 or at > room:
                continue
            samples[at : at + len(wave)] += wave[: self.n_samples - at]
            words.append((label, (at + start, at + end)))
            spans.append((at, at + len(wave)))
        before_s, after_s = np.inf, np.inf
        if words and self._speech and random.random() < self.recipe.context_share:
            before_s, after_s = random.uniform(0.05, 0.5, 2)
            begin = words[0][1][0] - int(before_s * RATE_HZ)
            end = words[-1][1][1] + int(after_s * RATE_HZ)
            self._add_speech(samples, targets, (0, begin), random)
            self._add_speech(samples, targets, (end, self.n_samples), random)
        for i, (label, span) in enumerate(words):
            crowded = (i == 0 and before_s < PAUSE_S) or (i == len(words) - 1 and after_s < PAUSE_S)
            mark = self._permit if crowded else self._mark
            mark(targets, label, span)
        return words[-1][1][1] if words else 0

    def _add_clip(self, samples: Wave, targets: Targets, random: Random) -> bool:
        """Lay one clip into the scene's first second, all that it holds besides its word too.

        Returns whether it was recorded; False: synthetic.
        """
        label, wave, (start, end), is_real = self._draw(random, most_s=1.0)
        earliest = -min(start, RATE_HZ // 10)
        at = int(random.uniform(earliest, max(earliest, _CLIP_SAMPLES - end)))
        piece = wave[max(0, -at) :][: _CLIP_SAMPLES - max(0, at)]
        samples[max(0, at) : max(0, at) + len(piece)] = piece
        self._mark_anywhere(targets, label, (at + start, min(at + end, _CLIP_SAMPLES)))
        return is_real

    def _add_speech(self, samples: Wave, targets: Targets, where: Span, random: Random) -> None:
        """Put a random stretch of continuous speech at `where`, at the level of speech."""
        n = where[1] - where[0]
        if n < 0.1 * RATE_HZ:
            return
        speed = random.uniform(*self.recipe.speed)
        n_said = round(n * speed)
        spoken, offset = self._draw_speech(n_said, random)
        self._note(spoken.path)
        said = spoken.samples[offset : offset + n_said].astype(np.float32)
        piece = augment.fade(_level(augment.change_speed(said, speed)[:n], random.uniform(-6, 3)))
        samples[where[0] : where[0] + len(piece)] += piece
        inside = (self.output_ends > where[0]) & (self.output_ends <= where[1] + RATE_HZ // 4)
        targets.allowed[inside, self._unknown] = 1
        for word, start, end in spoken.words:
            if min(end, offset + len(said)) - max(start, offset) < _HEARD_SAMPLES:
                continue
            first, last = (where[0] + round((edge - offset) / speed) for edge in (start, end))
            for keyword in self._ambiguous.get(word, ()):
                self._permit(targets, keyword, (first, last))

    def _draw_speech(self, n_samples: int, random: Random) -> tuple[Spoken, int]:
        """Draw an utterance and where in it to begin; for some, so that a mined moment is heard."""
        if self._mined and _happens(self.recipe.mined_share, random):
            spoken, at = self._mined[int(random.integers(len(self._mined)))]
            first = at - int(random.uniform(0.2, 0.9) * n_samples)
            return spoken, max(0, min(first, len(spoken.samples) - n_samples))
        spoken = self._speech[int(random.integers(len(self._speech)))]
        return spoken, int(random.integers(max(1, len(spoken.samples) - n_samples)))

    def _permit(self, targets: Targets, keyword: str, span: Span) -> None:
        """Allow an answer to a keyword said close to other speech, without asking for one."""
        late = self.output_ends - span[1]
        inside = (self.output_ends > span[0]) & (late < SILENT_AGAIN_S * RATE_HZ)
        targets.allowed[inside, self._unknown] = 1
        targets.allowed[inside, self.labels.index(keyword)] = 1

    def _mark(self, targets: Targets, word: str, span: Span) -> None:
        """Ask for an answer to an isolated word."""
        late_s = (self.output_ends - span[1]) / RATE_HZ
        may = (late_s >= MAY_FROM_S) & (late_s < SILENT_AGAIN_S)
        must = (late_s >= ANSWER_FROM_S) & (late_s < ANSWER_TO_S)
        self._ask(targets, word, may=may, must=must, weight=ANSWER_WEIGHT)

    def _mark_anywhere(self, targets: Targets, word: str, span: Span) -> None:
        """Ask for an answer to the word of a clip, from its middle on, where it is surest."""
        late_s = (self.output_ends - span[1]) / RATE_HZ
        after = self.output_ends >= (span[0] + span[1]) // 2
        may, must = after & (late_s < SILENT_AGAIN_S), after & (late_s < ANSWER_TO_S)
        n_asked = (ANSWER_TO_S - ANSWER_FROM_S) * RATE_HZ / np.diff(self.output_ends[:2])[0]
        weight = ANSWER_WEIGHT * n_asked / max(1, must.sum())
        self._ask(targets, word, may=may, must=must, weight=weight)

    def _ask(
        self, targets: Targets, word: str, *, may: Outputs, must: Outputs, weight: float
    ) -> None:
        """Ask for a word alone where it must be said, with a weight; allow it where it may."""
        label = self.labels.index(word)
        targets.allowed[may, label] = 1
        targets.allowed[must] = 0
        targets.allowed[must, label] = 1
        targets.weight[must] = weight

    def _draw(self, random: Random, *, most_s: float = 0.3) -> tuple[str, Wave, Span, bool]:
        """Draw an isolated word: its label, sound, where in that it is spoken, whether it is real.

        As much as `most_s` of what is before and behind it in its clip is left.
        """
        if random.random() < self.recipe.keyword_share:
            label = self._keywords[int(random.integers(len(self._keywords)))]
        else:
            label = UNKNOWN
        if label == UNKNOWN and self._cuttable and random.random() < self.recipe.speech_word_share:
            spoken, span = self._cuttable[int(random.integers(len(self._cuttable)))]
            self._note(spoken.path)
            samples, span = _cut(spoken.samples, span, random, most_s=0.04)
            is_real = True
        else:
            clip, span = self._words[label].draw(random)
            self._note(clip.path)
            most_s = most_s if clip.span is None else 0.3  # a sentence is no clip of one word
            samples, span = _cut(clip.samples, span, random, most_s=most_s)
            is_real = clip.real
        speed = random.uniform(*self.recipe.speed)
        wave = augment.change_speed(samples.astype(np.float32), speed)
        wave = self._change_voice(wave, random)
        wave = _level(augment.fade(wave), random.uniform(-6, 3))
        return label, wave, (round(span[0] / speed), round(span[1] / speed)), is_real

    def _change_voice(self, wave: Wave, random: Random) -> Wave:
        """Say some words with another pitch; the length is kept."""
        if not _happens(self.recipe.pitch_share, random):
            return wave
        return augment.change_pitch(wave, random.uniform(*self.recipe.pitch_semitones))

    def _put_into_room(self, samples: Wave, random: Random) -> Wave:
        """Let some scenes sound as in a room."""
        if random.random() >= self.recipe.room_share:
            return samples
        if self._rooms:
            return augment.convolve(samples, self._rooms[int(random.integers(len(self._rooms)))])
        return augment.reverberate(
            samples,
            t60_s=random.uniform(0.1, 0.7),
            direct_db=random.uniform(-2, 12),
            random=random,
        )

    def _add_babble(self, samples: Wave, random: Random) -> Wave:
        """Let other people talk in the background of some scenes; none of them is to be heard."""
        if not self._speech or not _happens(self.recipe.babble_share, random):
            return samples
        fewest, most = self.recipe.babble_voices
        which = random.integers(len(self._speech), size=int(random.integers(fewest, most + 1)))
        voices = [self._speech[i].samples for i in which]
        for i in which:
            self._note(self._speech[i].path)
        return augment.add_noise(
            samples,
            augment.babble(voices, self.n_samples, random=random),
            snr_db=random.uniform(*self.recipe.babble_snr_db),
            speech_power=_SPEECH_RMS**2,
        )

    def _record(self, samples: Wave, random: Random) -> Wave:
        """Record some scenes with a cheap microphone, and send some through a codec."""
        if _happens(self.recipe.microphone_share, random):
            samples = augment.microphone(samples, random=random)
        if _happens(self.recipe.codec_share, random):
            codec = self.recipe.codecs[int(random.integers(len(self.recipe.codecs)))]
            samples = augment.code(samples, codec, random=random)
        return samples

    def _add_background(self, samples: Wave, random: Random, *, noise_share: float) -> Wave:
        """Add recorded noise, room tone, and set the level of the whole scene."""
        if random.random() < 0.5 and self._tones:
            clip = self._tones[int(random.integers(len(self._tones)))]
            self._note(clip.path)
            samples = samples + augment.gain(
                augment.room_tone(_quietest(clip.samples), self.n_samples, random=random),
                random.uniform(-6, 6),
            )
        if random.random() < noise_share and self._noise:
            noise, path = self._noise[int(random.integers(len(self._noise)))]
            self._note(path)
            samples = augment.add_noise(
                samples,
                augment.loop(noise, self.n_samples, random=random),
                snr_db=random.uniform(*self.recipe.snr_db),
                speech_power=_SPEECH_RMS**2,
            )
        return augment.gain(samples, random.uniform(*self.recipe.gain_db))


def _happens(share: float, random: Random) -> bool:
    """Draw only where there is something to decide: other shares keep their random numbers."""
    return share > 0 and random.random() < share


class _Drawer:
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
        """Return how many clips there are of each word."""
        return {word[0][0].word: len(word) for word in self._words}

    def draw(self, random: Random) -> tuple[Clip, Span]:
        """Return a clip and where in it the word is spoken, in samples."""
        i = int(np.searchsorted(self._word_edges, random.random()))
        return self._words[i][int(np.searchsorted(self._clip_edges[i], random.random()))]


def _edges(weights: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the upper ends of the shares of weights in 0..1; the last is out of reach."""
    edges = np.cumsum(weights / weights.sum()) if len(weights) else np.zeros(1)
    edges[-1] = np.inf
    return edges


_SPEECH_RMS = 2000.0  # the level that words and speech are brought to before noise and gain


def _level(wave: Wave, db: float) -> Wave:
    """Bring the louder half of a sound to the level of speech, give or take `db`."""
    half = len(wave) // 2
    power = np.partition(wave**2, half)[half:].mean() if len(wave) else 0.0
    if power < 1.0:
        return wave
    return wave * np.float32(_SPEECH_RMS / np.sqrt(power) * 10 ** (db / 20))


def _cut(samples: Samples, span: Span, random: Random, *, most_s: float) -> tuple[Samples, Span]:
    """Cut a word out with random margins of up to `most_s`; return it and its span in the cut."""
    before, after = (int(m) for m in random.uniform(0.01, most_s, 2) * RATE_HZ)
    start, end = max(0, span[0] - before), min(len(samples), span[1] + after)
    return samples[start:end], (span[0] - start, span[1] - start)


def _quietest(samples: Samples) -> Samples:
    """Return the quietest fifth of a second: the room and microphone behind a word."""
    n = _ROOM_TONE_SAMPLES
    if len(samples) <= n:
        return samples
    starts = np.arange(0, len(samples) - n, n // 4)
    powers = [float(np.mean(samples[s : s + n].astype(np.float32) ** 2)) for s in starts]
    start = starts[int(np.argmin(powers))]
    return samples[start : start + n]
