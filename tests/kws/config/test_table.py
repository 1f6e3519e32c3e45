import pytest

from kws.config import (
    DecisionSettings,
    GateSettings,
    HookSettings,
    ListenerSettings,
    SourceSettings,
    parse_config,
)
from kws.config.table import Table
from kws.errors import HookError, KwsError

HOOK = 'keyword = "stop"\ncommand = "true"\n'


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError):
        parse_config("").gate.enabled = False


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


@pytest.mark.parametrize("table", [*Table.__subclasses__(), ListenerSettings], ids=str)
def test_no_setting_takes_a_value_of_another_type(table):
    needed = {"command": "true"} if table is HookSettings else {}
    for key in table.__struct_fields__:
        with pytest.raises(KwsError, match=f"^`{key}` of {table.__name__}: "):
            table(**needed | {key: object()})


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
def test_nul_characters_are_an_error_wherever_they_are(text, message, refused):
    assert str(refused(text)).startswith(message)


@pytest.mark.parametrize(
    "line", ['awake_wav = "\\u0000"', 'environment = { A = "\\u0000" }', 'user = "a\\u0000"']
)
def test_nul_characters_in_a_hook_are_an_error_of_the_hook(line, refused):
    error = refused(f"[[hooks]]\n{HOOK}{line}")
    assert isinstance(error, HookError)
    assert "must be free of NUL characters" in str(error)
