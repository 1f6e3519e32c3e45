"""flite and espeak-ng speak, where they are installed."""

import shutil

import numpy as np
import pytest

from kws.errors import ConfigError
from kws_train.synth.voices.engine import Line
from kws_train.synth.voices.programs import Espeak, Flite

PROGRAMS = [
    pytest.param(
        engine,
        marks=pytest.mark.skipif(
            not shutil.which(engine.name), reason=f"{engine.name} is not installed"
        ),
    )
    for engine in (Espeak, Flite)
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_says_a_word(program):
    engine = program()
    voice = engine.draw_voice(np.random.default_rng(1))
    plain = engine.speak(Line("Hey, computer.", voice))
    assert plain.dtype == np.int16
    assert np.abs(plain.astype(int)).max() == 20_000
    slow = engine.speak(Line("Hey, computer.", voice, speed=0.7))
    assert len(slow) > 1.15 * len(plain)
    assert engine.version[0].isdigit()


@pytest.mark.parametrize("program", PROGRAMS)
def test_semitones_raise_the_pitch(program, pitch_hz):
    engine = program()
    voice = {"espeak-ng": "en-us+m3", "flite": "slt"}[engine.name]
    low, high = (
        pitch_hz(engine.speak(Line("oh no", voice, semitones=semitones))) for semitones in (-3, 3)
    )
    assert 1.15 < high / low < 2.0


@pytest.mark.parametrize("program", PROGRAMS)
def test_held_out_voices_are_none_of_the_others(program):
    drawn = [
        {
            engine.draw_voice(np.random.default_rng(i)).partition("+")[2]
            or engine.draw_voice(np.random.default_rng(i))
            for i in range(200)
        }
        for engine in (program(), program(held_out=True))
    ]
    assert drawn[0]
    assert drawn[1]
    assert not drawn[0] & drawn[1]


@pytest.mark.parametrize("program", [Espeak, Flite])
def test_a_missing_program_is_named(program, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match=f"Run `sudo apt install {program.name}`"):
        program()


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")
def test_espeak_speaks_other_languages_and_says_which_it_does_not():
    german = Espeak(language="de")
    assert german.draw_voice(np.random.default_rng(1)).startswith("de+")
    assert len(german.speak(Line("Küche", "de+m1"))) > 4000
    with pytest.raises(ConfigError, match=r"know the language. Received: klingon"):
        Espeak(language="klingon")
