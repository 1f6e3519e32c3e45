from pathlib import Path

import pytest

from kws.config import RecordingSettings, SourceSettings, load_config
from kws.errors import ConfigError, HookError, ModelError
from kws.model import model_path
from kws.paths import expanded, relative_to_folder
from kws.sinks.clip_recorder import ClipRecorder
from kws.sinks.hook_command import player_words


@pytest.fixture
def _homeless(monkeypatch):
    """As in a container with a user of no name: no HOME, and no entry for the user."""

    expand = Path.expanduser

    def refuse(path):
        if str(path).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return expand(path)

    monkeypatch.setattr(Path, "expanduser", refuse)


def message(what, path):
    return (
        f"`~` in {what} must stand for a home folder. Received: {path}, and there is none: HOME is "
        f"not set, or there is no such user. Write the whole path."
    )


@pytest.mark.usefixtures("_homeless")
@pytest.mark.parametrize(
    ("use", "error", "what"),
    [
        (model_path, ModelError, "a model's path"),
        (
            lambda path: player_words(path, place="entry 1 of [[hooks]]"),
            HookError,
            "a hook's `awake_wav` in entry 1 of [[hooks]]",
        ),
        (
            lambda path: ClipRecorder(RecordingSettings(folder=path)),
            ConfigError,
            "`[recording] folder`",
        ),
    ],
)
def test_a_tilde_without_a_home_is_an_error_of_ours(use, error, what):
    with pytest.raises(error) as refused:
        use("~/it")
    assert str(refused.value) == message(what, "~/it")


@pytest.mark.usefixtures("_homeless")
def test_the_socket_of_the_daemon_too(tmp_path, capsys):
    from kws.cli import main

    (tmp_path / "kws.toml").write_text("[daemon]\nsocket = '~/kws.sock'\n")
    for command in ("status", "daemon"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--config", str(tmp_path / "kws.toml")])
        assert ended.value.code == 2
        assert message("`[daemon] socket`", "~/kws.sock") in capsys.readouterr().err


def test_a_user_that_does_not_exist_has_no_home():
    with pytest.raises(ConfigError, match="there is no such user"):
        expanded("~no-such-user/a", what="it")
    assert expanded("/a/b", what="it") == Path("/a/b")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("commands", "commands"),
        ("mine.tflite", "/etc/kws/mine.tflite"),
        ("models/mine.tflite", "/etc/kws/models/mine.tflite"),
        ("/a/mine.tflite", "/a/mine.tflite"),
        ("~/mine.tflite", "~/mine.tflite"),
    ],
)
def test_relative_paths_of_models_start_at_the_folder_of_the_settings(name, path):
    assert relative_to_folder(name, Path("/etc/kws")) == path


def test_models_are_found_beside_kws_toml_wherever_kws_is_started(tmp_path, monkeypatch):
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "kws.toml").write_text("[model]\nname = 'mine.tflite'\n")
    (folder / "many.toml").write_text("[[models]]\nname = 'commands'\n[[models]]\nname = 'a/b'\n")
    monkeypatch.chdir(tmp_path)
    config = load_config(folder / "kws.toml")
    assert [one.name for one in config.every_model] == [str(folder / "mine.tflite")]
    assert load_config(Path("etc/kws.toml")).model.name == "etc/mine.tflite"
    names = [one.name for one in load_config(folder / "many.toml").every_model]
    assert names == ["commands", str(folder / "a/b")]


@pytest.mark.parametrize("url", ["http://host/a.mp3", "rtsp://host:554/a", "file:///a.wav"])
def test_a_url_names_what_can_be_given_and_the_ffmpeg_line(url):
    with pytest.raises(ConfigError) as refused:
        SourceSettings(input=url)
    assert str(refused.value) == (
        f"An `input` that is a URL must be udp://HOST:PORT or tcp://HOST:PORT. Received: {url}. "
        "Decode it: `ffmpeg -i URL -f s16le -ar 16000 -ac 1 - | kws listen -`; in kws.toml, set "
        "that ffmpeg line as `command`."
    )


def test_the_password_in_a_url_is_not_repeated():
    with pytest.raises(ConfigError) as refused:
        SourceSettings(input="rtsp://me:secret@camera/a")
    assert "secret" not in str(refused.value)
    assert "rtsp://…@camera/a" in str(refused.value)
