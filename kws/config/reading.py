"""Read kws.toml and its drop-ins into settings."""

import logging
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from kws.command_lines import doubtful_words
from kws.config.explanation import explained
from kws.config.pipeline import ModelSettings
from kws.config.root_table import Config
from kws.config_files import merged, parse_toml, read_config_files
from kws.errors import ConfigError
from kws.paths import relative_to_folder

__all__ = ["load_config", "parse_config"]

_Model = TypeVar("_Model", bound=ModelSettings)

_log = logging.getLogger("kws")


def load_config(path: Path) -> Config:
    """Read kws.toml and its drop-ins; relative paths of models start at its folder.

    Raises
    ------
    ConfigError
        If a file is missing, not UTF-8 TOML, or breaks a rule; the message names file and key. As
        root, also if every user may change the file.
    HookError
        If a `[[hooks]]` entry breaks a rule.
    """
    files = read_config_files(path)
    for file in files[1:]:  # so that a message names the file that breaks a rule
        _converted(file.tables, name=str(file.path))
    config = _checked(merged(files), name=str(path))
    return replace(
        config,
        model=_from_folder(config.model, path.parent),
        models=[_from_folder(model, path.parent) for model in config.models],
    )


def _from_folder(model: _Model, folder: Path) -> _Model:
    return replace(model, name=relative_to_folder(model.name, folder))


def parse_config(text: str, *, name: str = "kws.toml") -> Config:
    """Read settings out of TOML text; errors as in `load_config`."""
    return _checked(parse_toml(text, name=name), name=name)


def _checked(tables: dict[str, Any], *, name: str) -> Config:
    config = _converted(tables, name=name)
    _check_lists(tables, config, name=name)
    _warn_of_commands(config, name=name)
    return config


def _converted(tables: dict[str, Any], *, name: str) -> Config:
    try:
        return msgspec.convert(tables, Config)
    except msgspec.ValidationError as error:
        raise explained(error, tables, name=name) from None


def _warn_of_commands(config: Config, *, name: str) -> None:
    """Log what only a shell would understand, where none runs the command."""
    hooks = [(one.command, "set `shell = true`") for one in config.hooks if not one.shell]
    sources = [(one.command, 'run it by `["sh", "-c", "…"]`') for one in config.every_source]
    for command, remedy in (*hooks, *sources):
        if command and (words := doubtful_words(command)):
            program = (command.split() if isinstance(command, str) else command)[0]
            _log.warning(
                "%s: no shell runs the command `%s …`, which gets %s as it stands. "
                "For a shell, %s.",
                name,
                program,
                " ".join(f"`{word}`" for word in words),
                remedy,
            )


def _check_lists(tables: dict[str, Any], config: Config, *, name: str) -> None:
    """Refuse `[source]` beside `[[sources]]`, and two sources of one name."""
    for one, many in (("source", "sources"), ("model", "models")):
        if one in tables and many in tables:
            raise ConfigError(
                f"{name} must hold either [{one}] or [[{many}]]. Received: both. "
                f"Write each as a [[{many}]]."
            )
        if tables.get(many) == []:
            raise ConfigError(
                f"`{many}` in the top level of {name} must hold at least one. Received: []. "
                f"Add a [[{many}]], or leave it out."
            )
    labels = [source.label for source in config.every_source]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(
                f"Each of [[sources]] in {name} must have a name of its own. Received: `{label}` "
                f"{labels.count(label)} times. Set `name` in each."
            )
