"""`python_speech_features` is the oracle; the stream is held against the whole signal."""

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
import python_speech_features as oracle
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from mlperf_tiny import MLPERF_TINY, reference_of_mlperf_tiny
from msgspec.structs import replace
from python_speech_features import sigproc

from kws.cepstra import Cepstra
from kws.errors import FormatError
from kws.features import Features, mel_filterbank
from kws.manifest import FeatureSettings

RATE_HZ = 16_000
DATA = Path(__file__).parents[1] / "data"
SPEECH = "librispeech/dev-clean/84/121123/84-121123-0014.opus"
WINDOWS = {"rectangular": np.ones, "hamming": np.hamming, "hann": np.hanning}
MFCC = [
    FeatureSettings(),
    FeatureSettings(energy=False),
    FeatureSettings(lifter=0, energy=False),
    FeatureSettings(lifter=0),
    FeatureSettings(lifter=30, n_mels=40, n_mfcc=20),
    FeatureSettings(window="hamming", n_mels=40, n_mfcc=40, low_hz=60.0, high_hz=7600.0),
    FeatureSettings(window="hann", window_samples=480, hop_samples=320, energy=False),
    FeatureSettings(preemphasis=0.0, n_fft=1024, window_samples=640),
    FeatureSettings(sample_rate_hz=8000, window_samples=200, hop_samples=80, n_fft=256),
    FeatureSettings(window_samples=400, hop_samples=400),
    FeatureSettings(window_samples=401, hop_samples=163, window="hamming"),
]
LOGMEL = [
    FeatureSettings(kind="logmel"),
    FeatureSettings(kind="logmel", n_mels=40, low_hz=60.0, window_samples=480, window="hann"),
    FeatureSettings(kind="logmel", n_mels=20, high_hz=4000.0, preemphasis=0.9),
]
SPECTROGRAM = [
    FeatureSettings(kind="spectrogram", floor=1e-30),
    FeatureSettings(kind="spectrogram", floor=1e-30, window="hamming", n_fft=1024),
]
SPEECH_EMBEDDING = FeatureSettings(
    kind="logmel",
    window_samples=512,
    taper_samples=400,
    window="periodic_hann",
    n_mels=32,
    low_hz=60.0,
    high_hz=3800.0,
    mel_filters="slaney",
    preemphasis=0.0,
    periodogram=False,
    floor=1e-10,
    log_base="10",
    log_offset=2.0,
)
SHORT_SPECTROGRAM = FeatureSettings(kind="spectrogram", window_samples=256, n_fft=256)


def of(settings):
    """Name a case by what differs from the defaults."""
    default = FeatureSettings()
    changed = [f"{k}={v}" for k, v in vars_of(settings).items() if v != getattr(default, k)]
    return ",".join(changed) or "defaults"


def vars_of(settings):
    return {key: getattr(settings, key) for key in settings.__struct_fields__}


def expected(signal, settings):
    """Return what the oracle says, its zero-padded last frame included."""
    signal = signal.astype(np.float64)
    shape = {
        "samplerate": settings.sample_rate_hz,
        "winlen": settings.window_samples / settings.sample_rate_hz,
        "winstep": settings.hop_samples / settings.sample_rate_hz,
        "nfft": settings.n_fft,
        "preemph": settings.preemphasis,
        "winfunc": WINDOWS[settings.window],
    }
    mels = {"nfilt": settings.n_mels, "lowfreq": settings.low_hz, "highfreq": settings.high_hz}
    if settings.kind == "mfcc":
        cepstra = {"ceplifter": settings.lifter, "appendEnergy": settings.energy}
        return oracle.mfcc(signal, numcep=settings.n_mfcc, **shape, **mels, **cepstra)
    if settings.kind == "logmel":
        return np.log(oracle.fbank(signal, **shape, **mels)[0])
    emphasised = sigproc.preemphasis(signal, settings.preemphasis)
    size, hop = settings.window_samples, settings.hop_samples
    frames = sigproc.framesig(emphasised, size, hop, WINDOWS[settings.window])
    return sigproc.logpowspec(frames, settings.n_fft, norm=0) * np.log(10) / 10


def streamed(features, signal):
    return np.concatenate((features.process(signal), features.flush()))


def noise(n, *, seed=0):
    return np.random.default_rng(seed).normal(0, 3000, n).astype(np.int16)


@pytest.mark.parametrize("settings", MFCC + LOGMEL + SPECTROGRAM, ids=of)
@pytest.mark.parametrize("n", [8000, 7919])
def test_a_float64_stream_equals_the_oracle(settings, n):
    signal = noise(n)
    frames = streamed(Features(settings, dtype=np.float64), signal)
    wanted = expected(signal, settings)
    assert frames.shape == wanted.shape
    assert np.abs(frames - wanted).max() <= 1e-9


@pytest.mark.parametrize("settings", MFCC + LOGMEL, ids=of)
def test_a_float32_stream_is_within_two_thousandths_of_the_oracle(settings):
    signal = noise(8000)
    frames = streamed(Features(settings), signal)
    assert frames.dtype == np.float32
    assert np.abs(frames - expected(signal, settings)).max() <= 2e-3


