"""Discovery messages against the keys that Home Assistant documents.

The pages, under https://www.home-assistant.io/integrations/: mqtt (device discovery payload,
origin), event.mqtt, switch.mqtt, sensor.mqtt, as of 2026.
"""

import re
from dataclasses import replace

import msgspec
import pytest

from kws.mqtt.discovery import Device, Word, device_config, stale_components, with_removals
from kws.mqtt.topics import Topics

from .conftest import DEVICE

TOPICS = Topics("kitchen", "homeassistant")
TOPIC = r"[a-z0-9_/-]+"
ICON = r"mdi:[a-z-]+"
TEXT = r"(?s).+"
# Key: whether the page says that it is required, and what its value has to be.
DEVICE_PAGE = {  # mqtt, "Device discovery payload": shared options
    "device": (True, dict),
    "origin": (True, dict),
    "components": (True, dict),
    "availability_topic": (False, TOPIC),
    "qos": (False, {0, 1, 2}),
    "state_topic": (False, TOPIC),
    "command_topic": (False, TOPIC),
    "encoding": (False, TEXT),
}
DEVICE_KEYS = {  # event.mqtt, `device`; "at least one of identifiers or connections"
    "identifiers": (True, list),
    "name": (False, TEXT),
    "manufacturer": (False, TEXT),
    "model": (False, TEXT),
    "sw_version": (False, TEXT),
    "hw_version": (False, TEXT),
}
ORIGIN_KEYS = {  # mqtt, "Adding information about the origin"
    "name": (True, TEXT),
    "sw_version": (False, TEXT),
    "support_url": (False, TEXT),
}
COMMON = {  # `unique_id`: "Required when used with device-based discovery"
    "unique_id": (True, r"[a-z0-9_-]+"),
    "name": (False, TEXT),
    "icon": (False, ICON),
    "qos": (False, {0, 1, 2}),
    "enabled_by_default": (False, {True, False}),
    "entity_category": (False, {"config", "diagnostic"}),
}
PAGES = {
    "event": {  # event.mqtt
        **COMMON,
        "platform": (True, {"event"}),
        "event_types": (True, list),
        "state_topic": (True, TOPIC),
        "device_class": (False, {"button", "doorbell", "motion"}),
        "value_template": (False, TEXT),
    },
    "switch": {  # switch.mqtt
        **COMMON,
        "platform": (True, {"switch"}),
        "command_topic": (True, TOPIC),
        "state_topic": (False, TOPIC),
        "payload_on": (False, TEXT),
        "payload_off": (False, TEXT),
        "optimistic": (False, {True, False}),
        "retain": (False, {True, False}),
    },
    "sensor": {  # sensor.mqtt; "the entity category must be `diagnostic` for sensors"
        **COMMON,
        "entity_category": (False, {"diagnostic"}),
        "platform": (True, {"sensor"}),
        "state_topic": (True, TOPIC),
        "state_class": (False, {"measurement", "total", "total_increasing"}),
        "unit_of_measurement": (False, TEXT),
        "suggested_display_precision": (False, set(range(10))),
        "value_template": (False, TEXT),
    },
}
HOUSE = Device(
    name="Küche",
    version="1.2",
    words=(
        Word(keyword="hey computer", model="a", threshold=0.5),
        Word(keyword="hey computer", model="b", threshold=0.5),
        Word(keyword="où", model="b"),
    ),
    sources=("desk", "plughw:CARD=Webcam"),
    has_expectation=True,
)


def check(table, page):
    """Hold a table of a message against the keys of a page."""
    assert set(table) <= set(page)
    assert {key for key, (is_required, _) in page.items() if is_required} <= set(table)
    for key, value in table.items():
        allowed = page[key][1]
        if isinstance(allowed, str):
            assert re.fullmatch(allowed, value), (key, value)
        elif isinstance(allowed, type):
            assert isinstance(value, allowed), (key, value)
            assert value
        else:
            assert value in allowed, (key, value)


def check_message(message):
    check(message, DEVICE_PAGE)
    check(message["device"], DEVICE_KEYS)
    check(message["origin"], ORIGIN_KEYS)
    for component in message["components"].values():
        check(component, PAGES[component["platform"]])
    ids = [component["unique_id"] for component in message["components"].values()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("device", [DEVICE, HOUSE, replace(HOUSE, has_expectation=False)])
def test_a_message_has_the_keys_that_home_assistant_documents(device):
    message = device_config(device, TOPICS)
    check_message(message)
    assert msgspec.json.decode(msgspec.json.encode(message)) == message


def test_the_topic_has_the_form_that_home_assistant_documents():
    assert re.fullmatch(r"homeassistant/device/[a-zA-Z0-9_-]+/config", TOPICS.config)


def test_there_is_an_event_for_each_keyword_a_level_for_each_source_and_a_switch():
    components = device_config(HOUSE, TOPICS)["components"]
    names = [(one["platform"], one["name"]) for one in components.values()]
    assert names == [
        ("event", "hey computer"),
        ("event", "où"),
        ("sensor", "Level desk"),
        ("sensor", "Level plughw:CARD=Webcam"),
        ("switch", "Mute"),
        ("sensor", "Detections in 24 hours"),
        ("sensor", "Expected false alarms in 24 hours"),
    ]
    alone = device_config(DEVICE, TOPICS)["components"]
    assert alone["level_desk"]["name"] == "Level"


def test_a_rate_that_is_not_known_has_no_sensor():
    without = device_config(replace(DEVICE, has_expectation=False), TOPICS)["components"]
    assert set(device_config(DEVICE, TOPICS)["components"]) - set(without) == {
        "expected_false_alarms_24h"
    }


def test_what_is_removed_is_told_with_its_platform_alone_and_not_told_again():
    config = device_config(DEVICE, TOPICS)
    kept = device_config(replace(DEVICE, sources=("desk", "door")), TOPICS)
    removed = stale_components(config, msgspec.json.encode(kept))
    assert removed == {"level_door": "sensor"}
    message = with_removals(config, removed)
    assert message["components"]["level_door"] == {"platform": "sensor"}
    assert stale_components(config, msgspec.json.encode(message)) == {}
    assert "level_door" not in config["components"]
