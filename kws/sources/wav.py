"""WAV files and the WAV format: PCM 8/16/24/32, float 32/64, any rate and channels.

The standard library's `wave` knows neither float nor WAVE_FORMAT_EXTENSIBLE, and it believes the
length in the header. Layout: "Multimedia Programming Interface and Data Specifications 1.0"
(IBM, Microsoft, 1991) and `mmreg.h`.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec.structs import replace

from kws.arrays import PcmFrames, Samples
from kws.audio import (
    Converter,
    Encoding,
    check_rate,
    from_pcm,
    sample_bytes,
)
from kws.config import Channel
from kws.errors import AudioError, FormatError
from kws.sources.source import Readable, Source, chunk_samples, cut, unreadable

__all__ = ["CodecError", "WavHeader", "WavSource", "read_frames", "read_header"]

_BLOCK_BYTES = 65_536
_ENCODINGS: dict[tuple[int, int], Encoding] = {
    (1, 8): "u8",
    (1, 16): "s16",
    (1, 24): "s24",
    (1, 32): "s32",
    (3, 32): "f32",
    (3, 64): "f64",
}
_CODECS = {
    0x0002: "Microsoft ADPCM",
    0x0006: "A-law",
    0x0007: "mu-law",
    0x0011: "IMA ADPCM",
    0x0031: "GSM 6.10",
    0x0050: "MPEG",
    0x0055: "MP3",
    0x00FF: "AAC",
    0x0161: "Windows Media Audio",
}
_BY_LIBSNDFILE = frozenset([0x0002, 0x0006, 0x0007, 0x0011, 0x0031])
_EXTENSIBLE = 0xFFFE
_EXTENSIBLE_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
# Programs that write into a pipe set the length to about 2^31 or 2^32.
_UNKNOWN_BYTES = 0x7FFFF000
_CONVERT = "`ffmpeg -i in.wav -c:a pcm_s16le -ar 16000 -ac 1 out.wav`"
# Recorders fill their files up to whole blocks.
_MOST_PADDING_BYTES = 4096


class CodecError(FormatError):
    """A WAV whose samples are compressed; libsndfile may read it."""


class WavSource(Source):
    """A WAV file, read in blocks; every iteration begins at its start.

    Raises
    ------
    FormatError
        If its header is not that of a WAV that kws reads.
    AudioError
        If it cannot be opened, or soxr is needed and missing.
    """

    def __init__(self, path: Path, *, chunk_ms: int, channel: Channel = None) -> None:
        self.name = str(path)
        self._n_samples = chunk_samples(chunk_ms)
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise unreadable(self.name, error) from error
        try:
            n_file_bytes = path.stat().st_size
            self._header = read_header(self._file, name=self.name, n_file_bytes=n_file_bytes)
            self._start = self._file.tell()
            self._n_promised_bytes = self._header.n_bytes or None
            if self._holds_more_than_promised():
                self._header = replace(self._header, n_bytes=None)
            self._converter = Converter(self._header.rate_hz, name=self.name, channel=channel)
        except AudioError:
            self._file.close()
            raise
        n_bytes = n_file_bytes - self._start
        if self._header.n_bytes is not None:
            n_bytes = min(n_bytes, self._header.n_bytes)
        self.duration_s = n_bytes // self._header.frame_bytes / self._header.rate_hz

    def __iter__(self) -> Iterator[Samples]:
        self._file.seek(self._start)
        return cut(self._converter.stream(self._read_frames()), n_samples=self._n_samples)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def _holds_more_than_promised(self) -> bool:
        """Whether what follows the samples is more of them: no chunk, no tag and no padding.

        A recorder that is killed leaves the length it wrote last.
        """
        if self._header.n_bytes is None:
            return False
        try:
            self._file.seek(self._start + self._header.n_bytes + self._header.n_bytes % 2)
            behind = self._file.read(_MOST_PADDING_BYTES + 1)
        except OSError as error:
            raise unreadable(self.name, error) from error
        is_marked = behind.startswith(b"ID3") or all(0x20 <= byte < 0x7F for byte in behind[:4])
        return len(behind) > _MOST_PADDING_BYTES and not is_marked and any(behind)

    def _read_frames(self) -> Iterator[PcmFrames]:
        n_frames = 0
        for block in read_frames(self._file, self._header, name=self.name):
            n_frames += len(block)
            yield block
        if self._header.n_bytes is None and self._n_promised_bytes is not None:
            n_promised = self._n_promised_bytes // self._header.frame_bytes
            rate_hz = self._header.rate_hz
            raise FormatError(
                f"A WAV must hold only the samples its header promises. Received: {n_frames} "
                f"instead of {n_promised} samples ({n_frames / rate_hz:.3f} instead of "
                f"{n_promised / rate_hz:.3f} s) in {self.name}. All of them were used; fix its "
                f"header: `ffmpeg -ignore_length 1 -i in.wav out.wav`."
            )


class WavHeader(msgspec.Struct, frozen=True, kw_only=True):
    """Layout of the samples in a WAV.

    Attributes
    ----------
    n_bytes : int or None
        Length of the samples by the header; None means: to the end.
    """

    encoding: Encoding
    n_channels: int
    rate_hz: int
    n_bytes: int | None

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample in all channels."""
        return sample_bytes(self.encoding) * self.n_channels


