import numpy as np
import pytest

from kws.commands.calibrate_room import fragment, measure_room
from kws.commands.demo import load_demo
from kws.commands.record import write_take
from kws.config import SourceSettings, parse_config
from kws.decision import thresholds_for
from kws.errors import AudioError
from kws.model import bundled_models, open_model
from kws.sources import open_source


@pytest.fixture(scope="module")
def model():
    return open_model(bundled_models()["commands"])


def measure(path, model):
    with open_source(SourceSettings(input=str(path))) as source:
        return measure_room(source, model, seconds=600)


def test_a_room_with_keywords_in_it_raises_their_thresholds(model):
    _, path = load_demo()
    room = measure(path, model)
    default = model.manifest.decision.threshold
    assert all(value >= default for value in room.thresholds.values())
    assert any(value > default for value in room.thresholds.values())
    settings = parse_config(fragment(room, model="commands"))
    assert settings.source.gain_db == room.gain_db
    assert thresholds_for(settings.decision, model.manifest) == room.thresholds


def test_a_silent_room_keeps_the_defaults_and_a_quiet_one_gets_gain(model, tmp_path):
    silence = np.zeros(12 * 16_000, np.int16)
    room = measure(write_take(tmp_path, silence, speaker="none"), model)
    assert (room.floor_dbfs, room.loudest_dbfs, room.gain_db) == (-100.0, -100.0, 0.0)
    assert set(room.thresholds.values()) == {round(model.manifest.decision.threshold, 2)}
    noise = np.random.default_rng(1).normal(0, 300, 12 * 16_000).astype(np.int16)
    room = measure(write_take(tmp_path, noise, speaker="noise"), model)
    assert room.loudest_dbfs == pytest.approx(-40.3, abs=0.5)
    assert room.gain_db == pytest.approx(-26 - room.loudest_dbfs, abs=0.1)


def test_ten_seconds_are_the_least(model, tmp_path):
    path = write_take(tmp_path, np.zeros(16_000, np.int16), speaker="none")
    with pytest.raises(AudioError, match=r"at least 10 s\. Received: 1\.0 s\."):
        measure(path, model)
