"""The broker's address, password and certificates, read and checked before it is connected to."""

import logging
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from kws.config import MqttSettings
from kws.errors import ConfigError
from kws.names import machine_name
from kws.paths import expanded
from kws.trusted_files import check_trusted

__all__ = ["CREDENTIAL", "Broker", "open_broker"]

CREDENTIAL = "mqtt-password"
"""Name of the systemd credential."""
_MAX_PASSWORD_BYTES = 65_535

_log = logging.getLogger("kws.mqtt")


@dataclass(frozen=True)
class Broker:
    """Settings of a broker whose files have been read.

    Two brokers are equal if the settings and the contents of the password file are, and if no
    certificate file was changed.

    Attributes
    ----------
    settings : MqttSettings
        With a host.
    name : str
        Of this device.
    password : str or None
    tls : ssl.SSLContext or None
        None: the connection is not encrypted.
    """

    settings: MqttSettings
    name: str
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    _files: tuple[int, ...] = ()

    @property
    def host(self) -> str:
        """Name or address."""
        return self.settings.host or ""

    @property
    def port(self) -> int:
        """The port that is set, or the usual one."""
        return self.settings.port or (8883 if self.settings.tls else 1883)

    def __str__(self) -> str:
        """Return HOST:PORT."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def open_broker(settings: MqttSettings) -> Broker | None:
    """Read the password and the certificates of a broker; takes a moment, for a thread.

    Returns
    -------
    Broker or None
        None: no host is set.

    Raises
    ------
    ConfigError
        If paho-mqtt is not installed, or a file cannot be used.
    """
    if settings.host is None:
        return None
    try:
        import paho.mqtt.client  # noqa: F401  here, as the loop of the daemon must not wait for it
    except ImportError as error:
        raise ConfigError(
            f"`[mqtt]` needs the package paho-mqtt. Received: {error}. Run "
            f"`pip install 'kws[mqtt]'`, or leave `host` out."
        ) from error
    files = [
        expanded(path, what=f"`{key}` of [mqtt]")
        for key in ("ca_file", "certificate_file", "key_file")
        if (path := getattr(settings, key)) is not None
    ]
    tls = _tls(settings) if settings.tls else None
    changed_ns = tuple(path.stat().st_mtime_ns for path in files)
    name = settings.name or machine_name()
    return Broker(settings, name, _password(settings), tls, changed_ns)


def _password(settings: MqttSettings) -> str | None:
    """Return the password, out of the file that is set, or of the systemd credential."""
    if settings.username is None:
        return None
    if settings.password_file is not None:
        path = expanded(settings.password_file, what="`password_file` of [mqtt]")
        check_trusted(path, what="The password file", error=ConfigError)
        return _read_password(path, may_be_open=False)
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if folder and (path := Path(folder) / CREDENTIAL).exists():
        return _read_password(path, may_be_open=True)
    return None


def _read_password(path: Path, *, may_be_open: bool) -> str:
    """Return the first line of a file; no error shows anything of it."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_PASSWORD_BYTES + 3)
            is_open = os.fstat(file.fileno()).st_mode & 0o004
    except OSError as error:
        raise ConfigError(
            f"The password file of [mqtt] must be readable. Received: {path} ({error.strerror}). "
            f"Correct `password_file`, or its permissions."
        ) from None
    try:
        password = content.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        password = ""
    if not password or "\n" in password or len(content) > _MAX_PASSWORD_BYTES + 2:
        raise ConfigError(
            f"The password file of [mqtt] must hold one line of UTF-8 text, not empty. Received: "
            f"{path}, which does not. Write the password alone into it."
        )
    if is_open and not may_be_open:
        _log.warning("%s: every user may read the password. Run `chmod 600 %s`.", path, path)
    return password


def _tls(settings: MqttSettings) -> ssl.SSLContext:
    ca_file = settings.ca_file and str(expanded(settings.ca_file, what="`ca_file` of [mqtt]"))
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"`ca_file` of [mqtt] must be a file of PEM certificates. Received: {ca_file} "
            f"({_reason(error)}). Set the file of the authority that signed the broker's "
            f"certificate."
        ) from None
    if settings.certificate_file is not None:
        _load_certificate(context, settings)
    return context


def _load_certificate(context: ssl.SSLContext, settings: MqttSettings) -> None:
    names = [name for name in (settings.certificate_file, settings.key_file) if name is not None]
    files = [expanded(name, what="`certificate_file` or `key_file` of [mqtt]") for name in names]
    try:
        # With a callable, an encrypted key is an error; without one, OpenSSL asks the terminal.
        context.load_cert_chain(files[0], files[-1], password=lambda: "")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"`certificate_file` and `key_file` of [mqtt] must be PEM files of a certificate and "
            f"of its key, which is not encrypted. Received: {' and '.join(map(str, files))} "
            f"({_reason(error)}). Correct them, or the permissions."
        ) from None


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return getattr(error, "strerror", None) or str(error)
