"""The daemon's Wyoming service: started, changed at a reload, and ended with the daemon."""

import functools
import logging
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from kws.config import Config
from kws.errors import ConfigError
from kws.threads import in_thread

if TYPE_CHECKING:
    from kws.wyoming.server import WyomingServer

__all__ = ["WyomingService"]

_log = logging.getLogger("kws.daemon")


class WyomingService:
    """Serve what `[wyoming]` of the current configuration says; nothing without an address."""

    def __init__(self) -> None:
        self._wanted: Any = None
        self._server: WyomingServer | None = None

    async def change(self, config: Config) -> None:
        """Serve by a configuration; clients are disconnected if anything changes for them.

        Raises
        ------
        KwsError
            If it cannot be served. What was served before is served on.
        """
        wanted = (config.wyoming, _models(config), config.decision, config.gate)
        if wanted == self._wanted:
            return
        server = await _opened(config) if config.wyoming.uri else None
        before, self._server = self._server, None
        if before:
            await before.close()
        try:
            if server:
                await server.start()
        except ConfigError:
            if before:
                await before.start()
                self._server = before
            raise
        self._wanted, self._server = wanted, server
        for address in server.addresses if server else ():
            _log.info("The Wyoming service listens on %s.", address)

    async def close(self) -> None:
        """Disconnect all clients."""
        if self._server:
            await self._server.close()
        self._server = None


async def _opened(config: Config) -> "WyomingServer":
    try:
        from kws.wyoming.server import WyomingServer, catalog_of
    except ImportError as error:
        raise ConfigError(
            f"`[wyoming]` needs the package wyoming. Received: {error}. Run "
            f"`pip install 'kws[wyoming]'`, or leave `uri` out."
        ) from error
    settings = replace(config.wyoming, models=_models(config))
    open_models = functools.partial(
        catalog_of, settings, decision=config.decision, gate=config.gate
    )
    return WyomingServer(settings, await in_thread(open_models))


def _models(config: Config) -> list[str]:
    """Return what is served: what the table names, or else what the daemon itself detects."""
    if config.wyoming.models or config.wyoming.custom_model_dir:
        return config.wyoming.models
    return [model.name for model in config.every_model]
