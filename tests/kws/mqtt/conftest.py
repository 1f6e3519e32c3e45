"""Debian's mosquitto as the broker, and a publisher with what it tells the daemon."""

import contextlib

import pytest
import trustme
from mosquitto import brokers, free_port, subscribers

from kws.config import MqttSettings
from kws.events import Detection
from kws.mqtt.broker import open_broker
from kws.mqtt.discovery import Device, Word
from kws.mqtt.publisher import Publisher

DEVICE = Device(
    name="kitchen",
    version="1.2",
    words=(Word(keyword="stop", model="m", threshold=0.7), Word(keyword="go", model="m")),
    sources=("desk",),
    has_expectation=True,
)


def heard(end_s, keyword="stop"):
    return Detection(
        keyword=keyword, score=0.9, start_s=0.0, end_s=float(end_s), model="m", source="desk"
    )


class Told:
    """What a publisher has told the daemon."""

    def __init__(self):
        self.switches, self.toggles, self.failures, self.n_lost = [], [], [], 0

    def switch(self, *, is_muted):
        self.switches.append(is_muted)

    def toggle(self, toggle, *, is_on):
        self.toggles.append((toggle.site_id, toggle.reason, is_on))

    def lost(self):
        self.n_lost += 1

    def failed(self, reason):
        self.failures.append(reason)


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def mosquitto(tmp_path, port):
    """Start a broker: `mosquitto(lines)`."""
    with brokers(tmp_path, port) as start:
        yield start


@pytest.fixture
def subscribe(port):
    """Subscribe to the broker: `subscribe(**options)`."""
    with subscribers(port) as start:
        yield start


@pytest.fixture
def publish(port):
    """Start a publisher: `publish(**settings)`; its `told` has what it told the daemon."""
    with contextlib.ExitStack() as stack:

        def start(device=DEVICE, *, is_muted=False, starts=True, **settings):
            broker = open_broker(MqttSettings(**{"host": "127.0.0.1", "port": port} | settings))
            told = Told()
            publisher = Publisher(
                broker, device, told, is_muted=is_muted, pause_s=lambda n_failures: 0.05
            )
            publisher.told = told
            stack.callback(publisher.close, 0.5)
            if starts:
                publisher.start()
            return publisher

        yield start


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()


@pytest.fixture
def certificates(authority, tmp_path):
    """Write the files of an authority, of a broker and of a client; return their folder."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, host in (("server", "127.0.0.1"), ("client", "kws.example")):
        issued = authority.issue_cert(host)
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    return tmp_path
