"""Which voices this machine has, and what to run for those it lacks."""

import functools
import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from kws.errors import ConfigError, did_you_mean
from kws_train.synth.voices import kokoro, piper, programs
from kws_train.synth.voices.backend import Backend

__all__ = ["BACKENDS", "Found", "describe", "find_voices", "open_backends", "voices_folder"]

BACKENDS = ("piper", "kokoro", "flite", "espeak-ng")
"""From what is best to train on for most users to what is better than nothing."""

_NEURAL = ("piper", "kokoro")


class Found(msgspec.Struct, frozen=True):
    """A backend as this machine has it.

    Attributes
    ----------
    name : str
        One of `BACKENDS`.
    open : callable or None
        Gives the `Backend`; None where something is missing.
    remedy : str
        What to run where something is missing, or the language is not one of its own.
    """

    name: str
    open: Callable[..., Backend] | None
    remedy: str


def voices_folder() -> Path:
    """Return where models of voices are looked for: $KWS_VOICES or ~/.local/share/kws/voices."""
    if named := os.environ.get("KWS_VOICES"):
        return Path(named)
    share = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(share) / "kws/voices"


def find_voices(folder: Path | None = None, *, language: str = "en") -> list[Found]:
    """Look for all backends; none is opened.

    Parameters
    ----------
    folder : Path, optional
        Of the models of Piper and Kokoro; by default `voices_folder()`.
    language : str
        Such as `en`.

    Raises
    ------
    ConfigError
        If the folder is none, or holds a voice of Piper without its settings.
    """
    if folder is not None and not folder.is_dir():
        raise ConfigError(
            f"`--voices` must be the folder of the models of Piper and Kokoro. Received: {folder}, "
            f"which is none. Without it {voices_folder()} is taken."
        )
    folder = (folder or voices_folder()).expanduser()
    voices = [
        path
        for path in sorted(folder.glob("**/*.onnx"))
        if path.with_name(f"{path.name}.json").is_file() and piper.language_of(path) == language
    ]
    model = next(iter(sorted(folder.glob("kokoro*.onnx"))), None)
    styles = next(iter(sorted([*folder.glob("voices*.npz"), *folder.glob("voices*.bin")])), None)
    openers: dict[str, Callable[..., Backend] | None] = {
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
        Found(name, openers[name], _remedy(name, folder=folder, language=language))
        for name in BACKENDS
    ]


def open_backends(
    names: Sequence[str] = (),
    *,
    folder: Path | None = None,
    kokoro_files: tuple[Path, Path] | None = None,
    language: str = "en",
    held_out: bool = False,
) -> list[Backend]:
    """Open backends, by default all that are good: the neural ones, else the programs.

    Parameters
    ----------
    names : sequence of str
        Of `BACKENDS`; every one has to be there.
    folder, language
        See `find_voices`.
    kokoro_files : (Path, Path), optional
        Kokoro's model and voices, wherever they are: it alone speaks then.
    held_out : bool
        True: only speakers that are never used otherwise, for tests of a model.

    Raises
    ------
    ConfigError
        If a name is none of `BACKENDS`, one of those asked for is missing, or all are; says what to
        run for each.
    """
    if kokoro_files:
        return [kokoro.Kokoro(*kokoro_files, language=language, held_out=held_out)]
    for name in names:
        if name not in BACKENDS:
            raise ConfigError(
                f"A backend must be one of {', '.join(BACKENDS)}. Received: {name}."
                f"{did_you_mean(name, BACKENDS)}"
            )
    found = find_voices(folder, language=language)
    present = [one for one in found if one.open is not None]
    missing = [one for one in found if one.open is None and (one.name in names or not names)]
    if not present or (names and missing):
        received = ", ".join(one.name for one in present) or "none"
        remedies = "\n".join(f"  {one.name}: {one.remedy}" for one in missing)
        raise ConfigError(
            f"Synthesis in `{language}` needs a voice. Received: {received} on this machine. "
            f"Install {'what is missing' if names else 'one'}:\n{remedies}"
        )
    wanted = names or [one.name for one in present if one.name in _NEURAL] or BACKENDS
    return _opened([one for one in present if one.name in wanted], held_out=held_out)


def describe(backends: Sequence[Backend]) -> str:
    """Name backends, each with its number of voices."""
    return ", ".join(f"{one.name} ({one.n_voices})" for one in backends)


def _opened(found: Sequence[Found], *, held_out: bool) -> list[Backend]:
    """Open what was found; what holds no speaker out is left away where only those are wanted."""
    opened: list[Backend] = []
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
