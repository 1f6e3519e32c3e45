"""Piper's speakers are drawn and held out; the library itself is stood in for."""

import json
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from kws.errors import ConfigError
from kws_train.synth.voices import piper
from kws_train.synth.voices.accents import apply_accent
from kws_train.synth.voices.engine import Line
from kws_train.synth.voices.piper import Piper, language_of


def write_voice(folder, name, *, n_speakers, **settings):
    path = folder / f"{name}.onnx"
    path.write_bytes(name.encode())
    settings = {"num_speakers": n_speakers, "espeak": {"voice": "en-us"}, **settings}
    path.with_name(f"{name}.onnx.json").write_text(json.dumps(settings))
    return path


@pytest.fixture
def asked(monkeypatch):
    """Stand in for the library; returns what its voices are asked for."""
    asked = []

    class Voice:
        config = SimpleNamespace(sample_rate=22_050)

        def __init__(self, *, session, config):
            self.config.asked = config

        def phonemize(self, text):
            return [list("kəmpjˈuːɾɚ."), list(text)]

        def synthesize(self, text, settings):
            asked.append((text, settings))
            for _ in range(0 if text == "?" else 2):
                yield SimpleNamespace(audio_float_array=np.ones(11_025, np.float32))

    piper._open.cache_clear()
    library = SimpleNamespace(
        PiperVoice=Voice,
        SynthesisConfig=SimpleNamespace,
        PiperConfig=SimpleNamespace(from_dict=dict),
    )
    runtime = SimpleNamespace(
        SessionOptions=SimpleNamespace, InferenceSession=lambda *_, **__: None
    )
    monkeypatch.setitem(sys.modules, "piper", library)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.3")
    return asked


def test_speakers_are_drawn_and_every_tenth_is_held_out(tmp_path, asked):
    many = write_voice(tmp_path, "many", n_speakers=40)
    one = write_voice(tmp_path, "one", n_speakers=1)
    engine, held_out = Piper([many, one]), Piper([many, one], held_out=True)
    assert (engine.n_voices, held_out.n_voices) == (37, 4)
    random = np.random.default_rng(1)
    drawn = {engine.draw_voice(random).partition("~")[0] for _ in range(400)}
    assert {"many#1", "many#39", "one#0"} <= drawn
    assert not drawn & {"many#0", "many#10", "many#20", "many#30"}
    assert held_out.draw_voice(random) in {"many#0", "many#10", "many#20", "many#30"}


def test_a_line_is_said_by_its_speaker_at_its_speed(tmp_path, asked):
    engine = Piper([write_voice(tmp_path, "many", n_speakers=40)])
    samples = engine.speak(Line("off", "many#7", speed=2.0))
    (text, settings), *_ = asked
    assert (text, settings.speaker_id, settings.length_scale) == ("off", 7, 0.5)
    assert len(samples) == 16_000
    assert len(engine.speak(Line("?", "many#7"))) == 0


def test_an_accent_is_spoken_as_phonemes(tmp_path, asked):
    engine = Piper([write_voice(tmp_path, "many", n_speakers=40)])
    engine.speak(Line("go", "many#7~3"))
    (text, settings), *_ = asked
    assert text == f"[[ {apply_accent('kəmpjˈuːɾɚ. go', 3)} ]]"
    assert settings.speaker_id == 7


def test_most_who_speak_english_have_an_accent_and_none_who_are_held_out(tmp_path, asked):
    english = write_voice(tmp_path, "many", n_speakers=40)
    german = write_voice(tmp_path, "viele", n_speakers=40, espeak={"voice": "de"})

    def share(*models, **options):
        engine = Piper(models, **options)
        drawn = [engine.draw_voice(np.random.default_rng(i)) for i in range(300)]
        return np.mean(["~" in one for one in drawn])

    assert 0.5 < share(english) < 0.7
    assert share(german) == share(english, held_out=True) == 0


def test_it_survives_pickling(tmp_path, asked):
    engine = Piper([write_voice(tmp_path, "many", n_speakers=40)], held_out=True)
    again = pickle.loads(pickle.dumps(engine))
    assert (again.version, again.n_voices) == (engine.version, 4)


def test_another_model_is_another_version(tmp_path, asked):
    path = write_voice(tmp_path, "one", n_speakers=1)
    first = Piper([path]).version
    path.write_bytes(b"trained anew")
    assert Piper([path]).version != first


def test_no_speaker_to_hold_out_is_an_error(tmp_path, asked):
    one = write_voice(tmp_path, "one", n_speakers=1)
    with pytest.raises(ConfigError, match=r"one\.onnx, of which no speaker is held out"):
        Piper([one], held_out=True)


@pytest.mark.parametrize("settings", ["", "{", "[]", "{}", '{"espeak": 3}'])
def test_settings_that_are_none_are_named(tmp_path, settings):
    path = write_voice(tmp_path, "one", n_speakers=1)
    path.with_name("one.onnx.json").write_text(settings)
    with pytest.raises(ConfigError, match=r"needs its settings.* Received: .*one\.onnx\.json"):
        language_of(path)


def test_the_language_is_the_voice_files(tmp_path):
    assert language_of(write_voice(tmp_path, "a", n_speakers=1)) == "en"
    german = write_voice(tmp_path, "b", n_speakers=1, language={"family": "de", "code": "de_DE"})
    assert language_of(german) == "de"
