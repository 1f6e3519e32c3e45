import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws.config import (
    Config,
    DecisionSettings,
    GateSettings,
    HookSettings,
    ListenerSettings,
    ModelSettings,
    SourceSettings,
    _Table,
    load_config,
    parse_config,
)
from kws.errors import ConfigError, HookError, KwsError

HOOK = 'keyword = "stop"\ncommand = "true"\n'


def refused(text):
    """Return the error that some settings are answered with."""
    with pytest.raises(KwsError) as caught:
        parse_config(text)
    assert caught.value.__cause__ is None or caught.value.__suppress_context__
    return caught.value


def received(value):
    """Return how a message shows a value of TOML: as JSON."""
    return f'"{value}"' if "-01-" in value else value.replace("'", '"')


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


def test_several_sources_and_models_stand_in_tables_of_their_own():
    config = parse_config(
        """
        [decision]
        threshold = 0.6
        [[sources]]
        name = "desk"
        [[sources]]
        input = "door.wav"
        [[models]]
        [[models]]
        name = "mine.tflite"
        n_threads = 2
        [models.decision]
        smoothing_ms = 100
        """
    )
    assert [source.label for source in config.every_source] == ["desk", "door.wav"]
    assert config.every_model == [
        ListenerSettings(name="commands", decision=DecisionSettings(threshold=0.6)),
        ListenerSettings(
            name="mine.tflite", n_threads=2, decision=DecisionSettings(smoothing_ms=100)
        ),
    ]


def test_one_source_and_one_model_need_no_list():
    config = parse_config("[source]\ndevice = 'USB'\n[model]\nn_threads = 2")
    assert [source.label for source in config.every_source] == ["USB"]
    assert config.every_model == [ListenerSettings(n_threads=2, decision=DecisionSettings())]


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
def test_lists_that_break_a_rule_are_refused(text, message):
    error = refused(text)
    assert str(error).startswith(message)
    assert type(error) is ConfigError


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError):
        parse_config("").gate.enabled = False


def test_two_configurations_share_no_thresholds():
    parse_config("").decision.thresholds["stop"] = 0.1
    assert parse_config("").decision.thresholds == {}


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
def test_an_unknown_key_is_refused_with_the_nearest(text, message):
    error = refused(text)
    assert str(error) == message
    assert type(error) is ConfigError
    assert error.exit_code == 2


def test_an_unknown_key_of_a_hook_is_an_error_of_hooks():
    error = refused(f"[[hooks]]\n{HOOK}\n[[hooks]]\n{HOOK}timeout = 3")
    assert str(error) == (
        "Every key in kws.toml must be one that kws knows. Received: `timeout` in "
        "`hooks[1]`. Did you mean `timeout_s`? Known there: keyword, command, shell, on, "
        "timeout_s, max_running, max_queued, cooldown_s, mute, mute_after_s, awake_wav, "
        "working_directory, user, environment, keyword_on_stdin."
    )
    assert type(error) is HookError
    assert error.exit_code == 5


def test_a_hook_needs_its_command():
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
def test_a_value_that_breaks_its_rule_is_refused(table, line, rule):
    error = refused(f"[{table}]\n{line}")
    key, value = line.split(" = ")
    assert str(error) == (
        f"`{table}.{key}` in kws.toml: expected {rule}. Received: {received(value)}. Change it."
    )
    assert type(error) is ConfigError


@pytest.mark.parametrize(("line", "got"), [("gate = true", "bool"), ("source = []", "array")])
def test_a_table_that_is_none_is_refused(line, got):
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
def test_a_value_of_a_hook_that_breaks_its_rule_is_an_error_of_hooks(line, rule):
    key, value = line.split(" = ")
    others = [other for other in HOOK.splitlines() if not other.startswith(key)]
    error = refused("\n".join(["[[hooks]]", *others, line]))
    assert str(error) == (
        f"`hooks[0].{key}` in kws.toml: expected {rule}. Received: {value}. Change it."
    )
    assert type(error) is HookError


