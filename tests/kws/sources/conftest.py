import struct

import pytest

CODECS = {"u8": (1, 8), "s16": (1, 16), "s24": (1, 24), "s32": (1, 32), "f32": (3, 32)}
CODECS["f64"] = (3, 64)


def _make_wav(data, *, encoding="s16", n_channels=1, rate_hz=16_000, **changes):
    """Write a WAV by hand; `changes` replace fields of the header by what is wrong."""
    codec, n_bits = CODECS[encoding]
    codec, n_bits = changes.get("codec", codec), changes.get("n_bits", n_bits)
    align = changes.get("align", n_channels * n_bits // 8)
    fields = struct.pack("<HHIIHH", codec, n_channels, rate_hz, 0, align, n_bits)
    if "guid" in changes:
        fields = struct.pack("<H", 0xFFFE) + fields[2:]
        fields += struct.pack("<HHI", 22, n_bits, 0) + changes["guid"]
    form = b"fmt " + struct.pack("<I", len(fields)) + fields
    size = struct.pack("<I", changes.get("data_bytes", len(data)))
    body = b"WAVE" + form + changes.get("between", b"") + b"data" + size + data
    riff_bytes = changes.get("riff_bytes", len(body))
    return b"RIFF" + struct.pack("<I", riff_bytes) + body + changes.get("after", b"")


@pytest.fixture
def make_wav():
    return _make_wav
