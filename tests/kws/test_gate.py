import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sounds import RATE_HZ, silence

from kws.config import GateSettings
from kws.errors import ConfigError
from kws.gate import BLOCK_MS, Gate


def gate(**settings):
    return Gate(GateSettings(**settings), sample_rate_hz=RATE_HZ)


@pytest.mark.parametrize("aggressiveness", [0, 1, 2, 3])
def test_silence_keeps_the_gate_closed(aggressiveness):
    assert gate(aggressiveness=aggressiveness).process(silence(3)) == [False] * 150


@pytest.mark.parametrize("aggressiveness", [0, 1, 2, 3])
def test_a_voice_opens_the_gate(voiced, aggressiveness):
    verdicts = gate(aggressiveness=aggressiveness).process(voiced)
    assert len(verdicts) == len(voiced) // 320
    assert sum(verdicts) > 0.9 * len(verdicts)


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 32_000, 48_000])
def test_a_block_lasts_twenty_milliseconds_at_any_rate(rate_hz):
    one = Gate(GateSettings(), sample_rate_hz=rate_hz)
    assert one.block_samples == one.latency_samples == rate_hz * BLOCK_MS // 1000
    assert one.process(np.zeros(one.block_samples - 1, np.int16)) == []
    assert one.process(np.zeros(1, np.int16)) == [False]


@pytest.mark.parametrize(
    ("hangover_ms", "n_blocks"), [(0, 0), (1, 1), (20, 1), (21, 2), (300, 15), (700, 35)]
)
def test_the_hangover_holds_the_gate_open_for_as_many_blocks(voiced, hangover_ms, n_blocks):
    """The detector has an inertia of its own: what hangover adds to none is what counts."""
    sound = np.concatenate((voiced[: 320 * 50], silence(3)))
    bare = gate(hangover_ms=0).process(sound)
    held = gate(hangover_ms=hangover_ms).process(sound)
    last = max(i for i, is_open in enumerate(bare) if is_open)
    assert held == [*held[:last], True, *[True] * n_blocks, *[False] * (199 - last - n_blocks)]
    assert all(h or not b for h, b in zip(held, bare, strict=True))


def test_a_pause_shorter_than_the_hangover_does_not_close_the_gate(voiced):
    sound = np.concatenate((voiced[:16_000], silence(0.3), voiced[:16_000]))
    verdicts = gate(hangover_ms=700).process(sound)
    assert all(verdicts[verdicts.index(True) :])


@given(st.lists(st.integers(0, 3000), max_size=10))
def test_verdicts_do_not_depend_on_how_samples_are_cut(cuts):
    random = np.random.default_rng(5)
    sound = np.concatenate((silence(0.2), random.normal(0, 4000, 8000), silence(0.5)))
    sound = sound.astype(np.int16)
    whole = gate(hangover_ms=100).process(sound)
    assert {*whole} == {True, False}
    edges = np.minimum(np.cumsum([0, *cuts]), len(sound))
    one = gate(hangover_ms=100)
    pieces = [sound[a:b] for a, b in zip(edges, [*edges[1:], len(sound)], strict=True)]
    assert [verdict for piece in pieces for verdict in one.process(piece)] == whole


def test_a_view_with_gaps_is_read_as_its_samples(voiced):
    stereo = np.stack((voiced, np.zeros_like(voiced)), axis=1)
    assert gate().process(stereo[:, 0]) == gate().process(voiced)


def test_reset_closes_the_gate_and_forgets_a_begun_block(voiced):
    one = gate(hangover_ms=700)
    first = one.process(voiced)
    one.process(voiced[:100])
    one.reset()
    assert one.process(silence(1)) == [False] * 50
    one.reset()
    assert one.process(voiced) == first


def test_a_rate_that_the_detector_does_not_know_is_refused():
    message = (
        "The gate must be given audio at 8000, 16000, 32000, 48000 Hz. Received: a model at "
        "22050 Hz. Set `[gate] enabled = false`."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Gate(GateSettings(), sample_rate_hz=22_050)


def test_the_onset_of_speech_is_where_its_first_voiced_block_began(voiced):
    one = gate(hangover_ms=0)
    one.process(np.concatenate((silence(1), voiced[: 320 * 40], silence(1))))
    onset = one.onset_sample(int(1.5 * RATE_HZ))
    assert onset == pytest.approx(RATE_HZ, abs=0.08 * RATE_HZ)
    assert onset % one.block_samples == 0
    assert one.onset_sample(RATE_HZ // 2) is None, "before it"
    assert one.onset_sample(int(2.7 * RATE_HZ)) is None, "long after it"


def test_a_short_pause_is_bridged_and_a_longer_one_begins_anew(voiced):
    word = voiced[: 320 * 25]
    for pause_s, is_bridged in ((0.06, True), (0.6, False)):
        one = gate(hangover_ms=0)
        one.process(np.concatenate((silence(0.5), word, silence(pause_s), word)))
        onset = one.onset_sample(int((0.5 + 0.5 + pause_s + 0.4) * RATE_HZ))
        assert (onset < 0.7 * RATE_HZ) is is_bridged


@given(n_after=st.integers(0, 40_000))
def test_what_comes_after_a_sample_does_not_change_the_onset_at_it(voiced, n_after):
    sound = np.concatenate((silence(0.5), voiced[:16_000], silence(0.3), voiced, silence(1)))
    at = int(1.6 * RATE_HZ)
    known, later = gate(), gate()
    known.process(sound[: at + 320])
    later.process(sound[: at + 320 + n_after])
    assert later.onset_sample(at) == known.onset_sample(at)
