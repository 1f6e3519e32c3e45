"""What comes with kws: small, documented, licensed, and it hears what it says it hears."""

from pathlib import Path

import pytest
import soundfile

from kws.commands.demo import load_demo
from kws.model import bundled_models, open_model
from kws.spotter import Spotter

WORDS = Path(__file__).parent.parent / "data/words"
MODELS = bundled_models()


def heard(name: str, recording: Path) -> list[str]:
    samples, rate_hz = soundfile.read(recording, dtype="int16")
    assert rate_hz == 16_000
    spotter = Spotter(open_model(MODELS[name]))
    return [one.keyword for one in (*spotter.process(samples), *spotter.flush())]


def test_all_are_there():
    words = ("commands", "computer", "hey_computer")
    assert set(MODELS) == {*words, *(f"{word}-small" for word in words)}


@pytest.mark.parametrize("name", MODELS)
def test_it_is_small_has_a_card_and_says_whose_data_it_learned_from(name):
    path, manifest = MODELS[name], open_model(MODELS[name]).manifest
    has_embedding = name in {"commands", "computer"}
    assert path.stat().st_size <= (450_000 if has_embedding else 100_000)
    assert f"`{name}`" in path.with_suffix(".md").read_text(encoding="utf-8").splitlines()[0]
    assert manifest.name == name
    assert manifest.licence == "Apache-2.0"
    assert all(
        source.licence.startswith(("CC BY", "Apache", "MIT", "public")) for source in manifest.data
    )
    assert any(source.name.startswith("LibriSpeech") for source in manifest.data)
    assert any(point.false_alarms_per_hour <= 5 for point in manifest.calibration)


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"commands", "commands-small"}))
def test_a_wake_word_hears_its_word_and_is_silent_in_a_minute_of_other_talk(name):
    word = name.removesuffix("-small")
    assert heard(name, WORDS / f"{word}.flac") == [word]
    _, talk = load_demo()
    assert heard(name, talk) == []
