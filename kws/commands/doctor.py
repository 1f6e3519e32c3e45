"""Check what listening needs, and name the command that fixes what is missing."""

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

from kws.commands.machine import interpreter_name, kernel_costs
from kws.commands.probe import run_probe
from kws.errors import DeviceError, KwsError
from kws.own_programs import with_own_pip
from kws.platforms import is_linux

if TYPE_CHECKING:
    from kws.config import SourceSettings

__all__ = [
    "Check",
    "check_config",
    "check_interpreter",
    "check_kernels",
    "check_microphones",
    "check_package",
    "check_permission",
    "check_python",
    "check_recorder",
    "check_sound",
    "report",
    "run_checks",
]

_MIN_PYTHON = (3, 11)
_MODEL = "commands"
_RUN_LIMIT_S = 60.0
_INSTALL_RECORDER = (
    "sudo apt install alsa-utils, or sudo apt install portaudio19-dev && pip install 'kws[mic]'"
)
_ANOTHER_USES_IT = "stop what uses it: fuser -v /dev/snd/*; or set `device`: kws devices lists them"
_NO_SOUND_CARD = "plug in a microphone; or set `input` to a file or a port, or `command`"
_MICROPHONE_CHECKS = frozenset(["recorder", "microphones", "permission", "sound"])
_SET_CHANNEL = 'set `channel = "loudest"`, or the number of that channel, in [source]'
_RECORD_LIMIT_S = 20.0
_SILENCE_DBFS = -90.0


class Check(NamedTuple):
    """The outcome of one check.

    Attributes
    ----------
    name : str
    ok : bool
    detail : str
        What was found.
    remedy : str
        The command that fixes it, or what to do; may be empty.
    needed : bool
        True if even listening to a WAV file fails without it.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = True


def run_checks(config: Path) -> Iterator[Check]:
    """Run the checks in turn; without a basic package, no others.

    Parameters
    ----------
    config : Path
        A kws.toml, which may be missing.
    """
    basics = [
        check_python(),
        check_package("numpy", package="numpy"),
        check_package("msgspec", package="msgspec"),
        check_package("webrtcvad", package="webrtcvad-wheels"),
    ]
    yield from basics
    if not all(check.ok for check in basics):
        return  # the other checks import these packages
    yield (interpreter := check_interpreter())
    if interpreter.ok:
        yield check_kernels()
    yield (recorder := check_recorder())
    microphones = check_microphones()
    # Without a recorder, the remedy stands above already.
    yield microphones if recorder.ok else microphones._replace(detail="unknown", remedy="")
    if is_linux():
        yield check_permission()
    yield from (check_sound(one) for one in _live_sources(config) if microphones.ok or one.command)
    yield check_package("soundfile", package="soundfile", purpose="FLAC, Ogg and MP3 files")
    yield check_package("soxr", package="soxr", purpose="audio that is not at 16 kHz")
    if config.exists():
        yield check_config(config)


def report(checks: Sequence[Check]) -> str:
    """Return a line per check, below each failed one its remedy, and a summary."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{'ok' if check.ok else '!!'}  {check.name:<{width}}  {check.detail}")
        if check.remedy and not check.ok:
            lines.append(f"    {'':<{width}}  -> {with_own_pip(check.remedy)}")
    lines.append(_verdict(checks))
    return "\n".join(lines)


def _verdict(checks: Sequence[Check]) -> str:
    failed = [check.name for check in checks if check.needed and not check.ok]
    if failed:
        return f"Listening does not work yet; fix first: {', '.join(failed)}."
    live = [check for check in checks if check.name.partition(" ")[0] in _MICROPHONE_CHECKS]
    if broken := [check.name for check in live if not check.ok]:
        return f"Listening to a file works; for a microphone, fix first: {', '.join(broken)}."
    has_sound = any(check.name.startswith("sound") for check in live)
    return f"Listening to a {'microphone' if has_sound else 'file'} works."


