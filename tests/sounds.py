"""Sounds for tests: tones, square waves, voices, noise and silence at 16 kHz unless stated."""

from pathlib import Path

import numpy as np

RATE_HZ = 16_000


def sine(hz, n_samples, *, peak=1.0, rate_hz=RATE_HZ):
    """Return a sine as float64 [shape=(n_samples,)]."""
    return peak * np.sin(2 * np.pi * hz * np.arange(n_samples) / rate_hz)


def tone(hz, seconds, *, peak=6000, rate_hz=RATE_HZ):
    """Return a sine as int16."""
    return sine(hz, round(seconds * rate_hz), peak=peak, rate_hz=rate_hz).astype(np.int16)


def square(hz, n_samples, *, peak=3000):
    """Return a square wave as int16; none of its samples is zero."""
    half = RATE_HZ // (2 * hz)
    return np.where(np.arange(n_samples) // half % 2, peak, -peak).astype(np.int16)


def silence(seconds):
    """Return digital silence as int16."""
    return np.zeros(round(seconds * RATE_HZ), np.int16)


def noise(n_samples, *, rms, seed=0):
    """Return white noise as float64 [shape=(n_samples,)]."""
    return np.random.default_rng(seed).normal(0, rms, n_samples)


def tone_in_noise(
    hz, *, at_s=(0.25, 0.625), seconds=1.0, peak=6000, rms=30, seed=1, rate_hz=RATE_HZ
):
    """Return a tone from one time to another in faint noise, as int16."""
    first, last = (round(edge * rate_hz) for edge in at_s)
    wave = noise(round(seconds * rate_hz), rms=rms, seed=seed)
    wave[first:last] += sine(hz, last - first, peak=peak, rate_hz=rate_hz)
    return wave.astype(np.int16)


def voice(seconds, *, pitch_hz=120.0, formants_hz=(600.0, 1200.0, 2500.0), peak=8000):
    """Return harmonics under formants, swelling at 4 Hz: voice activity detectors accept it."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    wave = np.zeros(len(t))
    for k in range(1, 30):
        hz = k * pitch_hz
        gain = 0.02 + sum(np.exp(-(((hz - formant) / 150.0) ** 2)) for formant in formants_hz)
        wave += gain * np.sin(2 * np.pi * hz * t + k)
    wave *= 1.0 + 0.5 * np.sin(2 * np.pi * 4.0 * t)
    return (peak * wave / np.abs(wave).max()).astype(np.int16)


def write(path: Path, samples, *, rate_hz=RATE_HZ) -> Path:
    """Write samples to an audio file, in the format of its suffix; return its path."""
    import soundfile  # the runtime's tests run without it

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate_hz)
    return path
