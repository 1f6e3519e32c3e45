"""A daemon that is asked while it listens: by the commands, and by a scraper."""

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import urllib.request

import pytest

from kws.config import DaemonSettings, SourceSettings
from kws.daemon.listeners import SourceListeners
from kws.daemon.monitoring import LastErrors, Monitoring
from kws.daemon.service import Daemon
from kws.daemon.source_supervisor import SourceSupervisor
from kws.daemon.status_client import ask
from kws.errors import ConfigError
from kws.events import Detection
from kws.sinks.hooks import HookCounts

from .conftest import until


@pytest.fixture
def monitoring(tmp_path):
    settings = DaemonSettings(socket=str(tmp_path / "kws.sock"))
    return Monitoring(settings, sources=list, hooks=lambda: HookCounts(ok=2))


def heard(keyword, source="mic"):
    return Detection(keyword=keyword, score=1.0, start_s=0.0, end_s=1.0, model="m", source=source)


def test_detections_are_counted_and_the_last_errors_kept(monitoring):
    async def run():
        await monitoring.start()
        for event in (heard("go"), heard("stop"), heard("go"), heard("go", "other")):
            monitoring.send(event)
        logging.getLogger("kws.daemon").warning("it burns")
        state = monitoring.snapshot()
        await monitoring.close()
        return state

    state = asyncio.run(run())
    assert [(one.keyword, one.source, one.n) for one in state.detections] == [
        ("go", "mic", 2),
        ("stop", "mic", 1),
        ("go", "other", 1),
    ]
    assert [one.keyword for one in state.last_detections] == ["go", "stop", "go", "go"]
    assert [one.message for one in state.last_errors] == ["it burns"]
    assert state.hooks["ok"] == 2
    assert state.cpu_s > 0
    assert 10 < state.rss_mb < 10_000


def test_memory_is_bounded_however_many_phrases_are_heard(monitoring):
    for i in range(11_000):
        monitoring.send(heard(f"phrase {i}"))
    assert len(monitoring.snapshot().detections) == 10_000


def test_a_socket_that_was_asked_for_and_cannot_be_had_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    settings = DaemonSettings(socket=str(tmp_path / "file" / "kws.sock"))
    with pytest.raises(ConfigError):
        asyncio.run(Monitoring(settings, sources=list, hooks=HookCounts).start())


def test_without_a_place_for_its_socket_the_daemon_warns_and_listens(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))

    async def run():
        monitoring = Monitoring(DaemonSettings(), sources=list, hooks=HookCounts)
        await monitoring.start()
        await monitoring.close()

    asyncio.run(run())
    assert caplog.records[0].message.startswith("`kws status` will not find this daemon. ")


def test_a_metrics_port_that_is_taken_leaves_no_socket_behind(tmp_path):
    path = tmp_path / "kws.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = DaemonSettings(socket=str(path), metrics_port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match="metrics_port"):
            asyncio.run(Monitoring(settings, sources=list, hooks=HookCounts).start())
    assert not path.exists()


