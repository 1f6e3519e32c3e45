import re
import sys
import time

import numpy as np
import pytest
import scipy.signal
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from kws.config import SourceSettings
from kws.errors import AudioError
from kws.sources import open_source
from kws.sources.preprocessing import Preprocessor
from kws.sources.wav import WavSource

NOISE = np.random.default_rng(3).normal(0, 3_000, 16_077).astype(np.int16)
ALL = {"gain_db": 3.0, "high_pass_hz": 80.0, "auto_gain": 5, "noise_suppression": 2}


def preprocessed(samples, **changes):
    (whole,) = [np.concatenate(list(Preprocessor(SourceSettings(**changes)).stream([samples])))]
    return whole


@pytest.fixture
def wav(tmp_path):
    soundfile.write(tmp_path / "a.wav", NOISE, 16_000)
    return str(tmp_path / "a.wav")


def test_what_is_off_costs_nothing_and_changes_no_bit(wav):
    with open_source(SourceSettings(input=wav)) as source:
        assert type(source) is WavSource
        np.testing.assert_array_equal(np.concatenate(list(source)), NOISE)


def test_a_source_is_preprocessed_in_chunks_of_the_same_length(wav):
    with open_source(SourceSettings(input=wav, gain_db=-6.0, chunk_ms=15)) as source:
        assert (source.name, source.live) == (wav, False)
        assert source.duration_s == pytest.approx(len(NOISE) / 16_000)
        chunks = list(source)
    assert {len(chunk) for chunk in chunks[:-1]} == {240}
    wanted = NOISE * 10 ** (-6 / 20)
    assert np.abs(np.concatenate(chunks) - wanted).max() < 0.501  # rounding


def test_samples_before_an_error_are_preprocessed_and_yielded():
    def broken():
        yield NOISE[:1_001]
        raise AudioError("gone")

    heard = []
    with pytest.raises(AudioError, match=r"^gone$"):
        heard.extend(Preprocessor(SourceSettings(gain_db=6.0)).stream(broken()))
    assert len(np.concatenate(heard)) == 1_001


def test_gain_saturates_and_never_wraps_around():
    loud = np.array([-32_768, -20_000, 0, 20_000, 32_767], np.int16)
    assert preprocessed(loud, gain_db=60.0).tolist() == [-32_768, -32_768, 0, 32_767, 32_767]


@pytest.mark.parametrize("cutoff_hz", [10.0, 80.0, 300.0, 2000.0])
def test_the_high_pass_is_scipys_butterworth(cutoff_hz):
    sos = scipy.signal.butter(2, cutoff_hz, "highpass", fs=16_000, output="sos")
    wanted = scipy.signal.sosfilt(sos, NOISE.astype(float))
    heard = preprocessed(NOISE, high_pass_hz=cutoff_hz)
    assert np.abs(heard - np.clip(wanted, -32_768, 32_767)).max() < 0.501  # rounding


def test_the_high_pass_removes_an_offset_and_stays_stable():
    offset = np.full(16_000 * 20, 9_000, np.int16)
    assert np.abs(preprocessed(offset, high_pass_hz=20.0)[-16_000:]).max() == 0


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 2_000), max_size=30))
def test_the_result_does_not_depend_on_the_chunks(lengths):
    parts = np.split(NOISE, np.minimum(np.cumsum([0, *lengths]), len(NOISE)))
    for changes in (ALL, {"gain_db": 3.0, "high_pass_hz": 80.0}):
        cut = np.concatenate(list(Preprocessor(SourceSettings(**changes)).stream(parts)))
        np.testing.assert_array_equal(cut, preprocessed(NOISE, **changes))


def test_a_reset_begins_anew():
    preprocessor = Preprocessor(SourceSettings(**ALL))
    preprocessor.process(NOISE[::-1].copy())
    preprocessor.reset()
    heard = np.concatenate((preprocessor.process(NOISE), preprocessor.flush()))
    np.testing.assert_array_equal(heard, preprocessed(NOISE, **ALL))


def level_db(samples):
    return 20 * np.log10(np.sqrt(np.mean(np.square(samples / 32_768))))


def test_auto_gain_lifts_quiet_voices():
    t = np.arange(16_000 * 5) / 16_000
    quiet = (200 * np.sin(2 * np.pi * 200 * t) * (np.sin(2 * np.pi * 3 * t) > 0)).astype(np.int16)
    louder = preprocessed(quiet, auto_gain=5)
    assert level_db(louder[32_000:]) > level_db(quiet[32_000:]) + 5


def test_noise_suppression_lowers_steady_noise():
    noise = np.random.default_rng(0).normal(0, 300, 16_000 * 5).astype(np.int16)
    weak, strong = (preprocessed(noise, noise_suppression=n)[32_000:] for n in (1, 4))
    assert level_db(weak) < level_db(noise) - 3
    assert level_db(strong) < level_db(weak) - 3


@pytest.mark.parametrize("changes", [{"auto_gain": 1}, {"noise_suppression": 1}])
def test_without_the_library_its_package_is_named(monkeypatch, wav, changes):
    monkeypatch.setitem(sys.modules, "webrtc_noise_gain", None)
    message = (
        "`auto_gain` and `noise_suppression` need webrtc-noise-gain. Received: import of "
        "webrtc_noise_gain halted; None in sys.modules. Run `pip install 'kws[conditioning]'`, or "
        "leave them at 0."
    )
    with pytest.raises(AudioError, match=f"^{re.escape(message)}$"):
        open_source(SourceSettings(input=wav, **changes))


def test_gain_and_high_pass_need_no_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "webrtc_noise_gain", None)
    assert len(preprocessed(NOISE, gain_db=1.0, high_pass_hz=80.0)) == len(NOISE)


def test_the_high_pass_costs_a_small_part_of_the_time():
    preprocessor = Preprocessor(SourceSettings(high_pass_hz=80.0))
    started_s = time.thread_time()
    for start in range(0, 160_000, 1280):
        preprocessor.process(np.resize(NOISE, 160_000)[start : start + 1280])
    assert time.thread_time() - started_s < 1.0  # of 10 s; some 20 ms on a desk
