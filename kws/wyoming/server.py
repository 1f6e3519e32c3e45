"""The service: its addresses, its clients, and what bounds them."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from kws.config import DecisionSettings, GateSettings, WyomingSettings
from kws.errors import FormatError
from kws.wyoming.addresses import Address, bind, parse_uri
from kws.wyoming.announcement import Announcement
from kws.wyoming.catalog import Catalog
from kws.wyoming.connection import Connection, IdleError
from kws.wyoming.events import LONGEST_LINE
from kws.wyoming.recordings import Recordings
from kws.wyoming.session import Session

__all__ = ["WyomingServer", "catalog_of"]

_MOST_REFUSED = 64
_SPARED_S = 10.0

_log = logging.getLogger("kws.wyoming")


class WyomingServer:
    """Serve clients in the running loop.

    Parameters
    ----------
    settings : WyomingSettings
    catalog : Catalog

    Attributes
    ----------
    addresses : list of Address
        Bound, with the port that was given to port 0.
    """

    def __init__(self, settings: WyomingSettings, catalog: Catalog) -> None:
        self.addresses: list[Address] = []
        self._settings = settings
        self._catalog = catalog
        folder = settings.debug_recording_dir
        self._recordings = Recordings(Path(folder)) if folder else None
        self._servers: list[asyncio.Server] = []
        self._sockets: list[tuple[Path, tuple[int, int]]] = []
        self._announcement: Announcement | None = None
        self._clients: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._n_accepted = 0

    async def start(self) -> None:
        """Open all addresses, and announce one if that is set.

        Raises
        ------
        ConfigError
            If an address cannot be had or announced; nothing is left open then.
        """
        try:
            for address in map(parse_uri, self._settings.uri):
                await self._open(address)
            if self._settings.zeroconf:
                open_to_all = [one for one in self.addresses if not one.is_local]
                announced = (open_to_all or self.addresses)[0]
                self._announcement = Announcement(announced, name=self._settings.zeroconf_name)
                await self._announcement.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect all clients; write the rest of the recordings; remove Unix sockets."""
        if self._announcement:
            await self._announcement.close()
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        if self._recordings:
            await self._recordings.close()
        for path, identity in self._sockets:
            with contextlib.suppress(OSError):  # another service's by now, or gone
                if _identity(path) == identity:
                    path.unlink()
        self._servers, self._sockets, self.addresses = [], [], []

    @property
    def n_clients(self) -> int:
        """Clients that are served now."""
        return len(self._clients)

    async def _open(self, address: Address) -> None:
        sockets = await asyncio.to_thread(bind, address)
        if address.path:
            self._sockets.append((address.path, _identity(address.path)))
        else:
            address = address._replace(port=sockets[0].getsockname()[1])
        self.addresses.append(address)
        for one in sockets:
            self._servers.append(
                await asyncio.start_server(self._attend, sock=one, limit=LONGEST_LINE)
            )

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task  # noqa: S101  a coroutine always runs in a task
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # the client is gone or takes nothing, or the service ends
        except Exception:  # noqa: BLE001  a bug must not end the service
            _log.exception("A client had to be disconnected by an error of kws.")
        finally:
            self._tasks.discard(task)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Connection(reader, writer)
        if len(self._clients) >= self._settings.max_clients and not self._make_room():
            if len(self._tasks) - len(self._clients) <= _MOST_REFUSED:
                await client.refuse(
                    f"No more than {self._settings.max_clients} clients are served at once. "
                    f"Received: one more. Raise --max-clients.",
                    "too-many-clients",
                )
            return
        self._n_accepted += 1
        session = Session(
            self._n_accepted,
            self._catalog,
            client.send,
            trigger_level=self._settings.trigger_level,
            recordings=self._recordings,
        )
        with self._counted(client, session):
            client.keep_alive()
            await self._converse(client, session)

    @contextlib.contextmanager
    def _counted(self, client: Connection, session: Session) -> Iterator[None]:
        self._clients.add(client)
        _log.info("Client %d connected; %d clients.", session.number, len(self._clients))
        try:
            yield
        finally:
            self._clients.discard(client)
            session.end()
            _log.info("Client %d is gone; %d clients.", session.number, len(self._clients))

    async def _converse(self, client: Connection, session: Session) -> None:
        """Process a client's events until it ends, breaks the protocol, or is silent too long."""
        try:
            while event := await client.next_event(self._settings.idle_s):
                await session.handle(event)
                await asyncio.sleep(0)  # other clients' turn: the next event may be here already
        except FormatError as error:
            _log.info("Client %d is disconnected: %s", session.number, error)
            await client.refuse(str(error), "bad-event")
        except IdleError:
            await client.refuse(
                f"A client must send an event every {self._settings.idle_s:g} s. Received: none. "
                f"Connect again.",
                "idle",
            )

    def _make_room(self) -> bool:
        """Disconnect the client that has been silent longest, if that is long; say whether so."""
        now_s = asyncio.get_running_loop().time()
        client = min(self._clients, key=lambda one: one.last_s)
        if now_s - client.last_s < _SPARED_S:
            return False
        self._clients.discard(client)
        client.writer.transport.abort()
        return True


def catalog_of(
    settings: WyomingSettings,
    *,
    decision: DecisionSettings | None = None,
    gate: GateSettings | None = None,
) -> Catalog:
    """Open the models that the settings name; errors as of `Catalog`."""
    decision = decision or DecisionSettings()
    if settings.threshold is not None:
        decision = DecisionSettings(threshold=settings.threshold)
    if settings.refractory_s is not None:
        decision = replace(decision, refractory_ms=round(1000 * settings.refractory_s))
    return Catalog(
        settings.models,
        folders=[Path(one).expanduser() for one in settings.custom_model_dir],
        decision=decision,
        gate=gate,
    )


def _identity(path: Path) -> tuple[int, int]:
    at = path.lstat()
    return at.st_dev, at.st_ino
