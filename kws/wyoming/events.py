"""Events of the Wyoming protocol: bounded reading, and what those of clients must hold.

An event is a line of JSON with its type, then `data_length` bytes of JSON and `payload_length`
bytes of audio, both optional (https://github.com/rhasspy/wyoming). The reader of the package
`wyoming` allocates whatever a header asks for, so this one takes its place; events are written by
the package.
"""

import asyncio
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from wyoming.event import Event

from kws.errors import FormatError

__all__ = ["LONGEST_LINE", "AudioFormat", "DetectRequest", "parse", "read_event"]

LONGEST_LINE = 65_536
"""Bytes of a header, and of the JSON behind it."""
_LONGEST_PAYLOAD = 1 << 20
"""Bytes of audio: 32 s at 16 kHz mono s16le, 1.3 s at 192 kHz in 32-bit stereo."""


class AudioFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The data of `audio-start` and `audio-chunk`."""

    rate: Annotated[int, Meta(ge=1_000, le=768_000)]
    width: Literal[1, 2, 3, 4]
    channels: Annotated[int, Meta(ge=1, le=64)]
    timestamp: int | None = None


class DetectRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The data of `detect`."""

    names: Annotated[list[Annotated[str, Meta(max_length=256)]], Meta(max_length=256)] | None = None


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    type: Annotated[str, Meta(max_length=64)]
    data: dict[str, Any] | None = None
    data_length: Annotated[int, Meta(ge=0, le=LONGEST_LINE)] | None = None
    payload_length: Annotated[int, Meta(ge=0, le=_LONGEST_PAYLOAD)] | None = None


_header = msgspec.json.Decoder(_Header)
_data = msgspec.json.Decoder(dict[str, Any])


async def read_event(reader: asyncio.StreamReader) -> Event | None:
    """Read the next event; None at the end of the stream, also within an event.

    Raises
    ------
    FormatError
        If the header is not JSON, names no type, or asks for more bytes than an event may have.
        Where the next event begins is then unknown.
    """
    try:
        line = await reader.readuntil(b"\n")
        header = _header.decode(line)
        data = header.data or {}
        if header.data_length:
            data |= _data.decode(await reader.readexactly(header.data_length))
        payload = None
        if header.payload_length:
            payload = await reader.readexactly(header.payload_length)
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise FormatError(
            f"The header of an event must be a line of up to {LONGEST_LINE} bytes. Received: more. "
            f"Send audio as the payload."
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(
            f"An event must be a line of JSON with its type and lengths. Received: {error}. "
            f"Use the Wyoming protocol."
        ) from None
    return Event(type=header.type, data=data, payload=payload)


def parse(event: Event, kind: type[AudioFormat] | type[DetectRequest]) -> Any:
    """Return the data of an event.

    Raises
    ------
    FormatError
        If it is not as it must be.
    """
    try:
        return msgspec.convert(event.data, kind)
    except msgspec.ValidationError as error:
        raise FormatError(
            f"The data of `{event.type}` must follow the Wyoming protocol. Received: {error}. "
            f"Correct the client."
        ) from None
