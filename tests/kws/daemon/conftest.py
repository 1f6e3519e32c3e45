"""Shell scripts in place of the capture process, as they start quickly."""

import asyncio
import gc
import json
import logging
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from kws.config import SourceSettings
from kws.daemon.source_supervisor import SourceSupervisor
from kws.logs import RepeatFilter

OPENED = """echo '{"report": "opened", "name": "a fake"}' >&2\n"""
LIMIT_S = 30.0


@pytest.fixture(autouse=True)
def _runtime_directory(tmp_path, monkeypatch):
    """Give every daemon a place for its socket."""
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def log(caplog):
    """Return `caplog` from warnings on, with the repeat filter of the daemon's log."""
    repeats = RepeatFilter()
    caplog.handler.addFilter(repeats)
    with caplog.at_level(logging.WARNING):
        yield caplog
    caplog.handler.removeFilter(repeats)


@pytest.fixture
def capture_script():
    """Return the command for a shell script in place of `kws.daemon.capture`."""
    return lambda script: ["/bin/sh", "-c", f"read settings\n{script}"]


@pytest.fixture
def once(tmp_path):
    """Return a script that does the first thing at its first run, and the second ever after."""

    def script(first, after):
        mark = tmp_path / "was_here"
        return f"if [ -e {mark} ]; then {after}\nelse touch {mark}; {first}\nfi"

    return script


@pytest.fixture
def make_supervisor():
    """Return a supervisor that keeps its state changes, in `supervisor.changes`."""

    def make(program, *, backlog_s=10.0, pause_s=0.01, **settings):
        changes = []
        supervisor = SourceSupervisor(
            SourceSettings(**{"stall_s": 0.5, "silent_s": 0.0} | settings),
            backlog_s=backlog_s,
            on_change=changes.append,
            on_audio=lambda: None,
            capture_command=program,
            pause_s=lambda n_failures: pause_s,
        )
        supervisor.changes = changes
        return supervisor

    return make


@pytest.fixture
def free_port():
    """A port of the loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


async def until(condition, *, limit_s=LIMIT_S):
    """Wait for a condition in the loop."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, "It never came to be."
        await asyncio.sleep(0.005)


def running(supervisor, condition, *, limit_s=LIMIT_S):
    """Run a supervisor until a condition holds; return the blocks that were not taken."""

    async def run():
        task = asyncio.create_task(supervisor.run())
        await until(lambda: condition() or task.done(), limit_s=limit_s)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    asyncio.run(run())
    blocks = []
    while block := supervisor.take():
        blocks.append(block)
    return blocks


def said(path):
    """Whether a script has written something; a file is empty at first."""
    return path.exists() and path.read_text().strip()


def census():
    """Count what a daemon might leave behind: descriptors, threads, children."""
    gc.collect()  # descriptors of earlier tests, which would go in between
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), len(children)


def is_alive(pid):
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]
