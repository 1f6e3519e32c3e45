"""The choice of a channel in audio of several: one, the loudest, or the mean of all.

A balanced microphone in a stereo jack, and some boards with two microphones, give one channel
inverted: the mean is silence. On arrays some channels are mute. Energies are compared in windows of
100 ms, counted from the first sample, so that the result does not depend on blocks.
"""

import logging
import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kws.config import Channel

__all__ = ["ChannelChoice"]

Frames: TypeAlias = npt.NDArray[np.float32]
_Energies: TypeAlias = npt.NDArray[np.float64]

_WINDOW_S = 0.1
_SMOOTHING = 0.9  # a time constant of a second
_LOUDER = 4.0  # 6 dB: a smaller difference is no reason to switch
_LEAST_POWER = 32_768.0**2 * 1e-6  # -60 dBFS: noise of a quiet room proves nothing
_PROOF_WINDOWS, _LEAST_WINDOWS = 10, 2
_LOW_MEAN_DB, _LOW_CHANNEL_DB = 10.0, 20.0

_log = logging.getLogger("kws.audio")


class ChannelChoice:
    """Choose the channels of each block; warn, once, if what is used is far below a channel.

    Parameters
    ----------
    channel : int, "loudest" or None
        The one to use, counted from 0; `loudest`: that of most energy; None: all.
    rate_hz : int
        Of the audio.
    name : str
        Where it comes from, for messages.
    """

    def __init__(self, channel: Channel, *, rate_hz: int, name: str) -> None:
        self._channel = channel
        self._name = name
        self._window = max(1, round(_WINDOW_S * rate_hz))
        self._has_warned = False
        self.reset()

    def reset(self) -> None:
        """Begin a new stream."""
        self._n_in_window = self._n_loud = 0
        self._loudest = 0
        self._sums: _Energies | None = None
        self._smoothed: _Energies | None = None
        self._proof: _Energies | None = None

    def process(self, block: Frames, /) -> Frames:
        """Return the channels to mix, float32 [shape=(n, k)], of a block [shape=(n, n_channels)].

        A channel that the block does not have is left to the caller: the block is returned.
        """
        if block.shape[1] == 1:
            return block
        parts = [self._used(part) for part in self._parts(block)]
        return np.concatenate(parts) if parts else block[:, :1]

    def finish(self) -> None:
        """End the stream: decide on what there is."""
        if self._n_loud >= _LEAST_WINDOWS:
            self._warn_if_low()

    def _parts(self, block: Frames) -> Iterator[Frames]:
        """Cut a block at the ends of windows; measure each part before it is used."""
        at = 0
        while at < len(block):
            part = block[at : at + self._window - self._n_in_window]
            at += len(part)
            yield part
            self._measure(part)

    def _used(self, part: Frames) -> Frames:
        if self._channel == "loudest":
            return part[:, self._loudest : self._loudest + 1]
        if self._channel is None or self._channel >= part.shape[1]:
            return part
        return part[:, self._channel : self._channel + 1]

    def _measure(self, part: Frames) -> None:
        with np.errstate(invalid="ignore", over="ignore"):  # the caller reports NaN and infinity
            wide = part.astype(np.float64)
            sums = np.append(np.square(wide).sum(axis=0), np.square(wide.mean(axis=1)).sum())
        self._sums = sums if self._sums is None else self._sums + sums
        self._n_in_window += len(part)
        if self._n_in_window == self._window:
            self._end_window(self._sums / self._window)
            self._n_in_window, self._sums = 0, None

    def _end_window(self, powers: _Energies) -> None:
        """Take the powers of a window: of each channel, and of their mean."""
        old = powers if self._smoothed is None else self._smoothed
        self._smoothed = _SMOOTHING * old + (1 - _SMOOTHING) * powers
        best = int(np.argmax(self._smoothed[:-1]))
        if not self._smoothed[best] <= _LOUDER * self._smoothed[self._loudest]:
            self._loudest = best
        if powers[:-1].max() > _LEAST_POWER and not self._has_warned:
            self._proof = powers if self._proof is None else self._proof + powers
            self._n_loud += 1
            if self._n_loud >= _PROOF_WINDOWS:
                self._warn_if_low()

    def _warn_if_low(self) -> None:
        if self._proof is None or self._has_warned or self._channel == "loudest":
            return
        best = int(np.argmax(self._proof[:-1]))
        low_db = _db(self._proof[best], self._proof[-1])
        what, limit_db = "the mean of its channels", _LOW_MEAN_DB
        if self._channel is not None:
            if self._channel >= len(self._proof) - 1:
                return
            low_db = _db(self._proof[best], self._proof[self._channel])
            what, limit_db = f"channel {self._channel}", _LOW_CHANNEL_DB
        if low_db >= limit_db:
            self._has_warned = True
            _log.warning(
                "%s: %s is %.0f dB below channel %d: channels cancel one another, or are mute. Set "
                '`channel = %d`, or `channel = "loudest"`, in [source].',
                self._name,
                what,
                low_db,
                best,
                best,
            )


def _db(power: Any, other: Any) -> float:
    """Return by how many dB a power is above another, 99 at most."""
    return min(99.0, 10 * math.log10(power / max(other, 1e-9))) if power > 0 else 0.0
