"""Find and open the text-to-speech engines of this machine, with a remedy for missing ones."""

import functools
import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from kws.errors import ConfigError, did_you_mean
from kws_train.synth.voices import kokoro, piper, programs
from kws_train.synth.voices.engine import VoiceEngine

__all__ = [
    "ENGINES",
    "EngineStatus",
    "describe_engines",
    "find_engines",
    "open_engines",
    "voices_folder",
]

ENGINES = ("piper", "kokoro", "flite", "espeak-ng")
"""Supported engines, best first."""

_NEURAL = ("piper", "kokoro")


class EngineStatus(msgspec.Struct, frozen=True):
    """A text-to-speech engine and whether this machine has it.

    Attributes
    ----------
    name : str
        One of `ENGINES`.
    open : callable or None
        Returns the `VoiceEngine`; None where it cannot be opened.
    remedy : str
        Command that installs what is missing, or that the language is not supported.
    """

    name: str
    open: Callable[..., VoiceEngine] | None
    remedy: str


def voices_folder() -> Path:
    """Return the folder of voice models: $KWS_VOICES or ~/.local/share/kws/voices."""
    if named := os.environ.get("KWS_VOICES"):
        return Path(named)
    share = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(share) / "kws/voices"


def find_engines(folder: Path | None = None, *, language: str = "en") -> list[EngineStatus]:
    """Return the status of all engines without opening any.

    Parameters
    ----------
    folder : Path, optional
        Of the models of Piper and Kokoro; by default `voices_folder()`.
    language : str
        Such as `en`.

    Raises
    ------
    ConfigError
        If the folder does not exist, or holds a voice of Piper without its settings.
    """
    if folder is not None and not folder.is_dir():
        raise ConfigError(
            f"`--voices` must be the folder of the models of Piper and Kokoro. Received: {folder}, "
            f"which is no folder. The default is {voices_folder()}."
        )
    folder = (folder or voices_folder()).expanduser()
    voices = [
        path
        for path in sorted(folder.glob("**/*.onnx"))
        if path.with_name(f"{path.name}.json").is_file() and piper.language_of(path) == language
    ]
    model = next(iter(sorted(folder.glob("kokoro*.onnx"))), None)
    styles = next(iter(sorted([*folder.glob("voices*.npz"), *folder.glob("voices*.bin")])), None)
    openers: dict[str, Callable[..., VoiceEngine] | None] = {
        "piper": functools.partial(piper.Piper, voices)
        if voices and importlib.util.find_spec("piper")
        else None,
        "kokoro": functools.partial(kokoro.Kokoro, model, styles, language=language)
        if model
        and styles
        and language in kokoro.LANGUAGES
        and importlib.util.find_spec("kokoro_onnx")
        else None,
        "flite": programs.Flite if language == "en" and shutil.which("flite") else None,
        "espeak-ng": functools.partial(programs.Espeak, language=language)
        if shutil.which("espeak-ng")
        else None,
    }
    return [
        EngineStatus(name, openers[name], _remedy(name, folder=folder, language=language))
        for name in ENGINES
    ]


def open_engines(
    names: Sequence[str] = (),
    *,
    folder: Path | None = None,
    kokoro_files: tuple[Path, Path] | None = None,
    language: str = "en",
    held_out: bool = False,
) -> list[VoiceEngine]:
    """Open engines, by default all neural ones that are installed, else the programs.

    Parameters
    ----------
    names : sequence of str
        Of `ENGINES`; all of them have to be installed.
    folder, language
        See `find_engines`.
    kokoro_files : (Path, Path), optional
        Kokoro's model and voices; only Kokoro is used then.
    held_out : bool
        True: use only the voices reserved for tests of a model.

    Raises
    ------
    ConfigError
        If a name is none of `ENGINES`, or an engine is missing; lists how to install each.
    """
    if kokoro_files:
        return [kokoro.Kokoro(*kokoro_files, language=language, held_out=held_out)]
    for name in names:
        if name not in ENGINES:
            raise ConfigError(
                f"`--backend` must be one of {', '.join(ENGINES)}. Received: {name}."
                f"{did_you_mean(name, ENGINES)}"
            )
    found = find_engines(folder, language=language)
    present = [one for one in found if one.open is not None]
    missing = [one for one in found if one.open is None and (one.name in names or not names)]
    if not present or (names and missing):
        received = ", ".join(one.name for one in present) or "none"
        remedies = "\n".join(f"  {one.name}: {one.remedy}" for one in missing)
        raise ConfigError(
            f"Synthesis in `{language}` needs a voice. Received: {received} on this machine. "
            f"Install {'what is missing' if names else 'one'}:\n{remedies}"
        )
    wanted = names or [one.name for one in present if one.name in _NEURAL] or ENGINES
    return _opened([one for one in present if one.name in wanted], held_out=held_out)


def describe_engines(engines: Sequence[VoiceEngine]) -> str:
    """Return the names of engines, each with its number of voices."""
    return ", ".join(f"{one.name} ({one.n_voices})" for one in engines)


def _opened(found: Sequence[EngineStatus], *, held_out: bool) -> list[VoiceEngine]:
    """Open engines; with `held_out`, skip those that reserve no voice for tests."""
    opened: list[VoiceEngine] = []
    for one in found:
        try:
            if one.open:
                opened.append(one.open(held_out=held_out))
        except ConfigError:
            if not held_out or (one is found[-1] and not opened):
                raise
    return opened


def _remedy(name: str, *, folder: Path, language: str) -> str:
    if name == "piper":
        voice = "en_US-libritts_r-medium" if language == "en" else "VOICE"
        return (
            f"`pip install piper-tts && mkdir -p {folder} && python -m piper.download_voices "
            f"--download-dir {folder} {voice}`"
        )
    if name == "kokoro":
        if language not in kokoro.LANGUAGES:
            return f"does not speak it, only {', '.join(kokoro.LANGUAGES)}"
        return (
            f"`pip install kokoro-onnx`, and put kokoro-v1.0.onnx and voices-v1.0.bin from "
            f"https://github.com/thewh1teagle/kokoro-onnx/releases into {folder}"
        )
    if name == "flite" and language != "en":
        return "does not speak it, only en"
    return f"`sudo apt install {name}`"