def test_logfbank_is_what_logmel_gives():
    signal = noise(4000)
    frames = streamed(Features(FeatureSettings(kind="logmel"), dtype=np.float64), signal)
    assert np.abs(frames - oracle.logfbank(signal.astype(np.float64))).max() <= 1e-9


@pytest.mark.parametrize("settings", MFCC + LOGMEL, ids=of)
def test_the_filterbank_equals_the_oracles(settings):
    high_hz = settings.high_hz or settings.sample_rate_hz / 2
    wanted = oracle.get_filterbanks(
        settings.n_mels, settings.n_fft, settings.sample_rate_hz, settings.low_hz, high_hz
    )
    assert np.abs(mel_filterbank(settings).T - wanted).max() <= 1e-12


@pytest.mark.parametrize("recording", ["words/computer.flac", SPEECH], ids=["word", "sentence"])
def test_the_front_end_of_the_speech_embedding_equals_the_published_one(recording, published):
    signal, _ = soundfile.read(DATA / recording, dtype="int16")
    frames = Features(SPEECH_EMBEDDING).process(signal)
    wanted = published("melspectrogram", signal[None])[0, 0] / 10 + 2  # as openWakeWord
    assert frames.shape == wanted.shape == (1 + (len(signal) - 512) // 160, 32)
    # The published one lifts what lies over 80 dB below the loudest value of all that it is given.
    lifted = wanted <= wanted.max() - 7.999
    assert lifted.mean() < 0.8
    assert np.abs(frames - wanted)[~lifted].max() <= 1e-3
    assert (frames <= wanted + 1e-3)[lifted].all()


def test_the_front_end_of_the_speech_embedding_equals_the_published_one_in_noise(published):
    signal = noise(16_000)
    wanted = published("melspectrogram", signal[None])[0, 0] / 10 + 2
    assert wanted.min() > wanted.max() - 8  # nothing is lifted
    assert np.abs(Features(SPEECH_EMBEDDING).process(signal) - wanted).max() <= 1e-3


def test_filters_of_unit_area_have_it():
    settings = msgspec.structs.replace(SPEECH_EMBEDDING, n_fft=8192)
    filters = mel_filterbank(settings)
    assert np.abs(filters.sum(axis=0) * 16_000 / 8192 - 1).max() <= 0.01


def test_a_tapered_window_is_zero_on_both_sides():
    signal = noise(512)
    changed = signal.copy()
    changed[:56] = changed[-56:] = 9999
    features = Features(SPEECH_EMBEDDING)
    assert np.array_equal(features.whole(signal), features.whole(changed))


@pytest.mark.parametrize("n", [1, 239, 240, 399, 400, 401, 559, 560, 561])
def test_the_last_frame_is_padded_with_zeros_as_by_the_oracle(n):
    signal = noise(n)
    frames = streamed(Features(FeatureSettings(), dtype=np.float64), signal)
    wanted = expected(signal, FeatureSettings())
    assert frames.shape == wanted.shape
    assert np.abs(frames - wanted).max() <= 1e-9


def test_flush_gives_nothing_where_the_signal_ended_on_a_frame():
    features = Features(FeatureSettings())
    assert len(features.process(noise(400 + 3 * 160))) == 4
    assert features.flush().shape == (0, 13)


def test_flush_of_no_samples_gives_nothing():
    assert Features(FeatureSettings()).flush().shape == (0, 13)


@pytest.mark.parametrize(
    "settings",
    [MFCC[0], MFCC[5], MFCC[9], LOGMEL[1], SHORT_SPECTROGRAM, SPEECH_EMBEDDING],
    ids=of,
)
@given(st.lists(st.integers(0, 1200), max_size=12))
def test_frames_do_not_depend_on_how_samples_are_cut_by_a_single_bit(settings, cuts):
    signal = noise(6000)
    features = Features(settings)
    whole = streamed(features, signal)
    edges = np.minimum(np.cumsum([0, *cuts]), len(signal))
    pieces = [signal[a:b] for a, b in zip(edges, [*edges[1:], len(signal)], strict=True)]
    cut = np.concatenate([*(features.process(piece) for piece in pieces), features.flush()])
    assert np.array_equal(cut, whole)


def test_samples_one_by_one_give_the_same_bits():
    signal = noise(1500)
    features = Features(LOGMEL[1])
    whole = features.process(signal)
    features.reset()
    one_by_one = np.concatenate([features.process(signal[i : i + 1]) for i in range(len(signal))])
    assert np.array_equal(one_by_one, whole)


@pytest.mark.parametrize("settings", [MFCC[0], LOGMEL[1], SPECTROGRAM[0], SPEECH_EMBEDDING], ids=of)
def test_a_batch_of_whole_signals_gives_the_bits_of_the_stream(settings):
    signals = np.stack([noise(5000, seed=1), noise(5000, seed=2)])
    features = Features(settings)
    frames = features.whole(signals)
    for signal, one in zip(signals, frames, strict=True):
        features.reset()
        assert np.array_equal(features.process(signal), one)


def test_whole_leaves_the_state_of_the_stream_alone():
    signal = noise(2000)
    features = Features(FeatureSettings())
    alone = features.process(signal)
    features.reset()
    first = features.process(signal[:777])
    features.whole(noise(3000, seed=9))
    assert np.array_equal(np.concatenate((first, features.process(signal[777:]))), alone)


def test_whole_of_a_signal_shorter_than_a_window_has_no_frames():
    assert Features(FeatureSettings()).whole(np.zeros((3, 399), np.int16)).shape == (3, 0, 13)


def test_process_does_not_change_the_samples():
    signal = noise(1000)
    kept = signal.copy()
    Features(FeatureSettings()).process(signal)
    assert np.array_equal(signal, kept)


@pytest.mark.parametrize("kind", ["logmel", "spectrogram"])
@pytest.mark.parametrize("floor", [1.0, 1e-6])
def test_digital_silence_lies_on_the_floor(kind, floor):
    settings = FeatureSettings(kind=kind, floor=floor)
    frames = Features(settings).process(np.zeros(1600, np.int16))
    assert np.array_equal(frames, np.full_like(frames, np.float32(np.log(floor))))


def test_no_power_is_below_the_floor_and_none_above_is_touched():
    signal = noise(4000) // 3000  # powers on both sides of 1
    low = Features(FeatureSettings(kind="logmel", floor=1e-12), dtype=np.float64).process(signal)
    floored = Features(FeatureSettings(kind="logmel", floor=1.0), dtype=np.float64).process(signal)
    assert low.min() < 0 < low.max()
    assert np.array_equal(floored, np.maximum(low, 0.0))


def test_the_default_floor_is_the_oracles_for_digital_silence():
    silence = np.zeros(1600, np.int16)
    frames = streamed(Features(FeatureSettings(), dtype=np.float64), silence)
    assert np.abs(frames - expected(silence, FeatureSettings())).max() <= 1e-9


def test_the_loudest_samples_there_are_stay_finite_in_float32():
    square = np.where(np.arange(3200) // 20 % 2, 32767, -32768).astype(np.int16)
    assert np.isfinite(Features(FeatureSettings()).process(square)).all()


def test_reset_starts_a_new_signal():
    signal = noise(3000)
    features = Features(FeatureSettings())
    first = features.process(signal)
    features.reset()
    assert np.array_equal(features.process(signal), first)


def test_a_frame_is_out_as_soon_as_its_last_sample_is_in():
    features = Features(FeatureSettings())
    assert features.latency_samples == 400
    assert len(features.process(noise(399))) == 0
    assert len(features.process(noise(1))) == 1
    assert len(features.process(noise(159))) == 0
    assert len(features.process(noise(1))) == 1


def test_no_samples_are_no_frames():
    assert Features(FeatureSettings()).process(np.empty(0, np.int16)).shape == (0, 13)


@pytest.mark.parametrize(
    ("samples", "received"),
    [
        (np.zeros(160, np.float32), "1-dimensional float32"),
        (np.zeros((160, 2), np.int16), "2-dimensional int16"),
        (np.zeros(160, ">i2"), "1-dimensional >i2"),
        (np.int16(3) * np.ones((), np.int16), "0-dimensional int16"),
    ],
)
def test_other_samples_than_mono_int16_are_refused(samples, received):
    message = (
        f"Samples must be one-dimensional int16. Received: {received}. "
        f"Convert them to 16-bit mono first."
    )
    with pytest.raises(FormatError, match=f"^{re.escape(message)}$"):
        Features(FeatureSettings()).process(samples)


def test_refused_samples_leave_no_trace():
    signal = noise(2000)
    features = Features(FeatureSettings())
    whole = features.process(signal)
    features.reset()
    first = features.process(signal[:500])
    with pytest.raises(FormatError):
        features.process(np.zeros(160, np.float64))
    assert np.array_equal(np.concatenate((first, features.process(signal[500:]))), whole)


def test_features_of_other_tools_can_be_stated(random):
    settings = MLPERF_TINY
    samples = random.integers(-20_000, 20_000, 16_000).astype(np.int16)
    wanted = reference_of_mlperf_tiny(samples / 32_768)
    streamed = Features(settings, dtype=np.float64).process(samples)
    np.testing.assert_allclose(streamed, wanted, atol=1e-9)
    np.testing.assert_allclose(Features(settings).whole(samples), wanted, atol=2e-4)
    peaked = replace(settings, normalization="window_peak")
    frames = Features(peaked, dtype=np.float64).whole(samples)
    assert frames.shape == (49, peaked.n_features) == (49, 41)
    window = Cepstra(peaked, dtype=np.float64).of_window(frames)
    largest = samples[: 48 * 320 + 480].max() / 32_768
    wanted = reference_of_mlperf_tiny(samples / 32_768 / largest)
    np.testing.assert_allclose(window, wanted, atol=1e-5)
