import re

import pytest

from kws.config import (
    Config,
    DecisionSettings,
    GateSettings,
    HookSettings,
    ModelSettings,
    SourceSettings,
    load_config,
    parse_config,
)
from kws.errors import ConfigError

HOOK = 'keyword = "stop"\ncommand = "true"\n'


def test_an_empty_file_gives_the_defaults():
    assert parse_config("") == Config(
        model=ModelSettings(name="commands", n_threads=1),
        source=SourceSettings(input="mic", device=None, chunk_ms=80),
        gate=GateSettings(enabled=True, aggressiveness=1, hangover_ms=700, pre_roll_ms=500),
        decision=DecisionSettings(
            threshold=None,
            thresholds={},
            false_alarms_per_hour=None,
            smoothing_ms=None,
            refractory_ms=None,
        ),
        hooks=[],
    )


def test_a_hook_has_defaults_too():
    (hook,) = parse_config(f"[[hooks]]\n{HOOK}").hooks
    assert hook == HookSettings(
        keyword="stop", command="true", shell=False, timeout_s=30.0, max_running=4
    )


def test_every_key_is_read():
    config = parse_config(
        """
        [model]
        name = "mine.tflite"
        n_threads = 2
        [source]
        input = "-"
        device = "USB"
        chunk_ms = 20
        [gate]
        enabled = false
        aggressiveness = 3
        hangover_ms = 0
        pre_roll_ms = 300
        [decision]
        threshold = 1
        thresholds = { stop = 0.7, "hey computer" = 0 }
        false_alarms_per_hour = 0.5
        smoothing_ms = 100
        refractory_ms = 900
        [[hooks]]
        keyword = "*"
        command = ["echo", "a b"]
        [[hooks]]
        keyword = "stop"
        command = "echo | cat"
        shell = true
        timeout_s = 2
        max_running = 1
        """
    )
    assert config == Config(
        model=ModelSettings(name="mine.tflite", n_threads=2),
        source=SourceSettings(input="-", device="USB", chunk_ms=20),
        gate=GateSettings(enabled=False, aggressiveness=3, hangover_ms=0, pre_roll_ms=300),
        decision=DecisionSettings(
            threshold=1.0,
            thresholds={"stop": 0.7, "hey computer": 0.0},
            false_alarms_per_hour=0.5,
            smoothing_ms=100,
            refractory_ms=900,
        ),
        hooks=[
            HookSettings(keyword="*", command=["echo", "a b"]),
            HookSettings(
                keyword="stop", command="echo | cat", shell=True, timeout_s=2.0, max_running=1
            ),
        ],
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[source]\n[[sources]]",
            "kws.toml must hold either [source] or [[sources]]. Received: both. Write each as a "
            "[[sources]].",
        ),
        (
            "[model]\n[[models]]",
            "kws.toml must hold either [model] or [[models]]. Received: both. Write each as a "
            "[[models]].",
        ),
        (
            "sources = []",
            "`sources` in the top level of kws.toml must hold at least one. Received: []. Add a "
            "[[sources]], or leave it out.",
        ),
        (
            "[[sources]]\n[[sources]]\nname = 'mic'",
            "Each of [[sources]] in kws.toml must have a name of its own. Received: `mic` 2 times. "
            "Set `name` in each.",
        ),
        (
            "[[sources]]\nnam = 'mic'",
            "Every key in kws.toml must be one that kws knows. Received: `nam` in "
            "`sources[0]`. Did you mean `name`?",
        ),
        (
            "[[models]]\n[[models]]\n[models.decision]\ntreshold = 1",
            "Every key in kws.toml must be one that kws knows. Received: `treshold` in "
            "`models[1].decision`. Did you mean `threshold`?",
        ),
        (
            "[[models]]\n[models.decision.thresholds]\nstop = 2",
            "`models[0].decision.thresholds[...]` in kws.toml: expected `float` <= 1.0. Received: "
            '{"stop":2}. Change it.',
        ),
        (
            "[sources]\nname = 'mic'",
            '`sources` in kws.toml: expected `array`, got `table`. Received: {"name":"mic"}. Write '
            "[[sources]], in two brackets.",
        ),
    ],
)
def test_lists_that_break_a_rule_are_refused(text, message, refused):
    error = refused(text)
    assert str(error).startswith(message)
    assert type(error) is ConfigError


def test_what_is_not_toml_is_refused_with_its_line(refused):
    error = refused("[gate]\nenabled = yes")
    assert str(error) == (
        "kws.toml must be TOML. Received: Invalid value (at line 2, column 11). Correct that line."
    )
    assert error.exit_code == 2


@pytest.mark.parametrize("text", ["x = " + 5000 * "[", "x = " + 5000 * "9", "x = 1\nx = 2", "\0"])
def test_text_beyond_all_bounds_is_refused(text, refused):
    assert re.match(r"kws\.toml must be TOML\. Received: ", str(refused(text)))


def test_a_file_is_read(tmp_path):
    file = tmp_path / "kws.toml"
    file.write_text('[model]\nname = "größe"\n', encoding="utf-8")
    assert load_config(file).model.name == "größe"


def test_a_byte_order_mark_is_passed_over(tmp_path):
    file = tmp_path / "kws.toml"
    file.write_text("[gate]\nenabled = false\n", encoding="utf-8-sig")
    assert load_config(file).gate.enabled is False


def test_an_error_names_the_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[gate]\nenabled = 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value) == (
        f"`gate.enabled` in {file}: expected `bool`, got `int`. Received: 1. Change it."
    )


def test_a_missing_file_is_refused(tmp_path, refused):
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "kws.toml")
    assert str(caught.value) == (
        f"The configuration file must be readable. Received: {tmp_path}/kws.toml "
        f"(No such file or directory). Give its path with --config."
    )


def test_a_folder_is_refused(tmp_path, refused):
    with pytest.raises(ConfigError, match=re.escape(f"Received: {tmp_path} (Is a directory).")):
        load_config(tmp_path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path, refused):
    file = tmp_path / "kws.toml"
    file.write_bytes('name = "größe"'.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value) == (
        f"{file} must be UTF-8 text. Received: byte 0xf6 at offset 10. Save it as UTF-8."
    )
