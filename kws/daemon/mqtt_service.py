"""The daemon's side of MQTT: detections and sensors out, requests to mute in."""

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec

from kws.daemon.day_total import DayTotal
from kws.daemon.listeners import Listener, SourceListeners
from kws.daemon.loaded_config import LoadedConfig
from kws.daemon.muting import Muting
from kws.daemon.snapshot import MqttState
from kws.daemon.source_supervisor import backoff_s
from kws.decision import most_false_alarms_per_hour
from kws.events import Detection, Event
from kws.mqtt.broker import Broker
from kws.mqtt.discovery import Device, Word
from kws.mqtt.hermes import Toggle
from kws.mqtt.outbox import Message
from kws.threads import in_thread

if TYPE_CHECKING:
    from kws.mqtt.publisher import Publisher

__all__ = ["MqttService"]

_TICK_S = 1.0
_CLOSE_S = 0.6

_log = logging.getLogger("kws.daemon")


class MqttService:
    """Publish to the broker of the current configuration, and mute as it requests.

    Parameters
    ----------
    muting : Muting
        Changed by requests.
    sources : callable
        Returns the current sources.
    on_failure : callable
        Called in the loop with the reason why the broker cannot be used.
    """

    def __init__(
        self,
        muting: Muting,
        *,
        sources: Callable[[], Sequence[SourceListeners]],
        on_failure: Callable[[str], None],
    ) -> None:
        self._muting, self._sources, self._on_failure = muting, sources, on_failure
        self._publisher: Publisher | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._version = version("kws")
        self._sites: dict[str, str] = {}
        self._interval_s = 0.0
        self._rate_per_hour: float | None = None
        self._detections, self._expected = DayTotal(), DayTotal()

    async def run(self) -> None:
        """Publish the sensors in their interval, until cancelled."""
        waited_s = 0.0
        while True:
            self._count_expected()
            if self._publisher and waited_s >= self._interval_s:
                self._show_sensors(self._publisher)
                waited_s = 0.0
            await asyncio.sleep(_TICK_S)
            waited_s += _TICK_S

    def change(self, loaded: LoadedConfig) -> None:
        """Switch to another configuration, in the loop.

        The connection is kept if nothing changes for it. What a former broker or name had kept is
        cleared there, and what could not be sent to it is sent to the new one.
        """
        self._loop = asyncio.get_running_loop()
        former, broker = self._publisher, loaded.broker
        self._publisher = None
        if broker:
            device = self._describe(loaded, broker)
            if former and former.broker == broker:
                former.describe(device)
                self._publisher = former
                return
            self._publisher = self._opened(broker, device)
        else:
            self._muting.end_all()  # nothing could take it back any more
        if former:
            hand_over = functools.partial(_hand_over, former, self._publisher)
            threading.Thread(target=hand_over, name="kws-mqtt-change", daemon=True).start()
        elif self._publisher:
            self._publisher.start()

    def send(self, event: Event) -> None:
        """Count and publish a detection, without waiting."""
        if isinstance(event, Detection):
            self._detections.add()
            if self._publisher:
                self._publisher.send(event, self._sites.get(event.source or "", "default"))

    def state(self) -> MqttState | None:
        """Return the state of the connection; None without a broker."""
        if self._publisher is None:
            return None
        return msgspec.convert(self._publisher.counts(), MqttState, from_attributes=True)

    async def close(self) -> None:
        """Send what waits, for up to 0.6 s, and disconnect."""
        if self._publisher:
            _log_unsent(await in_thread(functools.partial(self._publisher.close, _CLOSE_S)))

    def switch(self, *, is_muted: bool) -> None:
        """Mute or unmute all sources; called by any thread."""
        self._in_loop(self._switch, is_muted)

    def toggle(self, toggle: Toggle, *, is_on: bool) -> None:
        """Mute or unmute the sources of a site; called by any thread."""
        self._in_loop(self._toggle, toggle, is_on)

    def lost(self) -> None:
        """Take back requests whose end may not be told; called by any thread."""
        self._in_loop(self._muting.end_passing)

    def failed(self, reason: str) -> None:
        """Report why the broker cannot be used; called by any thread."""
        self._in_loop(self._on_failure, reason)

    def _in_loop(self, action: Callable[..., None], *arguments: Any) -> None:
        if self._loop:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(action, *arguments)

    def _switch(self, is_muted: bool) -> None:
        if self._muting.switch != is_muted and (is_muted or self._muting.switch):
            _log.info("MQTT: the switch %s all sources.", "mutes" if is_muted else "unmutes")
        self._muting.switch = is_muted
        if self._publisher:
            self._publisher.show_mute(is_muted=is_muted)

    def _toggle(self, toggle: Toggle, is_on: bool) -> None:
        change = self._muting.unmute if is_on else self._muting.mute
        for label, site_id in self._sites.items():
            if toggle.site_id == site_id:
                change(label, toggle.reason)

    def _describe(self, loaded: LoadedConfig, broker: Broker) -> Device:
        """Take over what sensors and sites depend on; return the description of the device."""
        settings = loaded.config.mqtt
        labels = [source.label for source in loaded.config.every_source]
        self._sites = {label: settings.site_id if len(labels) == 1 else label for label in labels}
        self._interval_s = settings.sensor_interval_s
        listeners = next(iter(loaded.listeners.values()))
        self._rate_per_hour = _rate_per_hour(listeners)
        return Device(
            name=broker.name,
            version=self._version,
            words=tuple(_words(listeners)),
            sources=tuple(labels),
            has_expectation=self._rate_per_hour is not None,
        )

    def _opened(self, broker: Broker, device: Device) -> "Publisher":
        from kws.mqtt.publisher import Publisher  # needs paho-mqtt

        return Publisher(broker, device, self, is_muted=self._muting.switch, pause_s=backoff_s)

    def _count_expected(self) -> None:
        """Add what the models are expected to detect for nothing in the last second of speech."""
        for source in self._sources():
            is_open = any(one.spotter.gate_open for one in source.listeners)
            if self._rate_per_hour is not None and is_open and self._hears(source):
                self._expected.add(self._rate_per_hour * _TICK_S / 3600)

    def _hears(self, source: SourceListeners) -> bool:
        supervisor = source.supervisor
        is_muted = self._muting.reasons(supervisor.label, is_file=supervisor.is_file)
        return supervisor.state in {"listening", "silent"} and not is_muted

    def _show_sensors(self, publisher: "Publisher") -> None:
        levels = {
            source.supervisor.label: (
                round(source.level_dbfs, 1)
                if self._hears(source) and source.level_dbfs is not None
                else None
            )
            for source in self._sources()
        }
        publisher.show_sensors(
            levels,
            n_detections=round(self._detections.total()),
            n_expected=None if self._rate_per_hour is None else round(self._expected.total(), 3),
        )


