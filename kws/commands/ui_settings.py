"""The settings of `kws ui`: those of kws.toml, with a page in any case."""

from msgspec.structs import replace

from kws.config import Config

__all__ = ["DEFAULT_PORT", "with_page"]

DEFAULT_PORT = 8420


def with_page(config: Config, *, port: int | None = None) -> Config:
    """Return the settings with a port for the page: the given one, that of `[ui]`, or 8420."""
    return replace(config, ui=replace(config.ui, port=port or config.ui.port or DEFAULT_PORT))
