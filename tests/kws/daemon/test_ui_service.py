"""The page that the daemon itself serves: by `[ui]`, changed at a reload, gone with the daemon."""

import asyncio
import http.client
import json
import os
import signal
import socket
import sys
from types import SimpleNamespace

import pytest

from kws.config import Config, UiSettings
from kws.daemon.backlog import AudioBlock
from kws.daemon.service import Daemon
from kws.daemon.status_client import ask
from kws.daemon.ui_service import UiService
from kws.errors import ConfigError

from .conftest import until

TOKEN = "0123456789abcdef"


def state(port, token=TOKEN):
    """Return the status of the answer, and the state that the page gets."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/api/state", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def is_open(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def run_daemon(path, capture, driver, **options):
    """Run a daemon while a driver runs; return what that returns."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}

    async def run():
        daemon = Daemon(path, capture_command=capture, **options)
        running = asyncio.create_task(daemon.run())
        try:
            return await driver(daemon)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            assert await asyncio.wait_for(running, 10) == 0

    try:
        return asyncio.run(run())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_daemon_serves_the_page_that_its_configuration_asks_for(
    tmp_path, capture_script, free_port, caplog
):
    caplog.set_level("INFO")
    path = tmp_path / "kws.toml"
    path.write_text(f"[ui]\nport = {free_port}\ntoken = '{TOKEN}'\n")

    async def driver(daemon):
        await until(lambda: daemon._ui.link)
        found = await asyncio.to_thread(state, free_port)
        snapshot = await asyncio.to_thread(ask, tmp_path / "kws.sock")
        path.write_text("[decision.thresholds]\nstop = 0.4\n")
        daemon.request_reload()
        await until(lambda: not is_open(free_port))
        assert daemon._ui.link is None
        path.write_text(
            f"[ui]\nport = {free_port}\ntoken = '{TOKEN}x'\n[decision]\nthreshold = 0.3"
        )
        daemon.request_reload()
        await until(lambda: daemon._ui.link)
        later = await asyncio.to_thread(state, free_port, TOKEN + "x")
        refused = await asyncio.to_thread(state, free_port)
        return found, snapshot, later, refused

    found, snapshot, later, refused = run_daemon(path, capture_script("sleep 60"), driver)
    assert not is_open(free_port)  # its thread would outlive the daemon
    address = f"http://127.0.0.1:{free_port}/"
    told = f"The page is served at {address}; `kws status` shows its link."
    assert caplog.messages.count(told) == 2
    assert TOKEN not in caplog.text
    assert found[0] == 200
    assert found[1]["models"][0]["keywords"][0] == "yes"
    assert found[1]["sources"][0]["name"] == "mic"
    assert snapshot.page == f"http://127.0.0.1:{free_port}/#token={TOKEN}"
    assert later[1]["models"][0]["thresholds"]["yes"] == 0.3
    assert refused[0] == 401


def test_a_port_in_use_ends_the_daemon_at_its_start(tmp_path, capture_script):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        path = tmp_path / "kws.toml"
        path.write_text(f"[ui]\nport = {taken.getsockname()[1]}\n")
        with pytest.raises(ConfigError, match="The page needs a free port"):
            asyncio.run(Daemon(path, capture_command=capture_script("sleep 60")).run())
    assert not (tmp_path / "kws.sock").exists()


def test_a_port_in_use_at_a_reload_leaves_the_old_page(tmp_path, capture_script, free_port):
    path = tmp_path / "kws.toml"
    path.write_text(f"[ui]\nport = {free_port}\ntoken = '{TOKEN}'\n")

    async def driver(daemon):
        await until(lambda: daemon._ui.link)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            path.write_text(f"[ui]\nport = {taken.getsockname()[1]}\ntoken = '{TOKEN}'\n")
            daemon.request_reload()
            await until(lambda: "free port" in str(daemon._monitoring.snapshot().last_errors))
        return await asyncio.to_thread(state, free_port)

    assert run_daemon(path, capture_script("sleep 60"), driver)[0] == 200


