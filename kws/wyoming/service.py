"""`kws wyoming`: the server until a signal ends it."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from typing import Any

from kws.config import WyomingSettings
from kws.wyoming.addresses import DEFAULT_URI, Address
from kws.wyoming.server import WyomingServer, catalog_of

__all__ = ["serve", "settings_of"]

_DEFAULT_MODEL = "computer"
_INTERRUPTED = 130


def settings_of(
    *,
    uri: Sequence[str] = (),
    models: Sequence[str] = (),
    preload_model: Sequence[str] = (),
    custom_model_dir: Sequence[str] = (),
    zeroconf: str | None = None,
    **options: Any,
) -> WyomingSettings:
    """Return the settings that options of the command stand for; None is the default.

    Raises
    ------
    ConfigError
        If one breaks its rule.
    """
    named = list(dict.fromkeys([*models, *preload_model]))
    if not named and not custom_model_dir:
        named = [_DEFAULT_MODEL]
    return WyomingSettings(
        uri=list(uri) or [DEFAULT_URI],
        models=named,
        custom_model_dir=list(custom_model_dir),
        zeroconf=zeroconf is not None,
        zeroconf_name=zeroconf or None,
        **{key: value for key, value in options.items() if value is not None},
    )


async def serve(settings: WyomingSettings, *, echo: Callable[[str], object]) -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit code, 0 or 130.

    Parameters
    ----------
    settings : WyomingSettings
    echo : callable
        Takes lines about what is served, and to whom.

    Raises
    ------
    KwsError
        If a model, an address or the announcement is not as it must be.
    """
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def end(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end, 0)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, end, _INTERRUPTED)
    catalog = catalog_of(settings)
    server = WyomingServer(settings, catalog)
    await server.start()
    try:
        echo(f"Serving {', '.join(catalog.keywords) or 'no keyword yet'}.")
        for address in server.addresses:
            echo(f"Listening on {address}, {_reach(address)}.")
        return await ended
    finally:
        await server.close()


def _reach(address: Address) -> str:
    if address.is_local:
        return "for programs on this machine"
    return "for every machine that reaches it: the protocol knows no password"
