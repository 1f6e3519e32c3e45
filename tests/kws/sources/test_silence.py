import numpy as np
import pytest

from kws.sources.silence import SilenceWatch, is_digital_silence

ZEROS, STUCK, SOUND = bytes(32_000), b"\x34\x12" * 16_000, b"\0\0\3\0" * 8_000


@pytest.mark.parametrize(
    ("samples", "is_silent"),
    [
        ([0, 0, 0], True),
        ([0x1234, 0x1234], True),
        ([0, 1, 0, -1, 0], True),
        ([0, 2, 0, -1], False),
        ([-32_768, 32_767], False),
        ([], True),
    ],
)
def test_samples_that_are_all_the_same_but_for_a_dither_are_digital_silence(samples, is_silent):
    assert is_digital_silence(np.array(samples, np.int16)) is is_silent


def changes(watch, *blocks):
    return [watch.is_silent for block in blocks if watch.process(block)]


def test_silence_is_told_once_after_its_time_and_sound_at_once():
    watch = SilenceWatch(2.0)
    assert changes(watch, SOUND, ZEROS) == []
    assert changes(watch, ZEROS) == [True]
    assert changes(watch, ZEROS, ZEROS) == []
    assert changes(watch, SOUND, SOUND) == [False]
    assert changes(watch, STUCK, STUCK, STUCK) == [True]
    dither = np.random.default_rng(1).integers(-1, 2, 16_000).astype("<i2").tobytes()
    assert changes(watch, SOUND, dither, dither) == [False, True]


def test_a_step_between_two_constants_is_sound():
    assert changes(SilenceWatch(2.0), ZEROS, STUCK, ZEROS, STUCK) == []


def test_without_a_limit_nothing_is_told():
    assert changes(SilenceWatch(0.0), ZEROS, ZEROS, ZEROS) == []


@pytest.mark.parametrize("n_bytes", [1, 3, 333, 2_560])
def test_silence_does_not_depend_on_how_the_bytes_are_cut(n_bytes):
    watch, audio, seen = SilenceWatch(0.25), ZEROS[:12_000] + SOUND[:6_000] + ZEROS[:12_000], []
    for at in range(0, len(audio), n_bytes):
        seen += changes(watch, audio[at : at + n_bytes])
    assert seen == [True, False, True]
