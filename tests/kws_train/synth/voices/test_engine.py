"""What comes from a voice is brought to one rate, level and pitch."""

import numpy as np
from sounds import sine

from kws_train.synth.voices.engine import digest_files, normalize_peak, pitch_ratio, raise_pitch


def tone(hz, *, rate_hz, seconds=1.0):
    return sine(hz, round(rate_hz * seconds), rate_hz=rate_hz).astype(np.float32)


def peak_hz(samples):
    return np.abs(np.fft.rfft(samples)).argmax() * 16_000 / len(samples)


def test_pitch_is_raised_and_speed_made_good():
    slower = tone(440, rate_hz=24_000, seconds=pitch_ratio(3))
    samples = raise_pitch(slower, rate_hz=24_000, semitones=3)
    assert abs(len(samples) - 16_000) <= 1
    assert abs(peak_hz(samples) - 440 * 2 ** (3 / 12)) < 2


def test_levels_are_one_and_silence_stays_silent():
    assert np.abs(normalize_peak(0.01 * tone(100, rate_hz=8000)).astype(int)).max() == 20_000
    assert not normalize_peak(np.zeros(100)).any()
    assert len(normalize_peak(np.zeros(0))) == 0


def test_a_digest_is_of_contents(tmp_path):
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).write_text(text)
    a, b, c = (digest_files(tmp_path / name) for name in "abc")
    assert a == b != c
    assert digest_files(tmp_path / "a", tmp_path / "c") != digest_files(
        tmp_path / "c", tmp_path / "a"
    )
