"""Raw PCM, or a WAV, decoded from a byte stream: a command, a port or standard input."""

from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
from msgspec.structs import replace

from kws.arrays import Samples
from kws.audio import (
    SAMPLE_RATE_HZ,
    Converter,
    Encoding,
    from_pcm,
    sample_bytes,
)
from kws.config import Channel, SampleFormat, SourceSettings
from kws.errors import ConfigError, FormatError
from kws.sources.byte_formats import format_of
from kws.sources.source import Readable
from kws.sources.wav import read_frames, read_header

__all__ = ["Layout", "PeekableStream", "read_pcm", "samples_of"]

_BLOCK_BYTES = 65_536
_ENCODINGS: dict[SampleFormat, Encoding] = {"s16le": "s16", "s32le": "s32", "f32le": "f32"}


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Sample rate, channels and sample format of raw PCM.

    Attributes
    ----------
    rate_hz : int
    n_channels : int
        Interleaved.
    channel : int, "loudest" or None
        The one to use, counted from 0; `loudest` is that of most energy, None the mean of all.
    sample_format : {"s16le", "s32le", "f32le"}
    """

    rate_hz: int = SAMPLE_RATE_HZ
    n_channels: int = 1
    channel: Channel = None
    sample_format: SampleFormat = "s16le"

    @classmethod
    def of(cls, settings: SourceSettings) -> "Layout":
        """Return the layout in the settings of a source.

        Raises
        ------
        ConfigError
            If there is no such channel.
        """
        if isinstance(settings.channel, int) and settings.channel >= settings.n_channels:
            raise ConfigError(
                f"`channel` counts from 0 and must be less than `n_channels`. Received: "
                f"{settings.channel} of {settings.n_channels}. Set `n_channels` to what the "
                f"source gives."
            )
        return cls(
            rate_hz=settings.rate_hz,
            n_channels=settings.n_channels,
            channel=settings.channel,
            sample_format=settings.sample_format,
        )

    def of_16_bits(self) -> "Layout":
        """Return the layout of a microphone, which always gives s16le."""
        return replace(self, sample_format="s16le")

    @property
    def encoding(self) -> Encoding:
        """How a sample lies in bytes."""
        return _ENCODINGS[self.sample_format]

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample in all channels."""
        return sample_bytes(self.encoding) * self.n_channels

    def __str__(self) -> str:
        channels = "mono" if self.n_channels == 1 else f"{self.n_channels}-channel"
        return f"{self.rate_hz} Hz {channels} {self.sample_format}"


class PeekableStream:
    """A byte stream whose first bytes can be read in advance, however slowly they arrive."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._ahead = b""

    def peek(self, n_bytes: int) -> bytes:
        """Return the first `n_bytes`, or fewer at the end, and leave them in the stream."""
        while len(self._ahead) < n_bytes:
            block = self._stream.read1(n_bytes - len(self._ahead))
            if not block:
                break
            self._ahead += block
        return self._ahead[:n_bytes]

    def read1(self, n_bytes: int, /) -> bytes:
        """Return up to `n_bytes` as soon as there are any, or none at the end."""
        if self._ahead:
            block, self._ahead = self._ahead[:n_bytes], self._ahead[n_bytes:]
            return block
        return self._stream.read1(n_bytes)


def samples_of(blocks: Iterable[bytes], layout: Layout, *, name: str) -> Iterator[Samples]:
    """Turn blocks of whole frames into int16, mono, 16 kHz."""
    if (layout.rate_hz, layout.n_channels, layout.encoding) == (SAMPLE_RATE_HZ, 1, "s16"):
        # The usual case: no conversion by way of float.
        return (np.frombuffer(data, "<i2").astype(np.int16) for data in blocks)
    encoding, n_channels = layout.encoding, layout.n_channels
    frames = (from_pcm(it, encoding=encoding, n_channels=n_channels) for it in blocks)
    return Converter(layout.rate_hz, name=name, channel=layout.channel).stream(frames)


def read_pcm(
    stream: Readable, layout: Layout, *, name: str, decode: str, check: str
) -> Iterator[Samples]:
    """Read raw PCM, or a WAV, whose header takes precedence over `layout`.

    Parameters
    ----------
    stream : Readable
        At its beginning.
    name : str
        Name for messages, in lower case.
    decode, check : str
        Remedies: for compressed audio, and for wrong bytes.

    Raises
    ------
    FormatError
        If it is compressed, empty or ends within a sample; after every whole one was yielded.
    """
    stream = PeekableStream(stream)
    if stream.peek(4) == b"RIFF":
        header = read_header(stream, name=name)
        converter = Converter(header.rate_hz, name=name, channel=layout.channel)
        return converter.stream(read_frames(stream, header, name=name))
    title = name[0].upper() + name[1:]
    if kind := format_of(stream.peek):
        raise FormatError(f"{title} must be raw {layout}, or WAV. Received: {kind}. {decode}")
    return samples_of(_whole(stream, layout, title=title, check=check), layout, name=name)


def _whole(stream: Readable, layout: Layout, *, title: str, check: str) -> Iterator[bytes]:
    n_frames = 0
    rest = b""
    while block := stream.read1(_BLOCK_BYTES):
        data = rest + block
        n_bytes = len(data) - len(data) % layout.frame_bytes
        rest = data[n_bytes:]
        n_frames += n_bytes // layout.frame_bytes
        yield data[:n_bytes]
    n = layout.n_channels
    n_bits = 8 * layout.frame_bytes // n
    sample = f"{n_bits}-bit sample" if n == 1 else f"sample of {n} channels"
    if rest:
        raise FormatError(
            f"{title} must end on a whole {sample}. Received: {len(rest)} "
            f"byte{'s' if len(rest) > 1 else ''} after {n_frames} samples "
            f"({n_frames / layout.rate_hz:.3f} s). All whole ones were used; check that it is "
            f"{layout.sample_format}: {check}."
        )
    if not n_frames:
        raise FormatError(
            f"{title} must carry audio. Received: nothing before its end. Check the program that "
            f"feeds it: {check}."
        )
