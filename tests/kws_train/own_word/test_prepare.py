"""What users have: recordings of any rate and length, folders of speech, words and noise."""

import re

import numpy as np
import pytest
import soundfile

from kws.errors import ConfigError
from kws_train.data.splits import is_validation
from kws_train.own_word.prepare import (
    coloured_noise,
    cut_words,
    gather_noise,
    gather_recordings,
    gather_speech,
    gather_words,
    sentences,
    share_voices,
)

RATE_HZ = 16_000


def voice(seconds: float, *, rate_hz: int = RATE_HZ, seed: int = 1) -> np.ndarray:
    """Return a buzz with formants, which voice activity takes for speech."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    pulses = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 25))
    swing = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)
    return (4000 * pulses * swing + random.normal(0, 20, len(t))).astype(np.int16)


def silence(seconds: float, *, rate_hz: int = RATE_HZ) -> np.ndarray:
    return np.random.default_rng(2).normal(0, 8, round(seconds * rate_hz)).astype(np.int16)


def write(path, *parts: np.ndarray, rate_hz: int = RATE_HZ):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.concatenate(parts), rate_hz)
    return path


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.flac"))


def test_recordings_are_split_by_ranges_of_their_names(tmp_path):
    for i in range(20):
        write(tmp_path / "in" / f"{i:02d}.wav", silence(0.3), voice(0.6, seed=i), silence(0.3))
    gathered = gather_recordings(tmp_path / "in", tmp_path / "out", label="robot")
    assert gathered.n == {"train": 14, "validation": 2, "test": 4}
    assert names(tmp_path / "out" / "validation") == ["14_nohash_0.flac", "15_nohash_0.flac"]
    assert names(tmp_path / "out" / "test" / "robot")[0] == "16_nohash_0.flac"


def test_few_recordings_all_train(tmp_path):
    for i in range(3):
        write(tmp_path / "in" / "robot" / f"{i}.wav", silence(0.3), voice(0.6), silence(0.3))
    gathered = gather_recordings(tmp_path / "in", tmp_path / "out", label="robot")
    assert gathered.n == {"train": 3, "validation": 0, "test": 0}


def test_recordings_to_test_on_are_for_nothing_else(tmp_path):
    for i in range(4):
        write(tmp_path / "in" / f"{i}.wav", silence(0.3), voice(0.6), silence(0.3))
    gathered = gather_recordings(tmp_path / "in", tmp_path / "out", label="a", splits=("test",))
    assert gathered.n == {"train": 0, "validation": 0, "test": 4}


def test_a_long_recording_gives_its_takes_without_the_silence(tmp_path):
    parts = [silence(15), voice(0.7), silence(1), voice(0.8), silence(15)]
    write(tmp_path / "in" / "long.wav", *parts)
    gather_recordings(tmp_path / "in", tmp_path / "out", label="robot")
    clips = sorted((tmp_path / "out" / "train" / "robot").iterdir())
    assert [clip.name for clip in clips] == ["long_nohash_0.flac", "long_nohash_1.flac"]
    assert all(0.6 < soundfile.info(clip).duration < 1.6 for clip in clips)


def test_narrow_recordings_are_used_and_counted(tmp_path):
    write(tmp_path / "in" / "a.wav", silence(0.3, rate_hz=8000), voice(0.6, rate_hz=8000),
          silence(0.3, rate_hz=8000), rate_hz=8000)  # fmt: skip
    gathered = gather_recordings(tmp_path / "in", tmp_path / "out", label="robot")
    assert gathered.n["train"] == 1
    assert gathered.describe() == "1 for train; 1 of less than 16 kHz"
    clip = next((tmp_path / "out").rglob("*.flac"))
    assert soundfile.info(clip).samplerate == RATE_HZ


def test_what_is_no_voice_or_no_audio_is_left_out_and_said(tmp_path):
    write(tmp_path / "in" / "good.wav", silence(0.3), voice(0.6), silence(0.3))
    write(tmp_path / "in" / "empty.wav", silence(1.0))
    (tmp_path / "in" / "text.wav").write_text("no audio")
    gathered = gather_recordings(tmp_path / "in", tmp_path / "out", label="robot")
    assert gathered.n["train"] == 1
    assert sorted(path.rpartition("/")[2] for path in gathered.left_out) == [
        "empty.wav",
        "text.wav",
    ]
    assert gathered.describe() == "1 for train; 2 left out"


def test_an_empty_folder_of_recordings_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=f"Received: {re.escape(str(tmp_path))} with none"):
        gather_recordings(tmp_path, tmp_path / "out", label="robot")


def test_recordings_of_silence_alone_are_refused(tmp_path):
    write(tmp_path / "in" / "empty.wav", silence(30))
    message = "Recordings must hold the phrase `robot`, spoken. Received: 1 files"
    with pytest.raises(ConfigError, match=message):
        gather_recordings(tmp_path / "in", tmp_path / "out", label="robot")


def test_recordings_are_cut_once(tmp_path):
    source = write(tmp_path / "in" / "a.wav", silence(0.3), voice(0.6), silence(0.3))
    first = gather_recordings(tmp_path / "in", tmp_path / "out", label="robot")
    source.unlink()
    assert gather_recordings(tmp_path / "in", tmp_path / "out", label="robot") == first


def test_one_long_recording_of_speech_trains_and_tests(tmp_path):
    write(tmp_path / "radio" / "show.flac", *[silence(10)] * 50, silence(2))
    gather_speech(tmp_path / "radio", tmp_path / "out")
    trained = names(tmp_path / "out" / "train")
    assert len(trained) == 40
    assert sum(is_validation(name.removesuffix(".flac")) for name in trained) == 4
    assert len(names(tmp_path / "out" / "test")) == 10
    assert names(tmp_path / "out" / "test")[0] == "radio-00000-00004.flac"


def test_of_many_recordings_whole_ones_are_for_testing(tmp_path):
    for i in range(10):
        write(tmp_path / "radio" / f"{i}.flac", silence(21))
    gather_speech(tmp_path / "radio", tmp_path / "out")
    assert {name[:11] for name in names(tmp_path / "out" / "test")} == {
        "radio-00004",
        "radio-00009",
    }


def test_words_are_linked_but_for_the_phrase_and_test_speakers(tmp_path):
    for word in ("robot", "happy", "_background_noise_"):
        for i in range(60):
            write(tmp_path / "in" / word / f"s{i}_nohash_0.flac", silence(0.1))
    gather_words(tmp_path / "in", tmp_path / "out", without=["robot"], seed=1)
    assert [folder.name for folder in (tmp_path / "out").iterdir() if folder.is_dir()] == ["happy"]
    assert 40 <= len(names(tmp_path / "out")) <= 50


def test_each_synthetic_voice_is_in_one_split(tmp_path):
    for word in ("robot", "rabbit"):
        for i in range(60):
            write(tmp_path / "said" / word / f"voice{i}_nohash_{i}.flac", silence(0.1))
    share_voices(tmp_path / "said", tmp_path / "out")
    voices = {
        split: {name.partition("_")[0] for name in names(tmp_path / "out" / split)}
        for split in ("train", "validation", "test")
    }
    assert sum(map(len, voices.values())) == 60
    assert len(set().union(*voices.values())) == 60
    assert min(map(len, voices.values())) >= 2


def test_few_voices_are_in_every_split(tmp_path):
    for i in range(100):
        write(tmp_path / "said" / "robot" / f"voice{i % 4}_nohash_{i}.flac", silence(0.1))
    share_voices(tmp_path / "said", tmp_path / "out")
    for split in ("train", "validation", "test"):
        assert len({name.partition("_")[0] for name in names(tmp_path / "out" / split)}) > 1


def test_noise_of_one_recording_is_in_one_split(tmp_path):
    for i in range(40):
        for take in "ABC":
            write(tmp_path / "in" / f"{i}-{take}.flac", silence(0.1))
    gather_noise(tmp_path / "in", tmp_path / "out")
    trained, tested = (
        {name.rpartition("-")[0] for name in names(tmp_path / "out" / split)}
        for split in ("train", "test")
    )
    assert not trained & tested
    assert len(trained) + len(tested) == 40
    assert len(tested) >= 3


def test_noise_that_is_divided_stays_so(tmp_path):
    wanted = {"train": {"rain-a.flac", "rain-b.flac"}, "test": {"dog-c.flac"}}
    for split, files in wanted.items():
        for name in files:
            write((tmp_path / "in" / split).joinpath(*name.split("-")), silence(0.1))
    gather_noise(tmp_path / "in", tmp_path / "out")
    assert {split: set(names(tmp_path / "out" / split)) for split in wanted} == wanted


def test_coloured_noise_falls_off_as_its_name_says(tmp_path):
    coloured_noise(tmp_path, seed=1)
    slopes = {}
    for colour in ("white", "pink", "brown"):
        samples, _ = soundfile.read(tmp_path / "train" / f"{colour}.flac")
        power = np.abs(np.fft.rfft(samples)) ** 2
        low, high = (power[hz * 30 : 2 * hz * 30].mean() for hz in (250, 4000))
        slopes[colour] = 10 * np.log10(high / low) / 4  # dB an octave
    assert slopes == pytest.approx({"white": 0, "pink": -3, "brown": -6}, abs=0.5)


def test_words_cut_out_of_speech_are_as_long_as_words(tmp_path):
    speech = [write(tmp_path / "speech.flac", voice(20))]
    cut_words(speech, tmp_path / "out", n=12, seed=1)
    lengths = [soundfile.info(path).duration for path in (tmp_path / "out" / "cut").iterdir()]
    assert len(lengths) == 12
    assert 0.3 < min(lengths) < max(lengths) < 1.15


def test_sentences_are_of_common_words_and_always_the_same():
    rows = sentences(50, n_words=7, seed=1)
    assert rows == sentences(50, n_words=7, seed=1)
    assert {len(row.split()) for row in rows} == {7}
    assert " the " in " ".join(rows)


def test_no_sentence_holds_the_phrase():
    held = [row for row in sentences(200) if " the " in f" {row} "]
    kept = sentences(200, without=["the", "of_the"])
    assert held
    assert len(kept) == 200
    assert not any("the" in row.split() for row in kept)
