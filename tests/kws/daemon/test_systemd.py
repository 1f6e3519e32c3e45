import os
import socket
import time

import pytest

from kws.daemon.systemd import SystemdNotifier


@pytest.fixture
def manager(tmp_path):
    """What systemd would be: a socket to read from."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def said(manager):
    messages = []
    while True:
        try:
            messages.append(manager.recv(4096).decode())
        except BlockingIOError:
            return messages


def environment(manager, **others):
    return {"NOTIFY_SOCKET": manager.getsockname()} | others


def test_the_states_are_told_in_systemds_words(manager):
    notifier = SystemdNotifier(environment(manager))
    before_us = time.monotonic_ns() // 1000
    notifier.ready()
    notifier.reloading()
    notifier.stopping()
    ready, reloading, stopping = said(manager)
    assert (ready, stopping) == ("READY=1", "STOPPING=1")
    first, _, second = reloading.partition("\n")
    assert first == "RELOADING=1"
    assert before_us <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    notifier.close()


def test_a_status_is_one_line_and_said_once(manager):
    notifier = SystemdNotifier(environment(manager))
    notifier.status("hears\na lot")
    notifier.status("hears\na lot")
    notifier.status("hears nothing")
    assert said(manager) == ["STATUS=hears a lot", "STATUS=hears nothing"]
    notifier.close()


def test_the_watchdog_is_told_three_times_in_its_limit(manager):
    notifier = SystemdNotifier(
        environment(manager, WATCHDOG_USEC="300000", WATCHDOG_PID=str(os.getpid()))
    )
    assert notifier.watchdog_interval_s == pytest.approx(0.1)
    notifier.ping_watchdog()
    notifier.ping_watchdog()
    assert said(manager) == ["WATCHDOG=1"]
    time.sleep(0.11)
    notifier.ping_watchdog()
    assert said(manager) == ["WATCHDOG=1"]
    notifier.close()


@pytest.mark.parametrize(
    "variables", [{}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"}]
)
def test_without_a_watchdog_of_ours_nothing_is_pinged(manager, variables):
    notifier = SystemdNotifier(environment(manager, **variables))
    assert notifier.watchdog_interval_s is None
    notifier.ping_watchdog()
    assert said(manager) == []
    notifier.close()


def test_what_the_daemon_starts_is_not_told_of_the_manager(manager):
    variables = environment(manager, WATCHDOG_USEC="9", WATCHDOG_PID="1", HOME="/")
    SystemdNotifier(variables).close()
    assert variables == {"HOME": "/"}


def test_an_abstract_socket_is_found():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"kws-test-{os.getpid()}"
        manager.bind(f"\0{name}")
        notifier = SystemdNotifier({"NOTIFY_SOCKET": f"@{name}"})
        notifier.ready()
        assert manager.recv(100) == b"READY=1"
        notifier.close()


def test_without_a_manager_or_when_it_is_gone_nothing_happens(tmp_path):
    for variables in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}):
        notifier = SystemdNotifier(variables)
        notifier.ready()
        notifier.ping_watchdog()
        notifier.close()
        notifier.stopping()


def test_a_manager_that_does_not_read_never_delays_us(manager):
    notifier = SystemdNotifier(environment(manager))
    for i in range(10_000):
        notifier.status(f"{i}")
    assert said(manager)[0] == "STATUS=0"
    notifier.close()
