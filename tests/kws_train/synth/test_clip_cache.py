"""Synthesised clips and transcripts are kept."""

from types import SimpleNamespace

import pytest

from kws_train.synth.clip_cache import SpeechError, render, transcript
from kws_train.synth.voices.engine import Line


def engine(speak):
    return SimpleNamespace(name="hums", version="1", speak=speak)


def test_a_line_is_rendered_once(voiced, tmp_path):
    first, is_new = render(Line("off", "a"), engine(lambda line, /: voiced), cache=tmp_path)
    assert is_new
    assert render(Line("off", "a"), engine(None), cache=tmp_path) == (first, False)
    assert render(Line("on", "a"), engine(lambda line, /: voiced), cache=tmp_path)[0] != first


def test_the_error_of_an_engine_names_engine_and_text(tmp_path):
    def fail(line, /):
        raise ValueError("no such phoneme")

    message = r"^hums failed to speak `off`: ValueError\('no such phoneme'\)$"
    with pytest.raises(SpeechError, match=message):
        render(Line("off", "a"), engine(fail), cache=tmp_path)
    assert not list(tmp_path.rglob("*.flac"))


def test_a_clip_is_transcribed_once(voiced, tmp_path):
    clip, _ = render(Line("off", "a"), engine(lambda line, /: voiced), cache=tmp_path)
    said = iter(["Off."])
    transcriber = SimpleNamespace(name="told", transcribe=lambda samples, /: next(said))
    assert [transcript(clip, transcriber) for _ in range(2)] == ["Off.", "Off."]
