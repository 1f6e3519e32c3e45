"""A publisher and Debian's mosquitto: what is sent, kept, repeated, and taken as a command."""

import json
import logging
import socket
from dataclasses import replace

import pytest
from mosquitto import until

from kws.mqtt.discovery import Word

from .conftest import DEVICE, heard

CONFIG = "homeassistant/device/kitchen/config"
SWITCH, SWITCH_SET = "kws/kitchen/mute", "kws/kitchen/mute/set"


@pytest.fixture
def _broker(mosquitto):
    return mosquitto()


def settled(publisher):
    """Wait until everything is acknowledged; events are sent after states."""
    publisher.send(heard(0, "go"), "default")
    until(lambda: publisher.counts().n_sent and not publisher.counts().n_queued)


def ends_of(subscriber, topic="kws/kitchen/detected/stop"):
    return [json.loads(one)["end_s"] for one in subscriber.of(topic)]


@pytest.mark.usefixtures("_broker")
def test_a_detection_reaches_home_assistant_and_rhasspy(publish, subscribe):
    subscriber = subscribe()
    publish().send(heard(3), "attic")
    until(lambda: subscriber.of("hermes/hotword/stop/detected"))
    (event,) = map(json.loads, subscriber.of("kws/kitchen/detected/stop"))
    assert event.pop("time").endswith("Z")
    assert event == {
        "event_type": "detected",
        "keyword": "stop",
        "score": 0.9,
        "start_s": 0.0,
        "end_s": 3.0,
        "model": "m",
        "source": "desk",
    }
    (event,) = map(json.loads, subscriber.of("hermes/hotword/stop/detected"))
    assert event == {
        "modelId": "m",
        "modelVersion": "",
        "modelType": "universal",
        "currentSensitivity": 0.3,
        "siteId": "attic",
        "sessionId": None,
        "sendAudioCaptured": None,
        "lang": None,
    }
    detected = [one for one in subscriber.messages if one.topic.endswith(("stop", "detected"))]
    assert [(one.qos, one.retain) for one in detected] == [(1, False)] * 2


@pytest.mark.usefixtures("_broker")
def test_states_are_kept_for_later_subscribers(publish, subscribe):
    publisher = publish()
    publisher.show_sensors({"desk": -31.5}, n_detections=4, n_expected=None)
    early = subscribe()
    until(lambda: len(early.messages) >= 6)
    late = subscribe()
    until(lambda: len(late.messages) == 6)
    assert {one.topic: one.payload.decode() for one in late.messages if one.topic != CONFIG} == {
        "kws/kitchen/availability": "online",
        SWITCH: "OFF",
        "kws/kitchen/level/desk": "-31.5",
        "kws/kitchen/detections_24h": "4",
        "kws/kitchen/expected_false_alarms_24h": "null",
    }
    assert all(one.retain for one in late.messages)


@pytest.mark.usefixtures("_broker")
def test_hermes_and_home_assistant_are_left_out_where_told(publish, subscribe):
    subscriber = subscribe()
    publisher = publish(hermes=False, home_assistant=False)
    publisher.send(heard(1), "default")
    settled(publisher)
    subscriber.publish("hermes/hotword/toggleOff", "{}")
    subscriber.publish(SWITCH_SET, "ON")
    until(lambda: publisher.told.switches)
    topics = {one.topic for one in subscriber.messages}
    assert "kws/kitchen/detected/stop" in topics
    assert not [one for one in topics if one.startswith(("hermes/hotword/stop", "homeassistant"))]
    assert publisher.told.toggles == []


@pytest.mark.usefixtures("_broker")
def test_a_birth_message_has_everything_published_again(publish, subscribe):
    subscriber = subscribe()
    settled(publish())
    until(lambda: subscriber.of("kws/kitchen/availability"))
    subscriber.publish("homeassistant/status", "offline")
    subscriber.publish("homeassistant/status", "online")
    until(lambda: len(subscriber.of(SWITCH)) == 2)
    assert len(subscriber.of(CONFIG)) == 2
    assert subscriber.of("kws/kitchen/availability") == ["online"] * 2
    order = [one.topic for one in subscriber.messages]
    assert order.index(CONFIG, order.index("homeassistant/status")) < len(order) - 1


@pytest.mark.usefixtures("_broker")
def test_the_switch_is_a_command_and_its_state_is_what_the_daemon_says(publish, subscribe):
    subscriber = subscribe()
    publisher = publish()
    settled(publisher)
    subscriber.publish(SWITCH_SET, "ON")
    until(lambda: publisher.told.switches == [True])
    publisher.show_mute(is_muted=True)
    until(lambda: subscriber.of(SWITCH) == ["OFF", "ON"])


@pytest.mark.usefixtures("_broker")
def test_a_new_run_takes_the_switch_from_the_broker_without_an_off_in_between(publish, subscribe):
    subscriber = subscribe()
    subscriber.publish(SWITCH, "ON", retain=True)
    publisher = publish(is_muted=None)
    until(lambda: publisher.told.switches == [True])
    publisher.show_mute(is_muted=True)
    settled(publisher)
    assert set(subscriber.of(SWITCH)) == {"ON"}


@pytest.mark.usefixtures("_broker")
def test_a_first_run_takes_the_switch_for_off(publish, monkeypatch):
    monkeypatch.setattr("kws.mqtt.inbox._RECALL_S", 0.1)
    monkeypatch.setattr("kws.mqtt.connection._POLL_S", 0.1)
    publisher = publish(is_muted=None)
    until(lambda: publisher.told.switches == [False])


