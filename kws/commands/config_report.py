"""`kws config`: check a kws.toml; show what is in force and where it is set; its JSON Schema."""

import ast
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from kws.config import Config, actions, load_config, pipeline, services
from kws.config_files import Key, Origin, merged, origins, read_config_files

__all__ = ["Setting", "check", "json_schema", "render", "render_json", "settings_of"]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_LISTS = {"models": "model", "sources": "source"}  # and the table that each stands in for


class Setting(NamedTuple):
    """A key that is in force.

    Attributes
    ----------
    key : tuple of str and int
    value : object
        As in TOML; None: not set.
    origin : Origin or None
        None: the default.
    """

    key: Key
    value: Any
    origin: Origin | None


def check(path: Path) -> str:
    """Check a kws.toml, its models, hooks and commands; return what it sets up.

    Raises
    ------
    KwsError
        If the file breaks a rule, or a model, hook or command cannot be used.
    """
    from kws.ctc_decision import phrases_for
    from kws.decision import thresholds_for
    from kws.model import model_path
    from kws.model_file import read_model
    from kws.mqtt.broker import open_broker
    from kws.sinks.hooks import Hooks
    from kws.sources.command import check_command

    config = load_config(path)
    names: list[str] = []
    keywords: list[str] = []
    for model in config.every_model:
        manifest, _ = read_model(model_path(model.name))
        decision = model.decision or config.decision
        thresholds_for(decision, manifest)
        keywords += phrases_for(decision, manifest) or manifest.keywords
        names.append(f"model `{manifest.name}`")
    for source in config.every_source:
        if source.command is not None:
            check_command(source.command, must_exist=True)
    Hooks(config.hooks, keywords=keywords)
    broker = open_broker(config.mqtt)
    mqtt = f", MQTT: {broker}" if broker else ""
    return f"{', '.join(names)}, hooks: {len(config.hooks)}{mqtt}"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of kws.toml, with a description of each key, for editors."""
    schema = msgspec.json.schema(Config)
    described = _descriptions()
    for name, table in schema["$defs"].items():
        for key, rule in table.get("properties", {}).items():
            if text := described.get(name, {}).get(key):
                rule["description"] = text
    return {"$schema": _DRAFT, "title": "kws.toml", **schema}


def settings_of(path: Path) -> list[Setting]:
    """Return every key that is in force, in the order of the tables, with where it is set.

    Raises
    ------
    KwsError
        As of `load_config`.
    """
    load_config(path)
    files = read_config_files(path)
    set_at = origins(files)
    config = msgspec.convert(merged(files), Config)
    return [Setting(key, value, set_at.get(key)) for key, value in _values(config)]


def render(settings: list[Setting]) -> str:
    """Return settings as TOML, with the origin of each as a comment."""
    lines: list[str] = []
    table: Key = ()
    width = max(len(_assignment(one)) for one in settings)
    for one in settings:
        if one.key[:-1] != table:
            table = one.key[:-1]
            lines += ["", _heading(table)]
        lines.append(f"{_assignment(one):<{min(width, 44)}}  # {_from(one)}")
    return "\n".join(lines).strip()


def render_json(settings: list[Setting]) -> str:
    """Return settings as JSON lines: key, value, and file and line or null."""
    return "\n".join(
        json.dumps(
            {
                "key": ".".join(map(str, one.key)),
                "value": one.value,
                "file": str(one.origin.path) if one.origin else None,
                "line": one.origin.line if one.origin else None,
            },
            ensure_ascii=False,
        )
        for one in settings
    )


def _from(setting: Setting) -> str:
    if setting.origin is None:
        return "default"
    return f"{setting.origin.path}:{setting.origin.line}"


def _assignment(setting: Setting) -> str:
    name = setting.key[-1]
    key = name if str(name).replace("_", "").isalnum() and str(name).isascii() else _toml(name)
    return f"# {key}: not set" if setting.value is None else f"{key} = {_toml(setting.value)}"


def _heading(table: Key) -> str:
    names = ".".join(str(one) for one in table if isinstance(one, str))
    return f"[[{names}]]" if isinstance(table[-1], int) else f"[{names}]"


def _toml(value: Any) -> str:
    """Return a value of the settings as TOML; JSON's strings are TOML's, too."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        inside = ", ".join(f"{_toml(key)} = {_toml(one)}" for key, one in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _values(config: Config) -> Iterator[tuple[Key, Any]]:
    """Yield each key and its value; of a table and the list in its place, those in use."""
    tables = msgspec.to_builtins(config)
    for many, one in _LISTS.items():
        del tables[one if tables[many] else many]
    for name, table in tables.items():
        yield from _values_in(table, (name,))


def _values_in(value: Any, key: Key) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, dict) and value:
        plain = [name for name, one in value.items() if not isinstance(one, dict)]
        for name in (*plain, *(name for name in value if name not in plain)):
            yield from _values_in(value[name], (*key, name))
    elif isinstance(value, list) and len(key) == 1:
        for i, one in enumerate(value):
            yield from _values_in(one, (*key, i))
    else:
        yield key, value


def _descriptions() -> dict[str, dict[str, str]]:
    """Return the text below each setting in the source, by class and key, inherited ones too."""
    own: dict[str, dict[str, str]] = {}
    trees = [ast.parse(inspect.getsource(module)) for module in (actions, pipeline, services)]
    for node in (one for tree in trees for one in tree.body):
        if not isinstance(node, ast.ClassDef):
            continue
        texts = own.setdefault(node.name, {})
        for base in node.bases:
            texts |= own.get(getattr(base, "id", ""), {})
        for setting, text in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(setting, ast.AnnAssign)
                and isinstance(setting.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                texts[setting.target.id] = " ".join(str(text.value.value).split())
    return own
