import inspect

import pytest

from kws import errors
from kws.errors import KwsError, ModelError, did_you_mean, printable


def test_all_names_exactly_what_is_defined_here():
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.getmodule(value) is errors and not name.startswith("_")
    }
    assert set(errors.__all__) == defined


@pytest.mark.parametrize(
    ("name", "parent", "exit_code"),
    [
        ("KwsError", Exception, 1),
        ("ConfigError", errors.KwsError, 2),
        ("AudioError", errors.KwsError, 3),
        ("DeviceError", errors.AudioError, 3),
        ("FormatError", errors.AudioError, 3),
        ("ModelError", errors.KwsError, 4),
        ("HookError", errors.KwsError, 5),
    ],
)
def test_the_tree_is_the_one_in_the_docstring(name, parent, exit_code):
    error = getattr(errors, name)
    assert error.__base__ is parent
    assert error.exit_code == exit_code
    drawn = next(line for line in errors.__doc__.splitlines() if f" {name} " in f" {line} ")
    assert str(exit_code) in drawn.split()


def test_every_error_is_in_the_tree():
    classes = [value for value in vars(errors).values() if inspect.isclass(value)]
    kinds = [kind for kind in classes if issubclass(kind, Exception)]
    assert len(kinds) == 7
    assert all(issubclass(kind, KwsError) for kind in kinds)


def test_a_near_word_is_suggested():
    assert did_you_mean("agressiveness", ["enabled", "aggressiveness"]) == (
        " Did you mean `aggressiveness`?"
    )


def test_only_the_nearest_word_is_suggested():
    assert did_you_mean("stopp", ["step", "stop"]) == " Did you mean `stop`?"


@pytest.mark.parametrize("choices", [[], ["enabled", "hangover_ms"]])
def test_nothing_is_suggested_where_nothing_is_near(choices):
    assert did_you_mean("zzz", choices) == ""


def test_choices_may_be_any_iterable():
    assert did_you_mean("stpo", (word for word in ["go", "stop"])) == " Did you mean `stop`?"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("głos, größer 好", "głos, größer 好"),
        ("\x1b]0;OWNED\x07\x1b[2J", r"\x1b]0;OWNED\x07\x1b[2J"),
        ("a\nERROR: b\r\tc\x00", r"a\nERROR: b\r\tc\x00"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("\u202egnp.exe \U000e0041 \ud800", r"\u202egnp.exe \U000e0041 \ud800"),
    ],
)
def test_control_characters_are_escaped(text, shown):
    assert printable(text) == shown
    assert str(ModelError(text)) == shown
