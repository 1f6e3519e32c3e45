"""Recordings of a phrase, of any rate and length, become clips in splits."""

import re

import pytest
import soundfile

from kws.errors import ConfigError
from kws_train.own_word.recordings import import_recordings
from tests.kws_train.own_word.audio import RATE_HZ, names, silence, voice, write


def test_recordings_are_split_by_ranges_of_their_names(tmp_path):
    for i in range(20):
        write(tmp_path / "in" / f"{i:02d}.wav", silence(0.3), voice(0.6, seed=i), silence(0.3))
    imported = import_recordings(tmp_path / "in", tmp_path / "out", label="robot")
    assert imported.n == {"train": 14, "validation": 2, "test": 4}
    assert names(tmp_path / "out" / "validation") == ["14_nohash_0.flac", "15_nohash_0.flac"]
    assert names(tmp_path / "out" / "test" / "robot")[0] == "16_nohash_0.flac"


def test_few_recordings_all_train(tmp_path):
    for i in range(3):
        write(tmp_path / "in" / "robot" / f"{i}.wav", silence(0.3), voice(0.6), silence(0.3))
    imported = import_recordings(tmp_path / "in", tmp_path / "out", label="robot")
    assert imported.n == {"train": 3, "validation": 0, "test": 0}


def test_recordings_to_test_on_are_for_nothing_else(tmp_path):
    for i in range(4):
        write(tmp_path / "in" / f"{i}.wav", silence(0.3), voice(0.6), silence(0.3))
    imported = import_recordings(tmp_path / "in", tmp_path / "out", label="a", splits=("test",))
    assert imported.n == {"train": 0, "validation": 0, "test": 4}


def test_a_long_recording_gives_its_takes_without_the_silence(tmp_path):
    parts = [silence(15), voice(0.7), silence(1), voice(0.8), silence(15)]
    write(tmp_path / "in" / "long.wav", *parts)
    import_recordings(tmp_path / "in", tmp_path / "out", label="robot")
    clips = sorted((tmp_path / "out" / "train" / "robot").iterdir())
    assert [clip.name for clip in clips] == ["long_nohash_0.flac", "long_nohash_1.flac"]
    assert all(0.6 < soundfile.info(clip).duration < 1.6 for clip in clips)


def test_narrow_recordings_are_used_and_counted(tmp_path):
    write(tmp_path / "in" / "a.wav", silence(0.3, rate_hz=8000), voice(0.6, rate_hz=8000),
          silence(0.3, rate_hz=8000), rate_hz=8000)  # fmt: skip
    imported = import_recordings(tmp_path / "in", tmp_path / "out", label="robot")
    assert imported.n["train"] == 1
    assert imported.describe() == "1 for train; 1 of less than 16 kHz"
    clip = next((tmp_path / "out").rglob("*.flac"))
    assert soundfile.info(clip).samplerate == RATE_HZ


def test_what_is_no_voice_or_no_audio_is_left_out_and_said(tmp_path):
    write(tmp_path / "in" / "good.wav", silence(0.3), voice(0.6), silence(0.3))
    write(tmp_path / "in" / "empty.wav", silence(1.0))
    (tmp_path / "in" / "text.wav").write_text("no audio")
    imported = import_recordings(tmp_path / "in", tmp_path / "out", label="robot")
    assert imported.n["train"] == 1
    assert sorted(path.rpartition("/")[2] for path in imported.left_out) == [
        "empty.wav",
        "text.wav",
    ]
    assert imported.describe() == "1 for train; 2 unusable"


def test_an_empty_folder_of_recordings_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=f"Received: {re.escape(str(tmp_path))} with none"):
        import_recordings(tmp_path, tmp_path / "out", label="robot")


def test_recordings_of_silence_alone_are_refused(tmp_path):
    write(tmp_path / "in" / "empty.wav", silence(30))
    message = "Recordings must hold the phrase `robot`, spoken. Received: 1 files"
    with pytest.raises(ConfigError, match=message):
        import_recordings(tmp_path / "in", tmp_path / "out", label="robot")


def test_recordings_are_cut_once(tmp_path):
    source = write(tmp_path / "in" / "a.wav", silence(0.3), voice(0.6), silence(0.3))
    first = import_recordings(tmp_path / "in", tmp_path / "out", label="robot")
    source.unlink()
    assert import_recordings(tmp_path / "in", tmp_path / "out", label="robot") == first


def test_a_speaker_with_a_folder_is_in_one_split_and_overwrites_no_other(tmp_path):
    for speaker in ("anna", "bert", "cleo", "dora"):
        for i in range(3):
            clip = [silence(0.3), voice(0.6, seed=i), silence(0.3)]
            write(tmp_path / "in" / "robot" / speaker / f"{i}.wav", *clip)
    imported = import_recordings(tmp_path / "in", tmp_path / "out", label="robot")
    assert imported.n == {"train": 6, "validation": 3, "test": 3}
    for split, speakers in (("train", "anna bert"), ("validation", "cleo"), ("test", "dora")):
        found = names(tmp_path / "out" / split / "robot")
        assert found == [f"{one}-{i}_nohash_0.flac" for one in speakers.split() for i in range(3)]
