"""Names of audio formats by their first bytes: what is neither raw PCM nor a WAV.

Magic numbers stand in the formats' own specifications. MP3 and AAC without a container have none,
but frames of a length that their header tells (ISO/IEC 11172-3, 13818-7): two in a row are found.
"""

from collections.abc import Callable

__all__ = ["format_of", "sniff"]

_HEAD_BYTES = 12
_MAGICS = {
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"ID3": "MP3",
    b"FORM": "AIFF",
    b"caff": "CAF",
    b"RF64": "RF64",
    b"RIFX": "RIFX",
    b"riff": "Wave64",
    b".SoX": "SoX (sox -p)",
    b"XoS.": "SoX (sox -p)",
    b"\x1aE\xdf\xa3": "WebM or Matroska",
    b".snd": "AU",
    b"dns.": "AU",
    b"#!AMR": "AMR",
    b"ADIF": "AAC",
    b"wvpk": "WavPack",
    b"MAC ": "Monkey's Audio",
    b"0&\xb2u\x8ef\xcf\x11": "WMA",
}
_MPEG_1, _MPEG_2 = 3, 2
_LAYER_2, _LAYER_3 = 2, 1
_KBITS = {
    (True, _LAYER_2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, _LAYER_3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, _LAYER_2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_KBITS[False, _LAYER_3] = _KBITS[False, _LAYER_2]
_RATES_HZ = (44_100, 48_000, 32_000)


def sniff(head: bytes) -> str | None:
    """Return the name of the format that begins with these 12 bytes, by its magic number."""
    if head[4:8] == b"ftyp":
        return "MP4 or M4A"
    return next((name for magic, name in _MAGICS.items() if head.startswith(magic)), None)


def format_of(peek: Callable[[int], bytes]) -> str | None:
    """Return the name of a stream's format, or None for what may be raw PCM.

    Parameters
    ----------
    peek : callable
        Returns the first n bytes of the stream, or fewer at its end.
    """
    head = peek(_HEAD_BYTES)
    if name := sniff(head):
        return name
    if (frame := _frame(head)) is None:
        return None
    name, n_bytes = frame
    following = peek(n_bytes + _HEAD_BYTES)[n_bytes:]
    is_same_kind = following[:2] == head[:2] and _frame(following) is not None
    return name if is_same_kind else None


def _frame(head: bytes) -> tuple[str, int] | None:
    """Return the format and the length of the frame of MPEG audio or AAC that begins here."""
    if len(head) < 7 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        n_bytes = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        return ("AAC", n_bytes) if n_bytes > 7 else None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    i_kbit, i_rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer not in (_LAYER_2, _LAYER_3) or i_kbit in (0, 15) or i_rate == 3:
        return None
    is_first = version == _MPEG_1
    rate_hz = _RATES_HZ[i_rate] // (1 if is_first else 2 if version == _MPEG_2 else 4)
    n_samples = 1152 if is_first or layer == _LAYER_2 else 576
    n_bytes = n_samples * 125 * _KBITS[is_first, layer][i_kbit - 1] // rate_hz + (head[2] >> 1 & 1)
    return "MP3", n_bytes
