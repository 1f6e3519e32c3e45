"""Room impulse responses by the image-source method, computed once."""

import functools
import math

import numpy as np

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws_train.optional import load_library
from kws_train.scenes.augment import Random, Wave

__all__ = ["room_bank"]

_SMALLEST_M, _LARGEST_M = (2.5, 2.5, 2.3), (9.0, 7.0, 3.5)
_T60_S = (0.2, 0.8)
_FROM_WALL_M = 0.4
_MOST_REFLECTIONS = 30  # the cost rises with the cube; the last are 30 dB below the direct sound


@functools.cache
def room_bank(n_rooms: int, *, seed: int = 1) -> tuple[Wave, ...]:
    """Return impulse responses of shoebox rooms between a random talker and a random microphone.

    Allen and Berkley 1979, by pyroomacoustics. Rooms of 13 to 220 cubic metres with a reverberation
    time of 0.2 to 0.8 s by Sabine's formula. Each response begins just before the direct sound and
    has unit energy, so that a room does not change the level of speech.

    Raises
    ------
    ConfigError
        If pyroomacoustics is not installed.
    """
    random = np.random.default_rng([seed, n_rooms])
    return tuple(_response(random) for _ in range(n_rooms))


def _response(random: Random) -> Wave:
    acoustics = load_library("pyroomacoustics", purpose='`[augment] room = "pyroomacoustics"`')
    size = random.uniform(_SMALLEST_M, _LARGEST_M)
    absorption, _ = acoustics.inverse_sabine(random.uniform(*_T60_S), size)
    talker, microphone = random.uniform(_FROM_WALL_M, size - _FROM_WALL_M, (2, 3))
    room = acoustics.ShoeBox(
        size,
        fs=RATE_HZ,
        materials=acoustics.Material(absorption),
        max_order=_MOST_REFLECTIONS,
    )
    room.add_source(talker)
    room.add_microphone(microphone)
    room.compute_rir()
    response = room.rir[0][0]
    direct = acoustics.constants.get("frac_delay_length") // 2 + int(
        math.dist(talker, microphone) / room.c * RATE_HZ
    )
    response = response[max(0, direct - RATE_HZ // 1000) :]
    return (response / np.sqrt(np.sum(response**2))).astype(np.float32)
