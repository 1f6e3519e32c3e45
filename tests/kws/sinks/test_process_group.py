import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kws.sinks import process_group
from kws.sinks.process_group import ProcessGroup


def started(line: str, payload: bytes = b"") -> ProcessGroup:
    return ProcessGroup(
        ["sh", "-c", line], executable="/bin/sh", environment=os.environb, payload=payload
    )


@pytest.fixture
def signals(monkeypatch):
    """Every signal that is sent to a group, in order."""
    sent = []
    real = os.killpg

    def record(pid, number):
        sent.append((pid, number))
        real(pid, number)

    monkeypatch.setattr(os, "killpg", record)
    return sent


def test_the_number_of_a_group_is_not_used_once_the_group_is_gone(signals):
    group = started("exit 0")
    assert group.wait(5.0)
    asked = list(signals)
    assert asked == [(group.pid, 0)]
    assert group.end()
    assert not group.is_alive()
    assert signals == asked
    assert not group.was_signalled
    assert group.close() == (0, "")


def test_a_leader_that_runs_is_not_asked_about_by_its_number(signals):
    group = started("exec sleep 60")
    assert group.is_alive()
    assert signals == []
    assert group.end()
    assert signals == [(group.pid, signal.SIGTERM), (group.pid, 0)]
    assert group.was_signalled
    assert group.close() == (-signal.SIGTERM, "")


def test_an_orphan_keeps_the_group_alive(signals):
    group = started("sleep 60 &")
    assert not group.wait(0.3)
    assert group.is_alive()
    assert group.end()
    assert (group.pid, signal.SIGTERM) in signals
    assert group.close() == (0, "")


def test_what_is_written_last_is_read_after_the_end():
    group = started("cat >&2", payload=b"over and out\n")
    assert group.wait(5.0)
    assert group.close() == (0, "over and out")


def test_what_was_written_before_anybody_looked_is_read_too():
    group = started("echo too late >&2")
    time.sleep(0.3)
    assert group.wait(5.0)
    assert group.close() == (0, "too late")


def test_waiting_costs_no_cpu_time_where_standard_error_was_closed():
    group = started("exec 2>&-; sleep 0.5")
    before_s = time.thread_time()
    assert group.wait(5.0)
    assert time.thread_time() - before_s < 0.1
    group.close()


def test_bytes_that_are_no_text_are_replaced():
    group = started("printf 'a\\377b' >&2")
    assert group.wait(5.0)
    assert group.close() == (0, "a\N{REPLACEMENT CHARACTER}b")


def test_a_process_that_escaped_with_the_pipe_is_not_waited_for():
    group = started("setsid sleep 1 & exit 0")
    before_s = time.monotonic()
    assert group.wait(5.0)
    group.close()
    assert time.monotonic() - before_s < 0.8


def test_a_command_that_cannot_start_leaves_no_descriptor():
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(FileNotFoundError):
        ProcessGroup(["x"], executable="/no/such/file", environment={}, payload=b"")
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_a_group_that_may_not_be_signalled_is_told_apart(monkeypatch):
    def refuse(pid, number):
        raise PermissionError

    monkeypatch.setattr(process_group, "_GRACE_S", 0.05)
    monkeypatch.setattr(process_group, "_KILL_S", 0.05)
    group = started("sleep 60 & exec sleep 60")
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", refuse)
        assert not group.end()
        os.kill(group.pid, signal.SIGKILL)
        assert not group.wait(0.2)  # what is left in the group may belong to root
    monkeypatch.setattr(process_group, "_KILL_S", 5.0)
    assert group.end()
    assert group.close() == (-signal.SIGKILL, "")


def test_orphans_are_reaped_where_kws_is_the_first_process():
    run = subprocess.run(
        [sys.executable, "-c", _AS_FIRST_PROCESS], capture_output=True, text=True, check=True
    )
    assert run.stdout == "True (0, '') no child left\n"


_AS_FIRST_PROCESS = """
import ctypes, os
from kws.sinks.process_group import ProcessGroup

PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
group = ProcessGroup(
    ["sh", "-c", "sleep 0.2 &"], executable="/bin/sh", environment=os.environb, payload=b""
)
print(group.wait(10.0), group.close(), end=" ")
try:
    print(os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("no child left")
"""
