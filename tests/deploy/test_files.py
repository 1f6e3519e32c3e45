"""What lies in deploy/ is complete and well-formed; tests/system/deploy runs it for real."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kws.cli import cli
from kws.config import (
    Config,
    DaemonSettings,
    DecisionSettings,
    GateSettings,
    HookSettings,
    ModelSettings,
    MqttSettings,
    RecordingSettings,
    SourceSettings,
    UiSettings,
    WyomingSettings,
    load_config,
    parse_config,
)
from kws.mqtt.broker import CREDENTIAL

DEPLOY = Path(__file__).parents[2] / "deploy"
EXAMPLE = DEPLOY / "kws.toml"
TABLES = {
    "model": ModelSettings,
    "source": SourceSettings,
    "gate": GateSettings,
    "decision": DecisionSettings,
    "hooks": HookSettings,
    "recording": RecordingSettings,
    "daemon": DaemonSettings,
    "wyoming": WyomingSettings,
    "mqtt": MqttSettings,
    "ui": UiSettings,
}
OS_RELEASES = {
    "Raspberry Pi OS Bookworm, arm64": ("debian", "", "arm64", "aarch64", "3.11"),
    "Raspberry Pi OS Bookworm, armhf": ("raspbian", "debian", "armhf", "aarch64", "3.11"),
    "Raspberry Pi OS Trixie, arm64": ("debian", "", "arm64", "aarch64", "3.13"),
    "Debian 12": ("debian", "", "amd64", "x86_64", "3.11"),
    "Ubuntu 24.04": ("ubuntu", "debian", "amd64", "x86_64", "3.12"),
}


def test_the_example_as_shipped_changes_no_default():
    assert load_config(EXAMPLE) == Config()


def test_the_example_holds_every_key_and_all_parse_once_uncommented():
    settings = re.sub(r"^# (?=\w+ = |\[)", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    parse_config(settings)
    parts = re.split(r"^\[+(\w+)\]+$", settings, flags=re.MULTILINE)[1:]
    shown = {
        table: set(re.findall(r"^(\w+) = ", text, flags=re.MULTILINE))
        for table, text in zip(parts[::2], parts[1::2], strict=True)
    }
    assert shown == {table: set(struct.__struct_fields__) for table, struct in TABLES.items()}
    lists = {"models": "model", "sources": "source"}
    assert {lists.get(table, table) for table in Config.__struct_fields__} == set(TABLES)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
@pytest.mark.parametrize("unit", ["kws.service", "kws-wyoming.service", "user/kws.service"])
def test_systemd_knows_every_key_of_a_unit(unit, tmp_path):
    text = (DEPLOY / unit).read_text()
    path = tmp_path / Path(unit).name
    path.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    command = ["systemd-analyze", "verify", *(["--user"] if "/" in unit else []), str(path)]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
@pytest.mark.parametrize("unknown", ["", "LoadCredentials"])
def test_systemd_knows_every_key_of_the_drop_ins(unknown, tmp_path):
    text = (DEPLOY / "kws.service").read_text()
    path = tmp_path / "kws.service"
    path.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    shutil.copytree(DEPLOY / "dropins", tmp_path / "kws.service.d")
    with (tmp_path / "kws.service.d/mqtt.conf").open("a") as file:
        file.write(f"{unknown}=a:b\n" if unknown else "")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert (unknown in done.stderr) if unknown else (done.stderr == "")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
@pytest.mark.parametrize(("unit", "most"), [("kws.service", 1.5), ("kws-wyoming.service", 1.7)])
def test_a_system_unit_is_hardly_exposed(unit, most):
    command = ["systemd-analyze", "security", "--offline=true", str(DEPLOY / unit)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    exposure = re.search(rf"Overall exposure level for {unit}: ([\d.]+)", said)
    assert float(exposure.group(1)) <= most


def test_the_options_of_the_wyoming_unit_are_those_that_the_file_shows():
    unit = (DEPLOY / "kws-wyoming.service").read_text()
    shown = re.search(r"^OPTIONS=(.+)$", (DEPLOY / "wyoming.env").read_text(), re.MULTILINE)[1]
    assert f'Environment="OPTIONS={shown}"' in unit
    known = {option for one in cli.commands["wyoming"].params for option in one.opts}
    assert {word for word in shown.split() if word.startswith("--")} <= known


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
def test_the_system_unit_gives_up_what_it_does_not_need():
    """Each line that confines the service is seen by itself; the sum above hides a missing one."""
    command = ["systemd-analyze", "security", "--offline=true", "--json=short"]
    said = subprocess.run(
        [*command, str(DEPLOY / "kws.service")], capture_output=True, text=True, check=True
    ).stdout
    exposed = {check["name"] for check in json.loads(said) if check["set"] is False}
    assert exposed == {
        "RootDirectory=/RootImage=",
        "SupplementaryGroups=",  # audio
        "PrivateDevices=",  # /dev/snd
        "PrivateMounts=",  # implied
        "RestrictAddressFamilies=~AF_UNIX",
        "ProcSubset=",  # /proc/cpuinfo
        "DeviceAllow=",
    }


@pytest.mark.parametrize(
    "line",
    [
        "NoNewPrivileges=yes",
        "PrivateNetwork=yes",
        "RestrictAddressFamilies=AF_UNIX",
        "IPAddressDeny=any",
        "UMask=0077",
        "DynamicUser=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
        "MemoryDenyWriteExecute=yes",
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged @resources",
        "DevicePolicy=closed",
        "StateDirectoryMode=0700",
        "LimitCORE=0",
        "MemoryMax=384M",
        "TasksMax=256",
    ],
)
def test_the_system_unit_has_each_line_that_confines_it(line):
    assert (DEPLOY / "kws.service").read_text().splitlines().count(line) == 1


@pytest.mark.parametrize("system", OS_RELEASES)
def test_a_dry_run_plans_the_whole_installation(system, installer):
    done = installer(*OS_RELEASES[system])
    assert done.returncode == 0, done.stderr
    plan = done.stdout
    assert ("setarch linux32" in plan) == ("armhf" in system)
    assert ("--system-site-packages" in plan) == ("armhf" in system)
    for step in ("-m venv", "kws.whl", "kws.service", "kws.toml", "Nothing was changed"):
        assert step in plan


def test_a_dry_run_with_wyoming_plans_the_other_service(installer):
    done = installer(*OS_RELEASES["Debian 12"], options=["--wyoming"])
    assert done.returncode == 0, done.stderr
    for step in ("kws.whl[wyoming,zeroconf]", "kws-wyoming.service", "/etc/kws/wyoming.env"):
        assert step in done.stdout
    assert "/kws.service" not in done.stdout
    both = installer(*OS_RELEASES["Debian 12"], options=["--wyoming", "--user"])
    assert (both.returncode, both.stdout) == (2, "")
    assert "--wyoming excludes --user. Received: both." in both.stderr


def test_a_dry_run_with_mqtt_plans_the_extra_and_the_network(installer):
    done = installer(*OS_RELEASES["Debian 12"], options=["--mqtt"])
    assert done.returncode == 0, done.stderr
    for step in (
        "kws.whl[mqtt]",
        "dropins/network.conf /etc/systemd/system/kws.service.d/network.conf",
        "For a broker with a password, write it to /etc/kws/mqtt-password, and run this again.",
    ):
        assert step in done.stdout
    own = installer(*OS_RELEASES["Debian 12"], options=["--mqtt", "--user"])
    assert "kws.whl[mqtt]" in own.stdout
    assert "dropins" not in own.stdout
    both = installer(*OS_RELEASES["Debian 12"], options=["--mqtt", "--wyoming"])
    assert (both.returncode, both.stdout) == (2, "")
    assert "--mqtt excludes --wyoming. Received: both." in both.stderr


def test_a_dry_run_with_ui_plans_the_extra_the_network_and_says_what_to_set(installer):
    done = installer(*OS_RELEASES["Debian 12"], options=["--ui"])
    assert done.returncode == 0, done.stderr
    for step in (
        "kws.whl[ui]",
        "dropins/network.conf /etc/systemd/system/kws.service.d/network.conf",
    ):
        assert step in done.stdout
    assert "mqtt" not in done.stdout
    for options, extras in ((["--ui", "--mqtt"], "[mqtt,ui]"), (["--ui", "--user"], "[ui]")):
        planned = installer(*OS_RELEASES["Debian 12"], options=options).stdout
        assert f"kws.whl{extras}" in planned
        assert ("dropins" in planned) is ("--user" not in options)
    both = installer(*OS_RELEASES["Debian 12"], options=["--ui", "--wyoming"])
    assert (both.returncode, both.stdout) == (2, "")
    assert "--ui excludes --wyoming. Received: both." in both.stderr


def test_the_credential_of_the_drop_in_is_that_which_kws_reads():
    text = (DEPLOY / "dropins/mqtt.conf").read_text()
    assert re.search(r"^LoadCredential=(.+):", text, re.MULTILINE)[1] == CREDENTIAL


@pytest.mark.parametrize(
    ("platform", "message"),
    [
        (("raspbian", "debian", "armhf", "aarch64", "3.13"), "On 32-bit ARM, Python must be 3.11"),
        (("raspbian", "debian", "armhf", "armv6l", "3.11"), "must be ARMv7 or later"),
        (("ubuntu", "debian", "amd64", "x86_64", "3.10"), "Python must be 3.11 or later"),
        (("fedora", "", "amd64", "x86_64", "3.13"), "must be Raspberry Pi OS, Debian or Ubuntu"),
        (("debian", "", "riscv64", "riscv64", "3.13"), "must be amd64, arm64 or armhf"),
    ],
)
def test_what_cannot_run_kws_is_told_so(platform, message, installer):
    done = installer(*platform)
    assert (done.returncode, done.stdout.count("would run")) == (2, 0)
    assert message in done.stderr
    assert "Received: " in done.stderr


@pytest.mark.parametrize(("scope", "expected"), [("--no-start", 0o022), ("--user", 0o077)])
def test_what_root_installs_can_be_read_by_the_service_whatever_the_umask(
    scope, expected, installer, tmp_path
):
    done = installer(*OS_RELEASES["Debian 12"], options=[scope], umask=0o077)
    assert done.returncode == 0, done.stderr
    assert int((tmp_path / "umask").read_text(), 8) == expected


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_shellcheck_finds_nothing():
    scripts = [DEPLOY / "install.sh", *(DEPLOY / "debian").glob("p*"), DEPLOY / "debian/build"]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.fixture
def installer(tmp_path):
    """Dry-run the installer on a machine made of words."""

    def run(name, like, architecture, machine, version, *, options=("--user",), umask=0o022):
        (tmp_path / "os-release").write_text(f'ID={name}\nID_LIKE={like}\nPRETTY_NAME="{name}"\n')
        programs = {
            "uname": f'[ "$1" = -s ] && echo Linux || echo {machine}',
            "dpkg": f"echo {architecture}",
            "dpkg-query": "exit 1",
            "python3": f'umask > {tmp_path}/umask; case "$2" in *print*) echo {version} ;; esac',
        }
        for program, line in programs.items():
            (tmp_path / program).write_text(f"#!/bin/sh\n{line}\n")
            (tmp_path / program).chmod(0o755)
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "KWS_OS_RELEASE": str(tmp_path / "os-release"),
        }
        command = ["sh", str(DEPLOY / "install.sh"), *options, "--dry-run"]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, umask=umask
        )

    return run


def test_the_program_of_a_user_has_a_folder_apart_from_the_voices(installer):
    """Voices blocked the installer, and `--uninstall` deleted them."""
    said = installer("debian", "", "amd64", "x86_64", "3.13").stdout
    assert "/.local/lib/kws" in said
    assert "/.local/share/kws" not in said


@pytest.fixture
def uninstall(tmp_path):
    """Uninstall from a home with a program of today's or of the former place, voices and notes."""

    def run(*options, place):
        home = tmp_path / "home"
        program = home / place
        for name in (
            "bin/kws",
            "lib/python3/kws.py",
            "pyvenv.cfg",
            "kws.toml.example",
            "notes.txt",
        ):
            (program / name).parent.mkdir(parents=True, exist_ok=True)
            (program / name).touch()
        kept = [home / ".local/share/kws/voices/amy.onnx", home / ".config/kws/kws.toml"]
        for path in kept:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
        command = ["sh", str(DEPLOY / "install.sh"), "--user", "--uninstall", *options]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        left = {str(one.relative_to(home)) for one in home.rglob("*") if one.is_file()}
        return done.stdout, left

    return run


@pytest.mark.parametrize("place", [".local/lib/kws", ".local/share/kws"])
def test_uninstalling_keeps_the_files_of_the_user(uninstall, place):
    said, left = uninstall(place=place)
    voices, settings = ".local/share/kws/voices/amy.onnx", ".config/kws/kws.toml"
    assert left == {f"{place}/notes.txt", voices, settings}
    assert "notes.txt" in said
    assert "--purge removes them." in said


def test_purging_lists_what_goes_and_keeps_the_voices(uninstall):
    said, left = uninstall("--purge", place=".local/lib/kws")
    assert left == {".local/lib/kws/notes.txt", ".local/share/kws/voices/amy.onnx"}
    assert re.search(
        r"^Removing \S+/\.config/kws:\n  \S+/\.config/kws/kws\.toml$", said, re.MULTILINE
    )


def test_a_new_environment_is_made_without_clearing_the_folder():
    assert "--clear" not in (DEPLOY / "install.sh").read_text(encoding="utf-8")
