"""install.sh --mqtt under a real systemd: the network, and the password as a credential."""

import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(1200)]

CONFIG = """
[source]
command = ["sleep", "3600"]
[mqtt]
host = "127.0.0.1"
username = "kws"
name = "kitchen"
"""
# Accepts one client, notes its login and what it sends first, and ends the container.
BROKER = """
import json, os, socket, stat, subprocess
found = {}
with socket.create_server(("127.0.0.1", 1883)) as server:
    server.settimeout(120)
    try:
        client, _ = server.accept()
        client.settimeout(30)
        packet, fields = client.recv(4096), []
        at = 12 if packet[1] < 128 else 13  # after the header: `MQTT`, level, flags, keep-alive
        while at < len(packet):
            size = int.from_bytes(packet[at : at + 2])
            fields.append(packet[at + 2 : at + 2 + size].decode())
            at += 2 + size
        client.sendall(bytes([0x20, 2, 0, 0]))
        found = {"login": fields, "sent": client.recv(65536).decode("latin-1")}
        pid = subprocess.run(
            ["systemctl", "show", "kws", "--property=MainPID", "--value"],
            capture_output=True, text=True,
        ).stdout.strip()
        found["uid"] = os.stat("/proc/" + pid).st_uid
    except OSError as error:
        found = {"error": repr(error)}
log = subprocess.run(["journalctl", "-u", "kws", "--no-pager"], capture_output=True, text=True)
found["journal"] = log.stdout
with open("/var/mqtt.json", "w") as file:
    json.dump(found, file)
subprocess.run(["systemctl", "poweroff"])
"""
UNIT = """
[Unit]
Description=Broker
Before=kws.service
[Service]
ExecStart=/usr/bin/python3 /root/broker.py
[Install]
WantedBy=multi-user.target
"""


def test_the_service_logs_in_with_the_credential(box, source, wheel, wheels):
    binds = [(source, "/checkout"), (wheels("amd64"), "/wheels"), (wheel.parent, "/dist")]
    machine = box("amd64", binds=binds)
    root = machine.path
    (root / "etc/kws").mkdir()
    (root / "etc/kws/kws.toml").write_text(CONFIG)
    (root / "etc/kws/mqtt-password").write_text("sesame\n")
    (root / "etc/kws/mqtt-password").chmod(0o600)
    machine.run("sh", "/checkout/deploy/install.sh", "--mqtt", "--wheel", f"/dist/{wheel.name}")
    (root / "root/broker.py").write_text(BROKER)
    (root / "etc/systemd/system/broker.service").write_text(UNIT)
    machine.run("systemctl", "enable", "broker.service")
    console = machine.boot(limit_s=300)
    result = root / "var/mqtt.json"
    assert result.exists(), console[-4000:]
    found = json.loads(result.read_text())
    assert "error" not in found, found
    assert found["login"][0] == "kws-kitchen"
    assert found["login"][-2:] == ["kws", "sesame"]
    assert "kws/kitchen/" in found["sent"]
    assert found["uid"] != 0
    assert "sesame" not in found["journal"]
