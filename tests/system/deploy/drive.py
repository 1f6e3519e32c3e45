"""Runs inside the container, as a unit: does to the service what goes wrong, and notes it.

The result is one JSON object in /var/proof.json; then the container powers off.
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import time

RESULT = pathlib.Path("/var/proof.json")
CONFIG = pathlib.Path("/etc/kws/kws.toml")
UNIT = "kws.service"
N_LOOPS = 8
STOP_CPU_S = 0.1  # measured
SLOW_HOOK = """
[[hooks]]
on = ["detection"]
command = ["sleep", "3600"]
"""


def systemctl(*arguments):
    command = ["systemctl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def show(name):
    return systemctl("show", UNIT, "--property", name, "--value").stdout.strip()


def until(condition, limit_s=60):
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.1)
    return True


def is_heard():
    return show("ActiveState") == "active" and any(
        state in show("StatusText").lower() for state in ("listening since", "silent since")
    )


def pid():
    return int(show("MainPID"))


def is_replaced(old):
    return is_heard() and pid() not in (0, old)


def moment(name):
    """Say when systemd saw something happen, in microseconds."""
    return int(show(f"{name}TimestampMonotonic"))


def taken_by_others_s():
    """Say how much later than among the loops alone the CPU time is had that stopping takes."""
    begun_s, cpu_s = time.monotonic(), time.process_time()
    while time.process_time() - cpu_s < STOP_CPU_S:
        pass
    alone_s = STOP_CPU_S * max(1, (N_LOOPS + 1) / os.cpu_count())
    return max(0, time.monotonic() - begun_s - alone_s)


def is_slow_hook_running():
    for line in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            if line.read_bytes().startswith(b"sleep\0003600\0"):
                return True
    return False


def probe(path):
    """Let the sandbox answer: a hook that starts with the daemon tries what must not work."""
    return pathlib.Path("/var/lib/kws", path).read_text().split()


def main(result):
    result["ready"] = until(is_heard)
    result["user"] = show("User")
    result["uid"] = pathlib.Path(f"/proc/{pid()}").stat().st_uid
    result["status"] = show("StatusText")
    result["sandbox_seen"] = until(lambda: pathlib.Path("/var/lib/kws/sandbox").exists())
    result["sandbox"] = probe("sandbox")

    old = pid()
    os.kill(old, signal.SIGSTOP)
    result["watchdog"] = until(lambda: is_replaced(old))
    journal = subprocess.run(["journalctl", "-u", UNIT], capture_output=True, text=True, check=True)
    result["watchdog_said"] = "Watchdog timeout" in journal.stdout

    old = pid()
    os.kill(old, signal.SIGKILL)
    result["killed"] = until(lambda: is_replaced(old))

    old, good = pid(), CONFIG.read_text()
    CONFIG.write_text(good + "\n[nonsense]\n")
    systemctl("reload", UNIT)
    refused = r"new configuration is refused"
    result["bad_reload_refused"] = until(lambda: re.search(refused, journal_text()))
    CONFIG.write_text(good + "\n[decision]\nthreshold = 0.9\n")
    systemctl("reload", UNIT)
    result["reloaded"] = until(lambda: "configuration was read again" in journal_text())
    result["same_process"] = pid() == old and is_heard()

    CONFIG.write_text(f"{good}\n{SLOW_HOOK}")
    systemctl("reload", UNIT)
    result["hook_ran"] = until(is_slow_hook_running)
    busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(N_LOOPS)]
    held_up_s = taken_by_others_s()
    systemctl("stop", UNIT)
    result["stop_s"] = (moment("InactiveEnter") - moment("ActiveExit")) / 1e6
    result["taken_by_others_s"] = max(held_up_s, taken_by_others_s())
    result["stopped_as"] = [show("Result"), show("ActiveState")]
    result["hook_left"] = is_slow_hook_running()
    for process in busy:
        process.kill()


def journal_text():
    command = ["journalctl", "-u", UNIT, "--no-pager"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    found = {}
    try:
        main(found)
    except Exception as error:
        found["error"] = repr(error)
    finally:
        found["journal"] = journal_text()[-6000:]
        RESULT.write_text(json.dumps(found))
        systemctl("poweroff")
