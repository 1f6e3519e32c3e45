"""A microphone through PyAudio (PortAudio), in callback mode."""

import contextlib
import threading
from collections.abc import Mapping
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
from kws.stderr import quiet_stderr

__all__ = ["PyAudioSource", "is_installed", "list_devices"]

_CLOSE_S = 1.0

_Info = Mapping[str, Any]


class PyAudioSource(Microphone):
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
        If PyAudio is missing, the device is unknown or ambiguous, or it cannot be opened.
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
        self._stream: Any = None
        self._in_use = threading.Lock()
        self._pyaudio = _import()
        self._audio = _start(self._pyaudio)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self.close)
            info = _find(self._audio, device)
            self.name = str(info["name"])
            rate_hz, n_channels = self._open(info)
            self._begin(rate_hz=rate_hz, n_channels=n_channels)
            on_failure.pop_all()

    def _stop(self) -> None:
        # On a device that is suspended, stop_stream waits for ever.
        closing = threading.Thread(target=self._release, name="pyaudio-closing", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)

    def _release(self) -> None:
        # In this order: PortAudio aborts the process when its parts go in another one.
        # No thread of ours reads the stream, and stop_stream waits for the callback.
        with self._in_use:
            if self._stream is not None:
                with contextlib.suppress(OSError):
                    self._stream.stop_stream()
                with contextlib.suppress(OSError):
                    self._stream.close()
            self._audio.terminate()

    def _has_stopped(self) -> bool:
        """Ask PortAudio whether the stream is active: when a device is unplugged, callbacks stop.

        Not while the stream is being closed: PortAudio frees it.
        """
        if not self._in_use.acquire(blocking=False):
            return False
        try:
            return not self._closed and not self._stream.is_active()
        except OSError:
            return True
        finally:
            self._in_use.release()

    def _open(self, info: _Info) -> tuple[int, int]:
        """Open the stream; return its rate in Hz and its channels."""

        def open_stream(rate_hz: int, n_channels: int) -> None:
            with quiet_stderr():
                self._stream = self._audio.open(
                    format=self._pyaudio.paInt16,
                    channels=n_channels,
                    rate=rate_hz,
                    input=True,
                    input_device_index=info["index"],
                    frames_per_buffer=rate_hz * self._chunk_ms // 1000,
                    stream_callback=self._on_audio,
                )

        return open_first_layout(
            self.name,
            open_stream,
            channel=self._channel,
            native_hz=round(info["defaultSampleRate"]),
            n_channels=int(info["maxInputChannels"]),
            refusals=(OSError, ValueError),
        )

    def _on_audio(
        self, data: bytes, _n_frames: int, _time: Mapping[str, float], status: int
    ) -> tuple[None, int]:
        if status & self._pyaudio.paInputOverflow:
            self._chunks.count_loss()
        self._chunks.put(data)
        return None, self._pyaudio.paContinue

    def _ended(self) -> DeviceError:
        return stopped(self.name)


def is_installed() -> bool:
    """Return whether PyAudio and the PortAudio library it needs can be loaded."""
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
        If PyAudio is missing or PortAudio cannot start.
    """
    audio = _start(_import())
    try:
        return _devices(audio)
    finally:
        audio.terminate()


def _import() -> Any:
    try:
        import pyaudio
    except ImportError as error:
        raise DeviceError(
            f"A microphone needs PyAudio or arecord ({error}). Run `pip install 'kws[mic]'` (it "
            f"needs `sudo apt install portaudio19-dev`)."
        ) from error
    return pyaudio


def _start(pyaudio: Any) -> Any:
    try:
        with quiet_stderr():
            return pyaudio.PyAudio()
    except OSError as error:
        raise DeviceError(
            f"PortAudio cannot start: {error}. Check that the sound system runs: `arecord -l` "
            f"lists the cards."
        ) from error


def _find(audio: Any, wanted: str | None) -> _Info:
    device = find_device(wanted, _devices(audio))
    info: _Info = audio.get_device_info_by_index(int(device.id))
    return info


def _devices(audio: Any) -> list[Device]:
    try:
        default = audio.get_default_input_device_info()["index"]
    except OSError:  # there is none
        default = None
    infos = (audio.get_device_info_by_index(i) for i in range(audio.get_device_count()))
    return [
        Device(
            id=str(info["index"]),
            name=str(info["name"]),
            default=info["index"] == default,
            source="pyaudio",
        )
        for info in infos
        if info["maxInputChannels"] > 0
    ]
