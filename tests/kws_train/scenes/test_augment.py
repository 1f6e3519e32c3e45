import math
from typing import get_args

import numpy as np
import pytest
import sounds
from hypothesis import given
from hypothesis import strategies as st

from kws_train.recipe import Codec
from kws_train.scenes import augment

RATE_HZ = 16_000
CODECS = get_args(Codec)


def noise(n, *, seed=0, rms=1000.0):
    return sounds.noise(n, rms=rms, seed=seed).astype(np.float32)


def power(wave):
    return float(np.mean(wave.astype(np.float64) ** 2))


def db(ratio):
    return 10 * np.log10(ratio)


def frames(n_frames=60, n_bands=40):
    return np.random.default_rng(1).normal(6, 3, (n_frames, n_bands)).astype(np.float32)


RANDOM_TRANSFORMS = {
    "loop": lambda r: augment.loop(noise(5000), 900, random=r),
    "room_tone": lambda r: augment.room_tone(noise(3200), 8000, random=r),
    "reverberate": lambda r: augment.reverberate(noise(4000), t60_s=0.3, direct_db=3, random=r),
    "babble": lambda r: augment.babble([noise(4000), noise(900, seed=1)], 2000, random=r),
    "microphone": lambda r: augment.microphone(noise(4000), random=r),
    "opus": lambda r: augment.code(noise(4000), "opus", random=r),
    "tilt": lambda r: augment.tilt(frames(), greatest_db=8, random=r),
    "mask": lambda r: augment.mask(frames(), n_time=2, time_frames=20, n_band=2, bands=9, random=r),
}


@pytest.mark.parametrize("name", RANDOM_TRANSFORMS)
def test_a_seed_decides_what_comes_out(name):
    transform = RANDOM_TRANSFORMS[name]
    first, again, other = (transform(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32


def test_the_input_is_left_alone(random):
    wave, spectrum = noise(4000), frames()
    kept = wave.copy(), spectrum.copy()
    augment.gain(wave, 6)
    augment.change_speed(wave, 1.1)
    augment.fade(wave)
    augment.add_noise(wave, noise(4000, seed=2), snr_db=3, speech_power=1e6)
    augment.loop(wave, 9000, random=random)
    augment.room_tone(wave, 9000, random=random)
    augment.reverberate(wave, t60_s=0.2, direct_db=0, random=random)
    augment.change_pitch(wave, 3)
    augment.babble([wave, wave], 900, random=random)
    augment.microphone(wave, random=random)
    augment.convolve(wave, noise(50))
    for codec in CODECS:
        augment.code(wave, codec, random=random)
    augment.tilt(spectrum, greatest_db=8, random=random)
    augment.mask(spectrum, n_time=3, time_frames=30, n_band=3, bands=20, random=random)
    assert np.array_equal(wave, kept[0])
    assert np.array_equal(spectrum, kept[1])


@given(st.floats(-40, 20))
def test_gain_is_exact_in_decibels(gain_db):
    wave = noise(2000)
    louder = augment.gain(wave, gain_db)
    assert db(power(louder) / power(wave)) == pytest.approx(gain_db, abs=1e-4)
    assert louder.dtype == np.float32


@given(st.floats(0.5, 2.0), st.integers(1, 5000))
def test_speed_divides_the_length(factor, n_samples):
    faster = augment.change_speed(noise(n_samples), factor)
    assert len(faster) == max(1, round(n_samples / factor))
    assert faster.dtype == np.float32


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_speed_multiplies_the_pitch(factor):
    faster = augment.change_speed(tone(400, peak=1), factor)
    crossings = np.count_nonzero(np.diff(np.signbit(faster))) / (len(faster) / RATE_HZ) / 2
    assert crossings == pytest.approx(400 * factor, rel=0.01)


def test_a_speed_of_one_changes_nothing():
    wave = noise(1000)
    assert np.array_equal(augment.change_speed(wave, 1.0), wave)


def tone(hz, n=RATE_HZ, peak=3000):
    return sounds.sine(hz, n, peak=peak).astype(np.float32)


def pitch_hz(wave):
    inner = wave[1000:-1000]
    return np.count_nonzero(np.diff(np.signbit(inner))) / len(inner) * RATE_HZ / 2


@given(st.floats(0.25, 4.0), st.integers(1, 9000))
def test_stretching_divides_the_length(factor, n_samples):
    stretched = augment.stretch(noise(n_samples), factor)
    assert len(stretched) == max(1, round(n_samples / factor))
    assert stretched.dtype == np.float32


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.3, 2.0])
def test_stretching_keeps_pitch_and_level(factor):
    stretched = augment.stretch(tone(300), factor)
    assert pitch_hz(stretched) == pytest.approx(300, rel=0.01)
    assert db(power(stretched[800:-800]) / power(tone(300))) == pytest.approx(0, abs=0.3)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.3, 2.0])
