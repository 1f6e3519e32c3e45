"""The base of both microphones: a queue that drops the oldest audio, and device selection."""

import contextlib
import queue
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import msgspec

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.config import Channel
from kws.errors import DeviceError, did_you_mean
from kws.sources.pcm import Layout, samples_of
from kws.sources.source import Source, chunk_samples, cut

__all__ = [
    "ChunkQueue",
    "Device",
    "Microphone",
    "find_device",
    "open_first_layout",
    "select_device",
    "stopped",
    "unknown_device",
]

QUEUED_S = 10.0
"""Seconds of audio that may wait for a busy reader before the oldest is dropped."""
_POLL_S = 0.5


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A microphone, as `kws devices` lists it.

    Attributes
    ----------
    id : str
        What `--device` takes: a number (PortAudio) or an ALSA string.
    name : str
        Name for people.
    default : bool
        True for the one used when none is named.
    source : {"pyaudio", "sounddevice", "alsa"}
        Which library found it.
    """

    id: str
    name: str
    default: bool
    source: Literal["pyaudio", "sounddevice", "alsa"]


class ChunkQueue:
    """A bounded queue whose writer never waits: when it is full, the oldest chunk is dropped.

    Attributes
    ----------
    n_dropped : int
        Chunks lost, here or before.
    """

    def __init__(self, n_chunks: int) -> None:
        self.n_dropped = 0
        self._lock = threading.Lock()
        self._queue: queue.Queue[bytes | None] = queue.Queue(n_chunks)

    def put(self, chunk: bytes | None) -> None:
        """Append `chunk`; None marks the end of the stream."""
        while True:
            try:
                self._queue.put_nowait(chunk)
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._queue.get_nowait()
                    self.count_loss()
            else:
                return

    def count_loss(self) -> None:
        """Count a chunk that was lost before it was queued."""
        with self._lock:
            self.n_dropped += 1

    def get(self, *, timeout_s: float) -> bytes | None:
        """Remove and return the oldest chunk.

        Raises
        ------
        queue.Empty
            If none was queued for `timeout_s`.
        """
        return self._queue.get(timeout=timeout_s)


class Microphone(Source):
    """A source fed by another thread, which only calls `self._chunks.put(data)`.

    Parameters
    ----------
    name : str
        Name for messages.
    chunk_ms : int
        Length of a chunk.
    stall_s : float
        Without audio for so long, the device counts as broken: many stop without an error.
    channel : int, "loudest" or None
        The one to use, counted from 0; `loudest` is that of most energy, None the mean of all.
    """

    live = True

    def __init__(
        self, name: str, *, chunk_ms: int, stall_s: float, channel: Channel = None
    ) -> None:
        self.name = name
        self._channel = channel
        self._chunk_ms = chunk_ms
        self._stall_s = stall_s
        self._closed = False
        self._chunks = ChunkQueue(max(2, int(1000 * QUEUED_S) // chunk_ms))

    @property
    def dropped_chunks(self) -> int:
        """Number of losses, for want of a reader or in the sound system."""
        return self._chunks.n_dropped

    def __iter__(self) -> Iterator[Samples]:
        return self._samples

    def close(self) -> None:
        """Stop recording and end the iteration, in whichever thread it runs."""
        if not self._closed:
            self._closed = True
            self._chunks.put(None)
            self._stop()

    def _begin(self, *, rate_hz: int, n_channels: int) -> None:
        """Set the layout of the chunks of s16le; the last step of opening."""
        layout = Layout(rate_hz=rate_hz, n_channels=n_channels, channel=self._channel)
        samples = samples_of(self._take(), layout, name=self.name)
        self._samples = cut(samples, n_samples=chunk_samples(self._chunk_ms))

    def _take(self) -> Iterator[bytes]:
        while True:
            data = self._next()
            if self._closed:
                return
            if data is None:
                raise self._ended()
            yield data

    def _next(self) -> bytes | None:
        """Return the next chunk; None after `close`, or at the end of the stream."""
        deadline_s = time.monotonic() + self._stall_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                return self._chunks.get(timeout_s=min(left_s, _POLL_S))
            if self._has_stopped():
                return None
        raise DeviceError(
            f"No audio from {self.name} for {self._stall_s:g} s. Check its plug and that no other "
            f"program holds it; `kws devices` lists the microphones."
        )

    def _has_stopped(self) -> bool:
        """Return whether the device is known to have stopped; False leaves it to `stall_s`."""
        return False

    @abstractmethod
    def _stop(self) -> None:
        """Release the device."""

    @abstractmethod
    def _ended(self) -> DeviceError:
        """Return the error for a stream that ended although nobody closed it."""


def select_device(wanted: str, devices: Sequence[Device]) -> Device | None:
    """Return the device with this id, else with this whole name, else with it in its name.

    Returns
    -------
    Device or None
        None if no device fits.

    Raises
    ------
    DeviceError
        If several do.
    """
    word = wanted.casefold()
    fits = (
        [device for device in devices if device.id == wanted]
        or [device for device in devices if device.name.casefold() == word]
        or [device for device in devices if word in device.name.casefold()]
    )
    if len(fits) > 1:
        raise DeviceError(
            f"`--device` must name one microphone. Received: {wanted}, which fits {len(fits)}: "
            f"{_listed(fits)}. Give its number or more of its name."
        )
    return fits[0] if fits else None


def find_device(wanted: str | None, devices: Sequence[Device]) -> Device:
    """Return the device that `wanted` names, or the default one.

    Raises
    ------
    DeviceError
        If there is none, or several fit.
    """
    if not devices:
        raise DeviceError(
            "No microphone is connected. Plug one in; `kws devices` lists the microphones."
        )
    if wanted is None:
        return next((one for one in devices if one.default), devices[0])
    if (found := select_device(wanted, devices)) is None:
        raise unknown_device(wanted, devices)
    return found


def open_first_layout(
    name: str,
    open_stream: Callable[[int, int], None],
    *,
    channel: Channel,
    native_hz: int,
    n_channels: int,
    refusals: tuple[type[Exception], ...],
) -> tuple[int, int]:
    """Open a PortAudio device in the best layout that it takes; return rate [Hz] and channels.

    Parameters
    ----------
    name : str
        Of the device, for messages.
    open_stream : callable
        Opens it at a rate in Hz with so many channels.
    channel : int, "loudest" or None
        None: in mono, if possible.
    native_hz, n_channels : int
        The device's own rate, and all of its channels.
    refusals : tuple of type
        What `open_stream` raises for a layout that the device does not take.

    Raises
    ------
    DeviceError
        If it takes none.
    """
    attempts = [(SAMPLE_RATE_HZ, 1), (native_hz, 1), (native_hz, n_channels)]
    if channel is not None:
        attempts = [(SAMPLE_RATE_HZ, n_channels), (native_hz, n_channels)]
    reason: Exception | None = None
    for layout in dict.fromkeys(attempts):
        try:
            open_stream(*layout)
        except refusals as error:
            reason = error
        else:
            return layout
    raise DeviceError(
        f"The microphone {name} cannot be opened for 16-bit audio: {reason}. Close the "
        f"program that uses it, or choose another with `--device`; `kws devices` lists them."
    ) from reason


def stopped(name: str) -> DeviceError:
    """Return the error for a PortAudio stream that ended although nobody closed it."""
    return DeviceError(
        f"The microphone {name} stopped: it was unplugged, or the sound system ended. "
        f"Check its plug; `kws devices` lists the microphones."
    )


def unknown_device(wanted: str, devices: Sequence[Device]) -> DeviceError:
    """Return the error for a name that fits none of the `devices`."""
    hint = did_you_mean(wanted, [device.name for device in devices])
    return DeviceError(
        f"`--device` must name a connected microphone. Received: {wanted}.{hint} "
        f"Connected: {_listed(devices)}."
    )


def _listed(devices: Sequence[Device]) -> str:
    return ", ".join(f"{device.id} ({device.name})" for device in devices) or "none"
