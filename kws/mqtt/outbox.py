"""Messages that wait for the broker: states, of which the last counts, and a bounded queue."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Message", "Outbox"]

_log = logging.getLogger("kws.mqtt")


class Message(NamedTuple):
    """A message, in full.

    Attributes
    ----------
    topic : str
    payload : bytes
        Empty and retained: the broker is to forget the topic.
    retain : bool
        Whether the broker keeps it for later subscribers.
    """

    topic: str
    payload: bytes
    retain: bool = False


class Outbox:
    """What is to be sent; filled by any thread, emptied by that of the connection.

    Parameters
    ----------
    max_queued : int
        Events that may wait; a new one beyond that is dropped.
    max_age_s : float or None
        Events that have waited longer are dropped.
    clock : callable
        Gives seconds.

    Attributes
    ----------
    n_dropped : int
        Events that found the queue full, or waited for too long.
    """

    def __init__(
        self,
        *,
        max_queued: int,
        max_age_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.n_dropped = 0
        self._max_queued, self._max_age_s, self._clock = max_queued, max_age_s, clock
        self._lock = threading.Lock()
        self._first: deque[Message] = deque()
        self._states: dict[str, Message] = {}
        self._changed: dict[str, None] = {}
        self._events: deque[tuple[float, Message]] = deque()

    def __len__(self) -> int:
        """Return the number of events that wait."""
        return len(self._events)

    def put(self, event: Message) -> None:
        """Queue an event; if the queue is full, drop and count it."""
        with self._lock:
            if len(self._events) < self._max_queued:
                self._events.append((self._clock(), event))
                return
            self.n_dropped += 1
        _log.warning(
            "MQTT: a message was dropped, as %d wait for the broker already; %d so far.",
            self._max_queued,
            self.n_dropped,
        )

    def state(self, topic: str, payload: bytes, *, again: bool = False) -> None:
        """Replace the retained message of a topic; send it if it differs, or `again`."""
        message = Message(topic, payload, retain=True)
        with self._lock:
            if again or self._states.get(topic) != message:
                self._states[topic] = message
                self._changed[topic] = None

    def clear(self, topic: str) -> None:
        """Have the broker forget the retained message of a topic."""
        with self._lock:
            self._states.pop(topic, None)
            self._changed.pop(topic, None)
            self._first.append(Message(topic, b"", retain=True))

    def clear_states(self) -> None:
        """Have the broker forget all retained messages."""
        for topic in tuple(self._states):
            self.clear(topic)

    def first(self, message: Message) -> None:
        """Send a message before all others, once."""
        with self._lock:
            self._first.append(message)

    def send_states_again(self) -> None:
        """Send all states once more, in the order of their first appearance."""
        with self._lock:
            self._changed = dict.fromkeys(self._states)

    def take(self) -> Message | None:
        """Remove and return the next message: states first, then events in order."""
        n_old = 0
        try:
            with self._lock:
                if self._first:
                    return self._first.popleft()
                if self._changed:
                    topic = next(iter(self._changed))
                    del self._changed[topic]
                    return self._states[topic]
                while self._events:
                    since_s, event = self._events.popleft()
                    if self._max_age_s is None or self._clock() - since_s <= self._max_age_s:
                        return event
                    n_old += 1
                    self.n_dropped += 1
                return None
        finally:
            if n_old:
                _log.warning(
                    "MQTT: %d messages were dropped, as they had waited for the broker longer "
                    "than %g s, `max_age_s`; %d so far.",
                    n_old,
                    self._max_age_s,
                    self.n_dropped,
                )

    def take_events(self) -> list[Message]:
        """Remove and return all events."""
        with self._lock:
            events = [event for _, event in self._events]
            self._events.clear()
            return events