def read_header(stream: Readable, *, name: str, n_file_bytes: int | None = None) -> WavHeader:
    """Read up to the first sample.

    Parameters
    ----------
    stream : Readable
        At the first byte, of the tag RIFF.
    name : str
        For messages.
    n_file_bytes : int or None
        Size of the whole file; None for a pipe.

    Raises
    ------
    FormatError
        If it is not a WAV, ends before the samples, or has an encoding that kws does not read.
    """
    riff = _read(stream, 12, name=name)
    if len(riff) < 12:
        raise _cut_header(name)
    if riff[:4] != b"RIFF" or riff[8:] != b"WAVE":
        raise FormatError(
            f"A WAV must begin with RIFF, a length and WAVE. Received: {name}, which begins with "
            f"{riff!r}. Convert it: {_CONVERT}."
        )
    form = b""
    while True:
        tag, size = _read_chunk_head(stream, name=name)
        if tag == b"data":
            break
        n_kept = min(size, 40) if tag == b"fmt " else 0
        if n_kept:
            form = _read(stream, n_kept, name=name)
        _skip(stream, size + size % 2 - n_kept, name=name)
    (n_riff_bytes,) = struct.unpack("<I", riff[4:8])
    is_really_empty = n_riff_bytes + 8 == n_file_bytes
    n_most = _UNKNOWN_BYTES if n_file_bytes is None else 0xFFFFFFFF
    unknown = size >= n_most or (size == 0 and not is_really_empty)
    return _parse_format(form, n_bytes=None if unknown else size, name=name)


def read_frames(stream: Readable, header: WavHeader, *, name: str) -> Iterator[PcmFrames]:
    """Yield the samples as float32 [shape=(n, n_channels)] on the scale of int16.

    Raises
    ------
    FormatError
        After the last whole sample: if fewer came than promised, the last one is cut, or none came.
    """
    n_bytes = 0
    rest = b""
    while block := _read_some(stream, _left(header, n_bytes), name=name):
        n_bytes += len(block)
        rest += block
        n_whole = len(rest) - len(rest) % header.frame_bytes
        yield from_pcm(rest[:n_whole], encoding=header.encoding, n_channels=header.n_channels)
        rest = rest[n_whole:]
    n_frames = n_bytes // header.frame_bytes
    if header.n_bytes is not None and n_bytes < header.n_bytes:
        n_promised = header.n_bytes // header.frame_bytes
        raise FormatError(
            f"A WAV must hold all the samples its header promises. Received: {n_frames} of "
            f"{n_promised} samples ({n_frames / header.rate_hz:.3f} of "
            f"{n_promised / header.rate_hz:.3f} s) in {name}. All of them were used; the file is "
            f"cut short or its header is wrong: copy or record it again."
        )
    if rest:
        raise FormatError(
            f"A WAV must end on a whole sample of {header.frame_bytes} bytes. Received: "
            f"{len(rest)} byte(s) after sample {n_frames} ({n_frames / header.rate_hz:.3f} s) in "
            f"{name}. All whole ones were used; copy or record it again."
        )
    if not n_frames:
        raise FormatError(
            f"A WAV must hold at least one sample. Received: none in {name}. Record it again."
        )


