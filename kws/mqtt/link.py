"""One connection to a broker at a time, by paho-mqtt; all of it in one thread but `wake`."""

import contextlib
import logging
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from kws.mqtt.broker import Broker
from kws.mqtt.failures import LostError, lost, not_mqtt, refused
from kws.mqtt.outbox import Message

__all__ = ["MAX_IN_FLIGHT", "Link"]

MAX_IN_FLIGHT = 20
"""Messages sent without an acknowledgement."""
_KEEPALIVE_S = 30
_CONNECT_S = 10.0
_NEW_S = 10.0
_MAX_PAYLOAD_BYTES = 262_144
"""Of a received message; a longer one is ignored."""
_MAX_PACKET_BYTES = 16_777_216
"""What announces a longer one is no broker."""

_log = logging.getLogger("kws.mqtt")


class Link:
    """Log in to a broker, and exchange messages with QoS 1.

    Parameters
    ----------
    broker : Broker
    client_id : str
        Of which a broker accepts one connection.
    will : Message
        Published by the broker when the connection is lost.
    on_login : callable
        Called once the broker has accepted the login.
    on_message : callable
        Called with topic, payload, and whether the broker had kept the message.

    Attributes
    ----------
    logged_in_s : float or None
        When the broker accepted the login; None: it has not.
    in_flight : dict of int to Message
        Sent and not acknowledged; sent again after the next login.
    n_sent : int
        Messages that were acknowledged and not retained: events.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        client_id: str,
        will: Message,
        on_login: Callable[[], None],
        on_message: Callable[[str, bytes, bool], None],
    ) -> None:
        self.logged_in_s: float | None = None
        self.in_flight: dict[int, Message] = {}
        self.n_sent = 0
        self._broker, self._on_login, self._on_message = broker, on_login, on_message
        self._client = _client(broker, client_id, will)
        self._client.on_connect = self._process_login
        self._client.on_message = self._process_message
        self._client.on_publish = self._process_acknowledgement
        self._client.on_subscribe = self._process_subscription
        self._subscriptions: dict[int, str] = {}
        self._refusal = ""
        self._wake_end, self._wake = socket.socketpair()
        self._wake_end.setblocking(False)
        self._wake.setblocking(False)

    def open(self) -> None:
        """Connect and ask for the login; blocks, for up to 10 s for each address of the host.

        Raises
        ------
        OSError
            If the broker cannot be reached, or TLS fails.
        """
        self._refusal = ""
        self._subscriptions.clear()
        self._client.reconnect()

    def step(self, timeout_s: float) -> None:
        """Wait for the network or a wake-up, and process what has come.

        Raises
        ------
        LostError
            If the connection has ended.
        Exception
            Any, if the broker sends what is not MQTT.
        """
        client, sock = self._client, self._client.socket()
        if sock is None:
            raise LostError(self._lost(MQTTErrorCode.MQTT_ERR_CONN_LOST))
        has_rest = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        poll = select.poll()
        poll.register(sock, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
        poll.register(self._wake_end, select.POLLIN)
        ready = dict(poll.poll(0 if has_rest else round(1000 * timeout_s)))
        if self._wake_end.fileno() in ready:
            self._wake_end.recv(4096)
        events = ready.get(sock.fileno(), 0)
        if has_rest or events & ~select.POLLOUT:
            self._check(client.loop_read())
            # paho-mqtt takes up to 256 MB, and has no limit that can be set.
            if client._in_packet["remaining_length"] > _MAX_PACKET_BYTES:
                raise LostError(not_mqtt(self._broker))
        if events & select.POLLOUT:
            self._check(client.loop_write())
        self._check(client.loop_misc())

    def publish(self, message: Message) -> None:
        """Send a message; it is in flight until it is acknowledged."""
        info = self._client.publish(message.topic, message.payload, qos=1, retain=message.retain)
        self.in_flight[info.mid] = message

    def subscribe(self, topic: str) -> None:
        """Ask for the messages of a topic."""
        _, mid = self._client.subscribe(topic, qos=1)
        if mid is not None:
            self._subscriptions[mid] = topic

    def wake(self) -> None:
        """End the wait of `step`; called by any thread."""
        with contextlib.suppress(OSError):  # full: it is awake; closed: it has ended
            self._wake.send(b"\0")

    def leave(self) -> None:
        """Tell the broker that the connection ends, so that it does not publish the will."""
        self._client.disconnect()
        self._client.loop_write()

    def drop(self) -> None:
        """Close the connection."""
        self.logged_in_s = None
        if sock := self._client.socket():
            sock.close()

    def close(self) -> None:
        """Release everything."""
        self.drop()
        self._wake.close()
        self._wake_end.close()

    def _check(self, code: MQTTErrorCode) -> None:
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or self._refusal:
            raise LostError(self._refusal or self._lost(code))

    def _lost(self, code: MQTTErrorCode) -> str:
        since_s = self.logged_in_s
        is_new = since_s is not None and time.monotonic() - since_s < _NEW_S
        return lost(self._broker, code, is_new=is_new)

    def _process_login(
        self, _client: Any, _data: Any, _flags: Any, code: ReasonCode, _: Any
    ) -> None:
        if code.is_failure:
            self._refusal = refused(self._broker, code)
            return
        self.logged_in_s = time.monotonic()
        self._on_login()

    def _process_message(self, _client: Any, _data: Any, message: MQTTMessage) -> None:
        if len(message.payload) > _MAX_PAYLOAD_BYTES:
            _log.warning(
                "MQTT: a message of %d bytes was ignored; at most %d are read.",
                len(message.payload),
                _MAX_PAYLOAD_BYTES,
            )
            return
        self._on_message(message.topic, bytes(message.payload), message.retain)

    def _process_acknowledgement(
        self, _client: Any, _data: Any, mid: int, _code: Any, _properties: Any
    ) -> None:
        message = self.in_flight.pop(mid, None)
        self.n_sent += message is not None and not message.retain

    def _process_subscription(
        self, _client: Any, _data: Any, mid: int, codes: list[ReasonCode], _properties: Any
    ) -> None:
        topic = self._subscriptions.pop(mid, "")
        if any(code.is_failure for code in codes):
            _log.warning(
                "The MQTT broker %s does not let kws read %s. Check its access rules.",
                self._broker,
                topic,
            )


def _client(broker: Broker, client_id: str, will: Message) -> Client:
    client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=True)
    client.connect_timeout = _CONNECT_S
    client.max_inflight_messages_set(MAX_IN_FLIGHT + 1)
    client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
    if broker.settings.username is not None:
        client.username_pw_set(broker.settings.username, broker.password)
    if broker.tls:
        client.tls_set_context(broker.tls)
    client.connect_async(broker.host, broker.port, keepalive=_KEEPALIVE_S)
    return client