def test_without_the_extra_the_error_says_what_to_install(tmp_path, capture_script, monkeypatch):
    monkeypatch.setitem(sys.modules, "kws.ui.server", None)  # as if its imports failed
    path = tmp_path / "kws.toml"
    path.write_text("[ui]\nport = 8420\n")
    for announce, end in ((None, ", or leave `\\[ui\\] port` out"), (str, "")):
        daemon = Daemon(path, capture_command=capture_script("sleep 60"), announce_page=announce)
        message = rf"^The page needs packages for the web\..* Run `pip install 'kws\[ui\]'`{end}\.$"
        with pytest.raises(ConfigError, match=message):
            asyncio.run(daemon.run())


def test_with_an_announced_page_the_end_of_all_files_is_not_the_end(tmp_path, recording, free_port):
    path = tmp_path / "kws.toml"
    path.write_text(f"[source]\ninput = '{recording}'\n[ui]\nport = {free_port}\n")
    announced = []

    async def driver(daemon):
        await until(lambda: daemon._audio.sources and daemon._audio.are_all_finished)
        await asyncio.sleep(0.2)
        token = announced[0].partition("token=")[2]
        return await asyncio.to_thread(state, free_port, token)

    from kws.daemon.capture_process import CAPTURE_COMMAND

    status, found = run_daemon(path, CAPTURE_COMMAND, driver, announce_page=announced.append)
    assert status == 200
    assert found["sources"][0]["state"] == "ended"


class Source:
    """What a page shows of a source, recorded."""

    supervisor = SimpleNamespace(label="desk")
    gate_open = True

    def __init__(self):
        self.kept, self.n_taken = None, 0

    def keep_posteriors(self, kept):
        self.kept = kept

    def take_posteriors(self):
        self.n_taken += 1
        return []


def test_posteriors_are_kept_only_while_a_page_is_open(free_port):
    """They cost time and memory, and nobody else takes them."""

    async def run():
        service, source = UiService(None, announce=str), Source()
        block = AudioBlock(0, bytes(16_000), False)
        service.prepare(source)
        service.put(source, block)
        assert (source.kept, source.n_taken) == (None, 0)
        await service.change(Config(ui=UiSettings(port=free_port)))
        for is_watched in (True, False):
            service._feed.is_watched = is_watched
            service.prepare(source)
            service.put(source, block)
            assert (source.kept, source.n_taken) == (is_watched, 1)
        (frame,) = service._feed.take(0.05)[0]
        assert (frame.name, frame.gate_open) == ("desk", True)
        await service.close()

    asyncio.run(run())


def test_pages_get_detections_and_states(tmp_path, recording, model, free_port):
    path = tmp_path / "kws.toml"
    path.write_text(
        f"[model]\nname = '{model}'\n[gate]\nenabled = false\n[source]\ninput = '{recording}'\n"
        f"[ui]\nport = {free_port}\n"
    )

    async def driver(daemon):
        await until(lambda: daemon._ui._feed)
        daemon._ui._feed.is_watched = True
        await until(lambda: daemon._audio.sources and daemon._audio.are_all_finished)
        assert all(one.posteriors for one in daemon._ui._feed._sources.values())
        return [one.event for one in daemon._ui._feed.recent()]

    from kws.daemon.capture_process import CAPTURE_COMMAND

    events = run_daemon(path, CAPTURE_COMMAND, driver, announce_page=str)
    kinds = [type(one).__name__ for one in events]
    assert kinds.count("Detection") == 2
    assert "StateChange" in kinds


def test_a_reload_that_is_refused_by_one_service_changes_none(tmp_path, capture_script, free_port):
    """The page went to its new port although the new configuration was refused for another."""
    path = tmp_path / "kws.toml"
    path.write_text(f"[ui]\nport = {free_port}\ntoken = '{TOKEN}'\n")
    with socket.create_server(("127.0.0.1", 0)) as one:
        other = one.getsockname()[1]

    async def driver(daemon):
        await until(lambda: daemon._ui.link)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            path.write_text(
                f"[ui]\nport = {other}\ntoken = '{TOKEN}'\n"
                f"[daemon]\nmetrics_port = {taken.getsockname()[1]}\n"
            )
            daemon.request_reload()
            await until(lambda: "is refused" in str(daemon._monitoring.snapshot().last_errors))
        assert not is_open(other)
        snapshot = await asyncio.to_thread(ask, tmp_path / "kws.sock")
        assert snapshot.page == f"http://127.0.0.1:{free_port}/#token={TOKEN}"
        return await asyncio.to_thread(state, free_port)

    assert run_daemon(path, capture_script("sleep 60"), driver)[0] == 200
