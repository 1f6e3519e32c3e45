"""`kws train` on data as people have it: what it leaves out, refuses, and survives."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import sounds
import tiny

from kws.cli import main
from kws_train.data.splits import official_split

RATE_HZ = 16_000
RECIPE = tiny.toml(data={"noise": ["noise"]}, fit={"epochs": 2})
TRAINING_NAMES = [
    f"{i:04x}_nohash_0.wav"
    for i in range(40)
    if official_split(Path(f"{i:04x}_nohash_0.wav")) == "train"
]


def write(path, hz, *, seconds=1.0, rate_hz=RATE_HZ):
    wave = sounds.tone_in_noise(hz, seconds=seconds, rate_hz=rate_hz)
    return sounds.write(path, wave, rate_hz=rate_hz)


@pytest.fixture
def data(tone_words, tmp_path):
    """Tones by fourteen speakers, and a hum."""
    folder = shutil.copytree(tone_words, tmp_path / "data")
    write(folder / "noise" / "hum.wav", 50)
    return folder


def arguments(data, *, recipe=RECIPE):
    config = data.parent / "recipe.toml"
    config.write_text(recipe, encoding="utf-8")
    run = data.parent / "run"
    return ["train", "--config", str(config), "--data", str(data), "--out", str(run)]


def train(data, capfd, **options):
    with pytest.raises(SystemExit) as ended:
        main(arguments(data, **options))
    captured = capfd.readouterr()
    assert "Traceback" not in captured.err
    return ended.value.code, captured.out, captured.err


def errors_of(text):
    return [line for line in text.splitlines() if line.startswith("Error: ")]


@pytest.mark.slow
def test_clips_that_cannot_be_used_are_left_out_and_listed(data, capfd, caplog, tensorflow):
    words, name = data / "words", TRAINING_NAMES[-1]
    (words / "empty").mkdir()
    write(words / "lone" / name, 900)  # a class of one clip
    write(words / "low" / name, 500, rate_hz=44_100)
    write(words / "high" / name, 2500, rate_hz=8000)
    write(data / "noise" / "long.wav", 60, seconds=600)
    long = write(words / "other" / TRAINING_NAMES[-1], 1200, seconds=600)
    torn = words / "other" / TRAINING_NAMES[-2]
    torn.write_bytes(b"RIFF, and then something else")
    empty = words / "low" / TRAINING_NAMES[-3]
    soundfile.write(empty, np.zeros(0, np.int16), RATE_HZ)
    code, out, _ = train(data, capfd)
    run = data.parent / "run"
    assert code == 0
    assert f"trained: {run}." in out
    with (run / "left_out.csv").open(newline="") as rows:
        reasons = {row["path"]: row["reason"] for row in csv.DictReader(rows)}
    assert reasons.pop(str(torn)).startswith(f"An audio file must be readable. Received: {torn} (")
    assert reasons == {
        str(words / "empty"): (
            f"A folder of words must hold audio. Received: none in {words / 'empty'}. Fill or "
            f"remove it."
        ),
        str(long): (
            f"A word's clip must last 0.05 to 10 s. Received: 600 s in {long}. Cut it, or move it "
            f"to other data."
        ),
        str(empty): f"An audio file must hold samples. Received: none in {empty}. Remove it.",
    }
    assert f"4 files left out, listed in {run / 'left_out.csv'}" in caplog.messages


def test_a_keyword_without_clips_is_refused(data, capfd, tensorflow):
    for clip in (data / "words" / "low").iterdir():
        clip.unlink()
    code, _, err = train(data, capfd)
    assert code == 2
    assert errors_of(err) == [
        f"Error: Every keyword must have clips in the training split. Received none for: low. "
        f"Add folders of these names below {data}, or drop the keywords."
    ]


def test_a_keyword_with_one_clip_is_said(data, capfd, caplog, tensorflow):
    from kws_train.data.corpus import load_corpus
    from kws_train.recipe import DataRecipe, WordCorpus

    for clip in sorted((data / "words" / "low").iterdir()):
        if clip.name != TRAINING_NAMES[0]:
            clip.unlink()
    recipe = DataRecipe(keywords=["low", "high"], words=[WordCorpus(path="words")])
    assert len(load_corpus(recipe, data, split="train").clips["low"]) == 1
    assert caplog.messages == ["few clips to train on, of `low`: 1"]


@pytest.mark.parametrize("both", [True, False], ids=["beside the keyword's", "instead of it"])
def test_a_folder_that_differs_from_a_keyword_in_case_is_refused(data, capfd, tensorflow, both):
    folder = data / "words" / "LOW"
    if both:
        write(folder / TRAINING_NAMES[0], 500)
    else:
        (data / "words" / "low").rename(folder)
    code, _, err = train(data, capfd)
    assert code == 2
    assert errors_of(err) == [
        f"Error: Folders and keywords must be written alike. Received: {folder} for the keyword "
        f"`low`. Rename the folder, or the keyword; merge two folders of the same word."
    ]


def test_unknown_words_may_be_written_like_keywords(data):
    from kws_train.data.corpus import load_corpus
    from kws_train.recipe import DataRecipe, WordCorpus

    write(data / "foreign" / "LOW" / "a.wav", 700)
    words = [WordCorpus(path="words"), WordCorpus(path="foreign", unknown=True, split="train")]
    corpus = load_corpus(DataRecipe(keywords=["low", "high"], words=words), data, split="train")
    assert "LOW" in {clip.word for clip in corpus.clips["_unknown_"]}


def test_keywords_that_differ_in_case_alone_are_refused(data, capfd, tensorflow):
    recipe = RECIPE.replace('"high"', '"Low"')
    code, _, err = train(data, capfd, recipe=recipe)
    assert code == 2
    assert errors_of(err) == [
        f"Error: {data.parent / 'recipe.toml'} breaks a rule of recipes. Received: keywords must "
        f"not differ in case alone - at `$.data`. docs/training.md lists every key."
    ]


@pytest.mark.slow
def test_after_ctrl_c_the_same_command_goes_on(data):
    """The whole group gets the signal, as from a terminal; nothing but our line is said."""
    recipe = RECIPE.replace("epochs = 2", "epochs = 500")
    command = [Path(sys.executable).with_name("kws"), *arguments(data, recipe=recipe)]
    run = data.parent / "run"
    # A shell's background processes ignore the signal, and hand that down.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    signal.signal(signal.SIGINT, before)
    history = run / "history.csv"
    while not history.is_file() or len(history.read_text().splitlines()) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert (
        "interrupted: run the same command to resume after the last completed epoch"
        in err.splitlines()
    )
    done = [line for line in (run / "history.csv").read_text().splitlines()[1:] if line]
    finished = subprocess.run(
        [*command, "--epochs", str(len(done) + 1)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert re.findall(r"Epoch (\d+)/", finished.stdout) == [str(len(done) + 1)]
    assert (run / "history.csv").read_text().splitlines()[1:-1] == done
