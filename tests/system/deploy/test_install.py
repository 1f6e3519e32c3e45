"""deploy/install.sh for real: installs, updates, starts as a service, and goes without a trace."""

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def machine(box, source, wheels):
    return box("amd64", binds=[(source, "/checkout"), (wheels("amd64"), "/wheels")])


def test_the_installer_installs_updates_and_removes(machine):
    said = machine.run("sh", "/checkout/deploy/install.sh")
    assert "heard" in said or "stop" in said
    assert "kws starts with the next boot" in said
    wanted = "etc/systemd/system/multi-user.target.wants/kws.service"
    assert (machine.path / wanted).is_symlink()
    assert "commands" in machine.run("kws", "models")

    config = machine.path / "etc/kws/kws.toml"
    config.write_text('[model]\nname = "commands"\n# mine\n')
    said = machine.run("sh", "/checkout/deploy/install.sh")
    assert "Keeping /etc/kws/kws.toml" in said
    assert "# mine" in config.read_text()
    before = _files(machine)
    machine.run("sh", "/checkout/deploy/install.sh")
    assert _files(machine) == before

    said = machine.run("sh", "/checkout/deploy/install.sh", "--uninstall")
    assert "Still there: /etc/kws" in said
    assert "# mine" in config.read_text()
    assert not (machine.path / "opt/kws").exists()
    assert not (machine.path / wanted).is_symlink()
    machine.run("sh", "/checkout/deploy/install.sh", "--uninstall", "--purge")
    left = [path for path in machine.path.rglob("*kws*") if "/proc/" not in str(path)]
    assert left == [], left


def test_a_foreign_folder_is_not_touched(machine):
    foreign = machine.path / "opt/kws"
    foreign.mkdir()
    (foreign / "mine").touch()
    said = machine.run("sh", "/checkout/deploy/install.sh", code=2)
    assert "/opt/kws must be an installation of kws or absent" in said
    assert (foreign / "mine").exists()


def _files(machine):
    return sorted(
        str(path.relative_to(machine.path))
        for place in ("opt/kws", "etc", "usr/local")
        for path in (machine.path / place).rglob("*")
        if path.suffix != ".pyc" and path.name != "__pycache__"
    )