def is_served(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_socket_and_port_change_each_on_its_own_and_not_at_all_after_an_error(tmp_path, free_port):
    one, other = tmp_path / "one.sock", tmp_path / "other.sock"

    async def run():
        monitoring = Monitoring(DaemonSettings(socket=str(one)), sources=list, hooks=HookCounts)
        await monitoring.start()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            for path in (one, other):
                with pytest.raises(ConfigError, match="metrics_port"):
                    await monitoring.change(DaemonSettings(socket=str(path), metrics_port=port))
                assert (await asyncio.to_thread(ask, one)).pid == os.getpid()
                assert not other.exists()
        await monitoring.change(DaemonSettings(socket=str(one), metrics_port=free_port))
        assert is_served(free_port)
        await monitoring.change(DaemonSettings(socket=str(other), metrics_port=free_port))
        assert (await asyncio.to_thread(ask, other)).pid == os.getpid()
        assert (is_served(free_port), one.exists()) == (True, False)
        await monitoring.change(DaemonSettings(socket=str(other)))
        assert not is_served(free_port)
        await monitoring.close()

    asyncio.run(run())
    assert not other.exists()


def test_the_state_of_a_source_is_in_seconds_of_its_audio():
    supervisor = SourceSupervisor(
        SourceSettings(), backlog_s=1.0, on_change=id, on_audio=lambda: None
    )
    for _ in range(5):
        supervisor.backlog.append(bytes(16_000))
    source = SourceListeners(supervisor, [])
    monitoring = Monitoring(DaemonSettings(), sources=lambda: [source], hooks=HookCounts)
    (state,) = monitoring.snapshot().sources
    assert (state.audio_s, state.dropped_s, state.waiting_s) == (2.5, 2.0, 0.5)


def test_the_last_errors_are_kept_with_how_often_they_came():
    errors, log = LastErrors(max_n=2), logging.getLogger("kws.a_noisy_test")
    log.addHandler(errors)
    log.setLevel(logging.INFO)
    log.error("gone")
    for i in range(3):
        log.warning("the disk is full: %d", i)
    log.info("no error")
    assert [(one.level, one.message, one.n) for one in errors.lines()] == [
        ("error", "gone", 1),
        ("warning", "the disk is full: 2", 3),
    ]
    log.error("x" * 10_000)
    assert [len(one.message) for one in errors.lines()] == [len("the disk is full: 2"), 2000]
    log.removeHandler(errors)


@pytest.mark.slow
def test_a_daemon_says_what_it_heard(tmp_path, model, recording, free_port):
    """A source that goes on is a command's; here it is a file that waits at its end."""
    path, port = tmp_path / "kws.sock", free_port
    (tmp_path / "kws.toml").write_text(
        f"[gate]\nenabled = false\n[model]\nname = '{model}'\n[source]\nname = 'desk'\n"
        f"stall_s = 60.0\n[daemon]\nsocket = '{path}'\nmetrics_port = {port}\n"
    )
    script = (
        """read settings; echo '{"report": "opened", "name": "a fake"}' >&2; """
        f"tail -c +45 {recording}; exec sleep 60"
    )

    def scrape():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            return answer.read().decode()

    async def run():
        daemon = Daemon(tmp_path / "kws.toml", capture_command=["/bin/sh", "-c", script])
        task = asyncio.create_task(daemon.run())
        await until(lambda: daemon._monitoring.snapshot().detections or task.done())
        await until(lambda: daemon._monitoring.snapshot().detections[0].n == 2 or task.done())
        state = await asyncio.to_thread(ask, path)
        text = await asyncio.to_thread(scrape)
        shown = [
            await asyncio.to_thread(run_kws, "status", "--socket", path, *more)
            for more in ([], ["--json"])
        ]
        tail = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kws", "tail", "--json", "--socket", str(path)),
            stdout=asyncio.subprocess.PIPE,
        )
        await until(lambda: daemon._monitoring._status._subscribers)
        daemon._finish(0)
        code = await task
        told, _ = await tail.communicate()
        return state, text, shown, code, tail.returncode, told

    state, text, shown, code, tail_code, told = asyncio.run(run())
    assert (state.sources[0].name, state.sources[0].state) == ("desk", "listening")
    assert state.sources[0].audio_s == pytest.approx(3.0, abs=0.1)
    assert -100 <= state.sources[0].level_dbfs <= 0
    assert 'kws_detections_total{keyword="stop",model="loud",source="desk"} 2.0' in text
    (table_code, table, _), (json_code, line, _) = shown
    assert (table_code, json_code, code, tail_code) == (0, 0, 0, 0)
    assert "listening" in table
    assert "stop" in table
    assert json.loads(line)["detections"][0]["n"] == 2
    assert [json.loads(one)["event"] for one in told.splitlines()][-1] == "stop"
    assert not path.exists()


def run_kws(*arguments):
    command = [sys.executable, "-m", "kws", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_daemon_never_loads_what_draws_on_the_terminal(tmp_path, model, recording):
    (tmp_path / "kws.toml").write_text(
        f"[gate]\nenabled = false\n[model]\nname = '{model}'\n[source]\ninput = '{recording}'\n"
        f"[daemon]\nsocket = '{tmp_path / 'kws.sock'}'\nlog_format = 'json'\n"
    )
    code = (
        "import atexit, sys\nfrom kws.cli import main\n"
        "atexit.register(lambda: print(*sys.modules))\nmain(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "daemon", "--config", str(tmp_path / "kws.toml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    loaded = set(done.stdout.split())
    assert done.returncode == 0, done.stderr
    assert "kws.daemon.monitoring" in loaded
    assert loaded & {"rich", "prometheus_client"} == set()
    heard = [one for one in map(json.loads, done.stderr.splitlines()) if "keyword" in one]
    assert [(one["keyword"], one["level"]) for one in heard] == [("stop", "info")] * 2