@pytest.mark.usefixtures("_broker")
def test_toggles_are_read_with_site_and_reason(publish, subscribe):
    subscriber = subscribe()
    publisher = publish()
    settled(publisher)
    off, on = "hermes/hotword/toggleOff", "hermes/hotword/toggleOn"
    subscriber.publish(off, '{"siteId": "attic", "reason": "ttsSay"}')
    subscriber.publish(on, '{"siteId": "attic", "reason": "ttsSay"}')
    subscriber.publish(off, "{}")
    subscriber.publish(on, '{"reason": "because"}')
    until(lambda: len(publisher.told.toggles) == 4)
    assert publisher.told.toggles == [
        ("attic", "ttsSay", False),
        ("attic", "ttsSay", True),
        ("default", "", False),
        ("default", "", True),
    ]


@pytest.mark.usefixtures("_broker")
def test_commands_that_are_none_are_logged_and_change_nothing(publish, subscribe, caplog):
    subscriber = subscribe()
    publisher = publish()
    settled(publisher)
    with caplog.at_level(logging.WARNING):
        for payload in (b"on", b"", b"\xff\xfe", b"x" * 300_000):
            subscriber.publish(SWITCH_SET, payload)
        for payload in (b"", b"[]", b'{"siteId": 7}', b"\xff", b"[" * 100_000):
            subscriber.publish("hermes/hotword/toggleOff", payload)
        subscriber.publish(SWITCH_SET, "OFF")
        until(lambda: publisher.told.switches)
    assert (publisher.told.switches, publisher.told.toggles) == ([False], [])
    said = "\n".join(caplog.messages)
    assert "must be ON or OFF. Received: b'on'." in said
    assert "a message of 300000 bytes was ignored; at most 262144 are read" in said
    assert said.count("must be a JSON object with siteId. Received: ") == 5
    assert publisher.counts().connected


@pytest.mark.usefixtures("_broker")
def test_what_an_earlier_run_described_and_this_one_lacks_is_removed(publish, subscribe):
    earlier = replace(DEVICE, words=(*DEVICE.words, Word(keyword="halt", model="old")))
    former = publish(earlier)
    settled(former)
    former.close(2.0)
    subscriber = subscribe()
    until(lambda: subscriber.of(CONFIG))
    settled(publish())
    until(lambda: len(subscriber.of(CONFIG)) >= 4)  # kept, new, with the removal, new
    configs = [json.loads(one)["components"] for one in subscriber.of(CONFIG)]
    assert configs[0]["keyword_halt"]["unique_id"] == "kitchen_keyword_halt"
    assert {"platform": "event"} in [one.get("keyword_halt") for one in configs]
    assert "keyword_halt" not in configs[-1]


@pytest.mark.usefixtures("_broker")
def test_a_keyword_that_a_reload_removes_is_removed(publish, subscribe):
    subscriber = subscribe()
    publisher = publish()
    publisher.show_sensors({"desk": -20.0}, n_detections=0, n_expected=0.0)
    settled(publisher)
    publisher.describe(replace(DEVICE, words=DEVICE.words[:1], sources=("door",)))
    until(lambda: len(subscriber.of(CONFIG)) == 3)
    configs = [json.loads(one)["components"] for one in subscriber.of(CONFIG)]
    assert set(configs[0]) - set(configs[-1]) == {"keyword_go", "level_desk"}
    assert (configs[1]["keyword_go"], configs[1]["level_desk"]) == (
        {"platform": "event"},
        {"platform": "sensor"},
    )
    assert subscriber.of("kws/kitchen/level/desk") == ["-20.0", ""]


@pytest.mark.usefixtures("_broker")
def test_a_device_that_is_no_more_is_forgotten_by_the_broker(publish, subscribe):
    publisher = publish()
    settled(publisher)
    assert publisher.close(2.0, forget=True) == []
    assert subscribe().messages == []


@pytest.mark.usefixtures("_broker")
@pytest.mark.parametrize("kept", [b"\xff", b"[]", b"null", b'{"components": {"a": 1}}', b"{}"])
def test_rubbish_on_the_discovery_topic_is_replaced(kept, publish, subscribe):
    subscriber = subscribe()
    subscriber.publish(CONFIG, kept, retain=True)
    settled(publish())
    until(lambda: len(subscriber.of(CONFIG)) == 2)
    assert "keyword_stop" in json.loads(subscriber.of(CONFIG)[-1])["components"]


@pytest.mark.usefixtures("_broker")
def test_a_daemon_that_is_gone_is_offline_and_so_is_one_that_has_ended(publish, subscribe):
    subscriber = subscribe(topics="kws/kitchen/availability")
    publisher = publish()
    settled(publisher)
    until(lambda: subscriber.of("kws/kitchen/availability"))
    link = publisher._connection._link._client.socket()
    link.shutdown(socket.SHUT_RDWR)  # without a farewell
    until(lambda: subscriber.of("kws/kitchen/availability") == ["online", "offline", "online"])
    publisher.close(2.0)
    assert until(lambda: subscriber.of("kws/kitchen/availability")[3:]) == ["offline"]


@pytest.mark.usefixtures("_broker")
def test_what_waits_is_sent_before_the_end(publish, subscribe):
    subscriber = subscribe()
    publisher = publish()
    settled(publisher)
    for i in range(200):
        publisher.send(heard(i), "default")
    assert publisher.close(5.0) == []
    until(lambda: len(ends_of(subscriber)) == 200)


def test_what_could_not_be_sent_goes_to_the_next_broker(publish, mosquitto, subscribe):
    alone = publish(hermes=False)
    alone.send(heard(1), "default")
    unsent = alone.close(0.1)
    assert [one.topic for one in unsent] == ["kws/kitchen/detected/stop"]
    mosquitto()
    subscriber = subscribe()
    publish(hermes=False).requeue(unsent)
    until(lambda: ends_of(subscriber) == [1.0])
