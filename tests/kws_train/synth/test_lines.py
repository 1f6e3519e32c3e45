"""Random renditions of phrases."""

from types import SimpleNamespace

import numpy as np

from kws_train.synth.lines import draw_line, engine_weights, speaker_name
from kws_train.synth.phrases import Phrase
from kws_train.synth.voices.engine import Line


def test_a_line_varies_in_every_way():
    phrase = Phrase.of("hey computer")
    engine = SimpleNamespace(draw_voice=lambda random, /: f"voice{random.integers(4)}")
    lines = [draw_line(phrase, engine, np.random.default_rng(i)) for i in range(200)]
    assert {line.text[-1] for line in lines} == {"r", ".", "!", "?", ","}
    between = {line.text[3:].lower().partition("computer")[0] for line in lines}
    assert between == {" ", ", ", "... "}
    speeds, semitones = ([getattr(line, key) for line in lines] for key in ("speed", "semitones"))
    assert 0.75 <= min(speeds) < 0.85 < 1.2 < max(speeds) <= 1.35
    assert -3 <= min(semitones) < -1.5 < 1.5 < max(semitones) <= 3
    assert len(set(lines)) == 200


def test_engines_are_drawn_by_their_voices_up_to_a_limit():
    engines = [SimpleNamespace(n_voices=n) for n in (20, 60, 900)]
    assert engine_weights(engines).tolist() == [20 / 140, 60 / 140, 60 / 140]


def test_a_voice_is_a_speaker_without_accent_and_shares():
    assert speaker_name("af_bella:0.31+am_adam:0.69~12") == "afbella-amadam"
    assert speaker_name("en_US-libritts#17") == "enUS-libritts-17"


def test_a_line_is_all_that_a_clip_depends_on():
    assert Line("off", "kal") == Line("off", "kal", 1.0, 0.0) != Line("off", "kal", 1.1)
