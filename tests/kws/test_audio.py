import re
import struct
import sys

import numpy as np
import pytest
import sounds
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kws.audio import Converter, Resampler, down_mix, from_pcm, level_dbfs, sample_bytes, to_int16
from kws.errors import AudioError, FormatError

FRAMES = hnp.arrays(
    np.int16, st.tuples(st.integers(0, 50), st.integers(1, 4)), elements=st.integers(-32768, 32767)
)


def convert(blocks, *, rate_hz=16_000):
    return np.concatenate(list(Converter(rate_hz, name="a.wav").stream(blocks)))


def blocks_of(signal, n):
    return [signal[start : start + n] for start in range(0, len(signal), n)]


def sine(hz, *, rate_hz, seconds, amplitude, n_channels):
    mono = sounds.sine(hz, int(rate_hz * seconds), peak=amplitude, rate_hz=rate_hz)
    return np.repeat(mono[:, None], n_channels, axis=1).astype(np.float32)


def encode(frames, encoding):
    """Write int16 values in another width, exactly."""
    wide = frames.astype(np.int64)
    if encoding == "u8":
        return (wide // 256 + 128).astype(np.uint8).tobytes()
    if encoding == "s24":
        return b"".join(struct.pack("<i", int(value) << 8)[:3] for value in wide.ravel())
    kinds = {"s16": ("<i2", 1), "s32": ("<i4", 65_536), "f32": ("<f4", 1 / 32_768)}
    kind, factor = kinds.get(encoding, ("<f8", 1 / 32_768))
    return (wide * factor).astype(kind).tobytes()


@given(FRAMES)
def test_mono_int16_at_16_khz_comes_out_bit_for_bit(frames):
    mono = frames[:, :1]
    out = convert([from_pcm(mono.astype("<i2").tobytes(), encoding="s16")])
    assert out.dtype == np.int16
    np.testing.assert_array_equal(out, mono[:, 0])


@pytest.mark.parametrize("encoding", ["s16", "s24", "s32", "f32", "f64"])
@given(frames=FRAMES)
def test_every_width_gives_back_16_bit_samples_exactly(encoding, frames):
    data = encode(frames, encoding)
    assert len(data) == frames.size * sample_bytes(encoding)
    decoded = from_pcm(data, encoding=encoding, n_channels=frames.shape[1])
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, frames)


@given(st.binary(max_size=64))
def test_8_bit_samples_are_centred_on_128_and_scaled(data):
    decoded = from_pcm(data, encoding="u8")
    np.testing.assert_array_equal(decoded[:, 0], [(byte - 128) * 256 for byte in data])


def test_24_and_32_bit_samples_keep_what_lies_below_16_bits():
    assert from_pcm(bytes([0x80, 0x01, 0x00]), encoding="s24")[0, 0] == 1.5
    assert from_pcm(bytes([0x00, 0x40, 0xFF, 0xFF]), encoding="s32")[0, 0] == -0.75


def test_rounding_saturates_and_takes_halves_to_even():
    values = np.array([40_000, 32_767.5, 32_766.6, 0.5, 1.5, -0.5, -32_768.6, -9e9], np.float32)
    assert to_int16(values).tolist() == [32767, 32767, 32767, 0, 2, 0, -32768, -32768]


def test_channels_are_mixed_by_their_mean():
    frames = np.array([[100, 200, 300], [-3, 0, 0]], np.float32)
    assert down_mix(frames).tolist() == [200, -1]


def test_floats_beyond_full_scale_saturate_even_when_they_are_huge():
    data = np.array([1.0, -1.0, 2.0, 1e30, -1e30], "<f4").tobytes()
    out = convert([from_pcm(data, encoding="f32")])
    assert out.tolist() == [32767, -32768, 32767, 32767, -32768]
    for rate_hz in (8_000, 44_100):
        assert len(convert([from_pcm(data, encoding="f32")], rate_hz=rate_hz))


@pytest.mark.parametrize("encoding", ["f32", "f64"])
@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_nan_and_infinity_are_named_by_place_after_all_before_was_yielded(encoding, value, shown):
    kind = {"f32": "<f4", "f64": "<f8"}[encoding]
    good = np.full((16_000, 2), 0.5, kind)
    bad = np.array([[0.25, 0.25], [0.25, value], [0.5, 0.5]], kind)
    blocks = [from_pcm(it.tobytes(), encoding=encoding, n_channels=2) for it in (good, bad)]
    heard = []
    message = (
        f"Every sample must be a finite number. Received: {shown} in a.wav at sample 16001 "
        f"(1.000 s). Mend or export the recording again."
    )
    with pytest.raises(FormatError, match=f"^{re.escape(message)}$"):
        heard.extend(Converter(16_000, name="a.wav").stream(blocks))
    np.testing.assert_array_equal(np.concatenate(heard), [16_384] * 16_000 + [8_192])