def _left(header: WavHeader, n_bytes: int) -> int:
    return _BLOCK_BYTES if header.n_bytes is None else min(_BLOCK_BYTES, header.n_bytes - n_bytes)


def _read_chunk_head(stream: Readable, *, name: str) -> tuple[bytes, int]:
    head = _read(stream, 8, name=name)
    if len(head) < 8:
        raise _cut_header(name)
    tag, size = struct.unpack("<4sI", head)
    return tag, size


def _parse_format(form: bytes, *, n_bytes: int | None, name: str) -> WavHeader:
    if len(form) < 16:
        raise _cut_header(name)
    codec, n_channels, rate_hz, _, frame_bytes, n_bits = struct.unpack("<HHIIHH", form[:16])
    if codec == _EXTENSIBLE:
        if len(form) < 40:
            raise _cut_header(name)
        known = form[26:40] == _EXTENSIBLE_GUID_TAIL
        codec = struct.unpack("<H", form[24:26])[0] if known else _EXTENSIBLE
    encoding = _find_encoding(codec, n_bits, name=name)
    if not n_channels:
        raise FormatError(
            f"A WAV must have at least one channel. Received: 0 in {name}. Record it again."
        )
    check_rate(rate_hz, name=name)
    header = WavHeader(encoding=encoding, n_channels=n_channels, rate_hz=rate_hz, n_bytes=n_bytes)
    if frame_bytes != header.frame_bytes:
        raise FormatError(
            f"A WAV's block align must be channels times bytes a sample, {header.frame_bytes} for "
            f"{n_channels} channel(s) of {n_bits} bits. Received: {frame_bytes} in {name}. "
            f"Export it again."
        )
    return header


def _find_encoding(codec: int, n_bits: int, *, name: str) -> Encoding:
    if codec not in (1, 3):
        is_readable = codec in _BY_LIBSNDFILE
        remedy = "Run `pip install 'kws[files]'`, or convert it" if is_readable else "Convert it"
        raise CodecError(
            f"A WAV must hold PCM or float samples. Received: {name} with "
            f"{_CODECS.get(codec, 'an unknown codec')} (0x{codec:04x}). "
            f"{remedy}: {_CONVERT}."
        )
    encoding = _ENCODINGS.get((codec, n_bits))
    if encoding is None:
        kind, widths = ("PCM", "8, 16, 24 or 32") if codec == 1 else ("Float", "32 or 64")
        raise FormatError(
            f"{kind} samples must have {widths} bits. Received: {n_bits} in {name}. "
            f"Convert it: {_CONVERT}."
        )
    return encoding


def _read(stream: Readable, n_bytes: int, *, name: str) -> bytes:
    """Read exactly `n_bytes`, or less at the end."""
    data = b""
    while len(data) < n_bytes:
        block = _read_some(stream, n_bytes - len(data), name=name)
        if not block:
            break
        data += block
    return data


def _read_some(stream: Readable, n_bytes: int, *, name: str) -> bytes:
    try:
        return stream.read1(n_bytes)
    except OSError as error:
        raise unreadable(name, error) from error


def _skip(stream: Readable, n_bytes: int, *, name: str) -> None:
    while n_bytes > 0:
        block = _read_some(stream, min(n_bytes, _BLOCK_BYTES), name=name)
        if not block:
            raise _cut_header(name)
        n_bytes -= len(block)


def _cut_header(name: str) -> FormatError:
    return FormatError(
        f"A WAV must have a whole `fmt ` chunk and then a `data` chunk. Received: {name}, whose "
        f"header lacks them or is cut short. Copy or record it again."
    )
