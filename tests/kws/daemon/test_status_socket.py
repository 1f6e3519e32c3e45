import fcntl
import os
import stat
import threading
import time

import pytest

from kws.daemon.status_socket import bind_socket, default_socket
from kws.errors import ConfigError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kws.sock"


def test_what_is_no_socket_is_never_removed(path):
    path.write_text("precious")
    with pytest.raises(ConfigError) as failure:
        bind_socket(path)
    assert str(failure.value) == (
        f"The daemon's socket must have a path of its own. Received: {path}, which is another "
        f"file. Remove it, or set `[daemon] socket`."
    )
    assert path.read_text() == "precious"


def test_a_path_too_long_for_a_socket_is_refused(tmp_path):
    path = tmp_path / ("x" * 100) / "kws.sock"
    with pytest.raises(ConfigError, match="must have a path of at most 107 bytes"):
        bind_socket(path)
    assert not path.parent.exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "kws.sock"
    with pytest.raises(ConfigError, match="socket cannot be created: "):
        bind_socket(path)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/u"}, "/run/a/kws.sock"),
        ({"XDG_RUNTIME_DIR": "/u"}, "/u/kws.sock"),
        ({}, "/run/kws/kws.sock"),
    ],
)
def test_the_socket_lies_where_the_system_has_a_place_for_it(monkeypatch, environment, expected):
    for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(default_socket()) == expected


def test_two_daemons_do_not_start_at_once(path, monkeypatch):
    monkeypatch.setattr("kws.daemon.status_socket._LOCK_S", 0.1)
    lock = path.with_name(".kws.sock.lock")
    bind_socket(path).close()
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    with lock.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another daemon is starting here"):
            bind_socket(path)
    path.unlink()
    bind_socket(path).close()


def test_a_lock_on_the_folder_by_somebody_else_does_not_delay_the_start(path):
    folder = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    started_s = time.monotonic()
    bind_socket(path).close()
    assert time.monotonic() - started_s < 1
    os.close(folder)


@pytest.mark.parametrize("kind", ["link", "owner", "folder"])
def test_a_file_of_somebody_else_in_place_of_the_lock_does_not_delay_it(path, kind, monkeypatch):
    lock = path.with_name(".kws.sock.lock")
    if kind == "link":
        lock.symlink_to(path.with_name("none"))
    elif kind == "folder":
        lock.mkdir()
    else:
        lock.touch()
        owner = lock.stat().st_uid
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    held = lock.open() if kind == "owner" else None
    if held:
        fcntl.flock(held, fcntl.LOCK_EX)
    started_s = time.monotonic()
    bind_socket(path).close()
    assert time.monotonic() - started_s < 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.with_name("none").exists()
    if held:
        held.close()


def test_a_daemon_that_starts_at_the_same_time_is_waited_for(path):
    lock = path.with_name(".kws.sock.lock")
    held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    timer = threading.Timer(0.2, os.close, [held])
    timer.start()
    started_s = time.monotonic()
    bind_socket(path).close()
    assert time.monotonic() - started_s > 0.15
    timer.join()
