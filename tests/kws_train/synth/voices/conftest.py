"""What the tests of voices share."""

import numpy as np
import pytest


@pytest.fixture
def pitch_hz():
    """Estimate the median pitch of voiced speech by autocorrelation."""

    def pitch_hz(samples):
        frames = np.lib.stride_tricks.sliding_window_view(samples.astype(float), 800)[::400]
        loud = frames[np.square(frames).mean(1) > 0.1 * np.square(frames).mean(1).max()]
        loud = loud - loud.mean(1, keepdims=True)
        spectrum = np.abs(np.fft.rfft(loud, 2048)) ** 2
        correlation = np.fft.irfft(spectrum)[:, 40:267]  # 400 to 60 Hz
        return 16_000 / (40 + np.median(correlation.argmax(1)))

    return pitch_hz
