"""Streams are built the same again, labelled where the words lie, at the ratio asked for."""

import re

import numpy as np
import pytest

from kws.errors import ConfigError
from kws_train.data.librispeech import quiet_utterances
from kws_train.evaluate.build_stream import build_stream, noise_files

RATE_HZ = 16_000
LOW_HZ, MIDDLE_HZ, HIGH_HZ = 300, 1300, 5000


def test_utterances_that_hold_a_keyword_are_left_out(tmp_path, make_tone, make_corpus):
    found = quiet_utterances(make_corpus(tmp_path), without=["go", "stop"])
    assert [path.name for path in found] == ["1-2-0001.wav"]


def test_a_stream_is_the_same_for_the_same_seed_and_labels_lie_on_the_words(
    tmp_path, make_tone, make_corpus
):
    clip = make_tone(tmp_path / "go" / "a.wav", hz=LOW_HZ)
    background = quiet_utterances(make_corpus(tmp_path / "speech"), without=["go"])
    first, again, other = (
        build_stream([("go", clip)] * 5, background, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.samples, again.samples)
    assert len(first.samples) != len(other.samples)
    for word in first.words:
        said = first.samples[round(word.start_s * RATE_HZ) : round(word.end_s * RATE_HZ)]
        assert np.sqrt(np.mean(said.astype(float) ** 2)) > 1000
        assert 0.45 < word.end_s - word.start_s < 0.6


def test_noise_lies_at_the_ratio_asked_for(tmp_path, make_tone, make_corpus):
    clip = make_tone(tmp_path / "go" / "a.wav", hz=LOW_HZ)
    hum = make_tone(tmp_path / "hum.wav", hz=HIGH_HZ, seconds=9)
    background = quiet_utterances(make_corpus(tmp_path / "speech"), without=["go"])
    clean = build_stream([("go", clip)] * 4, background, seed=1)
    noisy = build_stream([("go", clip)] * 4, background, [hum], snr_db=10, seed=1)
    noise = noisy.samples.astype(float) - clean.samples
    assert 10 * np.log10(1500**2 / np.mean(noise**2)) == pytest.approx(10, abs=0.5)


def test_a_stream_without_background_is_refused(tmp_path, make_tone, make_corpus):
    message = (
        "A stream needs clips and background speech. Received: 1 clips, 0 utterances. "
        "Give folders that hold both."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        build_stream([("go", tmp_path / "a.wav")], [])


def test_the_background_is_said_to_lie_where_it_lies(tones):
    assert [part.path.name for part in tones.background] == ["1-2-0001.wav"] * 9
    for part in tones.background[:-1]:
        start, end = (round(edge * RATE_HZ) for edge in (part.start_s, part.end_s))
        assert end - start == 2.5 * RATE_HZ
        middle = tones.samples[start + RATE_HZ // 4 : end - RATE_HZ // 4].astype(float)
        assert np.sqrt(np.mean(middle**2)) > 1000
    assert tones.background[-1].end_s == tones.duration_s


def test_a_stream_that_is_cut_ends_with_its_background(tmp_path, make_tone, make_corpus):
    clip = make_tone(tmp_path / "go" / "a.wav", hz=LOW_HZ)
    background = quiet_utterances(make_corpus(tmp_path / "speech"), without=["go"])
    stream = build_stream([("go", clip)] * 6, background, most_s=10)
    assert 9 < stream.duration_s <= 10
    assert stream.background[-1].end_s == stream.duration_s
    assert stream.clips == (clip,) * len(stream.words)


def test_by_the_peak_rule_the_loudest_frames_lie_at_the_ratio(tmp_path, make_tone, make_corpus):
    clip = make_tone(tmp_path / "go" / "a.wav", hz=LOW_HZ)
    hum = make_tone(tmp_path / "hum.wav", hz=HIGH_HZ, seconds=9)
    background = quiet_utterances(make_corpus(tmp_path / "speech"), without=["go"])
    clean, noisy = (
        build_stream([("go", clip)] * 4, background, [hum], snr_db=snr_db, snr_rule="peak")
        for snr_db in (np.inf, 10)
    )
    assert (clean.name, noisy.name) == ("clean", "10 dB")
    first = slice(0, 9 * RATE_HZ // 512 * 512)  # what the first recording lies under
    speech, noise = clean.samples.astype(float), noisy.samples.astype(float) - clean.samples
    loudest = [np.max(np.mean(x[first].reshape(-1, 512) ** 2, axis=1)) for x in (speech, noise)]
    assert 10 * np.log10(loudest[0] / loudest[1]) == pytest.approx(10, abs=0.2)


def test_silent_noise_is_refused_and_does_not_hang(tmp_path, make_tone, make_corpus):
    clip = make_tone(tmp_path / "go" / "a.wav", hz=LOW_HZ)
    silence = make_tone(tmp_path / "silence.wav", hz=LOW_HZ, amplitude=0)
    background = quiet_utterances(make_corpus(tmp_path / "speech"), without=["go"])
    message = (
        f"Noise must be louder than silence. Received: 1 recordings without a sound, such as "
        f"{silence}. Give others, or none for a clean stream."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        build_stream([("go", clip)], background, [silence])


def test_noise_can_be_chosen_by_name(tmp_path, make_tone):
    kept = make_tone(tmp_path / "rain" / "4-17-A.wav", hz=LOW_HZ)
    make_tone(tmp_path / "rain" / "1-17-A.wav", hz=LOW_HZ)
    assert noise_files(tmp_path, "4-*") == [kept]
    message = (
        f"`--noise-pattern` must match names of noise recordings. Received: 5-*, which matches "
        f"none below {tmp_path}. Correct it; `*` takes all."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        noise_files(tmp_path, "5-*")


def test_files_that_cannot_be_read_are_left_out_and_said(tmp_path, make_tone, caplog, no_ffmpeg):
    clip = make_tone(tmp_path / "go" / "a.wav", hz=LOW_HZ)
    speech = make_tone(tmp_path / "speech.wav", hz=HIGH_HZ, seconds=2)
    noise = make_tone(tmp_path / "noise.wav", hz=MIDDLE_HZ, seconds=2)
    phone = tmp_path / "go" / "b.m4a"
    phone.write_bytes(b"...")
    stream = build_stream([("go", clip), ("go", phone)], [speech, phone], [noise, phone])
    assert stream.clips == (clip,)
    (said,) = caplog.messages
    assert said.startswith(f"left out: An audio file must be readable. Received: {phone}, and")
