"""Thresholds in kws.toml: the change as a diff first, then written with comments and order kept.

The old value stays in a comment behind the new one. A file that has changed since the diff was
shown is not overwritten, and nothing is written that kws could not read again.
"""

import difflib
import hashlib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import InlineTable, Item

from kws.config import Config, parse_config
from kws.config_files import merged, parse_toml, read_config_files
from kws.errors import ConfigError
from kws.ui.requests import OutdatedError

__all__ = ["Proposal", "ThresholdChange", "propose", "write"]

_KEPT = re.compile(r"\s*;?\s*was [\d.]+ until \d{4}-\d\d-\d\d")


class ThresholdChange(msgspec.Struct, frozen=True, kw_only=True):
    """A new threshold.

    Attributes
    ----------
    model : int
        Number of the model in kws.toml.
    keyword : str
    value : float
        0..1
    old : float
        In effect until now.
    """

    model: int
    keyword: str
    value: float
    old: float


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A change that is not written yet.

    Attributes
    ----------
    path : str
    diff : list of str
        Its lines, without those of the file's name.
    digest : str
        Of the file that it changes.
    """

    path: str
    diff: list[str]
    digest: str


def propose(path: Path, changes: Sequence[ThresholdChange]) -> Proposal:
    """Return what a change would make of kws.toml.

    Raises
    ------
    ConfigError
        If the file cannot be read, or would not be a configuration.
    """
    content = _read(path)
    new = _changed(content, changes, path=path)
    lines = difflib.unified_diff(
        content.decode().splitlines(), new.decode().splitlines(), lineterm="", n=2
    )
    shown = [line for line in lines if not line.startswith(("---", "+++"))]
    return Proposal(path=str(path.absolute()), diff=shown, digest=_digest(content))


def write(path: Path, changes: Sequence[ThresholdChange], *, digest: str) -> None:
    """Write a change to kws.toml, whole or not at all.

    Raises
    ------
    OutdatedError
        If the file is not the one that the digest is of.
    ConfigError
        If it cannot be written; errors as of `propose`.
    """
    content = _read(path)
    if _digest(content) != digest:
        raise OutdatedError(
            f"{path.name} has changed on disk since this page has read it. Look at the new "
            f"difference, and write again."
        )
    _replace(path.resolve(), _changed(content, changes, path=path))


def _changed(content: bytes, changes: Sequence[ThresholdChange], *, path: Path) -> bytes:
    mark = "\ufeff" if content.startswith("\ufeff".encode()) else ""
    text = content.decode("utf-8-sig")
    config = parse_config(text, name=path.name)
    wanted = _expected(config, changes)
    for is_commented in (True, False):  # a table within one line has no room for comments
        try:
            document = tomlkit.parse(text)
            for change in changes:
                _set(document, config, change, is_commented=is_commented)
            new = tomlkit.dumps(document)
            if parse_config(new, name=path.name) == wanted:
                _check_drop_ins(path, new, changes)
                return (mark + new).encode()
        except _DropInError:
            raise
        except (TOMLKitError, ConfigError, ValueError):
            continue
    raise ConfigError(
        f"{path.name} is written in a way that cannot be changed here. Received: its tables of "
        f"thresholds. Set them by hand, under [decision.thresholds]."
    )


class _DropInError(ConfigError):
    """A drop-in decides a threshold."""


def _check_drop_ins(path: Path, new: str, changes: Sequence[ThresholdChange]) -> None:
    """Check that a change of kws.toml has its effect, and no other, beside its drop-ins."""
    main, *drop_ins = read_config_files(path)
    if not drop_ins:
        return
    before = msgspec.convert(merged([main, *drop_ins]), Config).every_model
    tables = parse_toml(new, name=path.name)
    after = msgspec.convert(merged([main._replace(tables=tables), *drop_ins]), Config).every_model
    changed = {change.model for change in changes}
    is_whole = all(
        after[one.model].decision.thresholds.get(one.keyword) == one.value  # type: ignore[union-attr]
        for one in changes
    )
    others = [i for i in range(len(after)) if i not in changed]
    if not is_whole or any(before[i] != after[i] for i in others):
        names = ", ".join(one.path.name for one in drop_ins)
        raise _DropInError(
            f"Thresholds that {path.name}.d decides cannot be changed in {path.name}. Received: "
            f"{names} there. Change them in that file."
        )


def _expected(config: Config, changes: Sequence[ThresholdChange]) -> Config:
    """Return the configuration that the new file must hold."""
    replace = msgspec.structs.replace
    for change in changes:
        if not 0 <= change.model < len(config.every_model):
            raise ConfigError(
                f"A threshold must be of a model in kws.toml. Received: model {change.model + 1} "
                f"of {len(config.every_model)}. Load the page again."
            )
        if _is_own(config, change.model):
            models = list(config.models)
            model = models[change.model]
            decision = model.decision or config.decision
            thresholds = decision.thresholds | {change.keyword: change.value}
            decision = replace(decision, thresholds=thresholds)
            models[change.model] = replace(model, decision=decision)
            config = replace(config, models=models)
        else:
            thresholds = config.decision.thresholds | {change.keyword: change.value}
            config = replace(config, decision=replace(config.decision, thresholds=thresholds))
    return config


def _is_own(config: Config, model: int) -> bool:
    """Return whether a model needs a decision table of its own: it has one, or is one of several.

    The thresholds of `[decision]` must be of keywords that each model without a table knows.
    """
    return len(config.models) > 1 or (
        bool(config.models) and config.models[model].decision is not None
    )


def _set(
    document: tomlkit.TOMLDocument, config: Config, change: ThresholdChange, *, is_commented: bool
) -> None:
    if _is_own(config, change.model):
        parent: Any = document["models"][change.model]
        if "decision" not in parent:  # it replaces [decision], whose keys must hold on
            parent["decision"] = _plain(document.get("decision", {}))
    else:
        parent = document
        if "decision" not in parent:
            parent["decision"] = tomlkit.table(is_super_table=True)
    decision = parent["decision"]
    if "thresholds" not in decision:
        is_inline = isinstance(decision, InlineTable)
        decision["thresholds"] = tomlkit.inline_table() if is_inline else tomlkit.table()
    table = decision["thresholds"]
    table[change.keyword] = change.value
    if is_commented:
        _keep_old(table[change.keyword], change)


def _plain(table: Mapping[str, Any]) -> Item:
    """Return a copy of a table, without its comments."""
    return tomlkit.item(dict(table.unwrap()) if hasattr(table, "unwrap") else dict(table))


def _keep_old(item: Item, change: ThresholdChange) -> None:
    before, space = item.trivia.comment.lstrip("# "), item.trivia.comment_ws
    own = _KEPT.sub("", before).rstrip()
    kept = f"was {change.old:g} until {date.today().isoformat()}"
    item.comment(f"{own}; {kept}" if own else kept)
    item.trivia.comment_ws = space or "  "


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        content.decode()
    except OSError as error:
        raise ConfigError(
            f"kws.toml must be readable. Received: {path} ({error.strerror}). Put it back, or "
            f"change its permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} must be UTF-8 text. Save it as UTF-8.") from error
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    """Replace a file, with its mode and where possible its owner."""
    try:
        at = path.stat()
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), at.st_mode & 0o7777)
                if (at.st_uid, at.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), at.st_uid, at.st_gid)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(
            f"kws.toml cannot be written. Received: {path} ({error.strerror or error}). Copy the "
            f"lines of the difference into it by hand, and reload kws."
        ) from error
