"""The system unit under a real systemd, in a container: what it mends, and what it forbids."""

import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(1200)]

# A microphone that is a program: the demonstration, over and over, as fast as one speaks.
RECORDER = """
import sys, time, wave, kws.models
with wave.open(kws.models.__path__[0] + "/demo.wav") as wav:
    audio = wav.readframes(wav.getnframes())
begun = time.monotonic()
for n in range(10**9):
    at = n * 2560 % (len(audio) - 2560)
    sys.stdout.buffer.write(audio[at : at + 2560])
    sys.stdout.buffer.flush()
    time.sleep(max(0, begun + 0.08 * (n + 1) - time.monotonic()))
"""
SANDBOX = """#!/bin/sh
tried() { if sh -c "$2" 2>/dev/null; then echo "$1=yes"; else echo "$1=no"; fi; }
{ tried write_etc 'echo x >/etc/kws-was-here'
  tried write_program 'echo x >/opt/kws/was-here'
  tried read_root 'cat /root/secret'
  tried open_network '/opt/kws/bin/python -c "import socket; socket.socket(socket.AF_INET)"'
  tried write_state 'echo x >/var/lib/kws/mine'
} >/var/lib/kws/sandbox.new
mv /var/lib/kws/sandbox.new /var/lib/kws/sandbox
"""
CONFIG = """
[source]
name = "demonstration"
command = ["/opt/kws/bin/python", "/etc/kws/recorder.py"]
[[hooks]]
on = ["start"]
command = ["/bin/sh", "/etc/kws/sandbox.sh"]
"""
DRIVER = """
[Unit]
Description=Proof
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 /root/drive.py
TimeoutStartSec=6min
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="module")
def proof(box, source, wheel, wheels):
    """Install, boot, let the driver do its worst; what it noted."""
    binds = [(source, "/checkout"), (wheels("amd64"), "/wheels"), (wheel.parent, "/dist")]
    machine = box("amd64", binds=binds)
    machine.run("sh", "/checkout/deploy/install.sh", "--wheel", f"/dist/{wheel.name}")
    root = machine.path
    (root / "root/secret").write_text("secret")
    (root / "root/drive.py").write_text(Path(__file__).with_name("drive.py").read_text())
    (root / "etc/kws/kws.toml").write_text(CONFIG)
    (root / "etc/kws/recorder.py").write_text(RECORDER)
    (root / "etc/kws/sandbox.sh").write_text(SANDBOX)
    units = root / "etc/systemd/system"
    (units / "kws.service.d").mkdir()
    # The limit alone is shorter than in the unit as shipped.
    (units / "kws.service.d/limit.conf").write_text("[Service]\nWatchdogSec=6s\n")
    (units / "proof.service").write_text(DRIVER)
    machine.run("systemctl", "enable", "proof.service")
    console = machine.boot(limit_s=420)
    result = root / "var/proof.json"
    assert result.exists(), console[-4000:]
    found = json.loads(result.read_text())
    assert "error" not in found, f"{found['error']}\n{found['journal']}"
    return found


def test_it_becomes_ready_as_a_user_of_its_own_and_says_what_it_hears(proof):
    assert proof["ready"], proof["journal"]
    assert proof["uid"] != 0
    assert "demonstration" in proof["status"]


def test_a_stopped_process_is_replaced_by_the_watchdog(proof):
    assert proof["watchdog"], proof["journal"]
    assert proof["watchdog_said"]


def test_a_killed_process_is_replaced(proof):
    assert proof["killed"], proof["journal"]


def test_a_reload_takes_a_good_configuration_and_refuses_a_bad_one(proof):
    assert proof["bad_reload_refused"], proof["journal"]
    assert proof["reloaded"], proof["journal"]
    assert proof["same_process"], proof["journal"]


def test_it_stops_within_two_seconds_on_a_busy_machine(proof):
    """From SIGTERM to the end of its last process, by systemd's clock, eight loops beside it.

    What the machine does outside the container is not the daemon's: it waits for its 0.1 s of CPU.
    """
    assert proof["hook_ran"], proof["journal"]
    assert proof["stopped_as"] == ["success", "inactive"], proof["journal"]
    assert not proof["hook_left"]
    assert proof["stop_s"] <= 2 + proof["taken_by_others_s"], proof["journal"]


def test_the_sandbox_holds(proof):
    assert proof["sandbox_seen"], proof["journal"]
    forbidden = ["write_etc=no", "write_program=no", "read_root=no", "open_network=no"]
    assert proof["sandbox"] == [*forbidden, "write_state=yes"]
