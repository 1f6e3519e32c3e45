"""The Debian package, in a container: installs, runs, upgrades, keeps settings, leaves nothing."""

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(1800)]


COMPLETE = """
source /usr/share/bash-completion/completions/kws
COMP_WORDS=(kws li) COMP_CWORD=1
_kws_completion kws
echo "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def packages(source, tmp_path_factory):
    """Two versions of the package, built from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("deb") / "kws"
    shutil.copytree(source, folder)
    (folder / "CHANGELOG.md").write_text("# Changelog\n")
    for version in ("0.1.0", "0.1.1"):
        settings = {"PYTHON": sys.executable, "VERSION": version, "PYTHON_MINOR": "11"}
        settings["COMPRESSION"] = "-Zgzip -z1"  # what saves space takes minutes
        command = ["sh", str(folder / "deploy/debian/build")]
        environment = {**os.environ, **settings}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


def test_lintian_finds_neither_errors_nor_warnings(packages):
    if not shutil.which("lintian"):
        pytest.skip("needs lintian: run tests/system/debian-packages")
    package = packages / "kws_0.1.0_amd64.deb"
    command = ["lintian", "--allow-root", "--fail-on", "error,warning", str(package)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def machine(box, packages):
    return box("amd64", binds=[(packages, "/dist")])


def test_the_package_installs_runs_upgrades_and_purges(machine):
    wanted = machine.path / "etc/systemd/system/multi-user.target.wants/kws.service"
    config = machine.path / "etc/kws/kws.toml"
    install = ("dpkg", "--force-confdef", "--install")

    machine.run(*install, "/dist/kws_0.1.0_amd64.deb")
    assert wanted.is_symlink()
    assert "stop" in machine.run("kws", "demo")
    for page in ("kws", "kws-listen", "kws-config-show"):
        assert (machine.path / f"usr/share/man/man1/{page}.1.gz").is_file()
    assert machine.run("bash", "-c", COMPLETE).splitlines()[0] == "listen"

    config.write_text('[model]\nname = "commands"  # mine\n')
    machine.run("systemctl", "disable", "kws.service")
    machine.run(*install, "/dist/kws_0.1.1_amd64.deb")
    assert "0.1.1" in machine.run("dpkg-query", "-W", "kws")
    assert "# mine" in config.read_text()
    assert not wanted.is_symlink()  # whoever disabled it finds it disabled
    assert "stop" in machine.run("kws", "demo")

    machine.run("dpkg", "--remove", "kws")
    assert "# mine" in config.read_text()
    assert not (machine.path / "opt/kws").exists()
    machine.run("dpkg", "--purge", "kws")
    left = [path for path in machine.path.rglob("*kws*") if "/proc/" not in str(path)]
    assert left == [], left
