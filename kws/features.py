"""Streaming MFCC, log-mel and log-spectrogram frames; every frame is computed once.

`python_speech_features` defines what is right: a signal pushed through `Features.process` in any
pieces, with `flush` at its end, gives what `mfcc`, `logfbank` or (in decibels) `logpowspec` give
for the whole. Filters of unit area, tapered windows and other logarithms, for networks that were
trained on such frames, follow librosa.
Training uses `Features.whole`, which runs the same arithmetic over a batch of signals.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from kws.arrays import Frames, Samples, check_samples
from kws.cepstra import Cepstra, project
from kws.errors import ConfigError, ModelError
from kws.manifest import FeatureSettings
from kws.micro_features import MICRO_FEATURES, MicroFeatures

__all__ = ["Features", "mel_filterbank", "open_features"]

Values: TypeAlias = npt.NDArray[np.float64]

_FULL_SCALE = 32_768


class Features:
    """Turn samples into feature frames, incrementally.

    Parameters
    ----------
    settings : FeatureSettings
        What to compute; comes from the model's manifest.
    dtype : float32 or float64
        Arithmetic and output. The device uses float32; float64 equals the oracle to 1e-9.

    Raises
    ------
    ConfigError
        If the settings are those of the micro frontend, which only models of microWakeWord take.

    Attributes
    ----------
    latency_samples : int
        A frame is out as soon as the last of its `window_samples` is in.
    """

    def __init__(self, settings: FeatureSettings, *, dtype: npt.DTypeLike = np.float32) -> None:
        if settings.kind == "micro":
            raise ConfigError(
                "`features.kind` must be mfcc, logmel or spectrogram, but for models of "
                "microWakeWord. Received: micro. Choose another kind."
            )
        self.settings = settings
        self.latency_samples = settings.window_samples
        self._dtype = np.dtype(dtype)
        self._window = _window(settings).astype(self._dtype)
        self._filters = _filters(settings).astype(self._dtype)
        self._cepstra = Cepstra(settings, dtype=dtype)
        self._preemphasis = np.array([settings.preemphasis], self._dtype)[0]
        self.reset()

    def reset(self) -> None:
        """Forget all samples; the next one is the first of a new signal."""
        self._pending = np.zeros(0, self._dtype)
        self._previous = np.int16(0)
        self._n_frames = 0

    def process(self, samples: Samples, /) -> Frames:
        """Consume any number of samples; return the frames they complete.

        Parameters
        ----------
        samples : int16 [shape=(n,)]
            Mono PCM at `settings.sample_rate_hz`; any `n`, including 0.

        Returns
        -------
        float [shape=(k, n_features)]
            Frames, oldest first; `k` may be 0.

        Raises
        ------
        FormatError
            If `samples` is not one-dimensional int16.
        """
        check_samples(samples)
        if len(samples):
            self._append(samples)
        window, hop = self.settings.window_samples, self.settings.hop_samples
        n_frames = max(0, 1 + (len(self._pending) - window) // hop)
        if n_frames == 0:
            return np.empty((0, self.settings.n_features), self._dtype)
        # What sliding_window_view gives, without its checks, which cost more than the transform.
        strides = (hop * self._pending.itemsize, self._pending.itemsize)
        frames = np.ndarray((n_frames, window), self._dtype, self._pending, strides=strides)
        features = self._transform(frames)
        self._pending = self._pending[n_frames * hop :].copy()
        self._n_frames += n_frames
        return features

    def flush(self) -> Frames:
        """End the signal: return its last, zero-padded frame if samples are left over, and reset.

        Returns
        -------
        float [shape=(k, n_features)]
            `k` is 0 where the signal ended on the last sample of a frame, else 1.
        """
        window, hop = self.settings.window_samples, self.settings.hop_samples
        n_shared = window - hop if self._n_frames else 0
        frames = np.zeros((int(len(self._pending) > n_shared), window), self._dtype)
        frames[:, : len(self._pending)] = self._pending
        self.reset()
        return self._transform(frames)

    def whole(self, signals: npt.NDArray[Any], /) -> Frames:
        """Compute the complete frames of whole signals at once, apart from the stream's state.

        Parameters
        ----------
        signals : array [shape=(..., n)]
            PCM on the scale of 16-bit samples, integer or floating.

        Returns
        -------
        float [shape=(..., k, n_features)]
            `k = 1 + (n - window_samples) // hop_samples`, or 0 for a shorter signal.
        """
        window, hop = self.settings.window_samples, self.settings.hop_samples
        n_frames = max(0, 1 + (signals.shape[-1] - window) // hop)
        shape = (*signals.shape[:-1], n_frames, self.settings.n_features)
        features = np.empty(shape, self._dtype)
        if n_frames == 0:
            return features
        for i in np.ndindex(signals.shape[:-1]):  # the spectra of many do not fit into the caches
            features[i] = self._transform(self._windows(signals[i]))
        return features

    def bands(self, signal: npt.NDArray[Any], /) -> Frames:
        """Compute the bands of one whole signal, before floor, logarithm and cepstra.

        Bands of power add up where signals do, apart from their phases.

        Parameters
        ----------
        signal : array [shape=(n,)]
            PCM on the scale of 16-bit samples.

        Returns
        -------
        float [shape=(k, n)]
            Of MFCC with `energy`, the last column is the energy of the frame.
        """
        if len(signal) < self.settings.window_samples:
            return np.empty((0, self._filters.shape[1]), self._dtype)
        return self._bands(self._windows(signal))

    def _windows(self, signal: npt.NDArray[Any]) -> Frames:
        """Return the pre-emphasised windows of a signal of one window at least."""
        emphasised = signal.astype(self._dtype)
        emphasised[1:] -= self._preemphasis * signal[:-1].astype(self._dtype)
        windows = sliding_window_view(emphasised, self.settings.window_samples)
        return windows[:: self.settings.hop_samples]

    def _append(self, samples: Samples) -> None:
        """Pre-emphasise samples and put them behind those that wait: y[t] = x[t] - c x[t - 1]."""
        n_waiting = len(self._pending)
        pending = np.empty(n_waiting + len(samples), self._dtype)
        pending[:n_waiting] = self._pending
        new = pending[n_waiting:]
        new[0] = self._previous
        new[1:] = samples[:-1]
        new *= -self._preemphasis
        new += samples
        self._previous = samples[-1]
        self._pending = pending

    def _transform(self, frames: Frames) -> Frames:
        """Turn windows of samples (..., window_samples) into features (..., n_features)."""
        bands = self._bands(frames)
        if self.settings.normalization == "none":
            return self._cepstra.of_bands(bands)
        largest = frames.max(axis=-1, keepdims=True, initial=0.0) / np.float32(_FULL_SCALE)
        return np.concatenate((bands, largest), axis=-1)

    def _bands(self, frames: Frames) -> Frames:
        """Turn windows of samples into bands of power or magnitude."""
        spectrum = np.fft.rfft(frames * self._window, self.settings.n_fft)
        parts = spectrum.view(spectrum.real.dtype)  # real and imaginary parts take turns
        if parts.dtype != self._dtype:  # numpy 1 computes every FFT in double precision
            parts = parts.astype(self._dtype)
        np.square(parts, out=parts)
        if self.settings.spectrum == "magnitude":
            parts = np.sqrt(parts[..., ::2] + parts[..., 1::2])
        return project(parts, self._filters)


def open_features(settings: FeatureSettings) -> Features | MicroFeatures:
    """Return what computes the frames that a manifest states.

    Raises
    ------
    ModelError
        If the settings are of the micro frontend but not its only ones, or its library is missing.
    """
    if settings.kind != "micro":
        return Features(settings)
    if settings != MICRO_FEATURES:
        raise ModelError(
            f"`features` of kind micro must be those of the micro frontend. Received: {settings}. "
            f"Leave the manifest out, or write those of `kws.micro_features`."
        )
    return MicroFeatures()


def mel_filterbank(settings: FeatureSettings) -> npt.NDArray[np.float64]:
    """Return triangular filters, equally spaced on the mel scale.

    `htk`: peaks of 1, edges rounded down to whole FFT bins, as in
    `python_speech_features.get_filterbanks`; mel(f) = 2595 log10(1 + f / 700) (O'Shaughnessy 1987).
    `slaney`: unit area over frequency in Hz, exact edges, as in the Auditory Toolbox (Slaney 1998);
    mel(f) = 3 f / 200 below 1 kHz, 15 + 27 ln(f / 1000) / ln(6.4) above.
    `tensorflow`: peaks of 1 and straight sides over mel, as in
    `tf.signal.linear_to_mel_weight_matrix`.

    Returns
    -------
    float64 [shape=(n_fft // 2 + 1, n_mels)]
    """
    bins = np.arange(settings.n_fft // 2 + 1)[:, None]
    if settings.mel_filters == "slaney":
        edges_hz = _mel_edges_hz(settings, _slaney_mel, _slaney_hz)
        edges = edges_hz * settings.n_fft / settings.sample_rate_hz
        return _triangles(bins, edges) * (2 / (edges_hz[2:] - edges_hz[:-2]))
    edges_hz = _mel_edges_hz(settings, _htk_mel, _htk_hz)
    if settings.mel_filters == "tensorflow":
        bins_hz = bins * settings.sample_rate_hz / settings.n_fft
        return _triangles(_htk_mel(bins_hz), _htk_mel(edges_hz))
    return _triangles(bins, np.floor((settings.n_fft + 1) * edges_hz / settings.sample_rate_hz))


def _mel_edges_hz(
    settings: FeatureSettings, mel_of: Callable[[Values], Values], hz_of: Callable[[Values], Values]
) -> Values:
    """Return the edges of the filters, each the centre of its neighbour [shape=(n_mels + 2,)]."""
    high_hz = settings.high_hz or settings.sample_rate_hz / 2
    low_mel, high_mel = mel_of(np.array([settings.low_hz, high_hz]))
    return hz_of(np.linspace(low_mel, high_mel, settings.n_mels + 2))


def _htk_mel(hz: Values) -> Values:
    return 2595 * np.log10(1 + hz / 700.0)


def _htk_hz(mels: Values) -> Values:
    return 700 * (10 ** (mels / 2595.0) - 1)


def _slaney_mel(hz: Values) -> Values:
    return np.where(
        hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4)
    )


def _slaney_hz(mels: Values) -> Values:
    return np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))


def _triangles(bins: npt.NDArray[Any], edges: Values) -> Values:
    """Return triangles [shape=(bins, n_mels)] with peaks of 1 between edges, in the same unit."""
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        rising = np.where((bins >= left) & (bins < centre), (bins - left) / (centre - left), 0.0)
        falling = np.where(
            (bins >= centre) & (bins < right), (right - bins) / (right - centre), 0.0
        )
    return rising + falling


def _window(settings: FeatureSettings) -> npt.NDArray[np.float64]:
    shapes: dict[str, Callable[[int], npt.NDArray[np.float64]]] = {
        "rectangular": np.ones,
        "hamming": np.hamming,
        "hann": np.hanning,
        "periodic_hann": lambda n: np.hanning(n + 1)[:-1],
    }
    n_taper = settings.taper_samples or settings.window_samples
    n_zeros = settings.window_samples - n_taper
    window = shapes[settings.window](n_taper)
    if settings.sample_scale == "unit":
        window = window / _FULL_SCALE
    return np.pad(window, (n_zeros // 2, n_zeros - n_zeros // 2))


def _filters(settings: FeatureSettings) -> npt.NDArray[np.float64]:
    """Return what power or magnitude is multiplied by, any 1 / n_fft included.

    For power each row stands twice, for the squared real and imaginary part of its bin. For MFCC
    with `energy` the last column sums all bins: the frame's energy rides along.
    """
    n_bins = settings.n_fft // 2 + 1
    filters = np.eye(n_bins) if settings.kind == "spectrogram" else mel_filterbank(settings)
    if settings.kind == "mfcc" and settings.energy:
        filters = np.hstack((filters, np.ones((n_bins, 1))))
    if settings.spectrum == "power":
        filters = np.repeat(filters, 2, axis=0)
    return filters / settings.n_fft if settings.periodogram else filters
