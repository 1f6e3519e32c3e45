"""What was asked of `kws new`, and the folder in which the answer grows."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kws.errors import ConfigError

__all__ = ["Request", "Work"]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides what comes out.

    Attributes
    ----------
    phrases : tuple of str
        As typed; a keyword each.
    recordings : Path or None
        Real recordings of the phrases, in a folder for each or, of a single phrase, in this one.
    test : Path or None
        The same, for the figures alone.
    speech, noise, words : tuple of Path
        Folders in which nobody says a phrase: continuous speech, noise, isolated other words.
    minutes : float
        For training.
    n_clips : int
        Synthetic clips of each phrase; six for every ten of them are said of what is like it.
    language : str
        Such as `en`.
    budget : float
        False alarms per hour that the model's own threshold is to keep to.
    seed : int
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


@dataclass(frozen=True)
class Work:
    """The folder of one request: everything in it was made, and is found again by a later call."""

    folder: Path

    @property
    def said(self) -> Path:
        """Synthetic clips, `word/voice_nohash_n.flac`: the phrases and what is like them."""
        return self.folder / "said"

    @property
    def spoken(self) -> Path:
        """The same by split, `train`, `validation` and `test`: each voice is in one of them."""
        return self.folder / "spoken"

    @property
    def recorded(self) -> Path:
        """Recordings, trimmed: `train`, `validation` and `test`, each with `word/clip.flac`."""
        return self.folder / "recorded"

    @property
    def speech(self) -> Path:
        """Pieces of continuous speech that came in no known layout: `train` and `test`."""
        return self.folder / "speech"

    @property
    def others(self) -> Path:
        """Isolated words that are no phrase, a few of each."""
        return self.folder / "others"

    @property
    def noise(self) -> Path:
        """Noise, by split: links to what was given, or made here."""
        return self.folder / "noise"

    @property
    def test(self) -> Path:
        """The clips that figures are measured on, a folder for each label."""
        return self.folder / "test"

    @property
    def backbone(self) -> Path:
        """The run folder that training begins with."""
        return self.folder / "backbone"

    @property
    def run(self) -> Path:
        """The run folder of the training."""
        return self.folder / "run"

    @property
    def model(self) -> Path:
        """The model file, before it goes where it was asked for."""
        return self.folder / "model.tflite"

    @property
    def recipe(self) -> Path:
        """What is trained; `kws train` takes it too."""
        return self.folder / "recipe.toml"

    @property
    def outcome(self) -> Path:
        """The figures, as JSON."""
        return self.folder / "outcome.json"

    @property
    def minutes(self) -> float:
        """How long training took, in all calls together."""
        try:
            return float(self._minutes.read_text())
        except (OSError, ValueError):
            return 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time that passes as training's, also where it is interrupted."""
        before, started_s = self.minutes, time.monotonic()
        try:
            yield
        finally:
            passed = (time.monotonic() - started_s) / 60
            with suppress(OSError):  # a full disk has been told of by what it stopped
                self._minutes.write_text(f"{before + passed:.2f}\n")

    @property
    def _minutes(self) -> Path:
        return self.folder / "minutes"

    def begin(self, request: Request) -> bool:
        """Make the folder, or find it again; return whether it was there.

        Raises
        ------
        ConfigError
            If the folder is of another request.
        """
        asked = self.folder / "request.json"
        content = msgspec.json.format(msgspec.json.encode(request, enc_hook=str))
        if asked.is_file():
            self._refuse_another(request, asked)
            return True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            asked.write_bytes(content)
        except OSError as error:
            raise ConfigError(
                f"`--work` must be a folder that can be written to. Received: {self.folder} "
                f"({error.strerror}). Give another, or free some space."
            ) from error
        return False

    def _refuse_another(self, request: Request, path: Path) -> None:
        begun: dict[str, Any] = msgspec.json.decode(path.read_bytes())
        now: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(request, enc_hook=str))
        changed = ", ".join(key for key in now if now[key] != begun.get(key))
        if changed:
            raise ConfigError(
                f"A begun work must go on as it was asked for. Received: another {changed} than "
                f"{path} says. Give another --work or --out, or remove {self.folder}."
            )
