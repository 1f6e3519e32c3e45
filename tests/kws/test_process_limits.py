import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kws import process_limits
from kws.process_limits import peak_mb

START = "import sys, time\nfrom kws.process_limits import *\n"


def ended(script):
    """Return the exit status of a script in a process of its own, and what it printed."""
    command = [sys.executable, "-c", START + script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout.strip()


def test_the_peak_of_memory_is_that_of_this_process():
    before_mb = peak_mb()
    block = np.ones(300 << 17)  # 300 MiB, touched
    assert peak_mb() >= min(before_mb, 300) > 10
    assert len(block)


def test_memory_beyond_the_limit_is_refused_and_memory_within_it_is_not():
    take = "limit_memory(64)\nkept = bytearray({} << 20)\nprint(round(peak_mb()) >= {})"
    assert ended(take.format(60, 60)) == (0, "True")
    status, told = ended(
        "try:\n    limit_memory(64)\n    bytearray(68 << 20)\nexcept MemoryError:\n    print('no')"
    )
    assert (status, told) == (0, "no")


def test_a_loop_ends_within_the_seconds_of_cpu_time():
    status, _ = ended("limit_cpu(1)\nwhile True: pass")
    assert status == -24  # SIGXCPU


def test_a_crash_leaves_no_core():
    script = "import resource\nno_core()\nprint(resource.getrlimit(resource.RLIMIT_CORE))"
    assert ended(script) == (0, "(0, 0)")


def test_a_lower_limit_that_holds_already_stays(monkeypatch):
    lowered = []
    monkeypatch.setattr(resource, "setrlimit", lambda *pair: lowered.append(pair))
    monkeypatch.setattr(resource, "getrlimit", lambda what: (2, resource.RLIM_INFINITY))
    process_limits.limit_cpu(1000)
    process_limits.limit_memory(1000)
    assert lowered == []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (resource.RLIM_INFINITY, 4000))
    process_limits.limit_cpu(1000)
    assert [(what, most) for what, (_, most) in lowered] == [(resource.RLIMIT_CPU, 4000)]


def test_a_limit_that_the_system_refuses_is_left_out(monkeypatch):
    def refuse(what, pair):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    process_limits.no_core()


@pytest.mark.parametrize("module", ["resource", None])
def test_systems_without_limits_have_none(monkeypatch, module):
    """Windows has no module for them, and neither it nor macOS has /proc."""
    monkeypatch.setattr(process_limits, "_STATUS", Path("/nowhere"))
    if module:
        monkeypatch.setitem(sys.modules, module, None)
        process_limits.no_core()
        process_limits.limit_cpu(1)
    process_limits.limit_memory(1)
    assert peak_mb() == 0.0
