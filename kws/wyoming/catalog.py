"""The models that are served: read once, found by keyword or by name, opened for each client."""

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace
from wyoming.event import Event
from wyoming.info import Attribution, Info, WakeModel, WakeProgram

from kws.config import DecisionSettings, GateSettings
from kws.errors import ConfigError, KwsError, ModelError, did_you_mean
from kws.model import Model, bundled_models, model_path
from kws.spotter import Spotter, open_for_sources

__all__ = ["Catalog", "Selection"]

_REFRESH_S = 2.0
_VERSION_SUFFIX = re.compile(r"_v[0-9][0-9.]*\Z")

_log = logging.getLogger("kws.wyoming")


class Selection(NamedTuple):
    """What a client wants to detect."""

    models: "tuple[_Served, ...]"
    names: Mapping[str, str]
    """Name to report, by keyword."""


class Catalog:
    """Models by keyword and by name.

    Parameters
    ----------
    models : sequence of str or path
        Bundled names or files.
    folders : sequence of path
        Folders of further .tflite and .onnx files, read again when a client asks what there is.
        Files in them that cannot be used are left out and logged.
    decision : DecisionSettings
        For all models.
    gate : GateSettings

    Raises
    ------
    ConfigError
        If a folder is missing, or a setting does not fit a model.
    ModelError
        If one of `models` cannot be used, or there is none at all.
    """

    def __init__(
        self,
        models: Sequence[str | Path],
        *,
        folders: Sequence[Path] = (),
        decision: DecisionSettings | None = None,
        gate: GateSettings | None = None,
    ) -> None:
        self._decision = decision or DecisionSettings()
        self._gate = gate or GateSettings()
        self._folders = tuple(folders)
        for folder in self._folders:
            if not folder.is_dir():
                raise ConfigError(
                    f"A custom model directory must be a folder. Received: {folder}. Create it, or "
                    f"correct the path."
                )
        self._named = {path: self._open(path) for path in map(model_path, models)}
        self._found: dict[Path, _Served] = {}
        self._refused: dict[Path, tuple[int, int]] = {}
        self._scan()
        if not self.keywords and not self._folders:
            raise ModelError("The service needs a model. Received: none. Name one with --model.")
        self._refreshing = asyncio.Lock()
        self._refreshed_s = time.monotonic()

    @property
    def keywords(self) -> tuple[str, ...]:
        """All keywords, each once."""
        return tuple(self._by_keyword)

    async def refresh(self) -> None:
        """Read the folders again, in a thread, unless that has just been done."""
        if not self._folders:
            return
        async with self._refreshing:
            if time.monotonic() - self._refreshed_s >= _REFRESH_S:
                await asyncio.to_thread(self._scan)
                self._refreshed_s = time.monotonic()

    def choose(self, names: Sequence[str] | None) -> Selection:
        """Find what is to be detected.

        Parameters
        ----------
        names : sequence of str or None
            Keywords, or names or files of models, which stand for all of their keywords. Case,
            `_` for a blank and a version suffix `_v1.0` make no difference. None or empty: all.

        Raises
        ------
        ConfigError
            If there is no such keyword or model; the message names what there is.
        """
        if not names:
            return Selection(tuple(self._models()), {keyword: keyword for keyword in self.keywords})
        reported: dict[str, str] = {}
        chosen: dict[Path, _Served] = {}
        for name in names:
            model, keywords = self._find(name)
            chosen[model.path] = model
            for keyword in keywords:
                # A client compares the name in a detection with the one that it asked for.
                reported[keyword] = name if len(keywords) == 1 else keyword
        return Selection(tuple(chosen.values()), reported)

    def open(self, selection: Selection) -> Spotter:
        """Return a spotter for one client, whose interpreters share the bytes of the models."""
        return self._spotter([one.model.copy() for one in selection.models])

    def info(self) -> Event:
        """Return the event that tells what is served."""
        return self._info

    def _find(self, name: str) -> "tuple[_Served, tuple[str, ...]]":
        wanted = _normal(name)
        for keyword, model in self._by_keyword.items():
            if _normal(keyword) == wanted:
                return model, (keyword,)
        for model in self._models():
            if wanted in model.names:
                return model, model.keywords
        raise ConfigError(
            f"`detect` must name keywords or models that are served. Received: `{name}`."
            f"{did_you_mean(name, self.keywords)} There is: {', '.join(self.keywords) or 'none'}."
        )

    def _models(self) -> "Iterator[_Served]":
        yield from self._named.values()
        yield from self._found.values()

    def _scan(self) -> None:
        """Open the files in the folders that are new or have changed; forget those removed."""
        found: dict[Path, _Served] = {}
        files = _files(self._folders)
        for path in files:
            if path in self._named:
                continue
            try:
                at = path.stat()
                state = (at.st_mtime_ns, at.st_size)
                known = self._found.get(path)
                if known and known.state == state:
                    found[path] = known
                elif self._refused.get(path) != state:
                    self._refused[path] = state
                    found[path] = self._open(path, state)
                    del self._refused[path]
            except (KwsError, OSError) as error:
                _log.warning("%s is not served: %s", path, error)
        self._found = found
        self._refused = {path: at for path, at in self._refused.items() if path in files}
        by_keyword: dict[str, _Served] = {}
        for model in self._models():
            for keyword in model.keywords:
                by_keyword.setdefault(keyword, model)
        self._by_keyword = by_keyword
        self._info = _info(by_keyword)

    def _open(self, path: Path, state: tuple[int, int] = (0, 0)) -> "_Served":
        model = open_for_sources(path)
        # What the settings allow is checked once, before there is a client.
        keywords = self._spotter([model]).keywords
        return _Served(path, model, keywords, hashlib.sha256(path.read_bytes()).hexdigest(), state)

    def _spotter(self, models: list[Model]) -> Spotter:
        known = {keyword for model in models for keyword in model.manifest.keywords}
        own = {key: value for key, value in self._decision.thresholds.items() if key in known}
        return Spotter(models, decision=replace(self._decision, thresholds=own), gate=self._gate)


