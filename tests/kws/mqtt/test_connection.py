"""Brokers that are away, refuse, hang, or are none; and what is kept for them."""

import contextlib
import json
import logging
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest
from mosquitto import until

from .conftest import heard

TOPIC = "kws/kitchen/detected/stop"
ACCEPTED = b"\x20\x02\x00\x00"
AGAIN = " It is tried again; detections wait."
PERSISTENT = (
    "allow_anonymous true\npersistence true\npersistence_location {}/\nmax_queued_messages 0"
)

# paho-mqtt leaves the socket to the garbage collector when TLS fails.
OPEN_SOCKET = pytest.mark.filterwarnings(
    "ignore:unclosed <ssl.SSLSocket:ResourceWarning",
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning",
)


def ends_of(subscriber):
    return [json.loads(one)["end_s"] for one in subscriber.of(TOPIC)]


@contextlib.contextmanager
def answering(port, answer, *, stays=True):
    """Listen on a port; answer each client's first bytes with others."""
    held = []
    with socket.create_server(("127.0.0.1", port)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    held.append(client)
                    client.recv(4096)
                    client.sendall(answer)
                    if not stays:
                        client.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    for client in held:
        client.close()


def failure(publisher):
    """Return the first failure that the daemon is told of."""
    return until(lambda: publisher.told.failures)[0]


@pytest.mark.slow
def test_a_broker_that_is_restarted_under_load_loses_nothing(
    mosquitto, subscribe, publish, tmp_path
):
    broker = mosquitto(PERSISTENT.format(tmp_path))
    subscriber = subscribe(name="keeps", topics=TOPIC)
    publisher = publish(hermes=False, max_queued=5000)
    took_s = []
    for i in range(1500):
        started_s = time.monotonic()
        publisher.send(heard(i), "default")
        took_s.append(time.monotonic() - started_s)
        time.sleep(0.001)
        if i in {300, 700}:
            broker.stop()
        if i in {500, 1200}:
            broker.start()
    until(lambda: not publisher.counts().n_queued)
    until(lambda: len(set(ends_of(subscriber))) == 1500)
    assert list(dict.fromkeys(ends_of(subscriber))) == list(map(float, range(1500)))
    assert (publisher.counts().n_sent, publisher.counts().n_dropped) == (1500, 0)
    assert publisher.told.n_lost == 2
    assert sorted(took_s)[-30] < 0.01  # 98 %: a send never waits for the broker


def test_a_full_queue_drops_what_is_new_and_counts_it(mosquitto, subscribe, publish, caplog):
    publisher = publish(hermes=False, max_queued=10, starts=False)
    with caplog.at_level(logging.WARNING):
        for i in range(25):
            publisher.send(heard(i), "default")
    counts = publisher.counts()
    assert (counts.n_sent, counts.n_queued, counts.n_dropped) == (0, 10, 15)
    assert (
        "MQTT: a message was dropped, as 10 wait for the broker already; 15 so far."
        in caplog.messages
    )
    mosquitto()
    subscriber = subscribe()
    publisher.start()
    until(lambda: publisher.counts().n_sent == 10)
    until(lambda: ends_of(subscriber) == list(map(float, range(10))))


def test_detections_that_have_waited_too_long_are_dropped(mosquitto, subscribe, publish, caplog):
    publisher = publish(hermes=False, max_age_s=5.0, starts=False)
    publisher.send(heard(1), "default")
    publisher._outbox._events[0] = (time.monotonic() - 6, publisher._outbox._events[0][1])
    publisher.send(heard(2), "default")
    mosquitto()
    subscriber = subscribe()
    with caplog.at_level(logging.WARNING):
        publisher.start()
        until(lambda: ends_of(subscriber) == [2.0])
    assert publisher.counts().n_dropped == 1
    assert caplog.messages == [
        "MQTT: 1 messages were dropped, as they had waited for the broker longer than 5 s, "
        "`max_age_s`; 1 so far."
    ]


@pytest.mark.parametrize(
    ("login", "reason"),
    [
        ({}, "Not authorized"),
        ({"username": "kws"}, "Not authorized"),
        ({"username": "kws", "password_file": "wrong"}, "Not authorized"),
    ],
)
def test_a_wrong_login_is_reported_once_and_tried_again(
    login, reason, mosquitto, publish, tmp_path, caplog, port
):
    accounts = tmp_path / "accounts"
    accounts.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", accounts, "kws", "sesame-right"], check=True)
    mosquitto(f"allow_anonymous false\npassword_file {accounts}")
    (tmp_path / "wrong").write_text("sesame-wrong\n")
    (tmp_path / "wrong").chmod(0o600)
    if "password_file" in login:
        login["password_file"] = str(tmp_path / login["password_file"])
    with caplog.at_level(logging.DEBUG):
        publisher = publish(**login)
        publisher.send(heard(1), "default")
        until(lambda: len([one for one in caplog.messages if "refused the login" in one]) >= 3)
    assert publisher.told.failures == [
        f"The MQTT broker 127.0.0.1:{port} refused the login: {reason}. "
        f"Check `username` and the password file of [mqtt].{AGAIN}"
    ]
    assert "sesame" not in caplog.text
    assert "sesame" not in repr(publisher.broker)
    counts = publisher.counts()
    assert (counts.connected, counts.n_queued) == (False, 2)


def test_the_right_password_is_accepted(mosquitto, publish, tmp_path):
    accounts = tmp_path / "accounts"
    accounts.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", accounts, "kws", "sésame"], check=True)
    mosquitto(f"allow_anonymous false\npassword_file {accounts}")
    (tmp_path / "password").write_text("sésame\r\n")
    publisher = publish(username="kws", password_file=str(tmp_path / "password"))
    until(lambda: publisher.counts().connected)
    assert publisher.told.failures == []


def test_a_subscription_that_is_refused_is_told_of(publish, port, caplog):
    with caplog.at_level(logging.WARNING), answering(port, ACCEPTED + b"\x90\x03\x00\x01\x80"):
        publisher = publish()
        until(lambda: caplog.messages)
        publisher.close(0.1)
    assert caplog.messages == [
        f"The MQTT broker 127.0.0.1:{port} does not let kws read kws/kitchen/mute/set. Check its "
        f"access rules."
    ]


def test_tls_with_a_certificate_of_the_client(mosquitto, subscribe, publish, certificates):
    mosquitto(
        "allow_anonymous true\nrequire_certificate true\n"
        f"cafile {certificates}/ca.pem\ncertfile {certificates}/server.pem\n"
        f"keyfile {certificates}/server.key\n"
    )
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    subscriber = subscribe(tls=context)
    publisher = publish(
        tls=True,
        ca_file=str(certificates / "ca.pem"),
        certificate_file=str(certificates / "client.pem"),
        key_file=str(certificates / "client.key"),
    )
    for i in range(50):
        publisher.send(heard(i), "default")
    until(lambda: len(ends_of(subscriber)) == 50)
    subscriber.publish("kws/kitchen/mute/set", "ON")
    until(lambda: publisher.told.switches == [True])


@OPEN_SOCKET
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tls": True}, "certificate in certificate chain. Set `ca_file` of [mqtt] to "),
        (
            {"tls": True, "ca_file": "ca.pem", "host": "localhost"},
            "is not trusted: Hostname mismatch, certificate is not valid for 'localhost'. Set",
        ),
        ({}, "was lost."),
    ],
)
def test_tls_that_fails_says_why(options, message, mosquitto, publish, certificates):
    mosquitto(
        f"allow_anonymous true\ncafile {certificates}/ca.pem\n"
        f"certfile {certificates}/server.pem\nkeyfile {certificates}/server.key\n"
    )
    if "ca_file" in options:
        options = {**options, "ca_file": str(certificates / "ca.pem")}
    assert message in failure(publish(**options))