def check_python(found: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Check the version of Python."""
    oldest = ".".join(map(str, _MIN_PYTHON))
    return Check(
        "Python",
        found >= _MIN_PYTHON,
        f"{'.'.join(map(str, found))} on {platform.machine()}",
        f"kws needs Python {oldest} or newer: sudo apt install python{oldest}",
    )


def check_package(module: str, *, package: str, purpose: str = "") -> Check:
    """Check that a package can be imported; with a `purpose`, it is optional."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: its C library is missing
        detail = f"{error}; needed for {purpose}" if purpose else str(error)
        return Check(module, False, detail, f"pip install {package}", needed=not purpose)
    with contextlib.suppress(PackageNotFoundError):
        return Check(module, True, version(package))
    return Check(module, True, "installed")


def check_interpreter() -> Check:
    """Check that the bundled model runs, in a separate process: a broken interpreter may crash."""
    remedy = "pip install ai-edge-litert"
    if platform.machine().startswith("armv"):
        remedy = "pip install tflite-runtime 'numpy<2'"
    name = interpreter_name()
    try:
        run = run_probe("model", _MODEL, limit_s=_RUN_LIMIT_S)
    except subprocess.TimeoutExpired:
        detail = f"{name}: `{_MODEL}` did not run within {_RUN_LIMIT_S:g} s"
        return Check("interpreter", False, detail, remedy)
    if run.returncode:
        return Check("interpreter", False, f"{name}: {_last_line(run)}", remedy)
    return Check("interpreter", True, f"{name} runs `{_MODEL}`")


def check_kernels() -> Check:
    """Check that the interpreter has fast kernels of eight bits, which the speech embedding needs.

    Without them, heads on it take several times the CPU of a small network.
    """
    costs = kernel_costs()
    if costs is None:
        detail = "the speech embedding does not run"
        return Check("kernels", False, detail, "update kws and the interpreter", needed=False)
    detail = f"the speech embedding takes {costs.fastest_ms:.1f} ms of CPU per second of audio"
    if costs.are_fast:
        return Check("kernels", True, detail, needed=False)
    return Check(
        "kernels",
        False,
        f"{detail}: no fast int8 kernels for this processor",
        "use small models here: `kws new --small`, or the bundled models with `-small`",
        needed=False,
    )


def check_recorder() -> Check:
    """Check that PyAudio or arecord is installed, or sounddevice on other systems than Linux."""
    from kws.sources import pyaudio_, sounddevice_

    if pyaudio_.is_installed():
        return Check("recorder", True, "PyAudio", needed=False)
    if not is_linux():
        found = sounddevice_.is_installed()
        detail = "sounddevice" if found else "no sounddevice"
        return Check("recorder", found, detail, "pip install 'kws[mic]'", needed=False)
    if program := shutil.which("arecord"):
        return Check("recorder", True, program, needed=False)
    return Check("recorder", False, "neither PyAudio nor arecord", _INSTALL_RECORDER, needed=False)


def check_microphones() -> Check:
    """Check that there is at least one capture device."""
    from kws.sources import list_devices

    try:
        found = list_devices()
    except DeviceError as error:
        return Check("microphones", False, str(error), _INSTALL_RECORDER, needed=False)
    names = ", ".join(device.name for device in found)
    return Check(
        "microphones",
        bool(found),
        names or "none found",
        "plug one in, then run kws devices",
        needed=False,
    )


def check_permission(sound: Path = Path("/dev/snd")) -> Check:
    """Check that this user may open the sound devices; they belong to the group `audio`."""
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


def check_sound(source: "SourceSettings") -> Check:
    """Record a microphone or a command for a second, in a separate process; nothing is kept.

    A device can be held by another program, or be muted and give only zeros.
    """
    import msgspec

    from kws.sources.arecord import has_sound_card

    name = f"sound ({source.name})" if source.name else "sound"
    try:
        run = run_probe("source", msgspec.json.encode(source).decode(), limit_s=_RECORD_LIMIT_S)
    except subprocess.TimeoutExpired:
        detail = f"{source.label} gave no audio within {_RECORD_LIMIT_S:g} s"
        return Check(name, False, detail, "unplug it, plug it in again", needed=False)
    *_, what, level = ["", "", *run.stdout.splitlines()]
    if run.returncode or not level:
        remedy = _ANOTHER_USES_IT if has_sound_card() else _NO_SOUND_CARD
        return Check(name, False, _last_line(run), "" if source.command else remedy, needed=False)
    if float(level) <= _SILENCE_DBFS:
        if hidden := _channels_that_cancel(source):
            return Check(name, False, f"{what}: {hidden}", _SET_CHANNEL, needed=False)
        remedy = "unmute it: alsamixer, F6 for the card, F4 for capture, space bar"
        return Check(name, False, f"{what}: only silence", remedy, needed=False)
    return Check(name, True, f"{what}: {float(level):.0f} dBFS", needed=False)


def _channels_that_cancel(source: "SourceSettings") -> str:
    """Return what is wrong if the loudest channel of a silent source is not silent."""
    import msgspec
    from msgspec.structs import replace

    if source.channel == "loudest":
        return ""
    text = msgspec.json.encode(replace(source, channel="loudest")).decode()
    try:
        run = run_probe("source", text, limit_s=_RECORD_LIMIT_S)
    except subprocess.TimeoutExpired:
        return ""
    *_, level = ["", *run.stdout.splitlines()]
    if run.returncode or not level or float(level) <= _SILENCE_DBFS:
        return ""
    used = "the mean of its channels" if source.channel is None else f"channel {source.channel}"
    return f"{used} is silent, and another channel is not ({float(level):.0f} dBFS)"


def check_config(path: Path) -> Check:
    """Check kws.toml, its models, its hooks, and the files for its MQTT broker."""
    from kws.commands.config_report import check

    try:
        return Check(path.name, True, check(path))
    except KwsError as error:
        return Check(path.name, False, str(error), f"edit {path}")


def _live_sources(path: Path) -> "list[SourceSettings]":
    """Return the microphones and commands in kws.toml, or the default microphone."""
    from kws.config import Config, load_config

    try:
        config = load_config(path) if path.exists() else Config()
    except KwsError:  # `check_config` reports it
        return []
    return [one for one in config.every_source if one.command or one.input == "mic"]


def _last_line(run: "subprocess.CompletedProcess[str]") -> str:
    return (run.stderr.strip().splitlines()[-1:] or [f"exit status {run.returncode}"])[0]
