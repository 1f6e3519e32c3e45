import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws.config import (
    Config,
    DecisionSettings,
    GateSettings,
    ModelSettings,
    SourceSettings,
    parse_config,
)
from kws.errors import ConfigError, HookError, KwsError


def received(value):
    """Return how a message shows a value of TOML: as JSON."""
    return f'"{value}"' if "-01-" in value else value.replace("'", '"')


HOOK = 'keyword = "stop"\ncommand = "true"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "modell = 1",
            "Every key in kws.toml must be one that kws knows. Received: `modell` in the top "
            "level. Did you mean `model`? Known there: model, models, source, "
            "sources, gate, decision, hooks, recording, daemon, wyoming, mqtt, ui.",
        ),
        (
            "[gate]\nagressiveness = 2",
            "Every key in kws.toml must be one that kws knows. Received: `agressiveness` in "
            "`gate`. Did you mean `aggressiveness`? Known there: enabled, aggressiveness, "
            "hangover_ms, pre_roll_ms.",
        ),
        (
            "[model]\nxyz = 2",
            "Every key in kws.toml must be one that kws knows. Received: `xyz` in `model`. "
            "Known there: name, n_threads.",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(text, message, refused):
    error = refused(text)
    assert str(error) == message
    assert type(error) is ConfigError
    assert error.exit_code == 2


def test_an_unknown_key_of_a_hook_is_an_error_of_hooks(refused):
    error = refused(f"[[hooks]]\n{HOOK}\n[[hooks]]\n{HOOK}timeout = 3")
    assert str(error) == (
        "Every key in kws.toml must be one that kws knows. Received: `timeout` in "
        "`hooks[1]`. Did you mean `timeout_s`? Known there: keyword, command, shell, on, "
        "timeout_s, max_running, max_queued, cooldown_s, mute, mute_after_s, awake_wav, "
        "working_directory, user, environment, keyword_on_stdin."
    )
    assert type(error) is HookError
    assert error.exit_code == 5


def test_a_hook_needs_its_command(refused):
    error = refused('[[hooks]]\nkeyword = "stop"')
    assert str(error) == ("`hooks[0].command` must be set in kws.toml. Received: none. Add it.")
    assert type(error) is HookError


@pytest.mark.parametrize(
    ("table", "line", "rule"),
    [
        ("model", "name = 3", "`str`, got `int`"),
        ("model", "n_threads = 0", "`int` >= 1"),
        ("model", "n_threads = 65", "`int` <= 64"),
        ("source", "input = 2026-01-02", "`str`, got `date`"),
        ("source", "device = 1", "`str | null`, got `int`"),
        ("source", "chunk_ms = 9", "`int` >= 10"),
        ("source", "chunk_ms = 1001", "`int` <= 1000"),
        ("source", "chunk_ms = 80.5", "`int`, got `float`"),
        ("source", "stall_s = 0.4", "`float` >= 0.5"),
        ("source", "stall_s = 3601", "`float` <= 3600.0"),
        ("daemon", "backlog_s = 0.9", "`float` >= 1.0"),
        ("daemon", "backlog_s = 601", "`float` <= 600.0"),
        ("gate", "enabled = 'yes'", "`bool`, got `str`"),
        ("gate", "aggressiveness = -1", "`int` >= 0"),
        ("gate", "aggressiveness = 4", "`int` <= 3"),
        ("gate", "hangover_ms = -1", "`int` >= 0"),
        ("gate", "hangover_ms = 60001", "`int` <= 60000"),
        ("gate", "pre_roll_ms = -1", "`int` >= 0"),
        ("gate", "pre_roll_ms = 2001", "`int` <= 2000"),
        ("decision", "threshold = 1.5", "`float` <= 1.0"),
        ("decision", "threshold = -0.1", "`float` >= 0.0"),
        ("decision", "threshold = nan", "`float` >= 0.0"),
        ("decision", "threshold = true", "`float | null`, got `bool`"),
        ("decision", "thresholds = 0.5", "`table`, got `float`"),
        ("decision", "false_alarms_per_hour = 0", "`float` > 0.0"),
        ("decision", "smoothing_ms = 'x'", "`int | null`, got `str`"),
        ("decision", "smoothing_ms = 60001", "`int` <= 60000"),
        ("decision", "refractory_ms = [1]", "`int | null`, got `array`"),
    ],
)
def test_a_value_that_breaks_its_rule_is_refused(table, line, rule, refused):
    error = refused(f"[{table}]\n{line}")
    key, value = line.split(" = ")
    assert str(error) == (
        f"`{table}.{key}` in kws.toml: expected {rule}. Received: {received(value)}. Change it."
    )
    assert type(error) is ConfigError


@pytest.mark.parametrize(("line", "got"), [("gate = true", "bool"), ("source = []", "array")])
def test_a_table_that_is_none_is_refused(line, got, refused):
    key, value = line.split(" = ")
    assert str(refused(line)) == (
        f"`{key}` in kws.toml: expected `table`, got `{got}`. Received: {value}. Change it."
    )


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("keyword = 1", "`str`, got `int`"),
        ("command = 1", "`str | array`, got `int`"),
        ("shell = 1", "`bool`, got `int`"),
        ("timeout_s = 0", "`float` > 0.0"),
        ("timeout_s = inf", "`float` <= 86400.0"),
        ("max_running = 0", "`int` >= 1"),
        ("max_running = 65", "`int` <= 64"),
    ],
)
def test_a_value_of_a_hook_that_breaks_its_rule_is_an_error_of_hooks(line, rule, refused):
    key, value = line.split(" = ")
    others = [other for other in HOOK.splitlines() if not other.startswith(key)]
    error = refused("\n".join(["[[hooks]]", *others, line]))
    assert str(error) == (
        f"`hooks[0].{key}` in kws.toml: expected {rule}. Received: {value}. Change it."
    )
    assert type(error) is HookError


