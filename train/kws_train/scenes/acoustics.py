"""Acoustic conditions of scenes: rooms, babble, noise, room tone, microphones and codecs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kws.arrays import Samples
from kws.manifest import FeatureSettings
from kws_train.data.corpus import Clip, Corpus, Spoken
from kws_train.recipe import AugmentRecipe
from kws_train.scenes import augment
from kws_train.scenes.augment import Random, Wave
from kws_train.scenes.rooms import room_bank

__all__ = ["SPEECH_RMS", "Acoustics", "happens", "level"]

SPEECH_RMS = 2000.0
"""The level of words and speech before noise and gain."""
_ROOM_TONE_SAMPLES = 3200


@dataclass(frozen=True)
class Acoustics:
    """Apply the conditions of a recipe to scenes.

    Attributes
    ----------
    recipe : AugmentRecipe
    speech : sequence of Spoken
        To make babble of.
    noise : sequence of (samples, path)
    tones : sequence of Clip
        Recorded clips, whose background gives room tone.
    rooms : sequence of float32 arrays
        Impulse responses; none: rooms by Polack's model.
    note : callable
        Called with the path of each file that is used.
    """

    recipe: AugmentRecipe
    speech: Sequence[Spoken]
    noise: Sequence[tuple[Samples, Path]]
    tones: Sequence[Clip]
    rooms: Sequence[Wave]
    note: Callable[[Path], None]

    @classmethod
    def of(
        cls,
        corpus: Corpus,
        recipe: AugmentRecipe,
        *,
        keywords: Sequence[str],
        note: Callable[[Path], None],
        features: FeatureSettings,
    ) -> "Acoustics":
        """Return the conditions that a corpus has material for, whatever the features.

        Raises
        ------
        ConfigError
            If the recipe asks for pyroomacoustics and it is not installed.
        """
        clips = (clip for keyword in keywords for clip in corpus.clips[keyword])
        return cls(
            recipe,
            speech=corpus.speech,
            noise=corpus.named_noise(),
            tones=[clip for clip in clips if clip.real and not clip.cut],
            rooms=room_bank(recipe.room_bank) if recipe.room == "pyroomacoustics" else (),
            note=note,
        )

    def silence(self, n_samples: int) -> Wave:
        """Return an empty scene."""
        return np.zeros(n_samples, np.float32)

    def word(self, samples: Samples, speed: float, random: Random) -> Wave:
        """Return a word at a speed, at random pitch and level."""
        wave = augment.change_speed(samples.astype(np.float32), speed)
        wave = self.change_voice(wave, random)
        return level(augment.fade(wave), random.uniform(-6, 3))

    def said(self, samples: Samples, speed: float, n_samples: int, random: Random) -> Wave:
        """Return at most `n_samples` of continuous speech at a speed, at random level."""
        wave = augment.change_speed(samples.astype(np.float32), speed)[:n_samples]
        return augment.fade(level(wave, random.uniform(-6, 3)))

    def sentence(self, samples: Samples) -> Wave:
        """Return continuous speech as it was recorded."""
        return augment.fade(samples.astype(np.float32))

    def limit(self, samples: Wave) -> Wave:
        """Clip a finished scene to the range of 16-bit samples."""
        return np.clip(samples, -32768, 32767)

    def change_voice(self, wave: Wave, random: Random) -> Wave:
        """Shift the pitch of some words; the length is kept."""
        if not happens(self.recipe.pitch_share, random):
            return wave
        return augment.change_pitch(wave, random.uniform(*self.recipe.pitch_semitones))

    def add_room(self, samples: Wave, random: Random) -> Wave:
        """Add the reverberation of a room to some scenes."""
        if random.random() >= self.recipe.room_share:
            return samples
        if self.rooms:
            return augment.convolve(samples, self.rooms[int(random.integers(len(self.rooms)))])
        return augment.reverberate(
            samples,
            t60_s=random.uniform(0.1, 0.7),
            direct_db=random.uniform(-2, 12),
            random=random,
        )

    def add_babble(self, samples: Wave, random: Random) -> Wave:
        """Add several voices in the background of some scenes; they are not to be answered."""
        if not self.speech or not happens(self.recipe.babble_share, random):
            return samples
        fewest, most = self.recipe.babble_voices
        which = random.integers(len(self.speech), size=int(random.integers(fewest, most + 1)))
        voices = [self.speech[i].samples for i in which]
        for i in which:
            self.note(self.speech[i].path)
        return augment.add_noise(
            samples,
            augment.babble(voices, len(samples), random=random),
            snr_db=random.uniform(*self.recipe.babble_snr_db),
            speech_power=SPEECH_RMS**2,
        )

    def add_background(self, samples: Wave, random: Random, *, noise_share: float) -> Wave:
        """Add recorded noise and room tone, and set the level of the whole scene."""
        if random.random() < 0.5 and self.tones:
            clip = self.tones[int(random.integers(len(self.tones)))]
            self.note(clip.path)
            samples = samples + augment.gain(
                augment.room_tone(_quietest(clip.samples), len(samples), random=random),
                random.uniform(-6, 6),
            )
        if random.random() < noise_share and self.noise:
            noise, path = self.noise[int(random.integers(len(self.noise)))]
            self.note(path)
            samples = augment.add_noise(
                samples,
                augment.loop(noise, len(samples), random=random),
                snr_db=random.uniform(*self.recipe.snr_db),
                speech_power=SPEECH_RMS**2,
            )
        return augment.gain(samples, random.uniform(*self.recipe.gain_db))

    def record(self, samples: Wave, random: Random) -> Wave:
        """Pass some scenes through a cheap microphone, and some through a codec."""
        if happens(self.recipe.microphone_share, random):
            samples = augment.microphone(samples, random=random)
        if happens(self.recipe.codec_share, random):
            codec = self.recipe.codecs[int(random.integers(len(self.recipe.codecs)))]
            samples = augment.code(samples, codec, random=random)
        return samples


def happens(share: float, random: Random) -> bool:
    """Draw only where a share is above zero, so that unused options do not change the others."""
    return share > 0 and random.random() < share


def level(wave: Wave, db: float) -> Wave:
    """Scale the louder half of a sound to the level of speech, plus `db`."""
    half = len(wave) // 2
    power = np.partition(wave**2, half)[half:].mean() if len(wave) else 0.0
    if power < 1.0:
        return wave
    return wave * np.float32(SPEECH_RMS / np.sqrt(power) * 10 ** (db / 20))


def _quietest(samples: Samples) -> Samples:
    """Return the quietest fifth of a second: the room and microphone behind a word."""
    n = _ROOM_TONE_SAMPLES
    if len(samples) <= n:
        return samples
    starts = np.arange(0, len(samples) - n, n // 4)
    powers = [float(np.mean(samples[s : s + n].astype(np.float32) ** 2)) for s in starts]
    start = starts[int(np.argmin(powers))]
    return samples[start : start + n]
