"""Detections and states of the daemon as messages to one broker."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from kws.events import Detection, rfc3339
from kws.mqtt.broker import Broker
from kws.mqtt.connection import Connection
from kws.mqtt.discovery import Device, device_config, stale_components, with_removals
from kws.mqtt.hermes import HotwordDetected
from kws.mqtt.inbox import OFF, OFFLINE, ON, ONLINE, Commands, Inbox
from kws.mqtt.outbox import Message, Outbox
from kws.mqtt.topics import Topics, hermes_detected, identifier

__all__ = ["Counts", "Publisher"]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """State of a publisher: messages of events that were acknowledged, wait, and were dropped."""

    broker: str
    connected: bool
    n_sent: int
    n_queued: int
    n_dropped: int


class Publisher:
    """Publish detections and states to one broker, and receive commands from it.

    Parameters
    ----------
    broker : Broker
    device : Device
    commands : Commands
    is_muted : bool or None
        The state of the switch; None: that which the broker has kept, else off.
    pause_s : callable
        Returns the pause after n failures in a row.
    """

    def __init__(
        self,
        broker: Broker,
        device: Device,
        commands: Commands,
        *,
        is_muted: bool | None,
        pause_s: Callable[[int], float],
    ) -> None:
        settings = broker.settings
        self.broker, self._settings = broker, settings
        self.topics = Topics(identifier(device.name), settings.discovery_prefix)
        self._device = device
        self._outbox = Outbox(max_queued=settings.max_queued, max_age_s=settings.max_age_s)
        inbox = Inbox(
            self.topics,
            settings,
            commands,
            on_birth=self._outbox.send_states_again,
            on_kept_config=self._remove_stale,
            recalls_switch=is_muted is None,
        )
        self._connection = Connection(
            broker,
            self._outbox,
            inbox,
            client_id=f"kws-{self.topics.device_id}",
            will=Message(self.topics.availability, OFFLINE, retain=True),
            pause_s=pause_s,
        )
        self.describe(device)
        self._outbox.state(self.topics.availability, ONLINE)
        if is_muted is not None:
            self.show_mute(is_muted=is_muted)

    def start(self) -> None:
        """Connect, in a thread."""
        self._connection.start()

    def describe(self, device: Device) -> None:
        """Publish another description of the device; take back what is no longer in it."""
        former, self._device = self._device, device
        for source in set(former.sources) - set(device.sources):
            self._outbox.clear(self.topics.level(source))
        if self._settings.home_assistant:
            self._remove_stale(msgspec.json.encode(device_config(former, self.topics)))
            self._outbox.state(self.topics.config, msgspec.json.encode(self._config()))
        self._connection.wake()

    def send(self, detection: Detection, site_id: str) -> None:
        """Queue a detection, without waiting."""
        now = rfc3339(datetime.now(UTC))
        event = {"event_type": "detected", **detection.fields(), "time": now}
        self._put(self.topics.detected(detection.keyword), event)
        if self._settings.hermes:
            self._put(hermes_detected(detection.keyword), self._hermes(detection, site_id))
        self._connection.wake()

    def requeue(self, events: list[Message]) -> None:
        """Queue events that another publisher could not send."""
        for event in events:
            self._outbox.put(event)

    def show_sensors(
        self,
        levels: Mapping[str, float | None],
        *,
        n_detections: int,
        n_expected: float | None,
    ) -> None:
        """Publish values of the sensors, those that have changed.

        Parameters
        ----------
        levels : mapping of str to float or None
            dBFS of each source; None: unknown.
        n_detections : int
            In the last 24 hours.
        n_expected : float or None
            False alarms among them that are expected; None: unknown.
        """
        for source, level in levels.items():
            self._state(self.topics.level(source), level)
        self._state(self.topics.detections, n_detections)
        if self._device.has_expectation:
            self._state(self.topics.expected, n_expected)
        self._connection.wake()

    def show_mute(self, *, is_muted: bool) -> None:
        """Publish the state of the switch that mutes."""
        self._outbox.state(self.topics.mute, ON if is_muted else OFF)
        self._connection.wake()

    def counts(self) -> Counts:
        """Return the current state."""
        return Counts(
            broker=str(self.broker),
            connected=self._connection.is_connected,
            n_sent=self._connection.n_sent,
            n_queued=self._connection.n_queued,
            n_dropped=self._outbox.n_dropped,
        )

    def is_same_device(self, other: "Publisher") -> bool:
        """Whether another publisher keeps the same topics up to date at the same broker."""
        return (str(self.broker), self.topics) == (str(other.broker), other.topics)

    def close(self, timeout_s: float, *, forget: bool = False) -> list[Message]:
        """Send what waits, then disconnect.

        Parameters
        ----------
        timeout_s : float
        forget : bool
            Remove the device from Home Assistant, with all that the broker has kept of it.

        Returns
        -------
        list of Message
            Events that could not be sent.
        """
        if forget:
            self._outbox.clear_states()
        return self._connection.close(timeout_s, with_will=not forget)

    def _remove_stale(self, kept: bytes) -> None:
        """Have Home Assistant remove what a former message described and this device lacks."""
        if not self._settings.home_assistant:
            self._outbox.clear(self.topics.config)
            return
        config = self._config()
        if removed := stale_components(config, kept):
            payload = msgspec.json.encode(with_removals(config, removed))
            self._outbox.first(Message(self.topics.config, payload, retain=True))
            self._outbox.state(self.topics.config, msgspec.json.encode(config), again=True)

    def _config(self) -> dict[str, Any]:
        return device_config(self._device, self.topics)

    def _hermes(self, detection: Detection, site_id: str) -> HotwordDetected:
        words = [
            word
            for word in self._device.words
            if (word.keyword, word.model) == (detection.keyword, detection.model)
        ]
        threshold = words[0].threshold if words else None
        return HotwordDetected(
            model_id=detection.model,
            model_type="personal" if words and words[0].is_personal else "universal",
            current_sensitivity=1.0 if threshold is None else round(1.0 - threshold, 4),
            site_id=site_id,
        )

    def _put(self, topic: str, event: Any) -> None:
        self._outbox.put(Message(topic, msgspec.json.encode(event)))

    def _state(self, topic: str, value: float | None) -> None:
        self._outbox.state(topic, msgspec.json.encode(value))