def test_a_word_of_a_command_that_is_no_string_is_refused_by_its_place():
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
def test_a_bad_threshold_of_one_keyword_is_refused_with_the_table(value, rule, shown):
    error = refused(f'[decision.thresholds]\ngo = 0.5\n"hey computer" = {value}\nstop = 1')
    assert str(error) == (
        f"`decision.thresholds[...]` in kws.toml: expected {rule}. "
        f'Received: {{"go":0.5,"hey computer":{shown},"stop":1}}. Change it.'
    )


def test_a_threshold_of_four_hundred_digits_is_refused():
    digits = 400 * "9"
    assert str(refused(f"[decision]\nthreshold = {digits}")) == (
        f"`decision.threshold` in kws.toml: number out of range. Received: {digits}. Change it."
    )


def test_hooks_in_single_brackets_are_refused_with_the_remedy():
    error = refused(f"[hooks]\n{HOOK}")
    assert str(error) == (
        '`hooks` in kws.toml: expected `array`, got `table`. Received: {"keyword":"stop",'
        '"command":"true"}. Write [[hooks]], in two brackets.'
    )
    assert type(error) is HookError


def test_a_hook_that_is_no_table_is_refused():
    error = refused("hooks = ['beep']")
    assert str(error) == (
        '`hooks[0]` in kws.toml: expected `table`, got `str`. Received: "beep". Change it.'
    )


def test_what_is_not_toml_is_refused_with_its_line():
    error = refused("[gate]\nenabled = yes")
    assert str(error) == (
        "kws.toml must be TOML. Received: Invalid value (at line 2, column 11). Correct that line."
    )
    assert error.exit_code == 2


@pytest.mark.parametrize("text", ["x = " + 5000 * "[", "x = " + 5000 * "9", "x = 1\nx = 2", "\0"])
def test_text_beyond_all_bounds_is_refused(text):
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


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "kws.toml")
    assert str(caught.value) == (
        f"The configuration file must be readable. Received: {tmp_path}/kws.toml "
        f"(No such file or directory). Give its path with --config."
    )


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=re.escape(f"Received: {tmp_path} (Is a directory).")):
        load_config(tmp_path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    file = tmp_path / "kws.toml"
    file.write_bytes('name = "größe"'.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value) == (
        f"{file} must be UTF-8 text. Received: byte 0xf6 at offset 10. Save it as UTF-8."
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
def test_a_value_that_is_none_of_those_there_are_is_refused(text, message):
    assert str(refused(text)) == message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: DecisionSettings(threshold=5),
            "`threshold` of DecisionSettings: expected `float` <= 1.0. Received: 5. Change it.",
        ),
        (
            lambda: DecisionSettings(thresholds={"stop": -1}),
            "`thresholds[...]` of DecisionSettings: expected `float` >= 0.0. Received: "
            "{'stop': -1}. Change it.",
        ),
        (
            lambda: GateSettings(enabled="yes"),
            "`enabled` of GateSettings: expected `bool`, got `str`. Received: 'yes'. Change it.",
        ),
        (
            lambda: SourceSettings(chunk_ms=5),
            "`chunk_ms` of SourceSettings: expected `int` >= 10. Received: 5. Change it.",
        ),
        (
            lambda: HookSettings(command=["beep", 2]),
            "`command[1]` of HookSettings: expected `str`, got `int`. Received: ['beep', 2]. "
            "Change it.",
        ),
    ],
)
def test_settings_made_in_python_obey_the_same_rules(make, message):
    with pytest.raises(KwsError) as caught:
        make()
    assert str(caught.value) == message


@pytest.mark.parametrize("table", [*_Table.__subclasses__(), ListenerSettings], ids=str)
def test_no_setting_takes_a_value_of_another_type(table):
    needed = {"command": "true"} if table is HookSettings else {}
    for key in table.__struct_fields__:
        with pytest.raises(KwsError, match=f"^`{key}` of {table.__name__}: "):
            table(**needed | {key: object()})


