"""Transforms that make clean clips sound as a keyword spotter hears them: each small, each tested.

Waveforms are float32 on the scale of 16-bit samples; randomness comes from the generator given, so
that the same seed gives the same sound.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import fft, signal

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ

__all__ = [
    "add_noise",
    "change_speed",
    "fade",
    "gain",
    "loop",
    "mask",
    "reverberate",
    "room_tone",
    "tilt",
    "warp",
]

Wave: TypeAlias = npt.NDArray[np.float32]
Random: TypeAlias = np.random.Generator

_QUIET = 1.0  # one step of a 16-bit sample: nothing below it can be heard or recorded


def gain(wave: Wave, db: float) -> Wave:
    """Amplify by `db` decibels."""
    return wave * np.float32(10 ** (db / 20))


def change_speed(wave: Wave, factor: float) -> Wave:
    """Play `factor` times as fast: shorter and higher, by linear interpolation.

    Returns
    -------
    float32 [shape=(round(n / factor),)]
    """
    n_out = max(1, round(len(wave) / factor))
    at = np.linspace(0, len(wave) - 1, n_out)
    return np.interp(at, np.arange(len(wave)), wave).astype(np.float32)


def fade(wave: Wave, *, n_samples: int = 160) -> Wave:
    """Let the edges rise and fall linearly, so that a cut does not click."""
    n = min(n_samples, len(wave) // 2)
    faded = wave.copy()
    ramp = np.linspace(0, 1, n, dtype=np.float32)
    faded[:n] *= ramp
    faded[len(wave) - n :] *= ramp[::-1]
    return faded


def loop(noise: npt.NDArray[Any], n_samples: int, *, random: Random) -> Wave:
    """Cut `n_samples` out of a recording at a random place, repeating it where it is too short."""
    start = int(random.integers(len(noise)))
    return np.take(noise, np.arange(start, start + n_samples), mode="wrap").astype(np.float32)


def add_noise(wave: Wave, noise: Wave, *, snr_db: float, speech_power: float) -> Wave:
    """Add noise so that `speech_power` (mean square) stands `snr_db` above the noise's."""
    power = float(np.mean(noise**2))
    if power < _QUIET:
        return wave
    return wave + noise * np.float32(np.sqrt(speech_power / power / 10 ** (snr_db / 10)))


def room_tone(example: npt.NDArray[Any], n_samples: int, *, random: Random) -> Wave:
    """Make noise of any length with the spectrum and level of a short stretch of real background.

    The magnitude spectrum is kept, phases are drawn anew; the power of each sample is that of the
    example.
    """
    magnitude = np.abs(np.fft.rfft(example.astype(np.float32)))
    n_bins = n_samples // 2 + 1
    stretched = np.interp(
        np.linspace(0, 1, n_bins), np.linspace(0, 1, len(magnitude)), magnitude
    ).astype(np.float32) * np.float32(np.sqrt(n_samples / len(example)))
    phase = random.random(n_bins, np.float32) * np.float32(2 * np.pi)
    spectrum = np.empty(n_bins, np.complex64)
    spectrum.real, spectrum.imag = stretched * np.cos(phase), stretched * np.sin(phase)
    return fft.irfft(spectrum, n_samples)


def reverberate(wave: Wave, *, t60_s: float, direct_db: float, random: Random) -> Wave:
    """Put the sound into a simple room: a direct path, then noise that decays by 60 dB in `t60_s`.

    Polack's statistical model of late reverberation. `direct_db` is the direct path's energy over
    the tail's. The length is kept.
    """
    n_tail = int(t60_s * RATE_HZ)
    response = random.standard_normal(n_tail, np.float32)
    response *= np.exp(np.linspace(0, -6.908, n_tail, dtype=np.float32))
    response *= np.sqrt(np.float32(10 ** (-direct_db / 10)) / np.sum(response**2))
    response[0] += 1.0
    return signal.fftconvolve(wave, response)[: len(wave)]


def tilt(frames: npt.NDArray[np.float32], *, greatest_db: float, random: Random) -> Wave:
    """Colour log-power features (..., bands) like a random microphone: a smooth curve over bands.

    Three half-cosines over the bands, each of random sign and size; together at most `greatest_db`.
    """
    bands = np.linspace(0, np.pi, frames.shape[-1])
    sizes = random.uniform(-1, 1, 3) / 3
    curve = sum(size * np.cos((k + 1) * bands) for k, size in enumerate(sizes))
    return (frames + curve * greatest_db * np.log(10) / 10).astype(np.float32)


def warp(frames: npt.NDArray[np.float32], factor: float, *, high_hz: float) -> Wave:
    """Move log-mel bands (..., bands) as a vocal tract `1 / factor` as long would.

    Vocal tract length perturbation (Jaitly and Hinton 2013): band at f takes what was at
    f / factor, by linear interpolation on the mel scale up to `high_hz`, its edges repeated.
    """
    n_bands = frames.shape[-1]
    most = np.log1p(high_hz / 700)
    bands_hz = 700 * np.expm1((np.arange(n_bands) + 1) * most / (n_bands + 1))
    at = np.log1p(bands_hz / factor / 700) / most * (n_bands + 1) - 1
    at = np.clip(at, 0, n_bands - 1)
    low = np.minimum(at.astype(int), n_bands - 2)
    share = (at - low).astype(np.float32)
    return frames[..., low] * (1 - share) + frames[..., low + 1] * share


def mask(
    frames: npt.NDArray[np.float32],
    *,
    n_time: int,
    time_frames: int,
    n_band: int,
    bands: int,
    random: Random,
) -> npt.NDArray[np.float32]:
    """SpecAugment (Park et al. 2019): replace stretches of time and bands by the frames' mean."""
    masked = frames.copy()
    mean = frames.mean()
    for count, longest, axis in ((n_time, time_frames, 0), (n_band, bands, 1)):
        for _ in range(count):
            size = int(random.integers(longest + 1))
            start = int(random.integers(max(1, frames.shape[axis] - size)))
            where = (slice(start, start + size), slice(None))
            masked[where if axis == 0 else where[::-1]] = mean
    return masked