def test_a_word_of_a_command_that_is_no_string_is_refused_by_its_place(refused):
    assert str(refused("[[hooks]]\nkeyword = '*'\ncommand = ['a', 2]")) == (
        "`hooks[0].command[1]` in kws.toml: expected `str`, got `int`. Received: 2. Change it."
    )


@pytest.mark.parametrize(
    ("value", "rule", "shown"),
    [
        ("1.01", "`float` <= 1.0", "1.01"),
        ("-1", "`float` >= 0.0", "-1"),
        ("'high'", "`float`, got `str`", '"high"'),
        ("true", "`float`, got `bool`", "true"),
        ("{ a = 1 }", "`float`, got `table`", '{"a":1}'),
    ],
)
def test_a_bad_threshold_of_one_keyword_is_refused_with_the_table(value, rule, shown, refused):
    error = refused(f'[decision.thresholds]\ngo = 0.5\n"hey computer" = {value}\nstop = 1')
    assert str(error) == (
        f"`decision.thresholds[...]` in kws.toml: expected {rule}. "
        f'Received: {{"go":0.5,"hey computer":{shown},"stop":1}}. Change it.'
    )


def test_a_threshold_of_four_hundred_digits_is_refused(refused):
    digits = 400 * "9"
    assert str(refused(f"[decision]\nthreshold = {digits}")) == (
        f"`decision.threshold` in kws.toml: number out of range. Received: {digits}. Change it."
    )


def test_hooks_in_single_brackets_are_refused_with_the_remedy(refused):
    error = refused(f"[hooks]\n{HOOK}")
    assert str(error) == (
        '`hooks` in kws.toml: expected `array`, got `table`. Received: {"keyword":"stop",'
        '"command":"true"}. Write [[hooks]], in two brackets.'
    )
    assert type(error) is HookError


def test_a_hook_that_is_no_table_is_refused(refused):
    error = refused("hooks = ['beep']")
    assert str(error) == (
        '`hooks[0]` in kws.toml: expected `table`, got `str`. Received: "beep". Change it.'
    )


values = st.recursive(
    st.none().map(lambda _: "nan")
    | st.integers(-(10**30), 10**30).map(str)
    | st.booleans().map(lambda value: str(value).lower())
    | st.sampled_from(["1.5", "-inf", "'x'", "1979-05-27", "07:32:00", "''"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | inner.map(lambda item: f"{{ keyword = {item}, odd = {item} }}")
    ),
    max_leaves=6,
)
tables = {"": Config, "model.": ModelSettings, "source.": SourceSettings, "gate.": GateSettings}
tables |= {"decision.": DecisionSettings, "decision.thresholds.": ModelSettings}
keys = [f"{table}{key}" for table, kind in tables.items() for key in kind.__struct_fields__]


@given(key=st.sampled_from([*keys, "odd", "gate.odd"]), value=values)
def test_whatever_a_key_is_set_to_only_our_errors_come(key, value):
    text = f"{key} = {value}"
    tomllib.loads(text)
    try:
        message = ""
        parse_config(text)
    except KwsError as error:
        message = str(error)
    assert "$" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[recording]\nformat = "mp3"',
            "`recording.format` in kws.toml: invalid enum value 'mp3'. "
            'Received: "mp3". Use one of wav, flac.',
        ),
        (
            '[[hooks]]\ncommand = "true"\non = ["stalled", "stoped"]',
            "`hooks[0].on[1]` in kws.toml: invalid enum value 'stoped'. "
            'Received: "stoped". Use one of '
            "detection, start, listening, silent, stalled, recovered, error, stop.",
        ),
        (
            '[[hooks]]\ncommand = "true"\nenvironment = {A = "b", C = 1}',
            "`hooks[0].environment[...]` in kws.toml: expected `str`, got `int`. Received: "
            '{"A":"b","C":1}. Change it.',
        ),
        (
            "[source]\nauto_gain = 32",
            "`source.auto_gain` in kws.toml: expected `int` <= 31. Received: 32. Change it.",
        ),
    ],
)
def test_a_value_that_is_none_of_those_there_are_is_refused(text, message, refused):
    assert str(refused(text)) == message
