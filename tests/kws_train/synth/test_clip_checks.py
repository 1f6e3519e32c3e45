"""Clips are trimmed, and defects of clips are found."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kws.errors import ConfigError
from kws_train.data.audio_files import read_samples
from kws_train.synth import clip_checks
from kws_train.synth.clip_checks import MARGIN_S, Whisper, find_defect, matches_text, trim_silence

LIBRISPEECH = Path(__file__).parents[2] / "data" / "librispeech"
RATE_HZ = 16_000
MARGIN = int(MARGIN_S * RATE_HZ)


def test_silence_at_the_ends_is_cut_and_pauses_within_are_kept(voiced):
    pause = np.zeros(8000, np.int16)
    said = np.concatenate([voiced[:8000], pause, voiced[:8000]])
    clip = trim_silence(np.concatenate([np.zeros(9600, np.int16), said, np.zeros(4800, np.int16)]))
    assert len(clip) == len(said) + 2 * MARGIN
    assert np.array_equal(clip[MARGIN:-MARGIN], said)


def test_missing_silence_is_filled_up(voiced):
    clip = trim_silence(voiced[:8000])
    assert len(clip) == 8000 + 2 * MARGIN
    assert not clip[:MARGIN].any()


@pytest.mark.parametrize("samples", [np.zeros(0, np.int16), np.zeros(50, np.int16), np.zeros(9000)])
def test_nothing_stays_nothing(samples):
    assert len(trim_silence(samples.astype(np.int16))) == 0


def test_real_speech_is_without_fault():
    for path in sorted(LIBRISPEECH.glob("**/*.opus")):
        assert (
            find_defect(trim_silence(read_samples(path)[: 2 * RATE_HZ]), text="some twenty letters")
            is None
        )


def test_a_long_phrase_may_last_longer(voiced):
    long = np.tile(voiced, 2)[: 3 * RATE_HZ]
    assert find_defect(long, text="off") == "too long"
    assert find_defect(long, text="turn on the light in here") is None


@pytest.mark.parametrize(
    "heard", ["Hey, computer.", "hey computers", "Hey commuter!", "a computer"]
)
def test_what_a_recogniser_may_write_passes(heard):
    assert matches_text(heard, "hey computer")


@pytest.mark.parametrize("heard", ["", "Thank you.", "you", "Hey."])
def test_what_is_something_else_does_not(heard):
    assert not matches_text(heard, "hey computer")


def test_compounds_may_be_written_apart():
    assert matches_text("Snow boy.", "snowboy")


def test_whisper_is_asked_in_its_own_format(monkeypatch, voiced):
    class Model:
        def __init__(self, model, **options):
            assert (model, options["compute_type"]) == ("tiny", "int8")

        def transcribe(self, wave, *, language, **_):
            assert (wave.dtype, language) == (np.float32, "de")
            assert 0.1 < np.abs(wave).max() <= 1
            return iter([SimpleNamespace(text=" Hallo"), SimpleNamespace(text=" Küche.")]), None

    clip_checks._open.cache_clear()
    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=Model))
    whisper = Whisper(language="de")
    assert whisper.transcribe(voiced).split() == ["Hallo", "Küche."]
    assert whisper.name == "whisper-tiny-de"
    clip_checks._open.cache_clear()


def test_without_whisper_it_says_what_to_install(monkeypatch):
    clip_checks._open.cache_clear()
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(ConfigError, match=r"Run `pip install 'kws\[read-back\]'`"):
        Whisper()


def test_a_model_that_cannot_be_had_is_named(monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    clip_checks._open.cache_clear()
    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=fail))
    with pytest.raises(ConfigError, match=r"model `tiny`. Received: no route to host."):
        Whisper()
