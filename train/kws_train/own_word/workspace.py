"""The request of `kws new`, and the working folder of its intermediate results."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from kws.errors import ConfigError

__all__ = ["Request", "Workspace"]

_LAYOUT = 3  # of the folder; 1 had no number, 2 no heads


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """All options that the resulting model depends on.

    Attributes
    ----------
    phrases : tuple of str
        As typed, one keyword each.
    recordings : Path or None
        Real recordings of the phrases: a folder with one subfolder per phrase or, of a single
        phrase, a folder of recordings.
    test : Path or None
        Recordings used for evaluation only, in the same layout.
    speech, noise, words : tuple of Path
        Folders without the phrases: continuous speech, noise, isolated other words.
    minutes : float
        Training time.
    n_clips : int
        Synthetic clips of each phrase; 60 % as many are synthesised of confusable phrases.
    language : str
        Such as `en`.
    budget : float
        False alarms per hour that the model's own threshold is set for.
    seed : int
    small : bool
        A small network of its own, in place of a head on the speech embedding.
    format : "kws" or "microwakeword"
        `microwakeword`: a network for ESPHome's devices.
    """

    phrases: tuple[str, ...]
    recordings: Path | None = None
    test: Path | None = None
    speech: tuple[Path, ...] = ()
    noise: tuple[Path, ...] = ()
    words: tuple[Path, ...] = ()
    minutes: float = 30.0
    n_clips: int = 800
    language: str = "en"
    budget: float = 0.5
    seed: int = 1
    small: bool = False
    format: Literal["kws", "microwakeword"] = "kws"

    @property
    def is_micro(self) -> bool:
        """Whether the model is for ESPHome's devices."""
        return self.format == "microwakeword"


@dataclass(frozen=True)
class Workspace:
    """The working folder of one request; a later call continues with what it holds.

    Parameters
    ----------
    folder : Path
    notify : callable
        Receives messages about progress, a line each.
    """

    folder: Path
    notify: Callable[[str], None] = print

    @property
    def synthetic_all(self) -> Path:
        """Synthetic clips of phrases and confusable phrases: `word/voice_nohash_n.flac`."""
        return self.folder / "synthetic_all"

    @property
    def synthetic(self) -> Path:
        """The same by split, `train`, `validation` and `test`, each voice in one of them."""
        return self.folder / "synthetic"

    @property
    def recordings(self) -> Path:
        """Trimmed recordings: `train`, `validation` and `test`, each with `word/clip.flac`."""
        return self.folder / "recordings"

    @property
    def speech(self) -> Path:
        """Segments of continuous speech without known speakers: `train` and `test`."""
        return self.folder / "speech"

    @property
    def other_words(self) -> Path:
        """Isolated words that are no phrase: `word/clip.flac`."""
        return self.folder / "other_words"

    @property
    def noise(self) -> Path:
        """Noise by split, `train` and `test`: links to the given files, or generated."""
        return self.folder / "noise"

    @property
    def test_clips(self) -> Path:
        """Links to the clips of the evaluation, a folder for each label."""
        return self.folder / "test_clips"

    @property
    def pretrained(self) -> Path:
        """The run folder that training starts from."""
        return self.folder / "pretrained"

    @property
    def recipe(self) -> Path:
        """The recipe, which `kws train` accepts as well."""
        return self.folder / "recipe.toml"

    @property
    def run(self) -> Path:
        """The run folder of the training."""
        return self.folder / "run"

    @property
    def exported(self) -> Path:
        """The exported model file, before its thresholds are calibrated."""
        return self.folder / "exported.tflite"

    @property
    def fine_tuned(self) -> Path:
        """The exported network of a head and its embedding, fine-tuned together."""
        return self.folder / "fine_tuned.tflite"

    @property
    def fine_tuning(self) -> Path:
        """Misses of the head and of the fine-tuned network; says that the better one was kept."""
        return self.folder / "fine_tuning.json"

    @property
    def model(self) -> Path:
        """The calibrated model file."""
        return self.folder / "model.tflite"

    @property
    def report(self) -> Path:
        """The report page."""
        return self.run / "report.html"

    @property
    def figures(self) -> Path:
        """The figures as JSON; written last, it marks a finished request."""
        return self.folder / "figures.json"

    @property
    def training_minutes(self) -> float:
        """Training time of all calls together."""
        try:
            return float(self._minutes.read_text())
        except (OSError, ValueError):
            return 0.0

    @contextmanager
    def count_training_time(self) -> Iterator[None]:
        """Add the time spent in the block to `training_minutes`, also after an interruption."""
        before, started_s = self.training_minutes, time.monotonic()
        try:
            yield
        finally:
            passed = (time.monotonic() - started_s) / 60
            with suppress(OSError):  # of a full disk; the block has raised an error of its own
                self._minutes.write_text(f"{before + passed:.2f}\n")

    def begin(self, request: Request) -> bool:
        """Create the folder, or check that it belongs to the request; return whether it existed.

        Raises
        ------
        ConfigError
            If the folder belongs to another request or an earlier version of kws, or cannot be
            written to.
        """
        path = self._request
        if path.is_file():
            self._check_same(request, path)
            return True
        content = {"layout": _LAYOUT, **_builtins(request)}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(msgspec.json.format(msgspec.json.encode(content)))
        except OSError as error:
            raise ConfigError(
                f"`--work` must be a folder that can be written to. Received: {self.folder} "
                f"({error.strerror}). Give another, or free some space."
            ) from error
        return False

    def read_request(self) -> Request:
        """Return the request that the folder belongs to."""
        content = self._request.read_bytes()
        return msgspec.json.decode(content, type=Request, dec_hook=lambda kind, one: kind(one))

    @property
    def _request(self) -> Path:
        return self.folder / "request.json"

    @property
    def _minutes(self) -> Path:
        return self.folder / "minutes"

    def _check_same(self, request: Request, path: Path) -> None:
        begun: dict[str, Any] = msgspec.json.decode(path.read_bytes())
        if begun.get("layout") != _LAYOUT:
            raise ConfigError(
                f"A working folder can only be continued by the version of kws that began it. "
                f"Received: {self.folder}, begun by another one. Give another --work or --out, or "
                f"remove {self.folder}."
            )
        now, then = _builtins(request), _builtins(self.read_request())
        changed = ", ".join(key for key in now if now[key] != then[key])
        if changed:
            raise ConfigError(
                f"A working folder can only be continued with the same options. Received: another "
                f"{changed} than in {path}. Give another --work or --out, or remove {self.folder}."
            )


def _builtins(request: Request) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(request, enc_hook=str))
    return content
