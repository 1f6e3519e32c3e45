"""Data augmentation: transforms of waveforms, of log-mel features and of batches.

Waveforms are float32 on the scale of 16-bit samples. Randomness comes from the generator given, so
that the same seed gives the same result. Rooms, microphones and codecs keep length and timing.
"""

import io
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.signal
import soundfile

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws_train.recipe import Codec

__all__ = [
    "add_noise",
    "babble",
    "change_pitch",
    "change_speed",
    "code",
    "convolve",
    "fade",
    "gain",
    "loop",
    "mask",
    "microphone",
    "microphone_response",
    "mixup",
    "reverberate",
    "room_tone",
    "stretch",
    "tilt",
    "warp",
]

Wave: TypeAlias = npt.NDArray[np.float32]
Random: TypeAlias = np.random.Generator

_PIECE_SAMPLES = 512
_MICROPHONE_TAPS = 257
_FORMATS = {"telephone": "WAV", "gsm": "WAV", "opus": "OGG", "mp3": "MP3"}
_SUBTYPES = {"telephone": "ULAW", "gsm": "GSM610", "opus": "OPUS", "mp3": "MPEG_LAYER_III"}
_LEVELS = {"opus": (0.92, 1.0), "mp3": (0.8, 0.95)}  # libsndfile's: 0 is the highest bitrate
_QUIET = 1.0  # power of one quantisation step of a 16-bit sample


def gain(wave: Wave, db: float) -> Wave:
    """Amplify by `db` decibels."""
    return wave * np.float32(10 ** (db / 20))


def change_speed(wave: Wave, factor: float) -> Wave:
    """Resample to `factor` times the speed, pitch included, by linear interpolation.

    Returns
    -------
    float32 [shape=(round(n / factor),)]
    """
    n_out = max(1, round(len(wave) / factor))
    at = np.linspace(0, len(wave) - 1, n_out)
    return np.interp(at, np.arange(len(wave)), wave).astype(np.float32)


def stretch(wave: Wave, factor: float) -> Wave:
    """Change the tempo by `factor` at the same pitch.

    Verhelst and Roelands 1993 (WSOLA): overlap-add of pieces at another hop, each shifted by up to
    8 ms to where it best continues the piece before.

    Returns
    -------
    float32 [shape=(round(n / factor),)]
    """
    n_out = max(1, round(len(wave) / factor))
    n, hop, most = _PIECE_SAMPLES, _PIECE_SAMPLES // 2, _PIECE_SAMPLES // 4
    padded = np.pad(wave, (hop + most, 3 * n + most))
    window = scipy.signal.get_window("hann", n).astype(np.float32)
    out = np.zeros(n_out + 2 * n, np.float32)
    going_on = padded[most : most + n]
    for at in range(0, n_out + hop, hop):
        start = min(round(at * factor), len(wave))
        region = padded[start : start + n + 2 * most]
        start += int(np.correlate(region, going_on, "valid").argmax()) if at else most
        out[at : at + n] += window * padded[start : start + n]
        going_on = padded[start + hop : start + hop + n]
    return out[hop : hop + n_out]


def change_pitch(wave: Wave, semitones: float) -> Wave:
    """Shift the pitch, and the formants with it, at the same tempo; the length is kept."""
    factor = 2 ** (semitones / 12)
    stretched = stretch(wave, 1 / factor)
    at = np.arange(len(wave)) * factor
    return np.interp(at, np.arange(len(stretched)), stretched).astype(np.float32)


