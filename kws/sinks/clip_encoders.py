"""Encoders of clips: WAV, and FLAC by the package soundfile."""

import io
import wave
from collections.abc import Callable

from kws.errors import ConfigError

__all__ = ["flac_encoder", "wav_encoder"]


def wav_encoder(rate_hz: int) -> Callable[[bytes], bytes]:
    """Return a function that encodes s16le, mono, as a WAV."""

    def encode(audio: bytes) -> bytes:
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate_hz)
            file.writeframes(audio)
        return buffer.getvalue()

    return encode


def flac_encoder(rate_hz: int) -> Callable[[bytes], bytes]:
    """Return a function that encodes s16le, mono, as FLAC.

    Raises
    ------
    ConfigError
        If soundfile is not installed.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package without its C library
        raise ConfigError(
            f'`[recording] format = "flac"` needs soundfile ({error}). Run '
            f"`pip install 'kws[files]'`, or record wav."
        ) from error

    def encode(audio: bytes) -> bytes:
        buffer = io.BytesIO()
        with soundfile.SoundFile(buffer, "w", rate_hz, 1, "PCM_16", format="FLAC") as file:
            file.buffer_write(audio, dtype="int16")
        return buffer.getvalue()

    return encode
