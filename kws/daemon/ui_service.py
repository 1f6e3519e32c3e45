"""The page of the daemon: served, changed at a reload, and ended with the daemon."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from kws.config import Config, UiSettings
from kws.daemon.backlog import AudioBlock
from kws.daemon.listeners import SourceListeners
from kws.errors import ConfigError
from kws.events import Event
from kws.threads import in_thread

if TYPE_CHECKING:
    from kws.ui.feed import LiveFeed
    from kws.ui.host import Host
    from kws.ui.server import UiServer

__all__ = ["UiService"]

_log = logging.getLogger("kws.daemon")


class UiService:
    """Serve the page that `[ui]` of the current configuration asks for; none without a port.

    Parameters
    ----------
    host : Host
        The daemon.
    announce : callable or None
        Takes the link when the page is served; None logs the address without its secret.
    """

    def __init__(self, host: "Host", *, announce: Callable[[str], None] | None = None) -> None:
        self._host = host
        self._announce = announce
        self._settings = UiSettings()
        self._token = ""
        self._feed: LiveFeed | None = None
        self._server: UiServer | None = None

    @property
    def link(self) -> str | None:
        """The link of the page; None without one."""
        return self._server.link if self._server else None

    async def change(self, config: Config) -> None:
        """Serve by a configuration; open pages stay where nothing changes for them.

        Raises
        ------
        ConfigError
            If it cannot be served, or a package is missing; what was served before is served on.
        """
        if config.ui == self._settings:
            return
        server = await in_thread(lambda: self._made(config.ui)) if config.ui.port else None
        before, self._server = self._server, None
        if before:
            await before.close()
        try:
            if server:
                server.start()
        except ConfigError:
            if before:
                before.start()
                self._server = before
            raise
        self._settings, self._server = config.ui, server
        if server and self._announce:
            self._announce(server.link)
        elif server:
            address = server.link.partition("#")[0]
            _log.info("The page is served at %s; `kws status` shows its link.", address)

    async def close(self) -> None:
        """Disconnect all pages."""
        if self._server:
            await self._server.close()
        self._server = None

    def prepare(self, source: SourceListeners) -> None:
        """Before a block: have posteriors kept while a page is open, and not otherwise."""
        if self._feed is not None:
            source.keep_posteriors(self._feed.is_watched)

    def put(self, source: SourceListeners, block: AudioBlock) -> None:
        """After a block: hand it to the pages, without waiting."""
        if self._feed is None:
            return
        label = source.supervisor.label
        self._feed.put_audio(label, block.audio)
        if self._feed.is_watched:
            self._feed.put(
                label,
                block.audio,
                start_sample=block.start_sample,
                gate_open=source.gate_open,
                posteriors=source.take_posteriors(),
            )

    def send(self, event: Event) -> None:
        """Hand an event to the pages, without waiting."""
        if self._feed is not None:
            self._feed.send(event)

    def _made(self, settings: UiSettings) -> "UiServer":
        try:
            from kws.ui.access import new_token
            from kws.ui.feed import LiveFeed
            from kws.ui.server import UiServer
        except ImportError as error:
            or_not = "" if self._announce else ", or leave `[ui] port` out"
            raise ConfigError(
                f"The page needs packages for the web. Received: {error}. Run "
                f"`pip install 'kws[ui]'`{or_not}."
            ) from error
        self._token = settings.token or self._token or new_token()
        self._feed = self._feed or LiveFeed()
        return UiServer(settings, host=self._host, feed=self._feed, token=self._token)