def test_keywords_are_in_one_form_of_unicode():
    decomposed, composed = "gru\u0308n", "gr\u00fcn"
    assert HookSettings(keyword=decomposed, command="true").keyword == composed
    decision = DecisionSettings(thresholds={decomposed: 0.5}, phrases=[decomposed])
    assert (decision.thresholds, decision.phrases) == ({composed: 0.5}, [composed])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[source]\ninput = "a\\u0000.wav"', "`input` of SourceSettings must be free of NUL"),
        ('[source]\ncommand = ["a", "\\u0000"]', "`command` of SourceSettings must be free of NUL"),
        ('[model]\nname = "\\u0000"', "`name` of ModelSettings must be free of NUL"),
        ('[recording]\nfolder = "\\u0000"', "`folder` of RecordingSettings must be free of NUL"),
        ('[daemon]\nsocket = "\\u0000"', "`socket` of DaemonSettings must be free of NUL"),
    ],
)
def test_nul_characters_are_an_error_wherever_they_are(text, message):
    assert str(refused(text)).startswith(message)


@pytest.mark.parametrize(
    "line", ['awake_wav = "\\u0000"', 'environment = { A = "\\u0000" }', 'user = "a\\u0000"']
)
def test_nul_characters_in_a_hook_are_an_error_of_the_hook(line):
    error = refused(f"[[hooks]]\n{HOOK}{line}")
    assert isinstance(error, HookError)
    assert "must be free of NUL characters" in str(error)


def test_a_command_is_no_label_as_it_may_hold_secrets():
    command = ["ffmpeg", "-i", "rtsp://me:secret@camera"]
    assert SourceSettings(command=command).label == "command"
    config = Config(
        sources=[
            SourceSettings(command=command),
            SourceSettings(command="parec", name="desk"),
            SourceSettings(device="plughw:1,0"),
            SourceSettings(command="parec --token x"),
        ]
    )
    labels = [one.label for one in config.every_source]
    assert labels == ["command 1", "desk", "plughw:1,0", "command 2"]
    assert config.every_source[0].command == command
    assert Config(source=SourceSettings(command="parec")).every_source[0].label == "command 1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "port = 1883",
            "`host` of [mqtt] must be set where `port` is. Received: none. Set it to the broker, "
            'such as `host = "localhost"`, or leave `port` out.',
        ),
        (
            "host = 'mqtt://kws:secret@broker'",
            "`host` of [mqtt] must be a name or an address alone. Received: mqtt://…@broker. Set a "
            "port as `port`, and `tls = true` for mqtts.",
        ),
        (
            "host = 'broker:1883'",
            "`host` of [mqtt] must be a name or an address alone. Received: broker:1883. Set a "
            "port as `port`, and `tls = true` for mqtts.",
        ),
        (
            "host = 'b'\ndiscovery_prefix = 'ha/#'",
            "`discovery_prefix` of [mqtt] must be a topic without wildcards, blanks and empty "
            "levels. Received: 'ha/#'. Leave it out, unless Home Assistant has another one.",
        ),
        (
            "host = 'b'\npassword_file = 'p'",
            "`password_file` of [mqtt] needs `username`. Received: `password_file` without it. Set "
            "`username`, or leave `password_file` out.",
        ),
        (
            "host = 'b'\nca_file = 'p'",
            "`ca_file` of [mqtt] needs `tls`. Received: `ca_file` without it. Set `tls`, or leave "
            "`ca_file` out.",
        ),
    ],
)
def test_keys_of_mqtt_that_contradict_are_refused(text, message):
    assert str(refused(f"[mqtt]\n{text}\n")) == message


@pytest.mark.parametrize("host", ["localhost", "broker.example.org", "192.168.1.2", "fe80::1"])
def test_a_broker_is_a_name_or_an_address(host):
    assert parse_config(f"[mqtt]\nhost = '{host}'\n").mqtt.host == host
