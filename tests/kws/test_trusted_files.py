import os

import pytest

from kws.config import load_config
from kws.errors import ConfigError
from kws.trusted_files import check_trusted


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)
    path = folder / "kws.toml"
    path.touch(0o644)
    path.chmod(0o664)
    return path


def check(path):
    check_trusted(path, what="The configuration", error=ConfigError)


def refused(path):
    with pytest.raises(ConfigError) as caught:
        check(path)
    return str(caught.value)


def test_files_of_some_users_pass(file):
    check(file)
    check(file.with_name("none"))


def test_a_file_of_every_user_is_refused_for_root_alone(file, monkeypatch):
    file.chmod(0o646)
    message = (
        f"The configuration of root must not be writable by every user. Received: {file}, where "
        f"{file} has mode 646. Run `chmod o-w {file}`."
    )
    assert refused(file) == message
    with pytest.raises(ConfigError, match="must not be writable"):
        load_config(file)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    check(file)
    load_config(file)


def test_a_folder_of_every_user_is_refused_unless_it_is_sticky(file):
    file.parent.chmod(0o777)
    assert f"where {file.parent} has mode 777" in refused(file)
    file.parent.chmod(0o1777)
    check(file)


def test_a_link_and_what_it_leads_to_are_both_checked(file, tmp_path):
    links = tmp_path / "links"
    links.mkdir()
    link = links / "kws.toml"
    link.symlink_to(file)
    check(link)
    links.chmod(0o777)
    assert f"where {links} has mode 777" in refused(link)
    links.chmod(0o755)
    file.chmod(0o666)
    assert f"Received: {link}, where {file} has mode 666" in refused(link)


def test_devices_pass(file):
    check("/dev/null")
