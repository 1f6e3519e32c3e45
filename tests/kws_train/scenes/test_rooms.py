import re
import sys

import numpy as np
import pytest

from kws.errors import ConfigError
from kws_train.scenes.augment import convolve
from kws_train.scenes.rooms import room_bank

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def bank():
    return room_bank(12, seed=7)


def decay_s(response):
    """Return the time of a decay by 60 dB, from that between -5 and -25 dB (Schroeder 1965)."""
    left = np.cumsum(response[::-1].astype(np.float64) ** 2)[::-1]
    left_db = 10 * np.log10(left / left[0] + 1e-12)
    return 3 * (np.argmax(left_db < -25) - np.argmax(left_db < -5)) / RATE_HZ


def test_rooms_differ_and_a_seed_decides_them(bank):
    again, other = room_bank.__wrapped__(12, seed=7), room_bank(12, seed=8)
    assert all(np.array_equal(a, b) for a, b in zip(bank, again, strict=True))
    assert len({len(response) for response in bank}) == 12
    assert not any(len(a) == len(b) for a, b in zip(bank, other, strict=True))


def test_rooms_ring_as_long_as_living_rooms_do(bank):
    decays = [decay_s(response) for response in bank]
    assert min(decays) > 0.1
    assert max(decays) < 1.2
    assert max(decays) / min(decays) > 1.5


def test_the_direct_sound_comes_at_once(bank):
    for response in bank:
        first = int(np.argmax(np.abs(response) > 0.3 * np.abs(response).max()))
        assert first <= RATE_HZ // 500
        assert response.dtype == np.float32


def test_a_room_leaves_the_loudness_of_a_hiss_as_it_was(bank):
    hiss = np.random.default_rng(1).normal(0, 1000, 4 * RATE_HZ).astype(np.float32)
    for response in bank:
        ratio = np.mean(convolve(hiss, response) ** 2) / np.mean(hiss**2)
        assert 10 * np.log10(ratio) == pytest.approx(0, abs=1)


def test_without_the_library_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyroomacoustics", None)
    with pytest.raises(ConfigError) as error:
        room_bank(3, seed=99)
    assert re.fullmatch(
        r"`\[augment\] room = \"pyroomacoustics\"` needs the library pyroomacoustics\. "
        r"Received: .+\. Run `pip install 'pyroomacoustics'`\.",
        str(error.value),
    )
