"""Kokoro's voices are blended; the library itself is stood in for."""

import pickle
import sys
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from kws.errors import ConfigError
from kws_train.synth.voices import accents, kokoro
from kws_train.synth.voices.engine import Line
from kws_train.synth.voices.kokoro import HELD_OUT, Kokoro

VOICES = ("af_bella", "am_adam", "bf_emma", "zf_xiaoni", "ef_dora", *HELD_OUT)


class FakeKokoro:
    """Says half a second of a tone, and remembers how."""

    asked: ClassVar = []

    @classmethod
    def from_session(cls, session, voices):
        return cls()

    def get_voices(self):
        return list(VOICES)

    def get_voice_style(self, name):
        return np.full((510, 1, 256), VOICES.index(name), np.float32)

    tokenizer = SimpleNamespace(phonemize=lambda text, language: f"{language} kəmpjˈuːɾɚ")

    def create(self, text, **how):
        self.asked.append((text, how))
        return np.sin(np.arange(12_000) / 20).astype(np.float32), 24_000


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Return the paths of a model and voices that the fake library opens."""
    FakeKokoro.asked.clear()
    kokoro._open.cache_clear()
    runtime = SimpleNamespace(
        SessionOptions=SimpleNamespace, InferenceSession=lambda *_, **__: None
    )
    monkeypatch.setitem(sys.modules, "kokoro_onnx", SimpleNamespace(Kokoro=FakeKokoro))
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    for name in ("kokoro.onnx", "voices.npz"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path / "kokoro.onnx", tmp_path / "voices.npz"


def test_voices_are_blended_in_all_ways_and_none_held_out(files):
    engine = Kokoro(*files)
    drawn = [engine.draw_voice(np.random.default_rng(i)) for i in range(300)]
    assert {"+" in one for one in drawn} == {"/" in one for one in drawn} == {True, False}
    assert not any(held in one for one in drawn for held in HELD_OUT)
    assert len(set(drawn)) > 100
    english = [one for one in drawn if "_" in one and "zf" not in one and "ef" not in one]
    assert 0.65 < len(english) / 300 < 0.95


def test_held_out_voices_speak_alone(files):
    engine = Kokoro(*files, held_out=True)
    assert {engine.draw_voice(np.random.default_rng(i)) for i in range(60)} == set(HELD_OUT)


def test_most_who_speak_english_have_an_accent_and_none_who_are_held_out(files):
    def share(**options):
        engine = Kokoro(*files, **options)
        drawn = [engine.draw_voice(np.random.default_rng(i)) for i in range(300)]
        return np.mean(["~" in one for one in drawn])

    assert 0.5 < share() < 0.7
    assert share(held_out=True) == share(language="es") == 0


def test_an_accent_is_spoken_by_the_voice_that_has_it(files):
    Kokoro(*files).speak(Line("computer", "bf_emma~7"))
    Kokoro(*files).speak(Line("computer", "bf_emma"))
    (accented, how), (plain, how_plain) = FakeKokoro.asked
    assert plain == "computer"
    assert not how_plain["is_phonemes"]
    assert accented == accents.apply_accent("en-gb kəmpjˈuːɾɚ", 7)
    assert how["is_phonemes"]
    assert np.array_equal(how["voice"], how_plain["voice"])


@pytest.mark.parametrize(
    ("voice", "first", "last"),
    [
        ("am_adam~12", 1, 1),
        ("am_adam", 1, 1),
        ("am_adam:0.25+zf_xiaoni:0.75", 2.5, 2.5),
        ("am_adam:0.33+zf_xiaoni:0.33", 2, 2),
        ("bf_emma/am_adam", 2, 1),
    ],
)
def test_a_style_is_what_its_name_says(files, voice, first, last):
    Kokoro(*files).speak(Line("off", voice))
    style = FakeKokoro.asked[0][1]["voice"]
    assert (style.shape, style.dtype) == ((510, 1, 256), np.float32)
    assert style[0, 0, 0] == pytest.approx(first)
    assert style[0, 0, -1] == pytest.approx(last)


def test_pitch_is_made_by_speaking_slower_and_playing_faster(files):
    engine = Kokoro(*files)
    samples = engine.speak(Line("off", "bf_emma", speed=1.0, semitones=12))
    (text, how), *_ = FakeKokoro.asked
    assert (text, how["speed"], how["lang"]) == ("off", 0.5, "en-gb")
    assert len(samples) == 4000


def test_it_opens_once_and_survives_pickling(files):
    engine = Kokoro(*files, held_out=True)
    again = pickle.loads(pickle.dumps(engine))
    assert again.version == engine.version
    assert again._opened is engine._opened
    assert again.n_voices == len(HELD_OUT)


def test_other_languages_have_their_own_voices(files):
    engine = Kokoro(*files, language="es")
    engine.speak(Line("hola", "ef_dora"))
    assert FakeKokoro.asked[0][1]["lang"] == "es"
    with pytest.raises(ConfigError, match=r"Kokoro speaks en, es, .*\. Received: de"):
        Kokoro(*files, language="de")


def test_missing_files_are_named(files, tmp_path):
    with pytest.raises(ConfigError, match=r"needs its model and its voices. Received: .*absent"):
        Kokoro(tmp_path / "absent.onnx", files[1])