@OPEN_SOCKET
def test_a_broker_without_tls_that_is_asked_for_it(mosquitto, publish):
    mosquitto()
    assert "Check `host`, `port` and `tls` in [mqtt]." in failure(publish(tls=True))


@OPEN_SOCKET
def test_failed_attempts_leave_no_descriptor_behind(mosquitto, publish, certificates, caplog):
    mosquitto(
        f"allow_anonymous true\ncafile {certificates}/ca.pem\n"
        f"certfile {certificates}/server.pem\nkeyfile {certificates}/server.key\n"
    )
    with caplog.at_level(logging.DEBUG):
        publisher = publish(tls=True)
        failure(publisher)
        before = len(list(Path("/proc/self/fd").iterdir()))
        until(lambda: len([one for one in caplog.messages if "is not trusted" in one]) > 12)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


def test_a_broker_that_is_not_there(publish, port):
    assert failure(publish()) == (
        f"The MQTT broker 127.0.0.1:{port} cannot be reached: Connection refused. Check `host`, "
        f"`port` and `tls` in [mqtt].{AGAIN}"
    )


def test_a_host_that_does_not_exist(publish):
    assert "cannot be reached: " in failure(publish(host="broker.invalid"))


def test_a_broker_that_never_answers(publish, port, monkeypatch):
    monkeypatch.setattr("kws.mqtt.connection._ANSWER_S", 0.2)
    monkeypatch.setattr("kws.mqtt.connection._POLL_S", 0.1)
    with answering(port, b""):
        publisher = publish()
        assert failure(publisher) == (
            f"The MQTT broker 127.0.0.1:{port} accepted the connection, but did not answer for "
            f"0.2 s. Check `port` and `tls` in [mqtt].{AGAIN}"
        )
        publisher.close(0.1)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" + b"x" * 200,
        b"220 mail.example ESMTP\r\n" * 20,
        b"\x20\x02\x00",  # half of an acceptance
        b"\x20\x00",  # an acceptance without content
        b"\x20\xff\xff\xff\xff\xff",  # a length of too many bytes
        b"\xf0\x00",  # a reserved packet
        ACCEPTED + b"\x30\x02\xff\xff",  # accepted, then a topic longer than the packet
        ACCEPTED + b"\x90\x00" + b"\x40\x01\x00",
        ACCEPTED + b"\x32\x04\x00\x02\xff\xfe",
        b"\x20\x02\x00\x63",  # refused for an unknown reason
        bytes(range(256)) * 4,
    ],
)
@pytest.mark.parametrize("stays", [True, False])
def test_a_broker_that_answers_rubbish(answer, stays, publish, port, monkeypatch):
    monkeypatch.setattr("kws.mqtt.connection._ANSWER_S", 0.3)
    monkeypatch.setattr("kws.mqtt.connection._POLL_S", 0.1)
    with answering(port, answer, stays=stays):
        publisher = publish()
        publisher.send(heard(1), "default")
        assert f"127.0.0.1:{port} " in failure(publisher)
        assert publisher.counts().n_queued == 2
        assert publisher._connection._thread.is_alive()
        publisher.close(0.1)
        assert not publisher._connection._thread.is_alive()


def test_a_packet_of_256_megabytes_is_not_waited_for(publish, port):
    with answering(port, ACCEPTED + b"\x30\xff\xff\xff\x7f" + b"x" * 1000):
        publisher = publish()
        assert "sent what is not MQTT" in failure(publisher)
        publisher.close(0.1)


def test_rubbish_is_forgotten_once_there_is_a_broker(publish, port, tmp_path, mosquitto, subscribe):
    publisher = publish(hermes=False)
    with answering(port, ACCEPTED + b"\x00\x00\x00", stays=False):
        publisher.send(heard(1), "default")
        failure(publisher)
    mosquitto()
    subscriber = subscribe()
    publisher.send(heard(2), "default")
    until(lambda: 2.0 in ends_of(subscriber))


def test_two_devices_of_one_name_are_told_of_it(mosquitto, publish):
    mosquitto()
    first, second = publish(), publish()
    told = until(lambda: first.told.failures + second.told.failures)[0]
    assert "If that repeats, another device has the same `name` in [mqtt]." in told