def test_an_error_of_the_blocks_comes_after_the_resampler_was_emptied():
    def broken():
        yield np.ones((4_800, 1), np.float32)
        raise FormatError("broken")

    heard = []
    with pytest.raises(FormatError, match=r"^broken$"):
        heard.extend(Converter(48_000, name="a.wav").stream(broken()))
    assert sum(map(len, heard)) == 1_600


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 48_000])
def test_a_stereo_sine_keeps_its_pitch_and_amplitude(rate_hz):
    tone = sine(1_000, rate_hz=rate_hz, seconds=1.0, amplitude=10_000, n_channels=2)
    out = convert([tone], rate_hz=rate_hz)
    assert len(out) == 16_000
    spectrum = np.abs(np.fft.rfft(out[4_000:12_000])) / 4_000
    assert np.argmax(spectrum) == 500  # bins of 2 Hz
    assert spectrum[500] == pytest.approx(10_000, rel=1e-3)
    expected = sounds.sine(1_000, 16_000, peak=10_000)
    assert np.abs(out - expected)[1_000:-1_000].max() < 3


def test_what_16_khz_cannot_carry_is_filtered_out():
    tone = sine(10_000, rate_hz=48_000, seconds=0.5, amplitude=10_000, n_channels=1)
    assert np.abs(convert([tone], rate_hz=48_000)[500:-500]).max() <= 1


@pytest.mark.parametrize("rate_hz", [11_025, 44_100, 96_000])
def test_resampling_does_not_depend_on_block_size(rate_hz):
    noise = np.random.default_rng(1).normal(0, 3_000, (7_001, 2)).astype(np.float32)
    whole = convert([noise], rate_hz=rate_hz)
    for n in (1, 441, 4_096):
        np.testing.assert_array_equal(convert(blocks_of(noise, n), rate_hz=rate_hz), whole)


def test_a_resampler_begins_anew_after_a_flush():
    noise = np.random.default_rng(2).normal(0, 3_000, 2_000).astype(np.float32)
    resampler = Resampler(44_100)
    first, second = (
        np.concatenate([resampler.process(noise), resampler.flush()]) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_without_soxr_only_16_khz_is_accepted(monkeypatch):
    monkeypatch.setitem(sys.modules, "soxr", None)
    assert convert([np.ones((3, 1), np.float32)]).tolist() == [1, 1, 1]
    message = (
        "Audio must be at 16000 Hz unless soxr is there to resample it. Received: 44100 Hz. "
        "Run `pip install soxr`, or convert it first."
    )
    with pytest.raises(AudioError, match=f"^{re.escape(message)}$"):
        Converter(44_100, name="a.wav")


@pytest.mark.parametrize("rate_hz", [0, 999, 768_001, 4_294_967_295])
def test_absurd_rates_are_refused(rate_hz):
    message = (
        f"The sample rate must lie in 1000..768000 Hz. Received: {rate_hz} Hz in a.wav. "
        f"Export the recording again."
    )
    with pytest.raises(FormatError, match=f"^{re.escape(message)}$"):
        Converter(rate_hz, name="a.wav")


def test_a_signal_left_half_way_leaves_nothing_in_the_next_one():
    converter = Converter(44_100, name="a.wav")
    first, second = (
        sine(hz, rate_hz=44_100, seconds=0.5, amplitude=9000, n_channels=1) for hz in (300, 700)
    )
    next(converter.stream(blocks_of(first, 4096)))
    again = np.concatenate(list(converter.stream(blocks_of(second, 4096))))
    np.testing.assert_array_equal(again, convert([second], rate_hz=44_100))


@pytest.mark.parametrize(
    ("samples", "level"),
    [([], -100), ([0, 0], -100), ([-32_768, -32_768], 0), ([3277, -3277], -20), ([1], -90.3)],
)
def test_the_level_is_in_decibels_below_full_scale(samples, level):
    assert level_dbfs(np.array(samples, np.int16)) == pytest.approx(level, abs=0.01)
