import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws.sources.byte_formats import format_of, sniff

HEADS = [
    (b"fLaC", "FLAC"),
    (b"OggS", "Ogg"),
    (b"ID3\4", "MP3"),
    (b".SoX\x1c\0\0\0", "SoX (sox -p)"),
    (b"\0\0\0\x1cftypM4A ", "MP4 or M4A"),
    (b"\0\0\0\x14ftypqt  ", "MP4 or M4A"),
    (b"\x1aE\xdf\xa3\x9fB\x86\x81", "WebM or Matroska"),
    (b".snd\0\0\0\x18", "AU"),
    (b"#!AMR\n", "AMR"),
    (b"wvpk", "WavPack"),
    (b"\0\0\0\0", None),
    (b"", None),
]
MP3_FRAME = b"\xff\xf3\x38\xc4" + bytes(104)  # 24 kbit/s at 16 kHz
AAC_FRAME = b"\xff\xf1\x60\x40\x02\x1f\xfc" + bytes(9)  # 16 bytes


def kind(data):
    return format_of(lambda n: data[:n])


@pytest.mark.parametrize(("head", "name"), HEADS)
def test_formats_are_known_by_their_first_bytes(head, name):
    assert sniff(head) == name
    assert kind(head + bytes(100)) == name


@pytest.mark.parametrize(("frame", "name"), [(MP3_FRAME, "MP3"), (AAC_FRAME, "AAC")])
def test_two_frames_without_a_tag_are_known(frame, name):
    assert kind(frame * 2) == name
    assert kind(frame + bytes(len(frame))) is None
    assert kind(frame) is None


def test_mp3s_of_every_kind_are_known():
    soundfile = pytest.importorskip("soundfile")
    tone = np.sin(np.arange(48_000) / 5)
    for rate_hz in (8_000, 16_000, 22_050, 32_000, 44_100, 48_000):
        for options in ({}, {"bitrate_mode": "CONSTANT"}):
            file = io.BytesIO()
            soundfile.write(file, tone, rate_hz, format="MP3", **options)
            data = file.getvalue()
            assert kind(data[data.index(b"\xff") :]) == "MP3", (rate_hz, options)


@given(st.lists(st.integers(-1300, 300), min_size=8, max_size=2000))
def test_quiet_samples_are_no_format(samples):
    """Negative numbers near zero begin as a frame of MPEG audio does."""
    assert kind(np.array([-1025, *samples], "<i2").tobytes()) is None
