"""The services of the daemon on the network: changed together at a reload, or not at all."""

import logging
from collections.abc import Coroutine
from typing import Any

from kws.config import Config
from kws.daemon.monitoring import Monitoring
from kws.daemon.ui_service import UiService
from kws.daemon.wyoming_service import WyomingService
from kws.errors import KwsError

__all__ = ["Services"]

_log = logging.getLogger("kws.daemon")


class Services:
    """Wyoming, the page, and status socket with metrics.

    Parameters
    ----------
    wyoming : WyomingService
    ui : UiService
    monitoring : Monitoring
    """

    def __init__(self, wyoming: WyomingService, ui: UiService, monitoring: Monitoring) -> None:
        self._wyoming, self._ui, self._monitoring = wyoming, ui, monitoring

    async def start(self, config: Config) -> None:
        """Start what a configuration asks for; close all where one cannot start.

        Raises
        ------
        KwsError
            If a port or an address cannot be had, or a package is missing.
        """
        await self._monitoring.start()
        try:
            await self._wyoming.change(config)
            await self._ui.change(config)
        except KwsError:
            await self._wyoming.close()
            await self._monitoring.close()
            raise

    async def change(self, config: Config, *, former: Config) -> None:
        """Change to a configuration; where one service cannot, all go on by the former one.

        Raises
        ------
        KwsError
            As in `start`.
        """
        try:
            await self._change(config)
        except KwsError:
            try:
                await self._change(former)
            except KwsError as error:
                _log.error("A service could not go back to the old configuration: %s", error)
            raise

    def closing(self) -> list[Coroutine[Any, Any, None]]:
        """Return what ends each service."""
        return [self._monitoring.close(), self._wyoming.close(), self._ui.close()]

    async def _change(self, config: Config) -> None:
        await self._wyoming.change(config)
        await self._ui.change(config)
        await self._monitoring.change(config.daemon)
