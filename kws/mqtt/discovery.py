"""The configuration by which Home Assistant finds this device: MQTT device discovery.

The format: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload, since Home
Assistant 2024.11.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from kws.mqtt.topics import Topics, identifier

__all__ = ["Device", "Word", "device_config", "stale_components", "with_removals"]


@dataclass(frozen=True, kw_only=True)
class Word:
    """A keyword of a model.

    Attributes
    ----------
    keyword, model : str
    threshold : float or None
        Its threshold, 0..1; None for a phrase.
    is_personal : bool
        Whether the model is of one voice.
    """

    keyword: str
    model: str
    threshold: float | None = None
    is_personal: bool = False


@dataclass(frozen=True, kw_only=True)
class Device:
    """What this device detects, and on which sources.

    Attributes
    ----------
    name : str
        For people.
    version : str
        Of kws.
    words : tuple of Word
    sources : tuple of str
        Their labels.
    has_expectation : bool
        Whether the number of false alarms to expect is known.
    """

    name: str
    version: str
    words: tuple[Word, ...]
    sources: tuple[str, ...]
    has_expectation: bool = False

    @property
    def keywords(self) -> tuple[str, ...]:
        """Each keyword once."""
        return tuple(dict.fromkeys(word.keyword for word in self.words))


def device_config(device: Device, topics: Topics) -> dict[str, Any]:
    """Return the discovery message of a device."""
    components = _events(device, topics) | _levels(device, topics)
    components["mute"] = {
        "platform": "switch",
        "name": "Mute",
        "icon": "mdi:microphone-off",
        "state_topic": topics.mute,
        "command_topic": topics.mute_command,
    }
    components["detections_24h"] = _sensor(
        "Detections in 24 hours", topics.detections, icon="mdi:counter"
    )
    if device.has_expectation:
        components["expected_false_alarms_24h"] = _sensor(
            "Expected false alarms in 24 hours",
            topics.expected,
            icon="mdi:alert-circle-outline",
            suggested_display_precision=2,
        )
    for name, component in components.items():
        component["unique_id"] = f"{topics.device_id}_{name}"
    return {
        "device": {
            "identifiers": [topics.device_id],
            "name": device.name,
            "manufacturer": "kws",
            "model": "Keyword spotter",
            "sw_version": device.version,
        },
        "origin": {"name": "kws", "sw_version": device.version},
        "availability_topic": topics.availability,
        "qos": 1,
        "components": components,
    }


def stale_components(config: Mapping[str, Any], retained: bytes) -> dict[str, str]:
    """Return the components of a retained message that are no longer in the configuration.

    Parameters
    ----------
    config : mapping
        What is current.
    retained : bytes
        What the broker has kept; may be anything.

    Returns
    -------
    dict of str to str
        Their platform, by their name.
    """
    try:
        former = msgspec.json.decode(retained, type=_Former).components
    except msgspec.DecodeError:
        return {}
    return {
        name: component.platform
        for name, component in former.items()
        if name not in config["components"] and component.unique_id
    }


def with_removals(config: Mapping[str, Any], removed: Mapping[str, str]) -> dict[str, Any]:
    """Return the configuration with the components that Home Assistant is to remove."""
    without = {name: {"platform": platform} for name, platform in removed.items()}
    return {**config, "components": config["components"] | without}


class _FormerComponent(msgspec.Struct):
    platform: str
    unique_id: str = ""


class _Former(msgspec.Struct):
    components: dict[str, _FormerComponent]


def _events(device: Device, topics: Topics) -> dict[str, dict[str, Any]]:
    return {
        f"keyword_{identifier(keyword)}": {
            "platform": "event",
            "name": keyword,
            "icon": "mdi:account-voice",
            "event_types": ["detected"],
            "state_topic": topics.detected(keyword),
        }
        for keyword in device.keywords
    }


def _levels(device: Device, topics: Topics) -> dict[str, dict[str, Any]]:
    only_one = len(device.sources) == 1
    return {
        f"level_{identifier(source)}": _sensor(
            "Level" if only_one else f"Level {source}",
            topics.level(source),
            icon="mdi:volume-high",
            unit_of_measurement="dBFS",
            suggested_display_precision=0,
        )
        for source in device.sources
    }


def _sensor(name: str, topic: str, **more: Any) -> dict[str, Any]:
    """Return a sensor whose payload is a number in JSON, or null for an unknown value."""
    return {
        "platform": "sensor",
        "name": name,
        "state_topic": topic,
        "value_template": "{{ value_json }}",
        "state_class": "measurement",
        "entity_category": "diagnostic",
        **more,
    }
