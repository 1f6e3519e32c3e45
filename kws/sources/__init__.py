"""Sources of audio. `open_source` opens any of them, for int16, mono, 16 kHz, in chunks.

- `source`: the interface of every source, and the cutting into chunks.
- `pcm`: raw PCM, or a WAV, decoded from a byte stream.
- `wav`: WAV files and the WAV format.
- `byte_formats`: names of formats by their first bytes.
- `soundfile_`: FLAC, Ogg, MP3 and other files, by libsndfile.
- `ffmpeg`: what libsndfile does not read, decoded by ffmpeg.
- `stdin`: standard input.
- `command`: the standard output of any program.
- `microphone`: the base of both kinds of microphone, and device selection.
- `arecord`: a microphone through ALSA's `arecord`.
- `pyaudio_`: a microphone through PyAudio.
- `sounddevice_`: a microphone through sounddevice, on macOS and Windows.
- `network`: raw PCM received over UDP or TCP.
- `silence`: digital silence, as a muted microphone gives it.
- `preprocessing`: gain, high-pass, automatic gain and noise suppression.
"""

import re
import shlex
import shutil
import stat
from pathlib import Path
from typing import Any

from kws.audio_files import ffmpeg_reads, is_for_ffmpeg
from kws.config import SourceSettings
from kws.errors import AudioError, ConfigError, FormatError, did_you_mean
from kws.platforms import is_linux
from kws.sources import arecord, pyaudio_, sounddevice_
from kws.sources.arecord import ArecordSource
from kws.sources.command import CommandSource
from kws.sources.ffmpeg import FfmpegSource
from kws.sources.microphone import Device
from kws.sources.network import TcpSource, UdpSource, is_address
from kws.sources.pcm import Layout
from kws.sources.preprocessing import PreprocessedSource, needs_preprocessing
from kws.sources.pyaudio_ import PyAudioSource
from kws.sources.sounddevice_ import SoundDeviceSource
from kws.sources.soundfile_ import SoundFileSource
from kws.sources.source import Source
from kws.sources.stdin import StdinSource
from kws.sources.wav import CodecError, WavSource

__all__ = ["Device", "Source", "list_devices", "open_source"]


def open_source(settings: SourceSettings) -> Source:
    """Open the source of `settings`: its `command`, or else its `input`.

    An input is `mic`, `-` (standard input), a port (`udp://HOST:PORT`, `tcp://HOST:PORT`), or the
    path of a file.

    Returns
    -------
    Source
        Open; close it, or use it in a `with`.

    Raises
    ------
    AudioError
        If a file is missing or cannot be read, or a package for the preprocessing is missing.
    FormatError
        If a file does not begin as audio that kws reads; an error further on is raised by the
        iteration, after all samples before it.
    DeviceError
        If there is no such microphone, program or address, or it is busy, or neither PyAudio nor
        arecord is installed.
    ConfigError
        If standard input is a terminal, or settings contradict one another.
    """
    source = _open_plain(settings)
    if not needs_preprocessing(settings):
        return source
    try:
        return PreprocessedSource(source, settings)
    except AudioError:
        source.close()
        raise


def list_devices() -> list[Device]:
    """Return the microphones, from PyAudio where it is installed, else from ALSA.

    On macOS and Windows they are those of sounddevice.

    Raises
    ------
    DeviceError
        If no library or program for them is installed, or the sound system fails.
    """
    if not is_linux() and not pyaudio_.is_installed():
        return sounddevice_.list_devices()
    return pyaudio_.list_devices() if pyaudio_.is_installed() else arecord.list_devices()


def _open_plain(settings: SourceSettings) -> Source:
    if settings.command is not None:
        return _open_command(settings, settings.command)
    if settings.input == "mic":
        return _open_microphone(settings)
    if settings.input == "-":
        return StdinSource(chunk_ms=settings.chunk_ms, layout=Layout.of(settings))
    if is_address(settings.input):
        opens = UdpSource if settings.input.startswith("udp:") else TcpSource
        return opens(
            settings.input,
            chunk_ms=settings.chunk_ms,
            layout=Layout.of(settings),
            stall_s=settings.stall_s,
        )
    return _open_file(settings)


def _open_command(settings: SourceSettings, command: list[str] | str) -> Source:
    if settings.input != "mic":
        raise ConfigError(
            f"A source must have either `input` or `command`. Received: both, `{settings.input}` "
            f"and a command. Leave one out."
        )
    return CommandSource(
        command,
        chunk_ms=settings.chunk_ms,
        layout=Layout.of(settings),
        stall_s=settings.stall_s,
    )


def _open_microphone(settings: SourceSettings) -> Source:
    if not is_linux() and not pyaudio_.is_installed():
        return SoundDeviceSource(
            settings.device,
            chunk_ms=settings.chunk_ms,
            stall_s=settings.stall_s,
            channel=settings.channel,
        )
    # PortAudio knows cards by name and number only; a string such as plughw:1,0 is for ALSA.
    is_alsa_string = re.fullmatch(r"[a-z][a-z0-9_]*:\S+", settings.device or "")
    if not pyaudio_.is_installed() or (is_alsa_string and shutil.which("arecord")):
        return ArecordSource(
            settings.device,
            chunk_ms=settings.chunk_ms,
            stall_s=settings.stall_s,
            layout=Layout.of(settings).of_16_bits(),
        )
    return PyAudioSource(
        settings.device,
        chunk_ms=settings.chunk_ms,
        stall_s=settings.stall_s,
        channel=settings.channel,
    )


def _open_file(settings: SourceSettings) -> Source:
    name = settings.input
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
    options: Any = {"chunk_ms": settings.chunk_ms, "channel": settings.channel}
    if is_for_ffmpeg(path):
        return FfmpegSource(path, **options)
    if head != b"RIFF":
        return _open_other(path, options)
    try:
        return WavSource(path, **options)
    except CodecError as error:
        try:
            return _open_other(path, options)
        except FormatError:  # no soundfile, or a codec that libsndfile lacks
            raise error from None


def _open_other(path: Path, options: Any) -> Source:
    """Open a file that is no WAV of PCM: by libsndfile, or else by ffmpeg."""
    try:
        return SoundFileSource(path, **options)
    except FormatError:
        if ffmpeg_reads(path):
            return FfmpegSource(path, **options)
        raise
