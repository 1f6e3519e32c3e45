import numpy as np
import pytest
from sounds import RATE_HZ, square

from kws_train.data.speech_span import speech_span


def test_a_burst_is_found_within_twenty_milliseconds():
    random = np.random.default_rng(1)
    samples = random.normal(0, 20, RATE_HZ).astype(np.int16)
    samples[5000:11_000] += random.normal(0, 3000, 6000).astype(np.int16)
    start, end = speech_span(samples, said="up")
    assert abs(start - 5000) <= 320
    assert abs(end - 11_000) <= 320


@pytest.mark.parametrize(("pause_ms", "end"), [(100, 11_000), (250, 7000)])
def test_the_closure_of_a_stop_is_bridged_and_a_longer_pause_is_not(pause_ms, end):
    samples = np.random.default_rng(1).normal(0, 10, RATE_HZ).astype(np.int16)
    samples[4000:7000] += square(400, 3000, peak=5000)
    after = 7000 + 16 * pause_ms
    samples[after : after + 2400] += square(400, 2400, peak=2500)
    expected = after + 2400 if pause_ms == 100 else 7000
    assert abs(speech_span(samples, said="up")[1] - expected) <= 320


@pytest.mark.parametrize("said", ["hey robot", "hey_robot"])
@pytest.mark.parametrize(("pause_ms", "whole"), [(500, True), (700, False)])
def test_the_words_of_a_phrase_belong_together(said, pause_ms, whole):
    samples = np.random.default_rng(1).normal(0, 10, 2 * RATE_HZ).astype(np.int16)
    samples[4000:9000] += square(400, 5000, peak=5000)
    after = 9000 + 16 * pause_ms
    samples[after : after + 2400] += square(400, 2400, peak=2500)
    start, end = speech_span(samples, said=said)
    assert abs(start - 4000) <= 320
    assert abs(end - (after + 2400 if whole else 9000)) <= 320


@pytest.mark.parametrize("click", [0, 14_800])
def test_a_click_is_louder_than_the_word_and_is_not_the_word(click):
    samples = np.random.default_rng(1).normal(0, 10, RATE_HZ).astype(np.int16)
    samples[5000:10_000] += square(400, 5000, peak=3000)
    samples[click : click + 1200] += square(400, 1200, peak=20_000)
    start, end = speech_span(samples, said="no")
    assert abs(start - 5000) <= 320
    assert abs(end - 10_000) <= 320


@pytest.mark.parametrize("n_samples", [1, 100, 160, 16_000])
def test_digital_silence_spans_itself(n_samples):
    start, end = speech_span(np.zeros(n_samples, np.int16), said="up")
    assert start == 0
    assert end in {n_samples, n_samples // 160 * 160}


def test_speech_that_fills_the_clip_spans_the_clip():
    start, end = speech_span(square(300, 8000), said="up")
    assert (start, end) == (0, 8000)
