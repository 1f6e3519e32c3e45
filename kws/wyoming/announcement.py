"""The announcement of the service by zeroconf, by which Home Assistant finds it."""

import asyncio
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kws.errors import ConfigError
from kws.names import machine_name
from kws.wyoming.addresses import Address

if TYPE_CHECKING:
    from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

__all__ = ["Announcement"]

SERVICE = "_wyoming._tcp.local."
_MDNS = ("224.0.0.251", 5353)
_ANY = {"0.0.0.0", "::"}  # noqa: S104  compared with, not bound to


class Announcement:
    """Announce one address on the local network.

    Parameters
    ----------
    address : Address
        A port that other machines reach.
    name : str or None
        Of this instance; None: that of this machine.
    interfaces : sequence of str or None
        Addresses of the network interfaces to announce on; None: all.

    Raises
    ------
    ConfigError
        If zeroconf is not installed, or only this machine reaches the address.
    """

    def __init__(
        self, address: Address, *, name: str | None = None, interfaces: Sequence[str] | None = None
    ) -> None:
        try:
            import zeroconf.asyncio
        except ImportError as error:
            raise ConfigError(
                f"An announcement needs the package zeroconf. Received: {error}. Run "
                f"`pip install 'kws[wyoming,zeroconf]'`."
            ) from error
        if address.path or (address.is_local and interfaces is None):
            raise ConfigError(
                f"Only an address that other machines reach can be announced. Received: {address}. "
                f"Give --uri tcp://0.0.0.0:10400, or leave out --zeroconf."
            )
        self.name = name or machine_name()
        self._address = address
        self._options: dict[str, Any] = {"interfaces": list(interfaces)} if interfaces else {}
        self._zeroconf: AsyncZeroconf | None = None
        self._service: AsyncServiceInfo | None = None
        self._module = zeroconf

    async def start(self) -> None:
        """Announce the service.

        Raises
        ------
        ConfigError
            If the network cannot be used, or another service there has the name.
        """
        module = self._module
        try:
            host = await asyncio.to_thread(_reachable, self._address.host)
            self._service = module.asyncio.AsyncServiceInfo(
                SERVICE,
                f"{self.name}.{SERVICE}",
                addresses=[socket.inet_aton(host)],
                port=self._address.port,
            )
            self._zeroconf = module.asyncio.AsyncZeroconf(
                ip_version=module.IPVersion.V4Only, **self._options
            )
            await self._zeroconf.async_register_service(self._service)
        except (OSError, module.Error) as error:
            await self.close()
            raise ConfigError(
                f"The service must be announced on a network, under a name of its own. Received: "
                f"{str(error) or type(error).__name__} for `{self.name}`. Give another name with "
                f"--zeroconf NAME, or leave it out."
            ) from error

    async def close(self) -> None:
        """Take the announcement back."""
        if self._zeroconf is None:
            return
        await self._zeroconf.async_unregister_all_services()
        await self._zeroconf.async_close()
        self._zeroconf = None


def _reachable(host: str) -> str:
    """Return the IPv4 address to announce: of the network that multicast goes to, for any host."""
    if host not in _ANY:
        return socket.gethostbyname(host)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(_MDNS)  # sends nothing
        address: str = probe.getsockname()[0]
    return address
