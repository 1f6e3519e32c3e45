"""Libraries that only some uses of the workbench need: loaded when needed, missed with a remedy."""

import importlib
from typing import Any

from kws.errors import ConfigError

__all__ = ["load_library"]


def load_library(name: str, *, purpose: str, package: str | None = None) -> Any:
    """Import a library and return its module.

    Parameters
    ----------
    name : str
        Of the module.
    purpose : str
        What needs it, as the message says it.
    package : str, optional
        What pip installs it as, where that is another name.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{purpose} needs the library {name.partition('.')[0]}. Received: {error}. "
            f"Run `pip install '{package or name}'`."
        ) from error