def fade(wave: Wave, *, n_samples: int = 160) -> Wave:
    """Fade both edges linearly, so that a cut does not click."""
    n = min(n_samples, len(wave) // 2)
    faded = wave.copy()
    ramp = np.linspace(0, 1, n, dtype=np.float32)
    faded[:n] *= ramp
    faded[len(wave) - n :] *= ramp[::-1]
    return faded


def loop(noise: npt.NDArray[Any], n_samples: int, *, random: Random) -> Wave:
    """Cut `n_samples` out of a recording from a random start; repeat a shorter one."""
    start = int(random.integers(len(noise)))
    return np.take(noise, np.arange(start, start + n_samples), mode="wrap").astype(np.float32)


def add_noise(wave: Wave, noise: Wave, *, snr_db: float, speech_power: float) -> Wave:
    """Add noise at `snr_db` below `speech_power` (mean square)."""
    power = float(np.mean(noise**2))
    if power < _QUIET:
        return wave
    return wave + noise * np.float32(np.sqrt(speech_power / power / 10 ** (snr_db / 10)))


def babble(voices: Sequence[npt.NDArray[Any]], n_samples: int, *, random: Random) -> Wave:
    """Mix several recordings of speech, each of any length, at equal levels.

    Returns
    -------
    float32 [shape=(n_samples,)]
        At the mean power of the voices; `add_noise` sets the level.
    """
    looped = np.stack([loop(voice, n_samples, random=random) for voice in voices])
    powers = np.maximum(np.mean(looped**2, axis=1), _QUIET)
    return np.sqrt(powers.mean() / powers / len(voices)).astype(np.float32) @ looped


def room_tone(example: npt.NDArray[Any], n_samples: int, *, random: Random) -> Wave:
    """Synthesise noise of any length with the spectrum and power of a short background example.

    The magnitude spectrum of the example, interpolated, with random phases.
    """
    magnitude = np.abs(np.fft.rfft(example.astype(np.float32)))
    n_bins = n_samples // 2 + 1
    stretched = np.interp(
        np.linspace(0, 1, n_bins), np.linspace(0, 1, len(magnitude)), magnitude
    ).astype(np.float32) * np.float32(np.sqrt(n_samples / len(example)))
    phase = random.random(n_bins, np.float32) * np.float32(2 * np.pi)
    spectrum = np.empty(n_bins, np.complex64)
    spectrum.real, spectrum.imag = stretched * np.cos(phase), stretched * np.sin(phase)
    return scipy.fft.irfft(spectrum, n_samples)


def reverberate(wave: Wave, *, t60_s: float, direct_db: float, random: Random) -> Wave:
    """Add the reverberation of a simple room: a direct path, then noise that decays in `t60_s`.

    Polack's statistical model of late reverberation: Gaussian noise, -60 dB after `t60_s`.
    `direct_db` is the direct path's energy over the tail's. The length is kept.
    """
    n_tail = int(t60_s * RATE_HZ)
    response = random.standard_normal(n_tail, np.float32)
    response *= np.exp(np.linspace(0, -6.908, n_tail, dtype=np.float32))
    response *= np.sqrt(np.float32(10 ** (-direct_db / 10)) / np.sum(response**2))
    response[0] += 1.0
    return scipy.signal.fftconvolve(wave, response)[: len(wave)]


def convolve(wave: Wave, response: Wave) -> Wave:
    """Convolve with the impulse response of a room, aligned to its peak; the length is kept."""
    at = int(np.abs(response).argmax())
    return scipy.signal.fftconvolve(wave, response)[at : at + len(wave)]


def microphone(wave: Wave, *, random: Random) -> Wave:
    """Apply `microphone_response` by a linear-phase filter, its delay removed."""
    hz = np.linspace(0, RATE_HZ / 2, 257)
    taps = scipy.signal.firwin2(
        _MICROPHONE_TAPS, hz, np.sqrt(microphone_response(hz, random=random)), fs=RATE_HZ
    )
    return convolve(wave, taps.astype(np.float32))


def microphone_response(hz: npt.NDArray[np.float64], *, random: Random) -> npt.NDArray[np.float64]:
    """Return the power response of a random cheap microphone at each frequency.

    A band from 40-300 Hz to 3.5-7.9 kHz, with edges of 12 dB per octave, and three resonances or
    notches of up to 6 dB within it.
    """
    octave = np.log2(np.maximum(hz, 10.0))
    low, high = random.uniform(np.log2([40.0, 3500.0]), np.log2([300.0, 7900.0]))
    power = 1 / ((1 + 2 ** (4 * (low - octave))) * (1 + 2 ** (4 * (octave - high))))
    centres, widths = random.uniform(low, high, (3, 1)), random.uniform(0.2, 0.8, (3, 1))
    sizes_db = random.uniform(-6, 6, (3, 1))
    curve_db = np.sum(sizes_db * np.exp(-(((octave - centres) / widths) ** 2) / 2), axis=0)
    response: npt.NDArray[np.float64] = power * 10 ** (curve_db / 10)
    return response


def code(wave: Wave, codec: Codec, *, random: Random) -> Wave:
    """Encode and decode with a lossy codec at a low bitrate.

    `telephone` is mu-law at 8 kHz between 300 and 3400 Hz, `gsm` full-rate GSM 06.10 (13 kbit/s) of
    the same band; `opus` has 8 to 27 and `mp3` about 24 kbit/s, drawn at random.
    """
    loud = np.clip(wave / 32768, -1, 32767 / 32768)
    if codec in ("telephone", "gsm"):
        band = scipy.signal.butter(4, (300, 3400), "bandpass", fs=RATE_HZ, output="sos")
        narrow = scipy.signal.resample_poly(scipy.signal.sosfiltfilt(band, loud), 1, 2)
        coded = _through_file(narrow, RATE_HZ // 2, codec)
        back = scipy.signal.resample_poly(coded, 2, 1)[: len(wave)]
    else:
        quality = {"compression_level": random.uniform(*_LEVELS[codec])}
        back = _through_file(loud, RATE_HZ, codec, **quality)
    whole = np.zeros(len(wave), np.float32)
    whole[: len(back)] = back[: len(wave)]
    return whole * np.float32(32768)


def mixup(
    frames: npt.NDArray[np.float32],
    allowed: npt.NDArray[np.uint8],
    weight: npt.NDArray[np.float32],
    *,
    share: float,
    alpha: float,
    random: Random,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mix scenes of a batch with one another (mixup, Zhang et al. 2018), and their losses.

    A scene x is mixed with another one, y, to s x + (1 - s) y, s from Beta(alpha, alpha). Label
    sets cannot be averaged, but their losses can: the target holds both sets side by side, each
    scaled by its share and its weight; `kws_train.fit.losses` sums the two losses.

    Parameters
    ----------
    frames : float32 [shape=(batch, frames, features)]
    allowed : uint8 [shape=(batch, outputs, labels)]
    weight : float32 [shape=(batch, outputs)]
    share : float
        Share of the scenes that are mixed.
    alpha : float
        With small values, one of the two scenes dominates.

    Returns
    -------
    frames : float32 [shape=(batch, frames, features)]
    targets : float32 [shape=(batch, outputs, 2 * labels)]
    weight : float32 [shape=(batch, outputs)]
        Ones: the weights are in the targets.
    """
    n = len(frames)
    mixed = random.random(n) < share
    own = np.where(mixed, random.beta(alpha, alpha, n), 1.0).astype(np.float32)[:, None, None]
    other = random.permutation(n)
    weighted = allowed * weight[..., None]
    targets = np.concatenate([own * weighted, (1 - own) * weighted[other]], axis=-1)
    return own * frames + (1 - own) * frames[other], targets, np.ones_like(weight)


def tilt(
    frames: npt.NDArray[np.float32], *, greatest_db: float, random: Random, base: float = math.e
) -> Wave:
    """Add a random smooth frequency response to log-power features (..., bands).

    Three half-cosines over the bands, each of random sign and size; together at most `greatest_db`.
    `base` is that of the logarithm.
    """
    bands = np.linspace(0, np.pi, frames.shape[-1])
    sizes = random.uniform(-1, 1, 3) / 3
    curve = sum(size * np.cos((k + 1) * bands) for k, size in enumerate(sizes))
    scale = np.log(10) / np.log(base) / 10
    return (frames + curve * greatest_db * scale).astype(np.float32)


def warp(
    frames: npt.NDArray[np.float32], factor: float, *, high_hz: float, low_hz: float = 0.0
) -> Wave:
    """Warp log-mel bands (..., bands) as for a vocal tract of `1 / factor` the length.

    Vocal tract length perturbation (Jaitly and Hinton 2013): the band at f takes the value at
    f / factor, by linear interpolation on the mel scale from `low_hz` to `high_hz`, its edges
    repeated.
    """
    n_bands = frames.shape[-1]
    least, most = np.log1p(low_hz / 700), np.log1p(high_hz / 700)
    step = (most - least) / (n_bands + 1)
    bands_hz = 700 * np.expm1(least + (np.arange(n_bands) + 1) * step)
    at = (np.log1p(bands_hz / factor / 700) - least) / step - 1
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


def _through_file(wave: npt.NDArray[Any], rate_hz: int, codec: Codec, **quality: float) -> Wave:
    """Write to a file in memory and read it back; `wave` is in -1..1."""
    file = io.BytesIO()
    names = {"format": _FORMATS[codec], "subtype": _SUBTYPES[codec]}
    soundfile.write(file, wave, rate_hz, **names, **quality)
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]
