"""The class below all tables of kws.toml, checked as they are made, and the types they share."""

import re
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta
from msgspec.structs import fields, force_setattr

from kws.errors import ConfigError, HookError

__all__ = ["Milliseconds", "Probability", "Table", "in_words_of_toml", "without_login"]

Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
Milliseconds = Annotated[int, Meta(ge=0, le=60_000)]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of kws.toml: immutable, keyword-only, without unknown keys, valid once it is made."""

    _error: ClassVar[type[ConfigError | HookError]] = ConfigError

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            try:
                force_setattr(self, field.name, msgspec.convert(value, field.type))
            except msgspec.ValidationError as error:
                problem, _, place = str(error).partition(" - at `$")
                raise self._error(
                    f"`{field.name}{place.rstrip('`')}` of {type(self).__name__}: "
                    f"{in_words_of_toml(problem)}. Received: {value!r}. Change it."
                ) from None
            if _holds_nul(value):
                raise self._error(
                    f"`{field.name}` of {type(self).__name__} must be free of NUL characters. "
                    f"Received: {value!r}. Take them out."
                )


def in_words_of_toml(problem: str) -> str:
    """Put msgspec's sentence behind a colon, in the words of TOML."""
    return problem[0].lower() + problem[1:].replace("`object`", "`table`")


def without_login(url: str) -> str:
    """Return a URL without the user and password in it."""
    return re.sub(r"//[^/@]*@", "//…@", url)


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return isinstance(value, list | tuple) and any(map(_holds_nul, value))
