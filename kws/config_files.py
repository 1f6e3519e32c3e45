"""The files of a configuration: kws.toml and its drop-ins; which line sets a key.

Drop-ins are `kws.toml.d/*.toml`, read in the order of their names. Each holds any part of kws.toml:
its keys override those before, its `[[hooks]]`, `[[models]]` and `[[sources]]` are added to them.
"""

import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from kws.errors import ConfigError
from kws.trusted_files import check_trusted

__all__ = ["ConfigFile", "Key", "Origin", "merged", "origins", "parse_toml", "read_config_files"]

Tables: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str | int, ...]
"""Names of tables, positions in lists of tables, and the key: `("hooks", 0, "command")`."""


class ConfigFile(NamedTuple):
    """A file of the configuration, and the tables in it."""

    path: Path
    text: str
    tables: Tables


class Origin(NamedTuple):
    """Where a key is set: the file and the number of the line, from 1."""

    path: Path
    line: int


def read_config_files(path: Path) -> list[ConfigFile]:
    """Read kws.toml, then its drop-ins.

    Raises
    ------
    ConfigError
        If a file cannot be read or is not UTF-8 TOML; as root, if every user may change it.
    """
    drop_ins = sorted(path.with_name(f"{path.name}.d").glob("*.toml"))
    return [_read(one) for one in (path, *drop_ins)]


def parse_toml(text: str, *, name: str) -> Tables:
    """Return the tables of a TOML text.

    Raises
    ------
    ConfigError
        If it is none.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers and nesting beyond all bounds
        raise ConfigError(f"{name} must be TOML. Received: {error}. Correct that line.") from error


def merged(files: Iterable[ConfigFile]) -> Tables:
    """Return the tables of all files together."""
    tables: Tables = {}
    for file in files:
        tables = _merged(tables, file.tables)
    return tables


def origins(files: Iterable[ConfigFile]) -> dict[Key, Origin]:
    """Return where each key that is set was set last."""
    found: dict[Key, Origin] = {}
    n_before: dict[str, int] = {}
    for file in files:
        for key, line in _lines_of(file.text).items():
            found[_shifted(key, n_before)] = Origin(file.path, line)
        for name, value in file.tables.items():
            if _is_list_of_tables(value):
                n_before[name] = n_before.get(name, 0) + len(value)
    return found


def _read(path: Path) -> ConfigFile:
    check_trusted(path, what="The configuration", error=ConfigError)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"The configuration file must be readable. Received: {path} ({error.strerror}). "
            f"Give its path with --config."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} must be UTF-8 text. Received: byte 0x{error.object[error.start]:02x} at "
            f"offset {error.start}. Save it as UTF-8."
        ) from error
    return ConfigFile(path, text, parse_toml(text, name=str(path)))


def _merged(first: Tables, second: Tables) -> Tables:
    both = dict(first)
    for key, value in second.items():
        before = both.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            both[key] = _merged(before, value)
        elif isinstance(before, list) and _is_list_of_tables(before) and _is_list_of_tables(value):
            both[key] = [*before, *value]
        else:
            both[key] = value
    return both


def _is_list_of_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _shifted(key: Key, n_before: dict[str, int]) -> Key:
    """Count the tables of a list from the first file on."""
    name, *rest = key
    if rest and isinstance(rest[0], int):
        return (name, n_before.get(str(name), 0) + rest[0], *rest[1:])
    return key


def _lines_of(text: str) -> dict[Key, int]:
    """Return the line on which each key of a valid TOML text begins.

    The text is parsed up to each line: a key begins on the first line after the last that parsed
    without it. So every form that TOML has is understood, in some milliseconds for a file by hand.
    """
    lines = text.splitlines(keepends=True)
    known: dict[Key, int] = {}
    begin = 0
    for i, line in enumerate(lines):
        if i == begin and not line.partition("#")[0].strip():
            begin = i + 1
            continue
        try:
            tables = tomllib.loads("".join(lines[: i + 1]))
        except ValueError:
            continue  # in the middle of a value of several lines
        for key in _keys_of(tables):
            known.setdefault(key, begin + 1)
        begin = i + 1
    return known


def _keys_of(value: Any, key: Key = ()) -> Iterator[Key]:
    """Yield the paths of all values that are no tables."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _keys_of(one, (*key, name))
    elif _is_list_of_tables(value):
        for i, one in enumerate(value):
            yield from _keys_of(one, (*key, i))
    else:
        yield key
