"""Messages of the broker as commands to the daemon."""

import logging
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from kws.config import MqttSettings
from kws.mqtt.hermes import Toggle, read_toggle
from kws.mqtt.topics import TOGGLE_OFF, TOGGLE_ON, Topics

__all__ = ["OFF", "OFFLINE", "ON", "ONLINE", "Commands", "Inbox"]

ON, OFF = b"ON", b"OFF"
ONLINE, OFFLINE = b"online", b"offline"
_RECALL_S = 2.0
"""Time for the broker to send the state of the switch that it has kept."""

_log = logging.getLogger("kws.mqtt")


class Commands(Protocol):
    """What the daemon is told, in the thread of the connection."""

    def switch(self, *, is_muted: bool) -> None:
        """Mute or unmute, by the switch of Home Assistant."""

    def toggle(self, toggle: Toggle, *, is_on: bool) -> None:
        """Turn the detection at a site on or off, by the Hermes protocol."""

    def lost(self) -> None:
        """Take note that commands do not arrive any more."""

    def failed(self, reason: str) -> None:
        """Take note of why the broker cannot be used."""


class Inbox:
    """A listener of a connection, which reads commands.

    Parameters
    ----------
    topics : Topics
    settings : MqttSettings
    commands : Commands
    on_birth : callable
        Called when Home Assistant has started.
    on_kept_config : callable
        Called with the discovery message that the broker has kept.
    recalls_switch : bool
        Whether the switch takes the state that the broker has kept, else off.
    """

    def __init__(
        self,
        topics: Topics,
        settings: MqttSettings,
        commands: Commands,
        *,
        on_birth: Callable[[], None],
        on_kept_config: Callable[[bytes], None],
        recalls_switch: bool,
    ) -> None:
        self._topics, self._settings, self._commands = topics, settings, commands
        self._on_birth, self._on_kept_config = on_birth, on_kept_config
        self._recalls_switch = recalls_switch
        self._recall_by_s = 0.0

    def connected(self, subscribe: Callable[[str], None]) -> None:
        """Subscribe to commands, and to what the broker has kept of an earlier run."""
        subscribe(self._topics.mute_command)
        subscribe(self._topics.config)
        if self._settings.home_assistant:
            subscribe(self._topics.birth)
        if self._settings.hermes:
            subscribe(TOGGLE_ON)
            subscribe(TOGGLE_OFF)
        if self._recalls_switch:
            subscribe(self._topics.mute)
            self._recall_by_s = time.monotonic() + _RECALL_S

    def received(self, topic: str, payload: bytes, is_retained: bool, /) -> None:
        """Process a message."""
        if topic == self._topics.mute_command:
            self._switch(payload)
        elif topic in {TOGGLE_ON, TOGGLE_OFF}:
            self._toggle(payload, is_on=topic == TOGGLE_ON)
        elif topic == self._topics.birth and payload == ONLINE:
            self._on_birth()
        elif topic == self._topics.config and is_retained:
            self._on_kept_config(payload)
        elif topic == self._topics.mute and is_retained:
            self._recall(is_muted=payload == ON)

    def polled(self) -> None:
        """Take the switch for off if the broker has kept no state of it."""
        if time.monotonic() > self._recall_by_s:
            self._recall(is_muted=False)

    def lost(self) -> None:
        """Tell the daemon."""
        self._commands.lost()

    def failed(self, reason: str) -> None:
        """Tell the daemon."""
        self._commands.failed(reason)

    def _switch(self, payload: bytes) -> None:
        if payload not in {ON, OFF}:
            _log.warning(
                "MQTT: a command to the switch that mutes must be ON or OFF. Received: %r.",
                payload[:40],
            )
            return
        self._recalls_switch = False
        self._commands.switch(is_muted=payload == ON)

    def _recall(self, *, is_muted: bool) -> None:
        if self._recalls_switch:
            self._recalls_switch = False
            self._commands.switch(is_muted=is_muted)

    def _toggle(self, payload: bytes, *, is_on: bool) -> None:
        try:
            toggle = read_toggle(payload)
        except msgspec.DecodeError as error:
            _log.warning(
                "MQTT: a message of hermes/hotword/toggleOn or toggleOff must be a JSON object "
                "with siteId. Received: %r (%s).",
                payload[:80],
                error,
            )
            return
        self._commands.toggle(toggle, is_on=is_on)
