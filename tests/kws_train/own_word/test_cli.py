"""Options that `kws new` refuses before it does anything."""

import sys

import pytest
import sounds
from click.testing import CliRunner

from kws.cli import cli
from kws.errors import ConfigError, ModelError


def run(*arguments: object):
    return CliRunner().invoke(cli, ["new", *map(str, arguments)])


@pytest.fixture
def no_programs(monkeypatch):
    """A machine without flite and espeak-ng."""
    monkeypatch.setattr("shutil.which", lambda _: None)


def test_a_model_needs_its_suffix(tmp_path):
    result = run("hey robot", "--out", tmp_path / "model.bin")
    assert result.exit_code == 2
    assert "give a name that ends in .tflite" in result.output


def test_without_voices_there_must_be_recordings(tmp_path):
    result = run("hey robot", "--no-voices", "--out", tmp_path / "a.tflite")
    assert result.exit_code == 2
    assert "--no-voices needs --recordings to train on." in result.output


def test_a_phrase_is_given_once(tmp_path):
    result = run("robot", "Robot", "--out", tmp_path / "a.tflite")
    assert result.exit_code == 2
    assert "Give each PHRASE once." in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["robot", "computer"],
            "A model of microWakeWord has one word. Received: 2 phrases with --format "
            "microwakeword. Make a model of each; a device runs several.",
        ),
        (
            ["robot", "--small"],
            "--format microwakeword and --small exclude each other: that network is small. Leave "
            "--small out.",
        ),
        (
            ["VAD"],
            "ESPHome takes a model of the word vad for voice activity detection. Give another "
            "PHRASE.",
        ),
    ],
)
def test_what_no_model_of_microwakeword_can_be_is_refused(tmp_path, arguments, message):
    result = run(*arguments, "--format", "microwakeword", "--out", tmp_path / "a.tflite")
    assert result.exit_code == 2
    assert f"Error: {message}" in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


def test_another_format_is_refused_with_those_there_are(tmp_path):
    result = run("robot", "--format", "esphome", "--out", tmp_path / "a.tflite")
    assert result.exit_code == 2
    assert "'esphome' is not one of 'kws', 'microwakeword'." in result.output


def test_without_pymicro_features_nothing_is_synthesised(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymicro_features", None)
    result = run("robot", "--format", "microwakeword", "--out", tmp_path / "a.tflite")
    assert isinstance(result.exception, ModelError)
    assert "Run `pip install 'kws[micro]'`." in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_a_machine_without_voices_is_told_what_to_install(tmp_path, no_programs):
    result = run("hey robot", "--voices", tmp_path, "--out", tmp_path / "a.tflite")
    assert isinstance(result.exception, ConfigError)
    assert "Received: none on this machine" in str(result.exception)
    assert "pip install piper-tts" in str(result.exception)


@pytest.mark.parametrize("phrase", ["!?", "один два", "a " * 9])
def test_a_phrase_that_cannot_be_said_is_refused(tmp_path, phrase):
    pytest.importorskip("pocketsphinx")
    result = run(phrase, "--backend", "flite", "--out", tmp_path / "a.tflite")
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(("A phrase must have", "English has the letters"))
    assert not (tmp_path / "a.work").exists()


def test_an_empty_folder_of_recordings_is_refused(tmp_path, no_programs):
    (tmp_path / "recordings").mkdir()
    result = run(
        "robot",
        "--recordings",
        tmp_path / "recordings",
        "--no-voices",
        "--out",
        tmp_path / "a.tflite",
    )
    assert isinstance(result.exception, ConfigError)
    assert "with none" in str(result.exception)


@pytest.mark.slow
@pytest.mark.parametrize(("n_missed", "code"), [(20, 1), (1, 0)])
def test_a_model_that_is_not_usable_ends_with_exit_code_1(
    tmp_path, monkeypatch, tensorflow, n_missed, code
):
    from kws_train.own_word import pipeline
    from tests.kws_train.own_word.test_verdict import figures

    (tmp_path / "takes").mkdir()
    for i in range(3):
        sounds.write(tmp_path / "takes" / f"{i}.wav", sounds.voice(0.5))
    made = pipeline.WordModel(tmp_path / "a.tflite", figures(n_missed), tmp_path / "report.html")
    monkeypatch.setattr(pipeline, "build_word_model", lambda *_, **__: made)
    result = run(
        "hey robot",
        "--recordings",
        tmp_path / "takes",
        "--no-voices",
        "--out",
        tmp_path / "a.tflite",
    )
    assert result.exit_code == code, result.output
    assert ("in kws.toml:" in result.output) == (code == 0)
    last = result.output.splitlines()[-2:]
    assert any(line.startswith(("Not usable: ", "Works for these")) for line in last)
