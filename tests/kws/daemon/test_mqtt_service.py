"""A daemon with a broker: detections out, mutes in, reloads, and brokers that do harm."""

import asyncio
import json
import os
import re
import signal
import time

import pytest
from mosquitto import brokers, subscribers

from kws.daemon.service import Daemon
from kws.errors import ConfigError
from kws.events import Detection, StateChange
from kws.manifest import CalibrationPoint

from .conftest import OPENED, until

CONFIG = "homeassistant/device/kitchen/config"


class Printer:
    """A sink that keeps events."""

    def __init__(self):
        self.events = []

    def send(self, event):
        self.events.append(event)

    def close(self):
        pass

    def detections(self):
        return [one for one in self.events if isinstance(one, Detection)]

    def errors(self):
        return [
            one.detail
            for one in self.events
            if isinstance(one, StateChange) and one.event == "error"
        ]


@pytest.fixture
def mosquitto(tmp_path, free_port):
    with brokers(tmp_path, free_port) as start:
        yield start


@pytest.fixture
def subscribe(free_port):
    with subscribers(free_port) as start:
        yield start


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr("kws.mqtt.inbox._RECALL_S", 0.3)
    monkeypatch.setattr("kws.mqtt.connection._POLL_S", 0.1)


@pytest.fixture
def write(tmp_path, model, free_port):
    """Write kws.toml: the model of loudness, one source, and a broker."""

    def write(mqtt="", *, rest=""):
        path = tmp_path / "kws.toml"
        path.write_text(
            f"[gate]\nenabled = false\n[model]\nname = '{model}'\n[source]\nname = 'desk'\n{rest}\n"
            f"[mqtt]\nhost = '127.0.0.1'\nport = {free_port}\nname = 'kitchen'\n"
            f"sensor_interval_s = 1.0\n{mqtt}\n"
        )
        return path

    return write


@pytest.fixture
def run(capture_script, recording):
    """Run a daemon that detects `stop` some ten times a second while a test drives it."""
    script = f"{OPENED} while tail -c +45 {recording}; do sleep 0.2; done"

    def run(path, drive):
        printer = Printer()
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.getsignal(number) for number in numbers}

        async def both():
            daemon = Daemon(path, printer=printer, capture_command=capture_script(script))
            running = asyncio.create_task(daemon.run())
            await until(lambda: printer.events)
            try:
                await drive(daemon, printer)
            finally:
                daemon._finish(0)
                assert await asyncio.wait_for(running, 10) == 0

        try:
            asyncio.run(both())
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return printer

    return run


def state_of(daemon):
    return daemon._monitoring.snapshot()


async def hears(printer, n=3):
    """Wait for further detections."""
    enough = len(printer.detections()) + n
    await until(lambda: len(printer.detections()) >= enough)


async def is_deaf(printer):
    """Wait for what is under way, then check that nothing is detected any more."""
    await asyncio.sleep(0.3)
    n = len(printer.detections())
    await asyncio.sleep(0.4)
    return len(printer.detections()) == n


def test_detections_sensors_and_the_end_are_published(write, run, mosquitto, subscribe):
    mosquitto()
    subscriber = subscribe()

    async def drive(daemon, printer):
        await hears(printer)
        await until(lambda: subscriber.of("kws/kitchen/level/desk"))
        await until(lambda: state_of(daemon).mqtt.n_sent > 5)

    printer = run(write(), drive)
    asyncio.run(until(lambda: subscriber.of("kws/kitchen/availability") == ["online", "offline"]))
    published = [json.loads(one)["end_s"] for one in subscriber.of("kws/kitchen/detected/stop")]
    assert published == [one.end_s for one in printer.detections()]
    hermes = [json.loads(one) for one in subscriber.of("hermes/hotword/stop/detected")]
    assert len(hermes) == len(published)
    assert {(one["modelId"], one["siteId"], one["modelType"]) for one in hermes} == {
        ("loud", "default", "universal")
    }
    assert -100 <= float(subscriber.of("kws/kitchen/level/desk")[-1]) < 0
    assert int(subscriber.of("kws/kitchen/detections_24h")[-1]) > 0
    assert subscriber.of("kws/kitchen/expected_false_alarms_24h") == []  # without a calibration


