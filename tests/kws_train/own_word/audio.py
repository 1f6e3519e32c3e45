"""Synthetic recordings for the tests of `kws new`."""

import numpy as np
import soundfile

RATE_HZ = 16_000


def voice(seconds: float, *, rate_hz: int = RATE_HZ, seed: int = 1) -> np.ndarray:
    """Return a buzz with formants, which voice activity takes for speech."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    pulses = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 25))
    swing = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)
    return (4000 * pulses * swing + random.normal(0, 20, len(t))).astype(np.int16)


def silence(seconds: float, *, rate_hz: int = RATE_HZ) -> np.ndarray:
    return np.random.default_rng(2).normal(0, 8, round(seconds * rate_hz)).astype(np.int16)


def write(path, *parts: np.ndarray, rate_hz: int = RATE_HZ):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.concatenate(parts), rate_hz)
    return path


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.flac"))
