"""What msgspec finds wrong in kws.toml, with the table, the value and the nearest known key."""

import re
from typing import Any, get_args

import msgspec
from msgspec.structs import fields

from kws.config.root_table import Config
from kws.config.table import Table, in_words_of_toml
from kws.errors import ConfigError, HookError, did_you_mean

__all__ = ["explained"]


def explained(
    error: msgspec.ValidationError, tables: dict[str, Any], *, name: str
) -> ConfigError | HookError:
    """Add to msgspec's message the table, the value received and the nearest known key."""
    problem, _, path = str(error).partition(" - at `$")
    keys = re.findall(r"\w+|\.\.\.", path)
    kind = HookError if keys[:1] == ["hooks"] else ConfigError
    table, key = _table_at(keys), path.strip("`.")
    if unknown := re.fullmatch(r"Object contains unknown field `(.+)`", problem, re.DOTALL):
        known = table.__struct_fields__
        return kind(
            f"Every key in {name} must be one that kws knows. Received: `{unknown.group(1)}` in "
            f"{f'`{key}`' if key else 'the top level'}.{did_you_mean(unknown.group(1), known)} "
            f"Known there: {', '.join(known)}."
        )
    if missing := re.fullmatch(r"Object missing required field `(.+)`", problem):
        return kind(f"`{key}.{missing.group(1)}` must be set in {name}. Received: none. Add it.")
    remedy = "Change it."
    if keys[-1] in {"hooks", "models", "sources"}:
        remedy = f"Write [[{keys[-1]}]], in two brackets."
    elif problem.startswith("Invalid enum value"):
        remedy = f"Use one of {', '.join(map(str, _choices(table, keys)))}."
    value = _value_at(tables, keys)
    received = (
        value if isinstance(value, float) else msgspec.json.encode(value, enc_hook=str).decode()
    )
    return kind(f"`{key}` in {name}: {in_words_of_toml(problem)}. Received: {received}. {remedy}")


def _value_at(value: Any, keys: list[str]) -> Any:
    """Return the value at a path; where msgspec writes `...` for a key, the whole dict."""
    for key in keys:
        if key == "...":
            return value
        value = value[int(key) if key.isdigit() else key]
    return value


def _table_at(keys: list[str]) -> type[Table]:
    """Return the class of the innermost table on a path such as models, 0, decision."""
    table: type[Table] = Config
    for key in keys:
        if key in table.__struct_fields__:
            table = next(iter(_parts(_type_of(table, key), Table)), table)
    return table


def _choices(table: type[Table], keys: list[str]) -> list[Any]:
    """List the values of the key at the end of a path, which takes only some."""
    key = next(key for key in reversed(keys) if key in table.__struct_fields__)
    return _parts(_type_of(table, key), str)


def _type_of(table: type[Table], key: str) -> Any:
    return next(field.type for field in fields(table) if field.name == key)


def _parts(hint: Any, kind: type) -> list[Any]:
    """List the classes below `kind`, or the values of that type, inside a type."""
    if isinstance(hint, type) and issubclass(hint, kind) and hint is not kind:
        return [hint]
    return (
        [hint]
        if isinstance(hint, kind)
        else [x for one in get_args(hint) for x in _parts(one, kind)]
    )
