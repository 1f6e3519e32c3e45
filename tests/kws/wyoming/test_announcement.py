import asyncio
import socket
import sys

import pytest
from zeroconf import ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

from kws.errors import ConfigError
from kws.names import machine_name
from kws.wyoming.addresses import Address
from kws.wyoming.announcement import Announcement

ADDRESS = Address("127.0.0.1", 10_400)
LOOPBACK = ["127.0.0.1"]
SERVICE = "_wyoming._tcp.local."


def test_a_browser_finds_the_service_where_home_assistant_looks():
    async def run():
        announcement = Announcement(
            Address("127.0.0.1", 10_400), name="kitchen", interfaces=LOOPBACK
        )
        found = asyncio.Queue()
        browsing = AsyncZeroconf(interfaces=LOOPBACK)
        browser = AsyncServiceBrowser(
            browsing.zeroconf, SERVICE, handlers=[lambda **event: found.put_nowait(event)]
        )
        await announcement.start()
        event = await asyncio.wait_for(found.get(), 10)
        info = await browsing.async_get_service_info(SERVICE, event["name"])
        await announcement.close()
        gone = await asyncio.wait_for(found.get(), 10)
        await browser.async_cancel()
        await browsing.async_close()
        return event, info, gone

    try:
        event, info, gone = asyncio.run(run())
    except TimeoutError:
        pytest.skip("multicast does not work here")
    assert (event["name"], event["state_change"]) == (
        f"kitchen.{SERVICE}",
        ServiceStateChange.Added,
    )
    assert (info.port, info.parsed_addresses()) == (10_400, ["127.0.0.1"])
    assert gone["state_change"] is ServiceStateChange.Removed


def test_the_default_name_differs_from_that_of_a_satellite_on_the_machine():
    assert machine_name().startswith("kws-")
    assert len(machine_name()) == 16


def test_an_address_that_is_made_up_at_each_start_is_no_name(monkeypatch):
    monkeypatch.setattr("uuid.getnode", lambda: 0x01_00_00_00_00_00)
    assert machine_name() == f"kws-{socket.gethostname()}"


@pytest.mark.parametrize("address", [Address("127.0.0.1", 1), Address(path="/run/kws.sock")])
def test_what_only_this_machine_reaches_is_not_announced(address):
    with pytest.raises(ConfigError, match="Only an address that other machines reach"):
        Announcement(address)


def test_without_zeroconf_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    with pytest.raises(ConfigError, match=r"pip install 'kws\[wyoming,zeroconf\]'"):
        Announcement(Address("0.0.0.0", 1))
