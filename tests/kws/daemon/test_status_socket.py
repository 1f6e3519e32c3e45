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
