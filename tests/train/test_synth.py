"""Synthetic voices say words."""

import shutil

import numpy as np
import pytest
import soundfile

from kws.errors import ConfigError
from kws.train.synth import Espeak, Kokoro, synthesize


class Hums:
    """Says a word as a hum as long as its text, and remembers what it was asked for."""

    def __init__(self, seconds=0.5):
        self.seconds, self.texts = seconds, []

    def speak(self, text, random, /):
        self.texts.append(text)
        n = round(16_000 * self.seconds)
        return np.full(n, random.integers(1, 9000), np.int16), "hum"


def test_as_many_clips_are_written_as_asked_for(tmp_path):
    backend = Hums()
    assert synthesize({"off": 3, "on": 2}, tmp_path, backend) == 5
    assert sorted(path.name for path in (tmp_path / "off").iterdir()) == [
        f"hum_nohash_{i}.flac" for i in range(3)
    ]
    assert {text.strip(".!?").lower() for text in backend.texts} == {"off", "on"}
    assert soundfile.info(tmp_path / "on/hum_nohash_0.flac").samplerate == 16_000


def test_clips_that_are_there_are_kept_and_the_others_made_as_before(tmp_path):
    synthesize({"off": 3}, tmp_path, Hums())
    (again := tmp_path / "off/hum_nohash_1.flac").unlink()
    first = soundfile.read(tmp_path / "off/hum_nohash_0.flac")[0]
    backend = Hums()
    assert synthesize({"off": 3}, tmp_path, backend) == 1
    assert len(backend.texts) == 1
    assert soundfile.read(again)[0][0] != first[0]


@pytest.mark.parametrize("seconds", [0.0, 0.05, 2.5])
def test_what_is_no_word_is_not_written(tmp_path, seconds):
    assert synthesize({"off": 1}, tmp_path, Hums(seconds)) == 0
    assert not (tmp_path / "off").exists()


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")
def test_espeak_says_a_word(tmp_path):
    random = np.random.default_rng(0)
    samples, voice = Espeak().speak("off", random)
    assert samples.dtype == np.int16
    assert 0.2 < len(samples) / 16_000 < 2.0
    assert np.abs(samples.astype(int)).max() == 20_000
    assert voice.startswith("en")
    assert synthesize({"off": 1}, tmp_path, Espeak()) == 1


def test_a_missing_voice_is_named(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match="sudo apt install espeak-ng"):
        Espeak()


def test_missing_files_of_kokoro_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("kws.train.synth.load_library", lambda name, **_: None)
    with pytest.raises(ConfigError, match=r"needs its model and its voices. Received: .*absent"):
        Kokoro(tmp_path / "absent.onnx", tmp_path / "voices.npz")
