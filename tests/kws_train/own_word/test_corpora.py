"""Speech, words and noise of any shape become what training reads."""

import numpy as np
import pytest
import soundfile

from kws_train.data.splits import is_validation
from kws_train.own_word.corpora import (
    cut_words,
    generate_noise,
    import_noise,
    import_speech,
    import_words,
    random_sentences,
    split_voices,
)
from tests.kws_train.own_word.audio import names, silence, voice, write


def test_one_long_recording_of_speech_trains_and_tests(tmp_path):
    write(tmp_path / "radio" / "show.flac", *[silence(10)] * 50, silence(2))
    import_speech(tmp_path / "radio", tmp_path / "out")
    trained = names(tmp_path / "out" / "train")
    assert len(trained) == 40
    assert sum(is_validation(name.removesuffix(".flac")) for name in trained) == 4
    assert len(names(tmp_path / "out" / "test")) == 10
    assert names(tmp_path / "out" / "test")[0] == "radio-00000-00004.flac"


def test_of_many_recordings_whole_ones_are_for_testing(tmp_path):
    for i in range(10):
        write(tmp_path / "radio" / f"{i}.flac", silence(21))
    import_speech(tmp_path / "radio", tmp_path / "out")
    assert {name[:11] for name in names(tmp_path / "out" / "test")} == {
        "radio-00004",
        "radio-00009",
    }


def test_of_a_dozen_speakers_half_train_and_each_of_the_others_has_one_use(tmp_path):
    for i in range(12):
        for k in range(2):
            write(tmp_path / "radio" / f"speaker{i:02d}" / f"{k}.flac", silence(3))
    import_speech(tmp_path / "radio", tmp_path / "out")
    speaker = {name: int(name.split("-")[1]) // 2 for name in names(tmp_path / "out")}
    tested = {speaker[name] for name in names(tmp_path / "out" / "test")}
    assert tested == {3, 7, 11}
    validated, trained = (
        {
            speaker[name]
            for name in names(tmp_path / "out" / "train")
            if is_validation(name.removesuffix(".flac")) == wanted
        }
        for wanted in (True, False)
    )
    assert validated == {2, 6, 10}
    assert trained == {0, 1, 4, 5, 8, 9}


def test_words_are_linked_but_for_the_phrase_and_test_speakers(tmp_path):
    for word in ("robot", "happy", "_background_noise_"):
        for i in range(60):
            write(tmp_path / "in" / word / f"s{i}_nohash_0.flac", silence(0.1))
    import_words(tmp_path / "in", tmp_path / "out", without=["robot"], seed=1)
    assert [folder.name for folder in (tmp_path / "out").iterdir() if folder.is_dir()] == ["happy"]
    assert 40 <= len(names(tmp_path / "out")) <= 50


def test_each_synthetic_voice_is_in_one_split(tmp_path):
    for word in ("robot", "rabbit"):
        for i in range(60):
            write(tmp_path / "clips" / word / f"voice{i}_nohash_{i}.flac", silence(0.1))
    split_voices(tmp_path / "clips", tmp_path / "out")
    voices = {
        split: {name.partition("_")[0] for name in names(tmp_path / "out" / split)}
        for split in ("train", "validation", "test")
    }
    assert sum(map(len, voices.values())) == 60
    assert len(set().union(*voices.values())) == 60
    assert min(map(len, voices.values())) >= 2


def test_few_voices_are_in_every_split(tmp_path):
    for i in range(100):
        write(tmp_path / "clips" / "robot" / f"voice{i % 4}_nohash_{i}.flac", silence(0.1))
    split_voices(tmp_path / "clips", tmp_path / "out")
    for split in ("train", "validation", "test"):
        assert len({name.partition("_")[0] for name in names(tmp_path / "out" / split)}) > 1


def test_noise_of_one_recording_is_in_one_split(tmp_path):
    for i in range(40):
        for take in "ABC":
            write(tmp_path / "in" / f"{i}-{take}.flac", silence(0.1))
    import_noise(tmp_path / "in", tmp_path / "out")
    trained, tested = (
        {name.rpartition("-")[0] for name in names(tmp_path / "out" / split)}
        for split in ("train", "test")
    )
    assert not trained & tested
    assert len(trained) + len(tested) == 40
    assert len(tested) >= 3


def test_noise_that_is_divided_stays_so_and_each_folder_is_a_kind(tmp_path):
    wanted = {"train/rain/a.flac", "train/rain/b.flac", "test/dog/c.flac"}
    for name in wanted:
        write(tmp_path / "in" / name, silence(0.1))
    import_noise(tmp_path / "in", tmp_path / "out")
    found = (path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.flac"))
    assert {path.as_posix() for path in found} == wanted


def test_coloured_noise_falls_off_as_its_name_says(tmp_path):
    generate_noise(tmp_path, seed=1)
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
    rows = random_sentences(50, n_words=7, seed=1)
    assert rows == random_sentences(50, n_words=7, seed=1)
    assert {len(row.split()) for row in rows} == {7}
    assert " the " in " ".join(rows)


def test_no_sentence_holds_the_phrase():
    held = [row for row in random_sentences(200) if " the " in f" {row} "]
    kept = random_sentences(200, without=["the", "of_the"])
    assert held
    assert len(kept) == 200
    assert not any("the" in row.split() for row in kept)


@pytest.mark.parametrize("n_voices", [4, 60])
def test_every_split_has_the_phrase_even_of_few_clips(tmp_path, n_voices):
    """`--clips 20`, the least, ended in a message of a later stage."""
    for i in range(20):
        write(tmp_path / "clips" / "robot" / f"voice{i % n_voices}_nohash_{i}.flac", silence(0.1))
    for i in range(40):
        name = f"voice{(i + 20) % n_voices}_nohash_{i}.flac"
        write(tmp_path / "clips" / f"near_{i % 20}" / name, silence(0.1))
    split_voices(tmp_path / "clips", tmp_path / "out", words=["robot"])
    found = {
        split: len(names(tmp_path / "out" / split / "robot"))
        for split in ("train", "validation", "test")
    }
    assert sum(found.values()) == 20
    assert min(found.values()) >= 1
    assert found["train"] >= 14
