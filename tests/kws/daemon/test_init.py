"""PID 1 of a container, in a process that adopts orphans as PID 1 does."""

import os
import signal
import subprocess
import sys

import pytest

from kws.daemon import init

SCRIPT = """
import ctypes, os, signal, subprocess, sys, time
from kws.daemon import init
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
os.getpid, usual = lambda: 1, os.getpid
me = usual()
init.run_below_init()
os.getpid = usual
assert os.getppid() == me
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
subprocess.run(["/bin/sh", "-c", "sleep 0.01 & sleep 0.02 & exit 0"])
time.sleep(0.3)
states = [line.split()[2] for line in subprocess.run(
    ["ps", "--ppid", str(me), "-o", "pid=,ppid=,stat="], capture_output=True, text=True
).stdout.splitlines()]
print(*states, flush=True)
"""


def run(ending, *, number=None):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT + ending], stdout=subprocess.PIPE, text=True
    )
    states = process.stdout.readline().split()
    if number:
        process.send_signal(number)
    with process:
        code = process.wait(20)
    return states, code


@pytest.mark.parametrize(
    ("ending", "number", "code"),
    [
        ("sys.exit(3)", None, 3),
        ("os.kill(usual(), signal.SIGKILL)", None, 137),
        ("time.sleep(60)", signal.SIGTERM, 7),
    ],
)
def test_pid_1_reaps_orphans_forwards_signals_and_ends_as_its_child(ending, number, code):
    states, ended = run(ending, number=number)
    assert len(states) == 1, "the child alone: no zombie"
    assert states[0][0] != "Z"
    assert ended == code


def test_any_other_process_goes_on_as_it_is(monkeypatch):
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("was forked"))
    init.run_below_init()


def test_the_daemon_runs_below_pid_1(monkeypatch, kws, tmp_path):
    called = []
    monkeypatch.setattr(init, "run_below_init", lambda: called.append(1))
    kws("daemon", "--config", tmp_path / "none.toml")
    assert called == [1]