def test_stretching_moves_a_sound_by_its_factor(factor):
    wave = np.zeros(RATE_HZ, np.float32)
    wave[8000:8800] = noise(800)
    energy = augment.stretch(wave, factor).astype(np.float64) ** 2
    middle = (energy * np.arange(len(energy))).sum() / energy.sum()
    assert middle == pytest.approx(8400 / factor, abs=160)


@pytest.mark.parametrize("semitones", [-5, -1, 0, 2, 7])
def test_a_pitch_rises_by_semitones_at_the_same_length_and_level(semitones):
    higher = augment.change_pitch(tone(300), semitones)
    assert len(higher) == RATE_HZ
    assert pitch_hz(higher) == pytest.approx(300 * 2 ** (semitones / 12), rel=0.01)
    assert db(power(higher[800:-800]) / power(tone(300))) == pytest.approx(0, abs=0.3)


@pytest.mark.parametrize("n_samples", [1, 2, 100, 513])
def test_a_pitch_can_be_changed_of_any_length(n_samples):
    assert augment.change_pitch(noise(n_samples), 4).shape == (n_samples,)


@given(st.integers(0, 1000), st.integers(1, 300))
def test_fading_touches_the_edges_alone(n_samples, n_edge):
    wave = np.ones(n_samples, np.float32)
    faded = augment.fade(wave, n_samples=n_edge)
    n = min(n_edge, n_samples // 2)
    assert np.array_equal(faded[n : n_samples - n], wave[n : n_samples - n])
    assert np.array_equal(faded, faded[::-1])
    assert np.all(np.diff(faded[:n]) >= 0)
    if n:
        assert faded[0] == faded[-1] == 0.0


@given(st.integers(1, 50), st.integers(1, 300), st.integers(0, 9))
def test_a_loop_goes_round_the_recording(n_noise, n_samples, seed):
    looped = augment.loop(np.arange(n_noise), n_samples, random=np.random.default_rng(seed))
    assert len(looped) == n_samples
    assert set(np.diff(looped)) <= {1.0, 1.0 - n_noise}


@given(st.floats(-5, 40), st.floats(1e3, 1e7))
def test_noise_lies_as_far_below_speech_as_asked(snr_db, speech_power):
    wave, hiss = np.zeros(8000, np.float32), noise(8000, rms=123.0)
    added = augment.add_noise(wave, hiss, snr_db=snr_db, speech_power=speech_power)
    assert db(speech_power / power(added)) == pytest.approx(snr_db, abs=1e-3)


def test_noise_is_added_to_what_is_there():
    wave, hiss = noise(4000), noise(4000, seed=1)
    added = augment.add_noise(wave, hiss, snr_db=10, speech_power=power(wave))
    difference = added - wave
    assert np.corrcoef(difference, hiss)[0, 1] == pytest.approx(1, abs=1e-4)
    assert db(power(wave) / power(difference)) == pytest.approx(10, abs=1e-2)


def test_noise_too_quiet_to_be_recorded_is_not_amplified():
    wave, hush = noise(1000), noise(1000, seed=1, rms=0.3)
    assert np.array_equal(augment.add_noise(wave, hush, snr_db=0, speech_power=1e6), wave)


def test_a_babble_is_as_loud_as_one_voice_and_made_of_all_alike(random):
    voices = [noise(9000, seed=i, rms=rms) for i, rms in enumerate((500, 500, 4000))]
    together = augment.babble(voices, 9000, random=random)
    assert db(power(together) / np.mean([power(voice) for voice in voices])) == pytest.approx(
        0, abs=0.5
    )
    spectrum = np.fft.rfft(together)
    for voice in voices:  # wherever it was begun, its share is its greatest correlation
        lags = np.fft.irfft(spectrum * np.fft.rfft(voice).conj())
        share = lags.max() ** 2 / power(voice) / power(together) / 9000**2
        assert share == pytest.approx(1 / 3, abs=0.05)


def test_a_silent_voice_leaves_the_others_alone(random):
    voices = [noise(9000), np.zeros(100, np.float32)]
    assert power(augment.babble(voices, 4000, random=random)) > 0


@pytest.mark.parametrize("n_samples", [1600, 3200, 3201, 38_400])
@pytest.mark.parametrize("rms", [3.0, 300.0])
def test_room_tone_is_as_loud_as_its_example(random, n_samples, rms):
    tone = augment.room_tone(noise(3200, rms=rms), n_samples, random=random)
    assert tone.shape == (n_samples,)
    assert db(power(tone)) == pytest.approx(db(rms**2), abs=1.0)


def test_room_tone_has_the_spectrum_of_its_example(random):
    """A low hum under a soft hiss: each half of the spectrum keeps its level."""
    example = tone(1000, n=3200, peak=500) + noise(3200, rms=20)
    made = augment.room_tone(example, 32_000, random=random)

    def share_below(wave, hz):
        spectrum = np.abs(np.fft.rfft(wave)) ** 2
        return spectrum[: int(len(spectrum) * hz / 8000)].sum() / spectrum.sum()

    for hz in (900, 1100, 4000):
        assert share_below(made, hz) == pytest.approx(share_below(example, hz), abs=0.05)


def test_a_room_keeps_the_length_and_the_direct_sound(random):
    click = np.zeros(8000, np.float32)
    click[100] = 1000.0
    wet = augment.reverberate(click, t60_s=0.3, direct_db=6, random=random)
    assert wet.shape == click.shape
    assert np.abs(wet[:100]).max() < 1e-2
    tail = wet.copy()
    tail[100] -= 1000.0
    assert db(1e6 / (tail.astype(np.float64) ** 2).sum()) == pytest.approx(6, abs=1e-3)


@pytest.mark.parametrize("t60_s", [0.1, 0.4, 0.7])
def test_a_rooms_tail_decays_by_sixty_decibels_in_its_time(random, t60_s):
    click = np.zeros(RATE_HZ, np.float32)
    click[0] = 1000.0
    tail = augment.reverberate(click, t60_s=t60_s, direct_db=0, random=random)
    tenth = int(t60_s * RATE_HZ) // 10
    early, late = power(tail[1:tenth]), power(tail[8 * tenth : 9 * tenth])
    assert db(early / late) == pytest.approx(48, abs=2)
    assert np.abs(tail[int(t60_s * RATE_HZ) :]).max() < 1e-2


def delay_of(wave, original):
    """Return by how many samples a sound comes later, by correlation."""
    inner = original[2000:-2000]
    return int(np.correlate(wave, inner, "valid").argmax()) - 2000


@pytest.mark.parametrize("at", [0, 16, 300])
def test_a_response_keeps_the_length_and_its_peak_is_no_delay(at):
    wave, response = noise(6000), np.float32(0.1) * noise(2000, seed=1, rms=1.0)
    response[at] = 2.0
    wet = augment.convolve(wave, response)
    assert wet.shape == wave.shape
    assert delay_of(wet, wave) == 0
    assert np.allclose(wet, np.convolve(wave, response)[at : at + 6000], atol=0.1)


@pytest.mark.parametrize("seed", range(6))
def test_a_microphone_has_a_band_with_three_resonances_and_no_delay(seed):
    click = np.zeros(RATE_HZ, np.float32)
    click[8000] = 1000.0
    recorded = augment.microphone(click, random=np.random.default_rng(seed))
    assert recorded.shape == click.shape
    assert np.abs(recorded).argmax() == 8000
    response_db = 20 * np.log10(np.abs(np.fft.rfft(recorded)) / 1000)  # a bin a hertz
    assert np.abs(response_db[600:3000]).max() < 3 * 6 + 3
    assert np.ptp(response_db[600:3000]) > 0.5
    assert response_db[:10].max() < response_db[300:3500].mean()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("n_samples", [8000, 8001, 38_400])
def test_a_codec_keeps_length_place_and_level_and_changes_the_sound(codec, n_samples, random):
    wave = np.convolve(noise(n_samples), np.hanning(9), "same").astype(np.float32)
    coded = augment.code(wave, codec, random=random)
    assert (coded.shape, coded.dtype) == (wave.shape, np.float32)
    assert delay_of(coded, wave) == 0
    assert 0.6 < np.corrcoef(coded, wave)[0, 1] < 0.9999
    assert db(power(coded) / power(wave)) == pytest.approx(0, abs=3)


@pytest.mark.parametrize("codec", ["telephone", "gsm"])
def test_a_telephone_passes_300_to_3400_hz(codec, random):
    coded = augment.code(noise(RATE_HZ, rms=3000.0), codec, random=random)
    spectrum = np.abs(np.fft.rfft(coded)) ** 2
    assert spectrum[4200:].sum() / spectrum.sum() < 0.01
    assert spectrum[:200].sum() / spectrum.sum() < 0.01


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_takes_what_is_too_loud_and_what_is_short(codec, random):
    loud = augment.code(noise(3000, rms=40_000.0), codec, random=random)
    assert np.isfinite(loud).all()
    assert augment.code(noise(100), codec, random=random).shape == (100,)


def batch(n=6, *, n_outputs=4, n_labels=3):
    random = np.random.default_rng(1)
    allowed = (random.random((n, n_outputs, n_labels)) < 0.5).astype(np.uint8)
    allowed[..., 0] = 1
    weight = random.uniform(1, 4, (n, n_outputs)).astype(np.float32)
    return random.normal(size=(n, 8, 5)).astype(np.float32), allowed, weight


def mixed(share, seed=2):
    random = np.random.default_rng(seed)
    return augment.mixup(*batch(), share=share, alpha=0.4, random=random)


def test_unmixed_scenes_keep_frames_sets_and_weights():
    frames, allowed, weight = batch()
    kept, targets, ones = mixed(0.0)
    assert np.array_equal(kept, frames)
    assert np.array_equal(targets[..., :3], allowed * weight[..., None])
    assert not targets[..., 3:].any()
    assert np.array_equal(ones, np.ones_like(weight))


def test_frames_and_targets_are_mixed_in_the_same_shares_with_the_same_scene():
    frames, allowed, weight = batch()
    kept, targets, _ = mixed(1.0)
    shares = targets[..., :3].max(axis=-1) / weight  # every set holds a label
    own = shares[:, 0]
    assert np.allclose(shares, own[:, None], atol=1e-6)
    assert len(np.unique(own.round(5))) == 6
    matched = 0
    for i in range(6):
        for j in range(6):
            if np.allclose(kept[i], own[i] * frames[i] + (1 - own[i]) * frames[j], atol=1e-5):
                wanted = (1 - own[i]) * allowed[j] * weight[j][:, None]
                assert np.allclose(targets[i, :, 3:], wanted, atol=1e-5)
                matched += 1
    assert matched == 6


def test_as_many_scenes_are_mixed_as_asked():
    n_mixed = sum(int(mixed(0.5, seed)[1][..., 3:].any(axis=(1, 2)).sum()) for seed in range(50))
    assert 110 < n_mixed < 190


@given(st.integers(0, 1000), st.floats(0, 20))
def test_a_tilt_stays_within_its_greatest_deviation(seed, greatest_db):
    random = np.random.default_rng(seed)
    moved = augment.tilt(frames(), greatest_db=greatest_db, random=random) - frames()
    assert np.abs(moved).max() <= greatest_db * np.log(10) / 10 + 1e-5
    assert np.abs(moved - moved[0]).max() <= 1e-5, "the same in every frame"


def test_a_tilt_of_decimal_logarithms_is_as_many_decibels():
    natural, decimal = (
        augment.tilt(np.zeros((1, 40), np.float32), greatest_db=8, random=one, base=base)
        for one, base in ((np.random.default_rng(4), math.e), (np.random.default_rng(4), 10.0))
    )
    np.testing.assert_allclose(decimal * np.log(10), natural, rtol=1e-5)


def test_a_warp_moves_a_peak_to_its_frequency_times_the_factor():
    """Of features between two frequencies, as the speech embedding's."""
    low_hz, high_hz, n_bands = 60.0, 3800.0, 64
    mels = np.linspace(np.log1p(low_hz / 700), np.log1p(high_hz / 700), n_bands + 2)[1:-1]
    bands_hz = 700 * np.expm1(mels)
    peak = np.exp(-(((bands_hz - 1500) / 150) ** 2)).astype(np.float32)[None]
    for factor in (0.9, 1.0, 1.15):
        warped = augment.warp(peak, factor, low_hz=low_hz, high_hz=high_hz)[0]
        found = float((warped * bands_hz).sum() / warped.sum())
        assert found == pytest.approx(1500 * factor, rel=0.01)


def test_a_tilt_is_smooth_over_bands(random):
    moved = augment.tilt(np.zeros((1, 40), np.float32), greatest_db=8, random=random)[0]
    assert np.abs(moved).max() > 0.1
    assert np.abs(np.diff(moved)).max() < np.abs(moved).max() / 2


@given(
    st.integers(0, 1000),
    st.integers(0, 3),
    st.integers(0, 80),
    st.integers(0, 3),
    st.integers(0, 60),
)
def test_masks_are_stretches_of_the_mean_no_longer_than_asked(seed, n_time, longest, n_band, bands):
    spectrum = frames()
    masked = augment.mask(
        spectrum,
        n_time=n_time,
        time_frames=longest,
        n_band=n_band,
        bands=bands,
        random=np.random.default_rng(seed),
    )
    hidden = masked != spectrum
    assert np.all(masked[hidden] == spectrum.mean())
    rows, columns = hidden.all(axis=1), hidden.all(axis=0)
    assert np.array_equal(hidden, rows[:, None] | columns[None, :])
    if not columns.all():
        assert rows.sum() <= n_time * longest
        assert count_stretches(rows) <= n_time
    if not rows.all():
        assert columns.sum() <= n_band * bands
        assert count_stretches(columns) <= n_band


def count_stretches(hidden):
    return int(np.count_nonzero(np.diff(hidden.astype(int), prepend=0) == 1))


def test_masks_come_in_every_length_up_to_the_longest():
    sizes = {
        int(
            (
                augment.mask(
                    frames(),
                    n_time=1,
                    time_frames=4,
                    n_band=0,
                    bands=0,
                    random=np.random.default_rng(i),
                )
                != frames()
            )
            .all(axis=1)
            .sum()
        )
        for i in range(60)
    }
    assert sizes == {0, 1, 2, 3, 4}
