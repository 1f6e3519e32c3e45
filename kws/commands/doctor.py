"""Looks whether everything is there that listening needs, and names the command that mends it."""

import contextlib
import importlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kws.errors import DeviceError, KwsError

if TYPE_CHECKING:
    from kws.config import SourceSettings

__all__ = [
    "Check",
    "audio_group",
    "examine",
    "interpreter",
    "interpreter_runs",
    "microphones",
    "package",
    "python_version",
    "recorder",
    "report",
    "settings",
    "sound",
]

_OLDEST_PYTHON = (3, 11)
_MODEL = "commands"
_RUN_LIMIT_S = 60.0
_GET_RECORDER = (
    "sudo apt install alsa-utils, or sudo apt install portaudio19-dev && pip install 'kws[mic]'"
)
_ABOUT_MICROPHONES = frozenset(["recorder", "microphones", "permission", "sound"])
_HEAR_LIMIT_S = 20.0
_SILENCE_DBFS = -90.0
_HEAR_ONCE = """
import sys
import msgspec
import numpy as np
from kws.audio import SAMPLE_RATE_HZ, level_dbfs
from kws.config import SourceSettings
from kws.errors import KwsError
from kws.sources import open_source
samples = np.empty(0, np.int16)
try:
    with open_source(msgspec.json.decode(sys.argv[1], type=SourceSettings)) as source:
        for chunk in source:
            samples = np.concatenate((samples, chunk))
            if len(samples) >= SAMPLE_RATE_HZ:
                break
        print(source.name, level_dbfs(samples), sep="\\n", flush=True)
except KwsError as error:
    sys.exit(str(error))
"""
_RUN_ONCE = """
import sys
import numpy as np
from kws.errors import KwsError
from kws.model import model_path, open_model
try:
    model = open_model(model_path(sys.argv[1]))
except KwsError as error:
    sys.exit(str(error))
model.step(np.zeros((model.manifest.hop_frames, model.manifest.features.n_features), np.float32))
"""


class Check(NamedTuple):
    """What was looked at, and how it is.

    Attributes
    ----------
    name : str
        What was looked at.
    ok : bool
        Whether it is as it should be.
    detail : str
        What was found.
    remedy : str
        What to do about it; empty where nothing has to be done.
    needed : bool
        Whether listening to a WAV file fails without it.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = True


def examine(config: Path) -> Iterator[Check]:
    """Check one thing after the other.

    Parameters
    ----------
    config : Path
        A kws.toml, which may be missing.
    """
    basics = [
        python_version(),
        package("numpy", package="numpy"),
        package("msgspec", package="msgspec"),
        package("webrtcvad", package="webrtcvad-wheels"),
    ]
    yield from basics
    if not all(check.ok for check in basics):
        return  # what comes next imports them
    yield interpreter_runs()
    yield recorder()
    heard = microphones()
    yield heard
    if sys.platform == "linux":
        yield audio_group()
    yield from (sound(source) for source in _sources(config) if heard.ok or source.command)
    yield package("soundfile", package="soundfile", purpose="FLAC, Ogg and MP3 files")
    yield package("soxr", package="soxr", purpose="audio that is not at 16 kHz")
    if config.exists():
        yield settings(config)


def report(checks: Sequence[Check]) -> str:
    """Return a line for each check, and under each that failed the remedy."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{'ok' if check.ok else '!!'}  {check.name:<{width}}  {check.detail}")
        if check.remedy and not check.ok:
            lines.append(f"    {'':<{width}}  -> {check.remedy}")
    lines.append(_verdict(checks))
    return "\n".join(lines)


def _verdict(checks: Sequence[Check]) -> str:
    failed = [check.name for check in checks if check.needed and not check.ok]
    if failed:
        return f"Listening does not work yet: mend {', '.join(failed)} first."
    about = [check for check in checks if check.name.partition(" ")[0] in _ABOUT_MICROPHONES]
    if deaf := [check.name for check in about if not check.ok]:
        return f"Listening to a file works; for a microphone mend {', '.join(deaf)} first."
    is_heard = any(check.name.startswith("sound") for check in about)
    return f"Listening to a {'microphone' if is_heard else 'file'} works."