def _hand_over(former: "Publisher", publisher: "Publisher | None") -> None:
    is_same_device = publisher is not None and former.is_same_device(publisher)
    unsent = former.close(_CLOSE_S, forget=not is_same_device)
    if publisher:
        publisher.requeue(unsent)
        publisher.start()
    else:
        _log_unsent(unsent)


def _log_unsent(messages: list[Message]) -> None:
    if messages:
        _log.warning(
            "MQTT: %d messages were not sent, as the broker did not take them in time.",
            len(messages),
        )


def _words(listeners: Sequence[Listener]) -> list[Word]:
    return [
        Word(
            keyword=keyword,
            model=listener.name,
            threshold=listener.spotter.thresholds.get(keyword),
            is_personal=any(one.head is not None for one in listener.spotter.manifests),
        )
        for listener in listeners
        for keyword in listener.spotter.keywords
    ]


def _rate_per_hour(listeners: Sequence[Listener]) -> float | None:
    """Return the false alarms of all models in an hour of speech; None if one has no table."""
    rates = [
        most_false_alarms_per_hour(listener.spotter.thresholds, manifest)
        for listener in listeners
        for manifest in listener.spotter.manifests
    ]
    known = [rate for rate in rates if rate is not None]
    return sum(known) if len(known) == len(rates) else None
