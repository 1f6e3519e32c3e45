"""The connection to the broker, in a thread of its own, made again whenever it is lost."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from kws.mqtt.broker import Broker
from kws.mqtt.failures import LostError, no_answer, not_mqtt, unreachable
from kws.mqtt.link import MAX_IN_FLIGHT, Link
from kws.mqtt.outbox import Message, Outbox

__all__ = ["Connection", "Listener"]

_ANSWER_S = 10.0
"""Time for a broker to answer the login."""
_STEADY_S = 10.0
"""After so long, the next failure counts as the first."""
_POLL_S = 1.0
_LAST_POLL_S = 0.05
_LEAVE_S = 0.2

_log = logging.getLogger("kws.mqtt")


class Listener(Protocol):
    """What is told of a connection, in its thread."""

    def connected(self, subscribe: Callable[[str], None]) -> None:
        """Take note of a new connection; subscribe to topics."""

    def received(self, topic: str, payload: bytes, is_retained: bool, /) -> None:
        """Process a message; `is_retained`: the broker had kept it."""

    def polled(self) -> None:
        """Do what is due; called once a second and after each message while connected."""

    def lost(self) -> None:
        """Take note of the end of a connection."""

    def failed(self, reason: str) -> None:
        """Take note of why the broker cannot be used; called once for each reason in a row."""


class Connection:
    """Keep a broker connected, and send it what is in the outbox, with QoS 1.

    Parameters
    ----------
    broker : Broker
    outbox : Outbox
        Filled by any thread; `wake` has it looked at.
    listener : Listener
    client_id : str
        Of which a broker accepts one connection.
    will : Message
        Published by the broker when the connection is lost.
    pause_s : callable
        Returns the pause after n failures in a row.
    """

    def __init__(
        self,
        broker: Broker,
        outbox: Outbox,
        listener: Listener,
        *,
        client_id: str,
        will: Message,
        pause_s: Callable[[int], float],
    ) -> None:
        self._broker, self._outbox, self._listener, self._will = broker, outbox, listener, will
        self._pause_s = pause_s
        self._link = Link(
            broker,
            client_id=client_id,
            will=will,
            on_login=self._start_session,
            on_message=listener.received,
        )
        self._reported = ""
        self._closing = threading.Event()
        self._close_by_s = 0.0
        self._with_will = True
        # Name resolution may hang; it must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="kws-mqtt", daemon=True)

    @property
    def is_connected(self) -> bool:
        """Whether the broker has accepted the login."""
        return self._link.logged_in_s is not None

    @property
    def n_sent(self) -> int:
        """Events that the broker has acknowledged."""
        return self._link.n_sent

    @property
    def n_queued(self) -> int:
        """Events that wait or are not acknowledged."""
        return len(self._outbox) + len(self._events_in_flight())

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Have the outbox looked at."""
        self._link.wake()

    def close(self, timeout_s: float, *, with_will: bool = True) -> list[Message]:
        """Send what is in the outbox, publish the will, and disconnect.

        Parameters
        ----------
        timeout_s : float
            For all of it.
        with_will : bool
            False leaves out the will.

        Returns
        -------
        list of Message
            Events that the broker has not acknowledged.
        """
        self._close_by_s = time.monotonic() + timeout_s
        self._with_will = with_will
        self._closing.set()
        self.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout_s + _LEAVE_S)
        return self._events_in_flight() + self._outbox.take_events()

    def _run(self) -> None:
        n_failures = 0
        while not self._closing.is_set():
            reason, lasted_s = self._serve()
            if lasted_s > _STEADY_S:
                n_failures, self._reported = 0, ""
            pause_s = self._pause_s(n_failures)
            n_failures += 1
            if not self._closing.is_set():
                self._report(reason)
            self._closing.wait(pause_s)
        self._link.close()

    def _serve(self) -> tuple[str, float]:
        """Connect, and exchange messages; return why the connection ended, and its seconds."""
        reason, lasted_s = "", 0.0
        try:
            self._link.open()
            self._exchange()
        except LostError as error:
            reason = str(error)
        except OSError as error:
            reason = unreachable(self._broker, error)
        except Exception as error:  # noqa: BLE001  whatever a broker sends must not end the thread
            _log.debug("MQTT: %s", error, exc_info=True)
            reason = not_mqtt(self._broker)
        if self._link.logged_in_s is not None:
            lasted_s = time.monotonic() - self._link.logged_in_s
            self._listener.lost()
        self._link.drop()
        return reason, lasted_s

    def _exchange(self) -> None:
        answer_by_s = time.monotonic() + _ANSWER_S
        while not self._closing.is_set():
            self._link.step(_POLL_S)
            if self.is_connected:
                self._listener.polled()
                self._send()
            elif time.monotonic() > answer_by_s:
                raise LostError(no_answer(self._broker, _ANSWER_S))
        if self.is_connected:
            self._leave()

    def _start_session(self) -> None:
        _log.info("MQTT: connected to %s.", self._broker)
        self._outbox.send_states_again()
        self._listener.connected(self._link.subscribe)

    def _leave(self) -> None:
        """Send what is left until the time is over, and the will at last."""
        while (message := self._outbox.take()) or self._link.in_flight:
            if message:
                self._link.publish(message)
            if time.monotonic() > self._close_by_s:
                break
            self._link.step(0.0 if message else _LAST_POLL_S)
        if self._with_will:
            self._link.publish(self._will)
        while self._link.in_flight and time.monotonic() < self._close_by_s:
            self._link.step(_LAST_POLL_S)
        self._link.leave()

    def _send(self) -> None:
        while len(self._link.in_flight) < MAX_IN_FLIGHT and (message := self._outbox.take()):
            self._link.publish(message)

    def _report(self, reason: str) -> None:
        """Tell of a failure, once for each reason in a row."""
        reason += " It is tried again; detections wait."
        _log.log(logging.DEBUG if reason == self._reported else logging.WARNING, "%s", reason)
        if reason != self._reported:
            self._reported = reason
            self._listener.failed(reason)

    def _events_in_flight(self) -> list[Message]:
        return [one for one in tuple(self._link.in_flight.values()) if not one.retain]
