"""The voices of this machine are found, and the others named with what to run for them."""

import shutil
from types import SimpleNamespace

import pytest

from kws.errors import ConfigError
from kws_train.synth.voices import discover, kokoro, piper, programs
from kws_train.synth.voices.discover import ENGINES, find_engines, open_engines, voices_folder


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Put libraries, programs and models there, and take all others away."""

    def machine(*present):
        monkeypatch.setattr(
            "shutil.which", lambda name: f"/usr/bin/{name}" if name in present else None
        )
        monkeypatch.setattr(
            "importlib.util.find_spec", lambda name: name if name in present else None
        )
        if "piper" in present:
            (tmp_path / "en_US-x.onnx").touch()
            (tmp_path / "en_US-x.onnx.json").write_text('{"espeak": {"voice": "en-us"}}')
        if "kokoro_onnx" in present:
            (tmp_path / "kokoro-v1.0.onnx").touch()
            (tmp_path / "voices-v1.0.bin").touch()
        for module, name in (
            (piper, "Piper"),
            (kokoro, "Kokoro"),
            (programs, "Flite"),
            (programs, "Espeak"),
        ):
            monkeypatch.setattr(
                module, name, lambda *_, name=name, **how: SimpleNamespace(name=name, how=how)
            )
        return tmp_path

    return machine


@pytest.mark.parametrize(
    ("present", "opened"),
    [
        (ENGINES, ["Flite", "Espeak"]),  # the libraries have other names
        (("piper", "kokoro_onnx", "flite", "espeak-ng"), ["Piper", "Kokoro"]),
        (("kokoro_onnx", "espeak-ng"), ["Kokoro"]),
        (("flite", "espeak-ng"), ["Flite", "Espeak"]),
        (("espeak-ng",), ["Espeak"]),
    ],
)
def test_neural_voices_are_preferred_to_programs(machine, present, opened):
    folder = machine(*(set(present) - ({"piper"} if present is ENGINES else set())))
    assert [one.name for one in open_engines(folder=folder)] == opened


def test_those_asked_for_are_opened(machine):
    folder = machine("piper", "flite", "espeak-ng")
    opened = open_engines(["espeak-ng", "piper"], folder=folder)
    assert [one.name for one in opened] == ["Piper", "Espeak"]


def test_without_any_voice_each_is_named_with_its_command(machine):
    folder = machine()
    with pytest.raises(ConfigError) as caught:
        open_engines(folder=folder)
    message = str(caught.value)
    assert "Synthesis in `en` needs a voice. Received: none on this machine" in message
    assert f"--download-dir {folder} en_US-libritts_r-medium" in message
    assert "pip install piper-tts" in message
    assert "pip install kokoro-onnx" in message
    assert "sudo apt install flite" in message
    assert "sudo apt install espeak-ng" in message


def test_one_asked_for_and_missing_is_named_alone(machine):
    folder = machine("espeak-ng")
    with pytest.raises(ConfigError) as caught:
        open_engines(["piper"], folder=folder)
    assert "Received: espeak-ng on this machine" in str(caught.value)
    assert "flite" not in str(caught.value)


def test_a_library_without_its_models_is_not_there(machine, tmp_path):
    machine("piper", "kokoro_onnx")
    for path in tmp_path.iterdir():
        path.unlink()
    assert [one.open for one in find_engines(tmp_path)] == [None] * 4


def test_a_folder_that_is_none_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"must be the folder .*: .*absent, which is no folder"):
        open_engines(folder=tmp_path / "absent")


def test_an_unknown_name_is_an_error():
    with pytest.raises(ConfigError, match=r"Received: pipper. Did you mean `piper`\?"):
        open_engines(["pipper"])


def test_other_languages_have_fewer(machine):
    folder = machine("piper", "kokoro_onnx", "flite", "espeak-ng")
    assert [one.name for one in find_engines(folder, language="de") if one.open] == ["espeak-ng"]
    remedies = {one.name: one.remedy for one in find_engines(folder, language="de")}
    assert remedies["flite"] == "does not speak it, only en"


def test_where_models_are_looked_for_can_be_said(monkeypatch, tmp_path):
    monkeypatch.setenv("KWS_VOICES", str(tmp_path))
    assert voices_folder() == tmp_path
    monkeypatch.delenv("KWS_VOICES")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert voices_folder() == tmp_path / "kws/voices"


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")
def test_what_holds_no_speaker_out_is_left_away(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise ConfigError("none is held out")

    found = [
        discover.EngineStatus("piper", refuse, ""),
        discover.EngineStatus("espeak-ng", programs.Espeak, ""),
    ]
    monkeypatch.setattr(discover, "find_engines", lambda *_, **__: found)
    names = ["piper", "espeak-ng"]
    assert [one.name for one in open_engines(names, held_out=True)] == ["espeak-ng"]
    with pytest.raises(ConfigError, match="none is held out"):
        open_engines(names)