def python_version(found: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Check that Python is new enough."""
    oldest = ".".join(map(str, _OLDEST_PYTHON))
    return Check(
        "Python",
        found >= _OLDEST_PYTHON,
        f"{'.'.join(map(str, found))} on {platform.machine()}",
        f"kws needs Python {oldest} or newer: sudo apt install python{oldest}",
    )


def package(module: str, *, package: str, purpose: str = "") -> Check:
    """Check that a package can be imported; one with a `purpose` is needed only for that."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: the package without its C library
        detail = f"{error}; needed for {purpose}" if purpose else str(error)
        return Check(module, False, detail, f"pip install {package}", needed=not purpose)
    with contextlib.suppress(PackageNotFoundError):
        return Check(module, True, version(package))
    return Check(module, True, "installed")


def interpreter() -> str:
    """Return the name and version of the interpreter that runs the models, or "none"."""
    for name in ("ai-edge-litert", "tflite-runtime"):
        with contextlib.suppress(PackageNotFoundError):
            return f"{name} {version(name)}"
    return "none"


def interpreter_runs() -> Check:
    """Check that the bundled model runs, in another process: a bad interpreter may crash."""
    remedy = "pip install ai-edge-litert"
    if platform.machine().startswith("armv"):
        remedy = "pip install tflite-runtime 'numpy<2'"
    try:
        run = _python(_RUN_ONCE, _MODEL, limit_s=_RUN_LIMIT_S)
    except subprocess.TimeoutExpired:
        detail = f"{interpreter()}: no answer from `{_MODEL}` in {_RUN_LIMIT_S:g} s"
        return Check("interpreter", False, detail, remedy)
    if run.returncode:
        last_words = run.stderr.strip().splitlines()[-1:] or [f"it ended with {run.returncode}"]
        return Check("interpreter", False, f"{interpreter()}: {last_words[0]}", remedy)
    return Check("interpreter", True, f"{interpreter()} runs `{_MODEL}`")


def recorder() -> Check:
    """Check that there is something to record with."""
    from kws.sources import pyaudio_

    if pyaudio_.is_installed():
        return Check("recorder", True, "PyAudio", needed=False)
    if program := shutil.which("arecord"):
        return Check("recorder", True, program, needed=False)
    return Check("recorder", False, "neither PyAudio nor arecord", _GET_RECORDER, needed=False)


def microphones() -> Check:
    """Check that there is at least one capture device."""
    from kws.sources import list_devices

    try:
        found = list_devices()
    except DeviceError as error:
        return Check("microphones", False, str(error), _GET_RECORDER, needed=False)
    names = ", ".join(device.name for device in found)
    return Check(
        "microphones",
        bool(found),
        names or "none found",
        "plug one in, then run kws devices",
        needed=False,
    )


def audio_group(sound: Path = Path("/dev/snd")) -> Check:
    """Check that this user may open the sound devices, which belong to the group `audio`."""
    closed = [path for path in sorted(sound.glob("pcm*c")) if not os.access(path, os.R_OK)]
    if not closed:
        detail = "may record" if sound.exists() else f"no {sound}: this system has no sound card"
        return Check("permission", True, detail, needed=False)
    return Check(
        "permission",
        False,
        f"{closed[0]} may not be opened",
        "sudo usermod -aG audio $USER, then log in again",
        needed=False,
    )


def sound(source: "SourceSettings") -> Check:
    """Hear a microphone or a command for a second, in another process; nothing is kept.

    It can be there and be held by another program, or be muted and give nothing but zeros.
    """
    import msgspec

    name = f"sound ({source.name})" if source.name else "sound"
    try:
        run = _python(_HEAR_ONCE, msgspec.json.encode(source).decode(), limit_s=_HEAR_LIMIT_S)
    except subprocess.TimeoutExpired:
        detail = f"no answer from {source.label} in {_HEAR_LIMIT_S:g} s"
        return Check(name, False, detail, "unplug it, plug it in again", needed=False)
    *_, what, level = ["", "", *run.stdout.splitlines()]
    if run.returncode or not level:
        said = run.stderr.strip().splitlines()[-1:] or [f"it ended with {run.returncode}"]
        remedy = "end what uses it: fuser -v /dev/snd/*; or set `device`: kws devices lists them"
        return Check(name, False, said[0], "" if source.command else remedy, needed=False)
    if float(level) <= _SILENCE_DBFS:
        remedy = "unmute it: alsamixer, F6 for the card, F4 for capture, space bar"
        return Check(name, False, f"{what}: nothing but silence", remedy, needed=False)
    return Check(name, True, f"{what}: {float(level):.0f} dBFS", needed=False)


def _python(code: str, argument: str, *, limit_s: float) -> "subprocess.CompletedProcess[str]":
    """Run code in a process of its own, which may crash or hang."""
    return subprocess.run(
        [sys.executable, "-c", code, argument],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=limit_s,
        check=False,
    )


def _sources(path: Path) -> "list[SourceSettings]":
    """Return the microphones and commands that kws.toml names, or the default microphone."""
    from kws.config import Config, load_config

    try:
        config = load_config(path) if path.exists() else Config()
    except KwsError:  # `settings` says what is wrong
        return []
    return [one for one in config.every_source if one.command or one.input == "mic"]


def settings(path: Path) -> Check:
    """Check kws.toml, with the models and the hooks that it names."""
    from kws.config import load_config
    from kws.ctc_decision import phrases_for
    from kws.decision import thresholds_for
    from kws.manifest import read_manifest
    from kws.model import model_path
    from kws.sinks.hooks import Hooks

    names: list[str] = []
    keywords: list[str] = []
    try:
        config = load_config(path)
        for model in config.every_model:
            manifest, _ = read_manifest(model_path(model.name))
            decision = model.decision or config.decision
            thresholds_for(decision, manifest)
            keywords += phrases_for(decision, manifest) or manifest.keywords
            names.append(f"model `{manifest.name}`")
        Hooks(config.hooks, keywords=keywords)
    except KwsError as error:
        return Check(path.name, False, str(error), f"edit {path}")
    return Check(path.name, True, f"{', '.join(names)}, hooks: {len(config.hooks)}")
