"""A microphone through sounddevice (PortAudio), which macOS and Windows have wheels of."""

import contextlib
from typing import Any

from kws.config import Channel
from kws.errors import DeviceError
from kws.sources.microphone import (
    Device,
    Microphone,
    find_device,
    open_first_layout,
    stopped,
)
from kws.sources.source import STALL_S

__all__ = ["SoundDeviceSource", "is_installed", "list_devices"]


class SoundDeviceSource(Microphone):
    """A PortAudio input at 16 kHz mono, or else at its own rate and resampled.

    Parameters
    ----------
    device : str or None
        A number, a name or part of one; None is the default microphone.
    chunk_ms : int
        Length of a chunk.
    stall_s : float
        Without audio for so long, iteration raises DeviceError.
    channel : int, "loudest" or None
        The one to use, counted from 0, or the one of most energy; None opens the device in mono,
        or else takes the mean.

    Raises
    ------
    DeviceError
        If sounddevice is missing, the device is unknown or ambiguous, or it cannot be opened.
    """

    def __init__(
        self,
        device: str | None,
        *,
        chunk_ms: int,
        stall_s: float = STALL_S,
        channel: Channel = None,
    ) -> None:
        super().__init__("microphone", chunk_ms=chunk_ms, stall_s=stall_s, channel=channel)
        self._sounddevice = _import()
        found = find_device(device, _devices(self._sounddevice))
        self.name = found.name
        rate_hz, n_channels = self._open(int(found.id))
        self._begin(rate_hz=rate_hz, n_channels=n_channels)

    def _open(self, number: int) -> tuple[int, int]:
        """Open and start the stream; return its rate in Hz and its channels."""

        def open_stream(rate_hz: int, n_channels: int) -> None:
            self._stream = self._sounddevice.RawInputStream(
                samplerate=rate_hz,
                channels=n_channels,
                dtype="int16",
                device=number,
                blocksize=rate_hz * self._chunk_ms // 1000,
                callback=self._on_audio,
            )
            self._stream.start()

        info = self._sounddevice.query_devices(number)
        return open_first_layout(
            self.name,
            open_stream,
            channel=self._channel,
            native_hz=round(info["default_samplerate"]),
            n_channels=int(info["max_input_channels"]),
            refusals=(self._sounddevice.PortAudioError, ValueError),
        )

    def _on_audio(self, data: Any, _n_frames: int, _time: Any, status: Any) -> None:
        if status.input_overflow:
            self._chunks.count_loss()
        self._chunks.put(bytes(data))

    def _has_stopped(self) -> bool:
        """Ask PortAudio whether the stream is active; it is not once a device is unplugged."""
        return not self._closed and not self._stream.active

    def _stop(self) -> None:
        with contextlib.suppress(self._sounddevice.PortAudioError):
            self._stream.close(ignore_errors=True)

    def _ended(self) -> DeviceError:
        return stopped(self.name)


def is_installed() -> bool:
    """Return whether sounddevice and the PortAudio library it needs can be loaded."""
    try:
        _import()
    except DeviceError:
        return False
    return True


def list_devices() -> list[Device]:
    """Return PortAudio's inputs.

    Raises
    ------
    DeviceError
        If sounddevice is missing.
    """
    return _devices(_import())


def _import() -> Any:
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: no PortAudio library
        raise DeviceError(
            f"A microphone needs sounddevice ({error}). Run `pip install 'kws[mic]'`."
        ) from error
    return sounddevice


def _devices(sounddevice: Any) -> list[Device]:
    default = sounddevice.default.device[0]
    return [
        Device(
            id=str(number), name=str(info["name"]), default=number == default, source="sounddevice"
        )
        for number, info in enumerate(sounddevice.query_devices())
        if info["max_input_channels"] > 0
    ]
