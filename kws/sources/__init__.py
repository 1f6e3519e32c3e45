"""Where audio comes from: a microphone, a file, or standard input.

`open_source` chooses; whatever it returns gives int16, mono, 16 kHz, in chunks.
"""

import re
import shlex
import shutil
import stat
from pathlib import Path

from kws.config import SourceSettings
from kws.errors import AudioError, FormatError, did_you_mean
from kws.sources import arecord, pyaudio_
from kws.sources.arecord import ArecordSource
from kws.sources.microphone import Device
from kws.sources.pyaudio_ import PyAudioSource
from kws.sources.soundfile_ import SoundFileSource
from kws.sources.source import Source
from kws.sources.stdin import StdinSource
from kws.sources.wav import WavSource

__all__ = ["Device", "Source", "list_devices", "open_source"]


def open_source(settings: SourceSettings) -> Source:
    """Open what `settings.input` names: `mic`, `-` (standard input), or a file.

    Returns
    -------
    Source
        Open; close it, or use it in a `with`.

    Raises
    ------
    AudioError
        If a file is missing or cannot be read.
    FormatError
        If a file does not begin as audio that kws reads; what is wrong further on is raised by
        the iteration, after all samples before it.
    DeviceError
        If there is no such microphone, or it is busy, or nothing here can record.
    ConfigError
        If standard input is a terminal.
    """
    if settings.input == "mic":
        return _open_microphone(settings)
    if settings.input == "-":
        return StdinSource(chunk_ms=settings.chunk_ms)
    return _open_file(settings.input, chunk_ms=settings.chunk_ms)


def list_devices() -> list[Device]:
    """Return the microphones that `mic` can mean, by PyAudio where it is installed, else by ALSA.

    Raises
    ------
    DeviceError
        If neither PyAudio nor arecord is there, or the sound system fails.
    """
    return pyaudio_.list_devices() if pyaudio_.is_installed() else arecord.list_devices()


def _open_microphone(settings: SourceSettings) -> Source:
    # PortAudio knows cards by name and number only; a string such as plughw:1,0 is for ALSA.
    is_alsa_string = re.fullmatch(r"[a-z][a-z0-9_]*:\S+", settings.device or "")
    if not pyaudio_.is_installed() or (is_alsa_string and shutil.which("arecord")):
        opens: type[ArecordSource | PyAudioSource] = ArecordSource
    else:
        opens = PyAudioSource
    return opens(settings.device, chunk_ms=settings.chunk_ms, stall_s=settings.stall_s)


def _open_file(name: str, *, chunk_ms: int) -> Source:
    path = Path(name)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise AudioError(
                f"The input must be a regular file. Received: {name}, a pipe or a device. "
                f"Feed it with `kws listen --input - < {shlex.quote(name)}`."
            )
        with path.open("rb") as file:
            head = file.read(4)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise AudioError(
            f"The input must be `mic`, `-` or a file that can be read. Received: {name} "
            f"({reason}).{did_you_mean(name, ['mic'])} Check the path and its permissions."
        ) from error
    if not head:
        raise FormatError(
            f"An audio file must hold audio. Received: {name}, an empty file. Record it again."
        )
    reader = WavSource if head == b"RIFF" else SoundFileSource
    return reader(path, chunk_ms=chunk_ms)
