import re

import numpy as np
import pytest

from kws.commands.calibrate_room import fragment, measure_room
from kws.commands.demo import load_demo
from kws.commands.record import write_take
from kws.config import SourceSettings, parse_config
from kws.errors import AudioError
from kws.manifest import CalibrationPoint, DecisionDefaults, FeatureSettings, Manifest
from kws.model import bundled_models, open_model
from kws.sources import open_source
from kws.sources.silence import CHECK_MUTED


@pytest.fixture(scope="module")
def model():
    return open_model(bundled_models()["commands"])


def measure(path, model):
    with open_source(SourceSettings(input=str(path))) as source:
        return measure_room(source, model, seconds=600)


class Rising:
    """A model whose posterior of `stop` rises at given seconds for a tenth of a second."""

    n_outputs = 1

    def __init__(self, rises, calibration=()):
        self._rises = rises
        self._n_frames = 0
        self.manifest = Manifest(
            name="rising",
            labels=("_silence_", "stop", "go"),
            kind="step",
            features=FeatureSettings(),
            n_frames=1,
            hop_frames=1,
            decision=DecisionDefaults(smoothing_ms=20, threshold=0.6),
            calibration=calibration,
        )

    def reset(self):
        pass

    def step(self, frames):
        at_s = self._n_frames / 100
        self._n_frames += 1
        posterior = max((p for start_s, p in self._rises if 0 <= at_s - start_s < 0.1), default=0)
        return np.array([[1 - posterior, posterior, 0]], np.float32)


class Pieces(list):
    """A source of given chunks."""

    name = "pieces"


class Noise:
    """A source of quiet noise."""

    name = "noise"

    def __init__(self, seconds):
        self._n_chunks = int(12.5 * seconds)

    def __iter__(self):
        random = np.random.default_rng(1)
        return (random.normal(0, 100, 1280).astype(np.int16) for _ in range(self._n_chunks))


TABLE = (
    CalibrationPoint(false_alarms_per_hour=1.0, thresholds={"stop": 0.8, "go": 0.8}),
    CalibrationPoint(false_alarms_per_hour=20.0, thresholds={"stop": 0.6, "go": 0.6}),
)


def test_a_threshold_lies_a_margin_above_what_the_room_causes():
    room = measure_room(Noise(60), Rising([(5, 0.3), (20, 0.7)], TABLE), seconds=600)
    assert room.scores["stop"] == pytest.approx(0.7, abs=0.01)
    assert room.thresholds == {"stop": 0.75, "go": 0.6}
    settings = parse_config(fragment(room, model="commands"))
    assert settings.source.gain_db == room.gain_db
    assert settings.decision.thresholds == room.thresholds


def test_a_keyword_that_was_said_is_found_and_refused_with_its_times():
    with pytest.raises(AudioError) as refused:
        measure_room(Noise(60), Rising([(20, 0.97)]), seconds=600)
    assert str(refused.value) == (
        "A room must be measured while nobody says a keyword. Received: `stop` at 20.0 s (0.97) "
        "in noise. Measure again without these words, or give another recording; if nobody said "
        "them, set `[decision] threshold` in kws.toml by hand."
    )


def test_more_rises_than_false_alarms_are_words_too():
    """Five in a minute, of which the table has twenty in an hour; two can be chance."""
    rises = [(10.0 * i, 0.65) for i in range(1, 6)]
    assert measure_room(Noise(60), Rising(rises[:1], TABLE), seconds=600).thresholds["stop"] == 0.7
    with pytest.raises(AudioError, match=r"Received: `stop` at 10\.\d s \(0\.65\), .* in noise"):
        measure_room(Noise(60), Rising(rises, TABLE), seconds=600)


@pytest.mark.parametrize(
    ("recording", "name", "words"),
    [
        ("demo", "commands", {"down", "on", "no"}),
        ("demo_computer", "computer", {"computer"}),
    ],
)
def test_a_recording_of_the_keywords_is_no_room(recording, name, words):
    path = load_demo(name=recording)[1]
    silence = np.zeros(4 * 16_000, np.int16)
    with open_source(SourceSettings(input=str(path))) as source:
        audio = Pieces([silence, *source, silence])
    with pytest.raises(AudioError, match="while nobody says a keyword") as refused:
        measure_room(audio, open_model(bundled_models()[name]), seconds=600)
    assert words <= set(re.findall(r"`(\w+)` at", str(refused.value)))


def test_the_sentences_of_others_are_a_room():
    model = open_model(bundled_models()["computer"])
    room = measure(load_demo()[1], model)
    assert room.scores["computer"] > 0.02
    assert room.thresholds == {"computer": round(model.manifest.decision.threshold, 2)}


def test_digital_silence_is_no_room(model, tmp_path):
    silence = np.zeros(12 * 16_000, np.int16)
    path = write_take(tmp_path, silence, speaker="none")
    with pytest.raises(AudioError) as refused:
        measure(path, model)
    assert str(refused.value) == (
        f"A room must be measured with sound. Received: 10 of 10 s of digital silence from {path}. "
        f"{CHECK_MUTED}; or give another recording."
    )
    noise = np.random.default_rng(1).normal(0, 300, 12 * 16_000).astype(np.int16)
    noise[16_000 : 5 * 16_000] = 0  # as by a noise gate
    assert measure(write_take(tmp_path, noise, speaker="gated"), model).floor_dbfs < -30


def test_a_very_quiet_room_keeps_the_defaults_and_a_quiet_one_gets_gain(model, tmp_path):
    quiet = np.random.default_rng(1).integers(-2, 3, 12 * 16_000).astype(np.int16)
    room = measure(write_take(tmp_path, quiet, speaker="none"), model)
    assert room.loudest_dbfs < -80
    assert room.gain_db == 0.0
    assert set(room.thresholds.values()) == {round(model.manifest.decision.threshold, 2)}
    noise = np.random.default_rng(1).normal(0, 300, 12 * 16_000).astype(np.int16)
    room = measure(write_take(tmp_path, noise, speaker="noise"), model)
    assert room.loudest_dbfs == pytest.approx(-40.3, abs=0.5)
    assert room.gain_db == pytest.approx(-26 - room.loudest_dbfs, abs=0.1)


def test_ten_seconds_are_the_least(model, tmp_path):
    path = write_take(tmp_path, np.zeros(16_000, np.int16), speaker="none")
    with pytest.raises(AudioError, match=r"at least 10 s\. Received: 1\.0 s\."):
        measure(path, model)
