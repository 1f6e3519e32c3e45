import os

import pytest

from kws.config import load_config, parse_config
from kws.config_files import origins, read_config_files
from kws.errors import ConfigError, HookError

BASE = """# the kitchen
[decision]
threshold = 0.5
smoothing_ms = 80  # ms

[decision.thresholds]
stop = 0.4

[[hooks]]
keyword = "stop"
command = [
  "logger",   # a list
  "stop",
]
"""
ROOM = """[decision]
threshold = 0.7
thresholds = {go = 0.6}

[[hooks]]
keyword = "go"
command = "true"
environment.PLACE = "kitchen"
"""


@pytest.fixture
def config(tmp_path):
    """A kws.toml with a drop-in; call it to write a further file."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    write("kws.toml.d/50-room.toml", ROOM)
    write.path = write("kws.toml", BASE)
    return write


def test_drop_ins_override_keys_and_add_hooks(config):
    loaded = load_config(config.path)
    assert loaded.decision.threshold == 0.7
    assert loaded.decision.smoothing_ms == 80
    assert loaded.decision.thresholds == {"stop": 0.4, "go": 0.6}
    assert [hook.keyword for hook in loaded.hooks] == ["stop", "go"]


def test_drop_ins_are_read_in_the_order_of_their_names(config):
    config("kws.toml.d/60-later.toml", "[decision]\nthreshold = 0.8\n")
    config("kws.toml.d/40-sooner.toml", "[decision]\nthreshold = 0.2\nsmoothing_ms = 20\n")
    config("kws.toml.d/70-other.conf", "[decision]\nthreshold = 0.9\n")
    loaded = load_config(config.path)
    assert (loaded.decision.threshold, loaded.decision.smoothing_ms) == (0.8, 20)


def test_without_drop_ins_the_file_is_all(tmp_path):
    (tmp_path / "kws.toml").write_text(BASE)
    assert load_config(tmp_path / "kws.toml") == parse_config(BASE)


def test_models_of_drop_ins_are_relative_to_the_folder_of_kws_toml(config, tmp_path):
    config("kws.toml.d/60-model.toml", '[model]\nname = "own.tflite"\n')
    assert load_config(config.path).model.name == str(tmp_path / "own.tflite")


def test_a_message_names_the_drop_in_that_breaks_a_rule(config):
    path = config("kws.toml.d/60-typo.toml", "[decision]\nthreshhold = 0.8\n")
    with pytest.raises(ConfigError, match=rf"^Every key in {path} must be .*`threshhold`"):
        load_config(config.path)
    path.write_text('[[hooks]]\ncommand = "echo x > y"\n')
    with pytest.raises(HookError, match=r"Received: `>` in"):
        load_config(config.path)
    path.write_text("[decision\n")
    with pytest.raises(ConfigError, match=rf"^{path} must be TOML\."):
        load_config(config.path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=rf"^{path} must be UTF-8 text\."):
        load_config(config.path)


def test_what_only_the_files_together_break_is_refused(config):
    config("kws.toml", "[source]\nname = 'a'\n")
    config("kws.toml.d/50-room.toml", "[[sources]]\nname = 'b'\n")
    with pytest.raises(ConfigError, match=r"must hold either \[source\] or \[\[sources\]\]"):
        load_config(config.path)


@pytest.mark.skipif(os.geteuid() != 0, reason="holds for root only")
def test_a_drop_in_that_every_user_may_change_is_refused(config, tmp_path):
    config("kws.toml.d/60-open.toml", "[model]\n").chmod(0o666)
    with pytest.raises(ConfigError, match=r"of root must not be writable by every user.*60-open"):
        load_config(config.path)


def test_each_key_has_the_line_on_which_it_begins(config):
    base, room = config.path, config.path.with_name("kws.toml.d") / "50-room.toml"
    assert origins(read_config_files(config.path)) == {
        ("decision", "threshold"): (room, 2),
        ("decision", "smoothing_ms"): (base, 4),
        ("decision", "thresholds", "stop"): (base, 7),
        ("decision", "thresholds", "go"): (room, 3),
        ("hooks", 0, "keyword"): (base, 10),
        ("hooks", 0, "command"): (base, 11),
        ("hooks", 1, "keyword"): (room, 6),
        ("hooks", 1, "command"): (room, 7),
        ("hooks", 1, "environment", "PLACE"): (room, 8),
    }


def test_lines_are_right_behind_texts_of_several_lines_and_blank_ones(tmp_path):
    path = tmp_path / "kws.toml"
    path.write_text(
        'model = {name = "commands"}\n\n# not = "a key"\n\n[[hooks]]\n'
        'command = """\n[not.a.table]\nnot = 1\n"""\n\nshell = true\n'
    )
    found = {key: line for key, (_, line) in origins(read_config_files(path)).items()}
    assert found == {
        ("model", "name"): 1,
        ("hooks", 0, "command"): 6,
        ("hooks", 0, "shell"): 11,
    }
