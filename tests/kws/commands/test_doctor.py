import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kws.cli import cli
from kws.commands import doctor
from kws.commands.doctor import Check
from kws.commands.machine import interpreter_name, kernel_costs
from kws.config import SourceSettings
from kws.errors import DeviceError
from kws.manifest import FeatureSettings, Manifest, pack
from kws.sources import Device


@pytest.fixture
def model(tmp_path):
    """A file that says what a model says; nothing in it can run."""
    manifest = Manifest(
        name="small",
        labels=("_silence_", "stop"),
        kind="step",
        features=FeatureSettings(),
        n_frames=1,
        hop_frames=1,
    )
    path = tmp_path / "small.tflite"
    path.write_bytes(pack(b"\x1c\0\0\0TFL3" + bytes(64), manifest))
    return path


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Let a shell script stand for the Python of separate processes."""
    python = tmp_path / "python"

    def run(script):
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))

    return run


@pytest.mark.parametrize(("found", "ok"), [((3, 10, 9), False), ((3, 11, 0), True)])
def test_python_must_be_new_enough(found, ok):
    check = doctor.check_python(found)
    assert check.ok is ok
    assert check.detail.startswith(".".join(map(str, found)))
    assert check.remedy == "kws needs Python 3.11 or newer: sudo apt install python3.11"


def test_a_package_that_is_there_is_shown_with_its_version():
    check = doctor.check_package("numpy", package="numpy")
    assert check.ok
    assert re.fullmatch(r"\d+\.\d+\.\d+", check.detail)


def test_a_missing_package_is_needed_unless_it_has_a_purpose_of_its_own():
    assert doctor.check_package("nowhere_at_all", package="nowhere") == Check(
        "nowhere_at_all", False, "No module named 'nowhere_at_all'", "pip install nowhere"
    )
    assert doctor.check_package("nowhere_at_all", package="nowhere", purpose="FLAC") == Check(
        "nowhere_at_all",
        False,
        "No module named 'nowhere_at_all'; needed for FLAC",
        "pip install nowhere",
        needed=False,
    )


def test_a_package_without_its_c_library_counts_as_missing(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("raise OSError('libhalf.so not found')")
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.check_package("half_there", package="half").detail == "libhalf.so not found"


def test_nothing_else_is_looked_at_when_a_basic_package_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "webrtcvad", None)
    checks = list(doctor.run_checks(tmp_path / "kws.toml"))
    assert [check.name for check in checks] == ["Python", "numpy", "msgspec", "webrtcvad"]
    assert checks[-1].remedy == "pip install webrtcvad-wheels"


def test_everything_is_checked_in_turn(tmp_path, monkeypatch, child):
    child("exit 0")
    monkeypatch.setattr(
        doctor, "check_microphones", lambda: Check("microphones", False, "none", "")
    )
    config = tmp_path / "kws.toml"
    names = ["Python", "numpy", "msgspec", "webrtcvad", "interpreter", "kernels", "recorder"]
    names += ["microphones"]
    names += ["permission"] if sys.platform == "linux" else []
    names += ["soundfile", "soxr"]
    assert [check.name for check in doctor.run_checks(config)] == names
    config.write_text("")
    assert [check.name for check in doctor.run_checks(config)] == [*names, "kws.toml"]


def test_kernels_are_measured_on_this_machine():
    costs = kernel_costs()
    assert 0 < costs.fastest_ms < 1000
    assert 0 < costs.built_in_ms < 1000


@pytest.mark.parametrize(
    ("fastest_ms", "ok"), [(0.5, True), (2.5, True), (2.7, False), (5.3, False)]
)
def test_where_kernels_are_slow_the_small_models_are_advised(child, fastest_ms, ok):
    child(f"echo {fastest_ms}; echo 5.2")
    check = doctor.check_kernels()
    assert (check.ok, check.needed) == (ok, False)
    assert check.detail.startswith(
        f"the speech embedding takes {fastest_ms:.1f} ms of CPU per second of audio"
    )
    assert ok or check.remedy.startswith("use small models here: `kws new --small`")


@pytest.mark.parametrize("script", ["exit 1", "echo nonsense", "echo 1; echo 2; exit 1"])
def test_kernels_that_cannot_be_measured_are_no_obstacle(child, script):
    child(script)
    check = doctor.check_kernels()
    assert check.detail == "the speech embedding does not run"
    assert not check.needed


def test_an_interpreter_that_crashes_does_not_take_the_doctor_with_it(child):
    child("kill -ABRT $$")
    check = doctor.check_interpreter()
    assert not check.ok
    assert check.detail == f"{interpreter_name()}: exit status -6"
    assert "pip install" in check.remedy


def test_an_interpreter_that_hangs_is_given_up(monkeypatch, child):
    child("exec sleep 60")
    monkeypatch.setattr(doctor, "_RUN_LIMIT_S", 0.2)
    check = doctor.check_interpreter()
    assert not check.ok
    assert check.detail == f"{interpreter_name()}: `commands` did not run within 0.2 s"


def test_a_model_that_cannot_run_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(doctor, "_MODEL", "no-such-model")
    check = doctor.check_interpreter()
    assert not check.ok
    assert "Received: no-such-model." in check.detail
    assert "\n" not in check.detail


@pytest.mark.parametrize(
    ("is_installed", "program", "ok", "detail"),
    [
        (True, None, True, "PyAudio"),
        (False, "/usr/bin/arecord", True, "/usr/bin/arecord"),
        (False, None, False, "neither PyAudio nor arecord"),
    ],
)
def test_either_pyaudio_or_arecord_records(monkeypatch, is_installed, program, ok, detail):
    monkeypatch.setattr("kws.sources.pyaudio_.is_installed", lambda: is_installed)
    monkeypatch.setattr("shutil.which", lambda name: program)
    check = doctor.check_recorder()
    assert (check.ok, check.detail, check.needed) == (ok, detail, False)
    assert ok or check.remedy == (
        "sudo apt install alsa-utils, or sudo apt install portaudio19-dev && pip install 'kws[mic]'"
    )


def test_microphones_are_named(monkeypatch):
    found = [Device(id="0", name="USB Audio", default=True, source="pyaudio")]
    monkeypatch.setattr("kws.sources.list_devices", lambda: found)
    check = doctor.check_microphones()
    assert (check.ok, check.detail, check.needed) == (True, "USB Audio", False)


def test_no_microphone_is_a_warning(monkeypatch):
    monkeypatch.setattr("kws.sources.list_devices", list)
    check = doctor.check_microphones()
    assert (check.ok, check.detail, check.needed) == (False, "none found", False)
    assert check.remedy == "plug one in, then run kws devices"


def test_a_missing_recorder_is_explained_once(tmp_path, monkeypatch, child):
    child("exit 0")
    monkeypatch.setattr("kws.sources.pyaudio_.is_installed", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    checks = {check.name: check for check in doctor.run_checks(tmp_path / "kws.toml")}
    assert not checks["recorder"].ok
    assert checks["recorder"].remedy
    assert checks["microphones"] == Check("microphones", False, "unknown", needed=False)


def test_a_sound_system_that_fails_is_a_warning(monkeypatch):
    def fail():
        raise DeviceError("no sound today")

    monkeypatch.setattr("kws.sources.list_devices", fail)
    check = doctor.check_microphones()
    assert (check.ok, check.detail, check.needed) == (False, "no sound today", False)


def test_capture_devices_that_may_not_be_opened_call_for_the_group_audio(tmp_path, monkeypatch):
    assert doctor.check_permission(tmp_path).ok
    (tmp_path / "pcmC0D0c").touch()
    (tmp_path / "pcmC0D0p").touch()
    assert doctor.check_permission(tmp_path).detail == "may record"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert doctor.check_permission(tmp_path) == Check(
        "permission",
        False,
        f"{tmp_path / 'pcmC0D0c'} may not be opened",
        "sudo usermod -aG audio $USER, then log in again",
        needed=False,
    )


def test_a_machine_without_a_sound_card_has_nothing_to_permit(tmp_path):
    missing = tmp_path / "snd"
    assert doctor.check_permission(missing).detail == f"no {missing}: this system has no sound card"


def test_settings_are_checked_with_their_model_and_hooks(tmp_path, model):
    path = tmp_path / "kws.toml"
    path.write_text(f"[model]\nname = '{model}'\n[[hooks]]\nkeyword = 'stop'\ncommand = 'true'\n")
    assert doctor.check_config(path) == Check("kws.toml", True, "model `small`, hooks: 1")


def test_several_models_are_checked_each_with_its_decision(tmp_path, model):
    path = tmp_path / "kws.toml"
    text = f"[[models]]\nname = '{model}'\n[[models]]\nname = 'commands'\n"
    path.write_text(text + "[[hooks]]\nkeyword = 'yes'\ncommand = 'true'\n")
    assert doctor.check_config(path).detail == "model `small`, model `commands`, hooks: 1"
    path.write_text(text + "[models.decision]\nthresholds = { nope = 0.5 }\n")
    assert "Received: `nope`" in doctor.check_config(path).detail


def test_the_files_for_a_broker_are_checked(tmp_path, model):
    path = tmp_path / "kws.toml"
    text = f"[model]\nname = '{model}'\n[mqtt]\nhost = 'broker'\n"
    path.write_text(text)
    assert doctor.check_config(path).detail == "model `small`, hooks: 0, MQTT: broker:1883"
    path.write_text(f"{text}username = 'kws'\npassword_file = '/none'\n")
    assert "The password file of [mqtt] must be readable" in doctor.check_config(path).detail


@pytest.mark.parametrize(
    ("audio", "ok", "detail", "remedy"),
    [
        ("yes", True, r"`\S+`: -2\d dBFS", ""),
        ("cat /dev/zero", False, r"`\S+`: only silence", "unmute it: alsamixer, "),
        ("echo busy >&2; exit 1", False, r"The command of a .* busy\..*", ""),
    ],
)
def test_a_source_is_recorded_for_a_second(tmp_path, audio, ok, detail, remedy):
    program = tmp_path / "microphone"
    program.write_text(f"#!/bin/sh\n{audio}\n")
    program.chmod(0o755)
    check = doctor.check_sound(SourceSettings(name="desk", command=[str(program)]))
    assert (check.name, check.ok, check.needed) == ("sound (desk)", ok, False)
    assert re.fullmatch(detail, check.detail)
    assert check.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("channel", "detail"),
    [
        (None, r"the mean of its channels is silent, and another channel is not \(-2\d dBFS\)"),
        (2, r"channel 2 is silent, and another channel is not \(-2\d dBFS\)"),
        (0, r"-2\d dBFS"),
    ],
)
def test_channels_that_cancel_are_told_from_silence(tmp_path, channel, detail):
    wave = np.random.default_rng(1).normal(0, 2000, 32_000)
    path = tmp_path / "audio.raw"
    path.write_bytes(np.stack([wave, -wave, 0 * wave], axis=1).astype("<i2").tobytes())
    settings = SourceSettings(
        name="desk", command=["cat", str(path)], n_channels=3, channel=channel
    )
    check = doctor.check_sound(settings)
    assert check.ok == (channel == 0)
    assert re.fullmatch(rf"`cat \S+`: {detail}", check.detail)
    if not check.ok:
        assert check.remedy.startswith('set `channel = "loudest"`, or the number of that channel')


@pytest.mark.parametrize(
    ("has_sound_card", "remedy"), [(True, "stop what uses it: "), (False, "plug in a microphone; ")]
)
def test_a_microphone_that_cannot_be_opened_gets_a_remedy_that_fits(
    monkeypatch, child, has_sound_card, remedy
):
    child("echo 'audio open error' >&2; exit 3")
    monkeypatch.setattr("kws.sources.arecord.has_sound_card", lambda: has_sound_card)
    check = doctor.check_sound(SourceSettings())
    assert (check.ok, check.needed) == (False, False)
    assert check.remedy.startswith(remedy)


def test_a_microphone_that_hangs_is_given_up(monkeypatch, child):
    child("exec sleep 60")
    monkeypatch.setattr(doctor, "_RECORD_LIMIT_S", 0.2)
    assert (
        doctor.check_sound(SourceSettings(device="USB")).detail == "USB gave no audio within 0.2 s"
    )


def test_the_live_sources_of_the_settings_are_recorded_but_no_files_and_ports(
    tmp_path, monkeypatch, child
):
    found = [Device(id="0", name="USB Audio", default=True, source="alsa")]
    monkeypatch.setattr("kws.sources.list_devices", lambda: found)
    child("exit 0")
    monkeypatch.setattr(
        doctor, "check_sound", lambda source: Check(f"sound of {source.label}", True, "")
    )
    config = tmp_path / "kws.toml"

    def recorded():
        names = [check.name for check in doctor.run_checks(config)]
        return [name.removeprefix("sound of ") for name in names if name.startswith("sound of")]

    assert recorded() == ["mic"]
    sources = ["device = 'USB'", "command = 'parec'", "input = 'a.wav'", "input = 'udp://h:1'"]
    config.write_text("".join(f"[[sources]]\n{one}\n" for one in sources))
    assert recorded() == ["USB", "command 1"]
    monkeypatch.setattr("kws.sources.list_devices", list)
    assert recorded() == ["command 1"]
    config.write_text("[nonsense]")
    assert recorded() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gaet]\n", "Received: `gaet` in the top level. Did you mean `gate`?"),
        ("[model]\nname = 'MODEL'\n[[hooks]]\nkeyword = 'stpo'\ncommand = 'true'\n", "`stop`"),
        ("[model]\nname = 'MODEL'\n[decision.thresholds]\nstpo = 0.5\n", "Received: `stpo`"),
        ("[model]\nname = 'nowhere.tflite'\n", "/nowhere.tflite."),
    ],
)
def test_settings_that_break_a_rule_fail(tmp_path, model, text, said):
    path = tmp_path / "kws.toml"
    path.write_text(text.replace("MODEL", str(model)))
    check = doctor.check_config(path)
    assert (check.ok, check.needed, check.remedy) == (False, True, f"edit {path}")
    assert said in check.detail


def test_a_remedy_names_the_pip_of_this_installation(monkeypatch):
    monkeypatch.setattr("kws.own_programs.as_typed", lambda name: f".venv/bin/{name}")
    report = doctor.report([Check("soxr", False, "none", "pip install soxr", needed=False)])
    assert "-> .venv/bin/pip install soxr\n" in report


def test_the_report_puts_the_remedy_under_what_failed():
    checks = [
        Check("numpy", True, "2.0", "pip install numpy"),
        Check("recorder", False, "none", "sudo apt install alsa-utils", needed=False),
    ]
    assert doctor.report(checks) == (
        "ok  numpy     2.0\n"
        "!!  recorder  none\n"
        "              -> sudo apt install alsa-utils\n"
        "Listening to a file works; for a microphone, fix first: recorder."
    )
    assert doctor.report([Check("numpy", True, "2")]).endswith("\nListening to a file works.")
    heard = [Check(name, True, "") for name in ("recorder", "microphones", "sound (desk)")]
    assert doctor.report(heard).endswith("\nListening to a microphone works.")
    assert doctor.report([Check("soxr", False, "gone", "x"), Check("y", False, "z")]).endswith(
        "Listening does not work yet; fix first: soxr, y."
    )


@pytest.mark.parametrize(("needed", "code"), [(False, 0), (True, 1)])
def test_only_what_a_file_needs_makes_the_command_fail(monkeypatch, needed, code):
    checks = [Check("thing", False, "gone", "get it", needed=needed)]
    monkeypatch.setattr("kws.commands.doctor.run_checks", lambda config: iter(checks))
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == code
    assert "-> get it" in result.stdout


@pytest.mark.slow
def test_a_model_runs_in_another_process(tiny_file, monkeypatch):
    monkeypatch.setattr(doctor, "_MODEL", str(tiny_file()))
    check = doctor.check_interpreter()
    assert check.ok, check.detail
    assert Path(doctor._MODEL).name in check.detail
