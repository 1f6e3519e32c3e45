"""Acoustic conditions of scenes that are added up of bands: as `acoustics`, but for codecs.

Scenes are powers, float32 [shape=(frames, bands + 1)]; the last column is the mean square of the
samples, by which levels are set. Words, speech and noise are logarithms, as
`kws_train.scenes.bands` keeps them.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.signal

from kws.features import mel_filterbank
from kws.manifest import FeatureSettings
from kws_train.data.corpus import Corpus, Spoken
from kws_train.recipe import AugmentRecipe
from kws_train.scenes import augment
from kws_train.scenes.acoustics import SPEECH_RMS, happens
from kws_train.scenes.augment import Random
from kws_train.scenes.bands import LogBands

__all__ = ["BandAcoustics", "Powers"]

Powers = npt.NDArray[np.float32]

_SPEECH_POWER = SPEECH_RMS**2
_QUIET = 1.0
_LOUDER_HALF = 1.7  # the louder half of samples has so much more power than that of frames
_N_FLUCTUATIONS = 2000
_ROOM_TONE_FRAMES = 20


@dataclass(frozen=True)
class BandAcoustics:
    """Apply the conditions of a recipe to scenes in bands.

    Attributes
    ----------
    recipe : AugmentRecipe
    features : FeatureSettings
    speech : sequence of Spoken
        To make babble of; in bands, as all that follows.
    noise : sequence of (bands, path)
    tones : sequence of (float32 [shape=(bands + 1,)], path)
        Powers of the background of recorded clips.
    fluctuations : float32 [shape=(frames, bands + 1)]
        Of the power of stationary noise around its mean.
    note : callable
        Called with the path of each file that is used.
    """

    recipe: AugmentRecipe
    features: FeatureSettings
    speech: Sequence[Spoken]
    noise: Sequence[tuple[LogBands, Path]]
    tones: Sequence[tuple[Powers, Path]]
    fluctuations: Powers
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
    ) -> "BandAcoustics":
        """Return the conditions that a corpus in bands has material for."""
        clips = (clip for keyword in keywords for clip in corpus.clips[keyword])
        return cls(
            recipe,
            features,
            speech=corpus.speech,
            noise=corpus.named_noise(),
            tones=[(_background(c.samples), c.path) for c in clips if c.real and not c.cut],
            fluctuations=_fluctuations(features),
            note=note,
        )

    @property
    def n_bands(self) -> int:
        """Bands of the features, without the columns of energy and power."""
        settings = self.features
        return settings.n_fft // 2 + 1 if settings.kind == "spectrogram" else settings.n_mels

    def silence(self, n_frames: int) -> Powers:
        """Return an empty scene."""
        return np.zeros((n_frames, self.fluctuations.shape[1]), np.float32)

    def word(self, bands: LogBands, speed: float, random: Random) -> Powers:
        """Return a word at a speed, at random pitch and level."""
        if happens(self.recipe.pitch_share, random):
            semitones = random.uniform(*self.recipe.pitch_semitones)
            return self._levelled(self._at_speed(bands, speed, 2 ** (semitones / 12)), random)
        return self._levelled(self._at_speed(bands, speed), random)

    def said(self, bands: LogBands, speed: float, n_frames: int, random: Random) -> Powers:
        """Return at most `n_frames` of continuous speech at a speed, at random level."""
        return self._levelled(self._at_speed(bands, speed)[:n_frames], random)

    def sentence(self, bands: LogBands) -> Powers:
        """Return continuous speech as it was recorded."""
        return np.exp(bands.astype(np.float32))

    def limit(self, scene: Powers) -> Powers:
        """Return a finished scene; bands are not clipped."""
        return scene

    def add_room(self, scene: Powers, random: Random) -> Powers:
        """Add reverberation to some scenes: power that decays by 60 dB in a random time.

        The late reverberation of Polack's model, whose power is an exponential; so this filter is
        recursive, y[t] = x[t] + tail[t], tail[t] = a (tail[t - 1] + g x[t - 1]).
        """
        if random.random() >= self.recipe.room_share:
            return scene
        t60_s, direct_db = random.uniform(0.1, 0.7), random.uniform(-2, 12)
        hop_s = self.features.hop_samples / self.features.sample_rate_hz
        decay = np.float32(10 ** (-6 * hop_s / t60_s))
        gain = np.float32(10 ** (-direct_db / 10) * (1 - decay) / decay)
        coefficients = np.array([1.0, decay * (gain - 1)], np.float32), [np.float32(1), -decay]
        reverberant: Powers = scipy.signal.lfilter(*coefficients, scene, axis=0)
        return reverberant

    def add_babble(self, scene: Powers, random: Random) -> Powers:
        """Add several voices in the background of some scenes; they are not to be answered."""
        if not self.speech or not happens(self.recipe.babble_share, random):
            return scene
        fewest, most = self.recipe.babble_voices
        babble = np.zeros_like(scene)
        for i in random.integers(len(self.speech), size=int(random.integers(fewest, most + 1))):
            self.note(self.speech[i].path)
            voice = _loop(self.speech[i].samples, len(scene), random)
            babble += voice / max(_QUIET, float(voice[:, -1].mean()))
        return _add(scene, babble, random.uniform(*self.recipe.babble_snr_db))

    def add_background(self, scene: Powers, random: Random, *, noise_share: float) -> Powers:
        """Add recorded noise and room tone, and set the level of the whole scene."""
        if random.random() < 0.5 and self.tones:
            tone, path = self.tones[int(random.integers(len(self.tones)))]
            self.note(path)
            start = int(random.integers(len(self.fluctuations)))
            at = np.arange(start, start + len(scene)) % len(self.fluctuations)
            around = self.fluctuations[at]
            scene = scene + around * tone * np.float32(10 ** (random.uniform(-6, 6) / 10))
        if random.random() < noise_share and self.noise:
            noise, path = self.noise[int(random.integers(len(self.noise)))]
            self.note(path)
            snr_db = random.uniform(*self.recipe.snr_db)
            scene = _add(scene, _loop(noise, len(scene), random), snr_db)
        return scene * np.float32(10 ** (random.uniform(*self.recipe.gain_db) / 10))

    def record(self, scene: Powers, random: Random) -> Powers:
        """Pass some scenes through a cheap microphone."""
        if not happens(self.recipe.microphone_share, random):
            return scene
        hz = _centres_hz(self.features)
        response = augment.microphone_response(hz, random=random)
        scene[:, : self.n_bands] *= response.astype(np.float32)
        return scene

    def _at_speed(self, bands: LogBands, speed: float, pitch: float = 1.0) -> Powers:
        """Return powers at a speed, with pitch and formants shifted as in a recording played so."""
        n_out = max(1, round(len(bands) / speed))
        at = np.rint(np.linspace(0, len(bands) - 1, n_out)).astype(int)
        logs = bands[at].astype(np.float32)
        if self.features.kind != "spectrogram":
            n = self.n_bands
            logs[:, :n] = augment.warp(
                logs[:, :n],
                speed * pitch,
                low_hz=self.features.low_hz,
                high_hz=self.features.high_hz or self.features.sample_rate_hz / 2,
            )
        return np.exp(logs)

    def _levelled(self, powers: Powers, random: Random) -> Powers:
        """Scale the louder half of a sound to the level of speech, and a random one around it."""
        half = len(powers) // 2
        power = float(np.sort(powers[:, -1])[half:].mean()) if len(powers) else 0.0
        db = random.uniform(-6, 3)
        if power < _QUIET:
            return powers
        return powers * np.float32(_SPEECH_POWER / (_LOUDER_HALF * power) * 10 ** (db / 10))


def _loop(bands: LogBands, n_frames: int, random: Random) -> Powers:
    """Cut frames out of a recording from a random start; repeat a shorter one."""
    start = int(random.integers(len(bands)))
    at = np.arange(start, start + n_frames) % len(bands)
    return np.exp(bands[at].astype(np.float32))


def _add(scene: Powers, noise: Powers, snr_db: float) -> Powers:
    """Add noise at `snr_db` below the level of speech."""
    power = float(noise[:, -1].mean())
    if power <= 0.0:
        return scene
    return scene + noise * np.float32(_SPEECH_POWER / power / 10 ** (snr_db / 10))


def _background(bands: LogBands) -> Powers:
    """Return the mean powers of the quietest fifth of a second of a clip."""
    powers = np.exp(bands.astype(np.float32))
    n = min(_ROOM_TONE_FRAMES, len(powers))
    total = np.convolve(powers[:, -1], np.ones(n), "valid")
    start = int(total.argmin())
    mean: Powers = powers[start : start + n].mean(axis=0)
    return mean


def _fluctuations(settings: FeatureSettings) -> Powers:
    """Return gamma noise of mean 1; the wider a band, the less its power fluctuates."""
    n_bins = settings.n_fft // 2 + 1
    filters = np.eye(n_bins) if settings.kind == "spectrogram" else mel_filterbank(settings)
    shapes = filters.sum(axis=0) ** 2 / np.maximum((filters**2).sum(axis=0), 1e-9)
    n_wide = 1 + int(settings.kind == "mfcc" and settings.energy)
    shapes = np.concatenate((np.maximum(shapes, 1.0), np.full(n_wide, n_bins)))
    random = np.random.default_rng(1)
    return (random.gamma(shapes, size=(_N_FLUCTUATIONS, len(shapes))) / shapes).astype(np.float32)


@functools.cache
def _centres_hz(settings: FeatureSettings) -> npt.NDArray[np.float64]:
    """Return the frequency in the middle of each band."""
    hz = np.linspace(0, settings.sample_rate_hz / 2, settings.n_fft // 2 + 1)
    if settings.kind == "spectrogram":
        return hz
    filters = mel_filterbank(settings)
    centres: npt.NDArray[np.float64] = hz @ filters / np.maximum(filters.sum(axis=0), 1e-9)
    return centres
