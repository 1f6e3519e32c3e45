"""What tests of the workbench share: sounds, a corpus of them, and a model that hears pitch."""

from pathlib import Path

import numpy as np
import pytest
import sounds
from sounds import RATE_HZ

from kws.manifest import FeatureSettings, Manifest
from kws.model import Model
from kws_train.data.librispeech import quiet_utterances
from kws_train.data.splits import official_split
from kws_train.evaluate.build_stream import build_stream

LABELS = ("_silence_", "_unknown_", "go", "stop")
WORDS_HZ = {"low": 500, "high": 2500, "other": 1200}
LOW_HZ, MIDDLE_HZ, HIGH_HZ = 300, 1300, 5000


class Pitch:
    """A model that says `go` to a low tone, `stop` to a middle one, `_unknown_` to a high one."""

    n_outputs = 1
    run = Model.run

    def __init__(self) -> None:
        self.n_calls = 0
        self.manifest = Manifest(
            name="pitch",
            labels=LABELS,
            kind="step",
            features=FeatureSettings(kind="logmel", n_mels=15, floor=1.0),
            n_frames=2,
            hop_frames=2,
        )

    def reset(self) -> None:
        """Nothing to forget."""

    def step(self, frames: np.ndarray) -> np.ndarray:
        self.n_calls += 1
        low, middle, high = frames.mean(axis=0).reshape(3, 5).max(axis=1)
        loudest = max(low, middle, high)
        out = np.full((1, 4), 0.01, np.float32)
        if loudest < 8:
            out[0, 0] = 0.97
        else:
            out[0, {low: 2, middle: 3, high: 1}[loudest]] = 0.97
        return out


def tone(path: Path, *, hz: float, amplitude: float = 4000, seconds: float = 0.5) -> Path:
    quiet = sounds.silence(0.25)
    loud = sounds.tone(hz, seconds, peak=amplitude)
    return sounds.write(path, np.concatenate((quiet, loud, quiet)))


def corpus(folder: Path) -> Path:
    """Write a corpus of two high tones, of which one has the word GO in its transcript."""
    chapter = folder / "1" / "2"
    tone(chapter / "1-2-0000.wav", hz=HIGH_HZ, seconds=2)
    tone(chapter / "1-2-0001.wav", hz=HIGH_HZ, seconds=2)
    (chapter / "1-2.trans.txt").write_text("1-2-0000 LET US GO\n1-2-0001 NOBODY CAME\n")
    return folder


@pytest.fixture
def pitch():
    """The model that hears pitch."""
    return Pitch()


@pytest.fixture(scope="session")
def make_tone():
    """Write a tone between two quarters of a second of silence to a file; returns its path."""
    return tone


@pytest.fixture(scope="session")
def make_corpus():
    """Write a corpus in LibriSpeech's layout to a folder; returns the folder."""
    return corpus


@pytest.fixture
def tones(tmp_path):
    """A stream of six `go` and two clips that are called `stop` but sound like `go`."""
    clip = tone(tmp_path / "go" / "a_nohash_0.wav", hz=LOW_HZ)
    background = quiet_utterances(corpus(tmp_path / "speech"), without=["go"])
    return build_stream([("go", clip)] * 6 + [("stop", clip)] * 2, background, seed=1)


@pytest.fixture(scope="session")
def tone_words(tmp_path_factory):
    """A folder of tones by speakers in the training and the validation split; not to be changed."""
    folder = tmp_path_factory.mktemp("tones")
    random = np.random.default_rng(1)
    splits = set()
    for word, hz in WORDS_HZ.items():
        for i in range(14):
            path = folder / "words" / word / f"{i:04x}_nohash_0.wav"
            splits.add(official_split(path))
            wave = random.normal(0, 30, RATE_HZ)
            wave[4000:10_000] += sounds.sine(hz * random.uniform(0.9, 1.1), 6000, peak=6000)
            sounds.write(path, wave.astype(np.int16))
    assert splits >= {"train", "validation"}
    return folder
