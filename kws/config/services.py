"""Tables of the services on the network: Wyoming, MQTT and the page in the browser."""

import re
from ipaddress import ip_address
from typing import Annotated

from msgspec import Meta
from msgspec.structs import fields

from kws.config.table import Probability, Table, without_login
from kws.errors import ConfigError

__all__ = ["MqttSettings", "UiSettings", "WyomingSettings"]


class WyomingSettings(Table, frozen=True, kw_only=True):
    """`[wyoming]`: a wake word service for clients of the Wyoming protocol."""

    uri: list[str] = []
    """Addresses, `tcp://HOST:PORT` or `unix:///PATH`; empty: no service."""
    models: list[str] = []
    """Bundled names or paths of the models that are served."""
    custom_model_dir: list[str] = []
    """Folders of more models, .tflite and .onnx; new files are found when a client asks."""
    threshold: Probability | None = None
    """Smoothed posterior at which any keyword fires; None: as each model says."""
    trigger_level: Annotated[int, Meta(ge=1, le=100)] = 1
    """Blocks of 80 ms that the posterior must stay at its threshold before a detection."""
    refractory_s: Annotated[float, Meta(ge=0.0, le=60.0)] | None = None
    """Time after a detection without another one; None: as each model says."""
    max_clients: Annotated[int, Meta(ge=1, le=10_000)] = 128
    """Clients at once; beyond that the one that has been silent longest has to leave."""
    idle_s: Annotated[float, Meta(ge=1.0, le=86_400.0)] = 300.0
    """A client that sends nothing for so long is disconnected."""
    debug_recording_dir: str | None = None
    """Folder for recordings of what clients send; None: nothing is recorded."""
    zeroconf: bool = False
    """True announces the service, as Home Assistant expects it."""
    zeroconf_name: Annotated[str, Meta(min_length=1, max_length=63)] | None = None
    """Name in the announcement; None: `kws-` and the hardware address."""


class MqttSettings(Table, frozen=True, kw_only=True):
    """`[mqtt]`: detections for an MQTT broker, and commands from it."""

    host: Annotated[str, Meta(min_length=1, max_length=253)] | None = None
    """Name or address of the broker; None: no MQTT."""
    port: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    """Port of the broker; None: 1883, or 8883 with TLS."""
    username: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    """User name; None: no login."""
    password_file: str | None = None
    """File with the password; None: the systemd credential `mqtt-password`, if there is one."""
    tls: bool = False
    """True encrypts the connection and checks the broker's certificate."""
    ca_file: str | None = None
    """Certificates of the authorities that are trusted; None: those of the system."""
    certificate_file: str | None = None
    """Certificate of this client, PEM."""
    key_file: str | None = None
    """Private key of this client, PEM; None: it is in `certificate_file`."""
    name: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    """Name of this device, in topics and in Home Assistant; None: `kws-` and the hardware
    address."""
    hermes: bool = True
    """False leaves out the topics of Rhasspy's Hermes protocol."""
    site_id: Annotated[str, Meta(min_length=1, max_length=64)] = "default"
    """`siteId` of Hermes messages; each of several sources has its own name instead."""
    home_assistant: bool = True
    """False leaves out the discovery by Home Assistant."""
    discovery_prefix: Annotated[str, Meta(min_length=1, max_length=200)] = "homeassistant"
    """First part of the discovery topics."""
    sensor_interval_s: Annotated[float, Meta(ge=1.0, le=86_400.0)] = 30.0
    """Time between two values of a sensor."""
    max_queued: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    """Messages that wait while the broker is away; beyond that new ones are dropped."""
    max_age_s: Annotated[float, Meta(gt=0.0, le=31_536_000.0)] | None = None
    """Detections that have waited longer are dropped; None: they are sent however old."""

    def __post_init__(self) -> None:
        super().__post_init__()
        changed = [one.name for one in fields(self) if getattr(self, one.name) != one.default]
        if self.host is None and changed:
            raise ConfigError(
                f"`host` of [mqtt] must be set where `{changed[0]}` is. Received: none. Set it to "
                f'the broker, such as `host = "localhost"`, or leave `{changed[0]}` out.'
            )
        if not re.fullmatch(r"[^\s/:@]+|[0-9A-Fa-f:.]+", self.host or "none"):
            raise ConfigError(
                f"`host` of [mqtt] must be a name or an address alone. Received: "
                f"{without_login(self.host or '')}. Set a port as `port`, and `tls = true` for "
                f"mqtts."
            )
        if re.search(r"[+#\s]|^/|//|/$", self.discovery_prefix):
            raise ConfigError(
                f"`discovery_prefix` of [mqtt] must be a topic without wildcards, blanks and empty "
                f"levels. Received: {self.discovery_prefix!r}. Leave it out, unless Home Assistant "
                f"has another one."
            )
        for key, needed in (
            ("password_file", "username"),
            ("key_file", "certificate_file"),
            ("ca_file", "tls"),
            ("certificate_file", "tls"),
        ):
            if getattr(self, key) is not None and not getattr(self, needed):
                raise ConfigError(
                    f"`{key}` of [mqtt] needs `{needed}`. Received: `{key}` without it. Set "
                    f"`{needed}`, or leave `{key}` out."
                )


class UiSettings(Table, frozen=True, kw_only=True):
    """`[ui]`: a page for the browser, served by `kws daemon`; `kws ui` serves it in any case."""

    port: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    """Port of the page; None: `kws daemon` serves none, `kws ui` port 8420."""
    address: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    """IP address that the page is served at; one beyond this machine needs `token`."""
    token: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{16,128}\Z")] | None = None
    """The secret in the page's link; None: another random one at each start."""
    hosts: list[str] = []
    """Further names of this machine, by which browsers may call it."""
    folder: Annotated[str, Meta(min_length=1)] | None = None
    """Folder of takes, enrolled models and labels; None: that of kws.toml."""
    runs: list[str] = []
    """Folders whose working folders of `kws new` are shown; empty: `folder`."""
    max_pages: Annotated[int, Meta(ge=1, le=1000)] = 32
    """Pages that show the live scope at once; a further one is told to wait."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.is_local and self.token is None:
            raise ConfigError(
                f"An `address` of `[ui]` beyond this machine needs a `token`. Received: "
                f"{self.address} without one. Set `token` to 16 letters and digits or more, or "
                f'`address = "127.0.0.1"`.'
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the address."""
        try:
            return ip_address(self.address).is_loopback
        except ValueError:
            raise ConfigError(
                f"The `address` of `[ui]` must be an IP address of this machine. Received: "
                f'{self.address!r}. Set `address = "127.0.0.1"`, for example.'
            ) from None
