"""The features of MLPerf Tiny's keyword model, as settings and computed anew."""

import numpy as np

from kws.manifest import FeatureSettings

MLPERF_TINY = FeatureSettings(
    kind="mfcc",
    window_samples=480,
    hop_samples=320,
    n_fft=512,
    window="periodic_hann",
    n_mels=40,
    low_hz=20.0,
    high_hz=4000.0,
    mel_filters="tensorflow",
    n_mfcc=10,
    dct="htk",
    preemphasis=0.0,
    lifter=0,
    energy=False,
    floor=1e-12,
    spectrum="magnitude",
    sample_scale="unit",
    log_addend=1e-6,
    periodogram=False,
)


def reference_of_mlperf_tiny(clip):
    """Compute the features of MLPerf Tiny's keyword model, of samples in -1..1."""

    def mel(hz):
        return 1127.0 * np.log1p(np.asarray(hz) / 700.0)

    bins, edges = mel(np.linspace(0, 8000, 257))[:, None], np.linspace(mel(20), mel(4000), 42)
    widths = np.diff(edges)
    bank = np.minimum((bins - edges[:-2]) / widths[:-1], (edges[2:] - bins) / widths[1:])
    n = np.arange(40)[:, None]
    dct = np.cos(np.pi * np.arange(10) * (2 * n + 1) / 80) * np.sqrt(2 / 40)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(480) / 480)
    frames = np.stack([clip[320 * k : 320 * k + 480] * window for k in range(49)])
    magnitudes = np.abs(np.fft.rfft(frames, 512)) @ np.maximum(bank, 0)
    return np.log(magnitudes + 1e-6) @ dct
