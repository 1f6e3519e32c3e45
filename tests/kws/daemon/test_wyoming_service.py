import asyncio
import os
import signal
import sys

import pytest
from wyoming.client import AsyncClient
from wyoming.info import Describe, Info

from kws.config import parse_config
from kws.daemon.service import Daemon
from kws.daemon.wyoming_service import WyomingService
from kws.errors import ConfigError

from .conftest import until


@pytest.fixture
def uri(tmp_path):
    return f"unix://{tmp_path / 'wyoming.sock'}"


def served_at(uri, text=""):
    return parse_config(f"[wyoming]\nuri = ['{uri}']\n{text}")


async def keywords(uri):
    async with AsyncClient.from_uri(uri, read_timeout=10) as client:
        await client.write_event(Describe().event())
        info = Info.from_event(await client.read_event())
    return [model.name for model in info.wake[0].models]


def test_what_is_served_follows_the_configuration(uri):
    async def run():
        service = WyomingService()
        await service.change(parse_config(""))
        await service.change(served_at(uri))
        own = await keywords(uri)
        async with AsyncClient.from_uri(uri) as client:
            await service.change(served_at(uri, "[daemon]\nbacklog_s = 5.0\n"))  # nothing for it
            await client.write_event(Describe().event())
            assert await client.read_event()
            await service.change(served_at(uri, "models = ['computer']\n"))
            assert await client.read_event() is None
        other = await keywords(uri)
        await service.change(parse_config(""))
        with pytest.raises(OSError):
            await keywords(uri)
        await service.close()
        return own, other

    own, other = asyncio.run(run())
    assert own[0] == "yes"
    assert other == ["computer"]


@pytest.mark.parametrize(
    "wrong", ["models = ['nabu']\n", "zeroconf = true\n", "custom_model_dir = ['/none']\n"]
)
def test_what_cannot_be_served_is_an_error_and_the_old_is_served_on(wrong, uri):
    async def run():
        service = WyomingService()
        await service.change(served_at(uri))
        with pytest.raises(Exception, match="Received: "):
            await service.change(served_at(uri, wrong))
        found = await keywords(uri)
        await service.close()
        return found

    assert asyncio.run(run())[0] == "yes"


def test_without_the_extra_the_error_says_what_to_install(uri, monkeypatch):
    monkeypatch.setitem(sys.modules, "kws.wyoming.server", None)  # as if its imports failed
    with pytest.raises(
        ConfigError, match=r"Run `pip install 'kws\[wyoming\]'`, or leave `uri` out"
    ):
        asyncio.run(WyomingService().change(served_at(uri)))


def test_the_daemon_serves_beside_its_own_sources(uri, tmp_path, capture_script):
    path = tmp_path / "kws.toml"
    path.write_text(f"[wyoming]\nuri = ['{uri}']\n")

    async def run():
        daemon = Daemon(path, capture_command=capture_script("sleep 60"))
        running = asyncio.create_task(daemon.run())
        await until((tmp_path / "wyoming.sock").exists)
        found = await keywords(uri)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(running, 10) == 0
        return found

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        assert asyncio.run(run())[0] == "yes"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert not (tmp_path / "wyoming.sock").exists()


def test_an_address_that_is_taken_ends_the_daemon_at_its_start(uri, tmp_path, capture_script):
    (tmp_path / "wyoming.sock").write_text("a file")
    path = tmp_path / "kws.toml"
    path.write_text(f"[wyoming]\nuri = ['{uri}']\n")
    with pytest.raises(ConfigError, match="An address of the Wyoming service must be free"):
        asyncio.run(Daemon(path, capture_command=capture_script("sleep 60")).run())