class _Served(NamedTuple):
    """A model, opened once; clients get copies."""

    path: Path
    model: Model
    keywords: tuple[str, ...]
    sha256: str
    state: tuple[int, int]

    @property
    def names(self) -> set[str]:
        return {_normal(self.path.stem), _normal(self.model.manifest.name)}

    @property
    def version(self) -> str:
        return self.sha256[:12]

    def attribution(self) -> Attribution:
        sources = ", ".join(one.name for one in self.model.manifest.data)
        return Attribution(name=sources or self.model.manifest.name, url="")


def _info(by_keyword: "Mapping[str, _Served]") -> Event:
    kws = Attribution(name="the kws authors", url="")
    bundled = set(bundled_models().values())
    models = [
        WakeModel(
            name=keyword,
            phrase=_spoken(keyword),
            description=_spoken(keyword),
            attribution=kws if model.path in bundled else model.attribution(),
            languages=["en"] if model.path in bundled else [],
            version=model.version,
            installed=True,
        )
        for keyword, model in by_keyword.items()
    ]
    program = WakeProgram(
        name="kws",
        description="Keyword spotter for small computers",
        attribution=kws,
        version=version("kws"),
        installed=True,
        models=models,
    )
    return Info(wake=[program]).event()


def _files(folders: Iterable[Path]) -> list[Path]:
    """Return the models of folders; an .onnx beside a .tflite of its name is the same model."""
    return [
        path
        for folder in folders
        for path in sorted((*folder.glob("*.tflite"), *folder.glob("*.onnx")))
        if path.suffix == ".tflite" or not path.with_suffix(".tflite").is_file()
    ]


def _normal(name: str) -> str:
    return _VERSION_SUFFIX.sub("", name.lower().strip()).replace("_", " ").strip()


def _spoken(keyword: str) -> str:
    return keyword.replace("_", " ")
