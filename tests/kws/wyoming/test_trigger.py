import wave

import numpy as np
import pytest

from kws.spotter import Spotter
from kws.wyoming.trigger import Trigger


@pytest.fixture
def bursts(model, recording):
    """Return a spotter of loudness without a gate, and samples with two bursts of 400 ms."""
    with wave.open(str(recording)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return lambda: Spotter(model, gate=False), samples


def detections(trigger, samples, n=1280):
    pieces = [samples[i : i + n] for i in range(0, len(samples), n)]
    return [one for piece in pieces for one in trigger.process(piece)] + trigger.flush()


@pytest.mark.parametrize("level", [2, 4, 5])
def test_a_word_that_lasts_is_detected_later_and_otherwise_the_same(level, bursts):
    spotter, samples = bursts
    at_once = list(spotter().listen(samples))
    assert detections(Trigger(spotter(), level=level), samples) == at_once
    # 80 ms a level.
    n_until = int((at_once[0].end_s + 0.08 * (level - 1)) * 16_000) // 1280 * 1280
    assert Trigger(spotter(), level=level).process(samples[: n_until - 1280]) == []


@pytest.mark.parametrize("level", [8, 100])
def test_a_word_that_is_shorter_than_the_level_is_not_detected(level, bursts):
    spotter, samples = bursts
    assert detections(Trigger(spotter(), level=level), samples) == []


@pytest.mark.parametrize("n", [1, 160, 1281, 48_000])
def test_detections_do_not_depend_on_chunks(n, bursts):
    spotter, samples = bursts
    expected = detections(Trigger(spotter(), level=3), samples)
    assert len(expected) == 2
    assert detections(Trigger(spotter(), level=3), samples[:], n) == expected
