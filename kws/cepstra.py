"""Logarithm and cepstra of mel bands, the last step of features, and the level of whole windows.

A window model whose clips were normalised in training takes its frames as bands, and its features
are finished by `Cepstra.of_window` once the window is known.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from kws.manifest import FeatureSettings

__all__ = ["Cepstra", "cosines", "project"]

_BLOCK = 8  # frames in 80 ms at a hop of 10 ms
_LEAST_PEAK = 1e-9


class Cepstra:
    """Turn bands into log bands or cepstra.

    Parameters
    ----------
    settings : FeatureSettings
    dtype : float32 or float64
        Arithmetic and output.
    """

    def __init__(self, settings: FeatureSettings, *, dtype: npt.DTypeLike = np.float32) -> None:
        self._dtype = np.dtype(dtype)
        matrix = _cepstral_matrix(settings)
        self._matrix = None if matrix is None else matrix.astype(self._dtype)
        self._floor, self._log_offset, self._log_addend = np.array(
            [settings.floor, settings.log_offset, settings.log_addend], self._dtype
        )
        self._log = {"e": np.log, "10": np.log10}[settings.log_base]
        self._exponent = 2 if settings.spectrum == "power" else 1

    def of_bands(self, bands: npt.NDArray[Any], /) -> npt.NDArray[Any]:
        """Return the features of bands [shape=(..., k, n)], which are overwritten."""
        np.maximum(bands, self._floor, out=bands)
        if self._log_addend:
            bands += self._log_addend
        self._log(bands, out=bands)
        if self._log_offset:
            bands += self._log_offset
        return self.of_logs(bands)

    def of_logs(self, logs: npt.NDArray[Any], /) -> npt.NDArray[Any]:
        """Return the features of logarithmic bands [shape=(..., k, n)]."""
        return logs if self._matrix is None else project(logs, self._matrix)

    def of_window(self, frames: npt.NDArray[Any], /) -> npt.NDArray[Any]:
        """Return the features of a window, brought to full scale by its largest sample.

        Parameters
        ----------
        frames : float [shape=(n_frames, n + 1)]
            Bands, and the largest sample of each frame as a share of full scale.
        """
        gain = 1 / max(float(frames[:, -1].max()), _LEAST_PEAK)
        bands = frames[:, :-1] * np.float32(gain**self._exponent)
        return self.of_bands(np.ascontiguousarray(bands, self._dtype))


def project(rows: npt.NDArray[Any], matrix: npt.NDArray[Any], /) -> npt.NDArray[Any]:
    """Multiply rows (..., k, n) by a matrix (n, m), always `_BLOCK` rows at a time.

    BLAS picks its kernel, and so the order of its sums, by the number of rows: left to itself, the
    last bit of a frame would depend on how many frames came with it.
    """
    k = rows.shape[-2]
    n_blocks = -(-k // _BLOCK)
    if k != n_blocks * _BLOCK:
        padded = np.zeros((*rows.shape[:-2], n_blocks * _BLOCK, rows.shape[-1]), rows.dtype)
        padded[..., :k, :] = rows
        rows = padded
    blocks = rows.reshape(*rows.shape[:-2], n_blocks, _BLOCK, rows.shape[-1]) @ matrix
    projected: npt.NDArray[Any] = blocks.reshape(*rows.shape[:-1], matrix.shape[1])[..., :k, :]
    return projected


def cosines(n_bands: int, n_cepstra: int) -> npt.NDArray[np.float64]:
    """Return the DCT-II [shape=(n_bands, n_cepstra)], orthonormal but for the zeroth column."""
    n = np.arange(n_bands)[:, None]
    k = np.arange(n_cepstra)[None, :]
    matrix: npt.NDArray[np.float64]
    matrix = np.sqrt(2 / n_bands) * np.cos(np.pi * k * (2 * n + 1) / (2 * n_bands))
    return matrix


def _cepstral_matrix(settings: FeatureSettings) -> npt.NDArray[np.float64] | None:
    """Return the DCT-II with the lifter folded in, or None where there are no cepstra.

    The lifter is 1 + L / 2 sin(pi n / L) (HTK book, section 5.6).
    """
    if settings.kind != "mfcc":
        return None
    k = np.arange(settings.n_mfcc)[None, :]
    dct = cosines(settings.n_mels, settings.n_mfcc)
    if settings.dct == "orthonormal":
        dct[:, 0] /= np.sqrt(2)
    if settings.lifter:
        dct *= 1 + settings.lifter / 2 * np.sin(np.pi * k / settings.lifter)
    if settings.energy:
        dct[:, 0] = 0.0
        dct = np.vstack((dct, k == 0))
    return dct
