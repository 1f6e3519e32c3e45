"""The settings of `kws ui`: those of kws.toml, with a page in any case."""

from pathlib import Path

from msgspec.structs import replace

from kws.config import Config
from kws.errors import ConfigError

__all__ = ["DEFAULT_PORT", "check_config", "with_page"]

DEFAULT_PORT = 8420


def with_page(config: Config, *, port: int | None = None) -> Config:
    """Return the settings with a port for the page: the given one, that of `[ui]`, or 8420."""
    return replace(config, ui=replace(config.ui, port=port or config.ui.port or DEFAULT_PORT))


def check_config(path: Path) -> None:
    """Check that there is a kws.toml: the page writes into it.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if not path.exists():
        raise ConfigError(
            f"`kws ui` needs a kws.toml. Received: {path}, which does not exist. Give --config, or "
            f"begin with the defaults: touch {path}"
        )