@pytest.mark.slow
def test_the_switch_and_hermes_mute_the_daemon(write, run, mosquitto, subscribe):
    mosquitto()
    subscriber = subscribe()

    async def published(topic, payload):
        await asyncio.to_thread(subscriber.publish, topic, payload)

    async def drive(daemon, printer):
        await until(lambda: subscriber.of("kws/kitchen/mute") == ["OFF"])
        await hears(printer)
        await published("kws/kitchen/mute/set", "ON")
        await until(lambda: subscriber.of("kws/kitchen/mute") == ["OFF", "ON"])
        assert await is_deaf(printer)
        assert state_of(daemon).sources[0].muted_by == ["the switch"]
        await until(lambda: subscriber.of("kws/kitchen/level/desk")[-1] == "null")
        await published("kws/kitchen/mute/set", "OFF")
        await hears(printer)
        off, on = "hermes/hotword/toggleOff", "hermes/hotword/toggleOn"
        await published(off, '{"siteId": "elsewhere"}')
        await hears(printer)
        await published(off, '{"siteId": "default", "reason": "ttsSay"}')
        assert await is_deaf(printer)
        assert state_of(daemon).sources[0].muted_by == ["Hermes ttsSay"]
        await published(on, '{"siteId": "default", "reason": "ttsSay"}')
        await hears(printer)

    run(write(), drive)


@pytest.mark.slow
def test_a_mute_outlasts_the_broker_and_the_daemon(write, run, mosquitto, subscribe, tmp_path):
    broker = mosquitto(f"allow_anonymous true\npersistence true\npersistence_location {tmp_path}/")
    subscriber = subscribe(name="keeps")

    async def drive(daemon, printer):
        await until(lambda: subscriber.of("kws/kitchen/mute"))
        await asyncio.to_thread(subscriber.publish, "kws/kitchen/mute/set", "ON")
        await until(lambda: subscriber.of("kws/kitchen/mute") == ["OFF", "ON"])
        await asyncio.to_thread(broker.stop)
        await until(lambda: not state_of(daemon).mqtt.connected)
        assert await is_deaf(printer)
        await asyncio.to_thread(broker.start)
        await until(lambda: state_of(daemon).mqtt.connected)
        await until(lambda: subscriber.of("kws/kitchen/mute")[-2:] == ["ON", "ON"])
        assert await is_deaf(printer)

    async def again(daemon, printer):
        await until(lambda: daemon._muting.switch)
        assert await is_deaf(printer)

    run(write(), drive)
    run(write(), again)
    assert "OFF" not in subscriber.of("kws/kitchen/mute")[1:]


@pytest.mark.slow
def test_a_lost_connection_ends_what_a_dialogue_had_muted(write, run, mosquitto, subscribe):
    broker = mosquitto()
    subscriber = subscribe()

    async def drive(daemon, printer):
        await until(lambda: state_of(daemon).mqtt.connected)
        await until(lambda: subscriber.of("kws/kitchen/mute"))
        off = '{"reason": "dialogueSession"}'
        await asyncio.to_thread(subscriber.publish, "hermes/hotword/toggleOff", off)
        assert await is_deaf(printer)
        await asyncio.to_thread(broker.stop)
        await hears(printer)

    run(write(), drive)


@pytest.mark.parametrize("kind", ["wrong password", "no broker"])
def test_audio_goes_on_without_the_broker_and_an_event_says_why(
    kind, write, run, mosquitto, tmp_path, free_port, caplog
):
    if kind == "wrong password":
        (tmp_path / "accounts").touch(mode=0o600)
        mosquitto(f"allow_anonymous false\npassword_file {tmp_path}/accounts")

    async def drive(daemon, printer):
        await until(printer.errors)
        await hears(printer, 20)
        state = state_of(daemon)
        assert (state.mqtt.connected, state.mqtt.n_sent) == (False, 0)
        assert state.mqtt.n_queued >= 20
        assert state.sources[0].dropped_s == 0
        assert [one.level for one in state.last_errors] == ["warning"]

    printer = run(write(), drive)
    assert re.search(r"MQTT: \d+ messages were not sent, as the broker did not", caplog.text)
    (error,) = printer.errors()
    assert f"The MQTT broker 127.0.0.1:{free_port} " in error
    assert ("refused the login: Not authorized." in error) == (kind == "wrong password")


def test_a_reload_changes_keywords_and_keeps_the_connection(
    write, run, mosquitto, subscribe, make_model, model, tmp_path
):
    mosquitto()
    subscriber = subscribe()
    (tmp_path / "other.tflite").write_bytes(
        make_model(name="other", labels=("_silence_", "halt", "go"))
    )
    path = write()

    async def drive(daemon, printer):
        await until(lambda: subscriber.of(CONFIG))
        path.write_text(path.read_text().replace(str(model), f"{tmp_path}/other.tflite"))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: subscriber.of("kws/kitchen/detected/halt"))

    run(path, drive)
    configs = [json.loads(one)["components"] for one in subscriber.of(CONFIG)]
    assert "keyword_stop" in configs[0]
    assert {"platform": "event"} in [one.get("keyword_stop") for one in configs]
    assert {"keyword_halt", "keyword_go"} <= set(configs[-1])
    assert "keyword_stop" not in configs[-1]
    assert subscriber.of("kws/kitchen/availability") == ["online", "offline"]


