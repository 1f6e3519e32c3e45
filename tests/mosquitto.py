"""Debian's mosquitto, and a client that keeps what it sends."""

import contextlib
import getpass
import shutil
import socket
import subprocess
import threading
import time

import paho.mqtt.client as paho
import pytest

MOST_S = 20.0
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")


def until(condition, *, limit_s=MOST_S):
    """Wait for a condition; return what it gives."""
    deadline_s = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline_s, "It never came to be."
        time.sleep(0.01)
    return found


class Mosquitto:
    """A broker that can be stopped and started again."""

    def __init__(self, folder, *, port, lines="allow_anonymous true"):
        self.port = port
        self._config = folder / "mosquitto.conf"
        # As root it would become another user, who cannot read the files of a test.
        self._config.write_text(f"user {getpass.getuser()}\nlistener {port} 127.0.0.1\n{lines}\n")
        self._log = folder / "mosquitto.log"
        self._process = None
        self.start()

    def start(self):
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [MOSQUITTO, "-c", str(self._config)], stdout=log, stderr=log
            )
        until(self._is_listening)

    def stop(self):
        self._process.terminate()
        self._process.wait(MOST_S)

    def _is_listening(self):
        assert self._process.poll() is None, self._log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True


class Subscriber:
    """Keep all messages of a broker; connect again by itself; with a name, it misses none then."""

    def __init__(self, port, *, tls=None, login=None, topics="#", name=""):
        self.messages = []
        self._ready = threading.Event()
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=name, clean_session=not name
        )
        self._client.on_connect = lambda client, *_: client.subscribe(topics, qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _client, _data, message: self.messages.append(message)
        self._client.reconnect_delay_set(1, 1)
        if tls:
            self._client.tls_set_context(tls)
        if login:
            self._client.username_pw_set(*login)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(MOST_S)

    def of(self, topic):
        return [one.payload.decode(errors="replace") for one in self.messages if one.topic == topic]

    def publish(self, topic, payload, *, retain=False):
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        info.wait_for_publish(MOST_S)

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@contextlib.contextmanager
def brokers(folder, port):
    """Give a function that starts a broker, with lines of its configuration; skip without one."""
    if MOSQUITTO is None:
        pytest.skip("needs mosquitto")
    with contextlib.ExitStack() as stack:

        def start(lines="allow_anonymous true"):
            broker = Mosquitto(folder, port=port, lines=lines)
            stack.callback(broker.stop)
            return broker

        yield start


@contextlib.contextmanager
def subscribers(port):
    """Give a function that subscribes to the broker."""
    with contextlib.ExitStack() as stack:

        def start(**options):
            subscriber = Subscriber(port, **options)
            stack.callback(subscriber.close)
            return subscriber

        yield start


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]
