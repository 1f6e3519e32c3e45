"""Conversion of samples of any width, rate and channels to int16, mono, 16 kHz.

On the way samples are float32 on the scale of int16, so that 16-bit audio stays exact: what is
16 kHz mono int16 already comes out bit for bit as it went in.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from kws.arrays import AnySamples, PcmFrames, Samples
from kws.channels import ChannelChoice
from kws.config import Channel
from kws.errors import AudioError, FormatError

__all__ = [
    "SAMPLE_RATE_HZ",
    "Converter",
    "Encoding",
    "Resampler",
    "check_rate",
    "down_mix",
    "from_pcm",
    "level_dbfs",
    "sample_bytes",
    "to_int16",
    "to_samples",
]

SAMPLE_RATE_HZ = 16_000

Encoding = Literal["u8", "s16", "s24", "s32", "f32", "f64"]
"""How a sample lies in bytes, little endian."""

_SAMPLE_BYTES: dict[Encoding, int] = {"u8": 1, "s16": 2, "s24": 3, "s32": 4, "f32": 4, "f64": 8}
_RATES_HZ = range(1_000, 768_001)
# Far above full scale, far below where float32 sums and filters overflow.
_LOUDEST = np.float32(2**31)
_LOUDEST_FLOAT = 2.0  # of full scale 1: filters overshoot; integers as floats are far above


class Converter:
    """Mix down, resample and round, block by block.

    Parameters
    ----------
    rate_hz : int
        Rate of what comes in.
    name : str
        Where it comes from, for messages.
    channel : int, "loudest" or None
        The one to use, counted from 0; `loudest` is that of most energy, None the mean of all.

    Raises
    ------
    FormatError
        If `rate_hz` is not a rate of audio.
    AudioError
        If it is not 16 kHz and soxr is missing.
    """

    def __init__(self, rate_hz: int, *, name: str, channel: Channel = None) -> None:
        check_rate(rate_hz, name=name)
        self._rate_hz = rate_hz
        self._name = name
        self._channel = channel
        self._choice = ChannelChoice(channel, rate_hz=rate_hz, name=name)
        self._resampler = None if rate_hz == SAMPLE_RATE_HZ else Resampler(rate_hz)

    def stream(self, blocks: Iterable[PcmFrames]) -> Iterator[Samples]:
        """Convert a whole signal; the result does not depend on how it is cut into blocks.

        Parameters
        ----------
        blocks : iterable of float32 [shape=(n, n_channels)]
            On the scale of int16.

        Yields
        ------
        int16 [shape=(m,)]
            Mono at 16 kHz; `m` may be 0.

        Raises
        ------
        FormatError
            Without that channel, at a sample that is NaN or infinite, or whatever AudioError
            `blocks` raises: in each case only after everything before it was yielded.
        """
        failure: AudioError | None = None
        if self._resampler:
            self._resampler.reset()  # a signal before this one may have been left half-way
        self._choice.reset()
        try:
            for mono in self._mix(blocks):
                yield to_int16(self._resampler.process(mono) if self._resampler else mono)
        except AudioError as error:
            failure = error
        self._choice.finish()
        if self._resampler:
            yield to_int16(self._resampler.flush())
        if failure:
            raise failure

    def _mix(self, blocks: Iterable[PcmFrames]) -> Iterator[PcmFrames]:
        n_before = 0
        for whole in blocks:
            self._check_channel(whole)
            block = self._choice.process(whole)
            finite = np.isfinite(block).all(axis=1)
            if not finite.all():
                n_good = int(np.argmin(finite))
                yield down_mix(block[:n_good])
                raise self._not_finite(block[n_good], index=n_before + n_good)
            yield down_mix(block)
            n_before += len(block)

    def _check_channel(self, block: PcmFrames) -> None:
        if isinstance(self._channel, int) and self._channel >= block.shape[1]:
            raise FormatError(
                f"`channel` counts from 0 and must be one that the audio has. Received: "
                f"{self._channel} of {block.shape[1]} in {self._name}. Choose another, or leave "
                f"`channel` out."
            )

    def _not_finite(self, frame: PcmFrames, *, index: int) -> FormatError:
        value = frame[~np.isfinite(frame)][0]
        return FormatError(
            f"Every sample must be a finite number. Received: {value} in {self._name} at sample "
            f"{index} ({index / self._rate_hz:.3f} s). Mend or export the recording again."
        )


class Resampler:
    """Bring mono audio to 16 kHz, block by block, with soxr (quality HQ, up to 40 ms late).

    Raises
    ------
    AudioError
        If soxr is missing.
    """

    def __init__(self, rate_hz: int) -> None:
        try:
            import soxr
        except ImportError as error:
            raise AudioError(
                f"Audio must be at {SAMPLE_RATE_HZ} Hz unless soxr is there to resample it. "
                f"Received: {rate_hz} Hz. Run `pip install soxr`, or convert it first."
            ) from error
        self._stream = soxr.ResampleStream(
            rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ"
        )

    def process(self, mono: PcmFrames, /) -> PcmFrames:
        """Consume float32 [shape=(n,)]; return what is ready at 16 kHz [shape=(m,)]."""
        return self._resample(mono, last=False)

    def flush(self) -> PcmFrames:
        """Return the samples still inside [shape=(m,)] and be ready for another signal."""
        tail = self._resample(np.zeros(0, np.float32), last=True)
        self.reset()
        return tail

    def reset(self) -> None:
        """Forget the samples still inside."""
        self._stream.clear()

    def _resample(self, mono: PcmFrames, *, last: bool) -> PcmFrames:
        resampled: PcmFrames = self._stream.resample_chunk(mono, last=last)
        return resampled


def sample_bytes(encoding: Encoding) -> int:
    """Return how many bytes a sample takes."""
    return _SAMPLE_BYTES[encoding]


def check_rate(rate_hz: int, *, name: str) -> None:
    """Raise FormatError unless `rate_hz` is one that audio has."""
    if rate_hz not in _RATES_HZ:
        raise FormatError(
            f"The sample rate must lie in {_RATES_HZ.start}..{_RATES_HZ.stop - 1} Hz. "
            f"Received: {rate_hz} Hz in {name}. Export the recording again."
        )


def from_pcm(data: bytes, *, encoding: Encoding, n_channels: int = 1) -> PcmFrames:
    """Decode bytes that hold whole frames.

    Parameters
    ----------
    data : bytes
        Interleaved samples, little endian.
    encoding : {"u8", "s16", "s24", "s32", "f32", "f64"}
        Full scale of the floats is -1..1.
    n_channels : int

    Returns
    -------
    float32 [shape=(n, n_channels)]
        On the scale of int16; what float32 cannot hold is infinite.
    """
    if encoding == "u8":
        scaled = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) * 256
    elif encoding == "s16":
        scaled = np.frombuffer(data, "<i2").astype(np.float32)
    elif encoding == "s24":
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        scaled = padded.view("<i4").astype(np.float32) * np.float32(2**-16)
    elif encoding == "s32":
        scaled = np.frombuffer(data, "<i4").astype(np.float32) * np.float32(2**-16)
    else:
        # A signalling NaN is "invalid" to cast; Converter reports NaN and infinity by their place.
        with np.errstate(over="ignore", invalid="ignore"):
            kind = "<f4" if encoding == "f32" else "<f8"
            scaled = np.frombuffer(data, kind).astype(np.float32) * np.float32(32_768)
    return scaled.reshape(-1, n_channels)


def down_mix(frames: PcmFrames, /) -> PcmFrames:
    """Return the mean over channels: float32 [shape=(n, n_channels)] becomes [shape=(n,)]."""
    limited = np.clip(frames, -_LOUDEST, _LOUDEST)
    mono: PcmFrames = limited[:, 0] if frames.shape[1] == 1 else limited.mean(axis=1)
    return mono


def to_int16(mono: PcmFrames, /) -> Samples:
    """Round to the nearest int16, halves to even; what lies beyond full scale saturates."""
    return np.clip(np.rint(mono), -32_768, 32_767).astype(np.int16)


def to_samples(samples: AnySamples, /) -> Samples:
    """Convert what users have in memory to int16; int16 passes unchanged.

    Parameters
    ----------
    samples : int16 or float [shape=(n,)], or bytes
        Floats in -1..1, where a little more saturates; bytes are s16le.

    Returns
    -------
    int16 [shape=(n,)]

    Raises
    ------
    FormatError
        If it is anything else: other types, more than one dimension, an odd number of bytes,
        floats on the scale of integers, NaN.
    """
    if isinstance(samples, bytes | bytearray | memoryview):
        if len(samples) % 2:
            raise _no_samples(f"{len(samples)} bytes, which end within a sample")
        return np.frombuffer(samples, "<i2").astype(np.int16, copy=False)
    if not isinstance(samples, np.ndarray):
        raise _no_samples(f"a {type(samples).__name__}")
    if samples.ndim != 1:
        raise _no_samples(f"{samples.ndim}-dimensional {samples.dtype}", "Mix down to mono first.")
    if samples.dtype == np.int16:
        return samples
    if samples.dtype.kind != "f":
        raise _no_samples(f"{samples.dtype}")
    peak = float(np.abs(samples).max(initial=0.0))
    if not peak <= _LOUDEST_FLOAT:
        raise _no_samples(f"floats up to {peak:g}", "Divide them by their full scale.")
    return to_int16(samples.astype(np.float32) * np.float32(32_768))


def _no_samples(received: str, remedy: str = "Convert them, for example by numpy.") -> FormatError:
    return FormatError(
        f"Samples must be one-dimensional int16, floats in -1..1, or bytes of s16le. "
        f"Received: {received}. {remedy}"
    )


def level_dbfs(samples: Samples, /) -> float:
    """Return the root mean square in dB below that of a square wave of full scale.

    Parameters
    ----------
    samples : int16 [shape=(n,)]

    Returns
    -------
    float
        -100..0; -100 stands for silence, and for no samples.
    """
    power = float(np.mean(np.square(samples, dtype=np.float32))) if len(samples) else 0.0
    return max(-100.0, round(10 * math.log10(max(power, 1e-9) / 32768.0**2), 1))