@pytest.mark.slow
def test_a_reload_without_the_table_has_the_broker_forget_the_device(
    write, run, mosquitto, subscribe
):
    mosquitto()
    subscriber = subscribe()
    path = write()

    async def drive(daemon, printer):
        await until(lambda: subscriber.of("kws/kitchen/mute"))
        await asyncio.to_thread(subscriber.publish, "kws/kitchen/mute/set", "ON")
        assert await is_deaf(printer)
        path.write_text(path.read_text().partition("[mqtt]")[0])
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: subscriber.of(CONFIG)[-1:] == [""])
        await hears(printer)
        assert state_of(daemon).mqtt is None

    run(path, drive)
    assert subscribe().messages == []


def test_a_reload_with_another_name_moves_the_device(write, run, mosquitto, subscribe):
    mosquitto()
    subscriber = subscribe()
    path = write()

    async def drive(daemon, printer):
        await until(lambda: subscriber.of("kws/kitchen/mute"))
        path.write_text(path.read_text().replace("'kitchen'", "'attic'"))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: subscriber.of("kws/attic/mute") == ["OFF"])
        await until(lambda: subscriber.of("kws/attic/detected/stop"))

    run(path, drive)
    assert subscriber.of(CONFIG)[-1] == ""
    assert subscriber.of("homeassistant/device/attic/config")[-1] != ""


def test_a_reload_that_is_refused_keeps_the_old_broker(write, run, mosquitto, subscribe):
    mosquitto()
    subscriber = subscribe()
    path = write()

    async def drive(daemon, printer):
        await until(lambda: subscriber.of("kws/kitchen/mute"))
        path.write_text(path.read_text() + "tls = true\nca_file = '/none'\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(printer.errors)
        n = len(subscriber.of("kws/kitchen/detected/stop"))
        await until(lambda: len(subscriber.of("kws/kitchen/detected/stop")) > n)

    printer = run(path, drive)
    assert (
        "`ca_file` of [mqtt] must be a file of PEM certificates. Received: /none"
        in (printer.errors()[0])
    )


def test_a_reload_of_the_same_device_has_the_broker_forget_nothing(
    write, run, mosquitto, subscribe
):
    mosquitto()
    subscriber = subscribe()
    path = write()

    async def drive(daemon, printer):
        await until(lambda: subscriber.of("kws/kitchen/mute"))
        path.write_text(path.read_text() + "max_queued = 50\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: subscriber.of("kws/kitchen/availability")[-2:] == ["offline", "online"])
        await hears(printer)

    run(path, drive)
    assert "" not in subscriber.of(CONFIG)
    assert "" not in subscriber.of("kws/kitchen/mute")


def test_several_sources_are_several_sites(write, run, mosquitto, subscribe):
    mosquitto()
    subscriber = subscribe()
    path = write(rest="[[sources]]\nname = 'door'\n")
    path.write_text(path.read_text().replace("[source]", "[[sources]]"))

    async def drive(daemon, printer):
        await hears(printer)
        await until(lambda: len(subscriber.of("hermes/hotword/stop/detected")) > 6)
        off = '{"siteId": "door"}'
        await asyncio.to_thread(subscriber.publish, "hermes/hotword/toggleOff", off)
        await until(lambda: [bool(one.muted_by) for one in state_of(daemon).sources] == [0, 1])

    run(path, drive)
    sites = {json.loads(one)["siteId"] for one in subscriber.of("hermes/hotword/stop/detected")}
    assert sites == {"desk", "door"}


def test_a_table_that_cannot_be_used_is_an_error_at_the_start(write):
    with pytest.raises(ConfigError, match=r"The password file of \[mqtt\] must be readable"):
        Daemon(write("username = 'kws'\npassword_file = '/none'\n"))


def test_expected_false_alarms_follow_the_calibration_and_the_time(
    write, run, mosquitto, subscribe, make_model, model, tmp_path
):
    """7,200 an hour are two for each second of audio that the models get."""
    point = CalibrationPoint(false_alarms_per_hour=7_200.0, thresholds={"stop": 0.5, "go": 0.5})
    (tmp_path / "known.tflite").write_bytes(make_model(name="known", calibration=(point,)))
    mosquitto()
    subscriber = subscribe()
    path = write()
    path.write_text(path.read_text().replace(str(model), f"{tmp_path}/known.tflite"))
    topic = "kws/kitchen/expected_false_alarms_24h"

    async def drive(daemon, printer):
        started_s = time.monotonic()
        await until(lambda: [one for one in subscriber.of(topic) if float(one) > 0])
        value = float(subscriber.of(topic)[-1])
        assert 0 < value <= 2 * (time.monotonic() - started_s + 2)

    run(path, drive)
