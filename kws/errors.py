"""The error tree: what can go wrong, and the exit code each kind ends a command with.

::

    KwsError              1
    ├── ConfigError       2   kws.toml, an option, an argument
    ├── AudioError        3
    │   ├── DeviceError   3   a microphone that is missing, busy or silent
    │   └── FormatError   3   bytes or samples that are not the audio they should be
    ├── ModelError        4   a model file, its manifest, or the interpreter
    └── HookError         5   a command to run on a detection

A message states the rule, what came, and the remedy:
"`threshold` must lie in 0..1. Received: 1.5. Set `[decision] threshold` in kws.toml."
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "AudioError",
    "ConfigError",
    "DeviceError",
    "FormatError",
    "HookError",
    "KwsError",
    "ModelError",
    "did_you_mean",
    "printable",
]


class KwsError(Exception):
    """Anything that kws itself finds wrong; the root of the tree."""

    exit_code = 1


class ConfigError(KwsError):
    """A setting or an argument that breaks its rule."""

    exit_code = 2


class AudioError(KwsError):
    """Audio that cannot be had or used."""

    exit_code = 3


class DeviceError(AudioError):
    """A microphone or sound system that is missing, busy or silent."""


class FormatError(AudioError):
    """Bytes or samples that are not the audio they should be."""


class ModelError(KwsError):
    """A model file, its manifest or its interpreter that cannot be used.

    Control characters in the message are escaped: names and texts of an untrusted file are in it.
    """

    exit_code = 4

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class HookError(KwsError):
    """A hook whose command cannot be run."""

    exit_code = 5


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return " Did you mean `x`?" for the nearest of `choices`, or an empty string."""
    near = difflib.get_close_matches(word, list(choices), n=1)
    return f" Did you mean `{near[0]}`?" if near else ""


def printable(text: str) -> str:
    """Return a text with its control characters escaped, for a terminal or a log.

    Characters that reorder text, and surrogates, are escaped as well.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
