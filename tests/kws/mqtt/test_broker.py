"""Passwords and certificates that are read at the start, or are an error then."""

import logging
import sys

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from kws.config import MqttSettings
from kws.errors import ConfigError
from kws.mqtt.broker import open_broker
from kws.names import machine_name


def opened(**settings):
    return open_broker(MqttSettings(host="broker", **settings))


@pytest.fixture
def write(tmp_path):
    def write(content, *, mode=0o600):
        path = tmp_path / "password"
        path.write_bytes(content)
        path.chmod(mode)
        return str(path)

    return write


def test_without_a_host_there_is_no_broker():
    assert open_broker(MqttSettings()) is None


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"host": "b"}, "b:1883"),
        ({"host": "b", "tls": True}, "b:8883"),
        ({"host": "fe80::1", "port": 7}, "[fe80::1]:7"),
    ],
)
def test_a_broker_has_the_usual_port(settings, shown):
    assert str(open_broker(MqttSettings(**settings))) == shown


@pytest.mark.parametrize("content", [b"sesame", b"sesame\n", b"sesame\r\n"])
def test_a_password_ends_with_its_line(content, write):
    broker = opened(username="kws", password_file=write(content))
    assert broker.password == "sesame"
    assert "sesame" not in repr(broker)


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb\n", b"\xff", b"x" * 70_000])
def test_a_password_file_that_is_none_is_an_error_without_its_content(content, write):
    path = write(content)
    with pytest.raises(ConfigError) as caught:
        opened(username="kws", password_file=path)
    assert str(caught.value) == (
        f"The password file of [mqtt] must hold one line of UTF-8 text, not empty. Received: "
        f"{path}, which does not. Write the password alone into it."
    )


def test_a_password_file_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"must be readable\. Received: .*none \(No such file"):
        opened(username="kws", password_file=str(tmp_path / "none"))


def test_a_password_that_every_user_may_read_is_warned_of(write, caplog):
    with caplog.at_level(logging.WARNING):
        opened(username="kws", password_file=write(b"sesame", mode=0o644))
    assert "every user may read the password. Run `chmod 600 " in caplog.text


def test_the_credential_of_systemd_is_the_password_unless_a_file_is_set(
    tmp_path, monkeypatch, write, caplog
):
    (tmp_path / "mqtt-password").write_text("of systemd\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert opened(username="kws").password == "of systemd"
    assert opened(username="kws", password_file=write(b"own")).password == "own"
    assert opened().password is None
    (tmp_path / "mqtt-password").unlink()
    assert opened(username="kws").password is None
    assert caplog.messages == []


def test_a_new_password_makes_another_broker(write):
    before = opened(username="kws", password_file=write(b"one"))
    assert before == opened(username="kws", password_file=write(b"one"))
    assert before != opened(username="kws", password_file=write(b"two"))


def test_a_changed_certificate_makes_another_broker(certificates):
    files = {"tls": True, "ca_file": str(certificates / "ca.pem")}
    before = opened(**files)
    assert before == opened(**files)
    trustme.CA().cert_pem.write_to_path(certificates / "ca.pem")
    assert before != opened(**files)


@pytest.mark.parametrize("content", [None, "no certificate\n"])
def test_authorities_that_cannot_be_read_are_an_error(content, tmp_path):
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"`ca_file` of \[mqtt\] must be a file of PEM cert"):
        opened(tls=True, ca_file=str(path))


def test_a_key_that_is_encrypted_is_an_error_and_asks_no_terminal(certificates):
    key = serialization.load_pem_private_key((certificates / "client.key").read_bytes(), None)
    (certificates / "client.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"sesame"),
        )
    )
    with pytest.raises(ConfigError, match="of its key, which is not encrypted"):
        opened(
            tls=True,
            certificate_file=str(certificates / "client.pem"),
            key_file=str(certificates / "client.key"),
        )


def test_a_certificate_of_another_key_is_an_error(certificates):
    with pytest.raises(ConfigError, match=r"\(KEY_VALUES_MISMATCH\)"):
        opened(
            tls=True,
            certificate_file=str(certificates / "client.pem"),
            key_file=str(certificates / "server.key"),
        )


def test_a_device_without_a_name_has_that_of_the_machine():
    assert opened(name="kitchen").name == "kitchen"
    assert opened().name == machine_name()


def test_without_its_package_the_table_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(ConfigError, match=r"needs the package paho-mqtt\. Received: .*kws\[mqtt\]"):
        opened()
