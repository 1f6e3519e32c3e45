"""Bytes with a few changes, for what reads files and streams of strangers."""

import struct
from random import Random

from hypothesis import strategies as st

EDGES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]


def spoilt(seeds, *, longest=None):
    """Give the seeds with a few bytes changed, moved, left out or added.

    Only a number is drawn: a case costs a tenth of what it does with every byte from hypothesis.
    """
    return st.integers(0, 2**48 - 1).map(lambda number: spoil(seeds, number, longest=longest))


def spoil(seeds, number, *, longest=None):
    random = Random(number)
    data = bytearray(random.choice(seeds))
    for _ in range(random.choice([1, 1, 1, 2, 3, 8])):
        at = random.randrange(max(1, min(len(data), longest or len(data))))
        match random.randrange(13) // 2:
            case 0 if data:
                data[at] ^= 1 << random.randrange(8)
            case 1 if data:
                data[at] = random.randrange(256)
            case 2:
                at &= ~3
                value = random.choice([*EDGES, random.randrange(64), random.randrange(2**32)])
                data[at : at + 4] = struct.pack("<I", value)
            case 3:
                source, n = random.randrange(len(data) + 1), random.choice([1, 2, 4, 8, 64])
                data[at : at + n] = data[source : source + n]
            case 4:
                data[at:at] = random.randbytes(random.randrange(17))
            case 5:
                del data[at : at + random.randrange(1, 65)]
            case 6:
                del data[at:]
    return bytes(data)
