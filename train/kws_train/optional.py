"""Optional libraries of the workbench, imported on first use."""

import importlib
from typing import Any

from kws.errors import ConfigError

__all__ = ["load_library"]


def load_library(name: str, *, purpose: str, package: str | None = None) -> Any:
    """Import a library and return its module.

    Parameters
    ----------
    name : str
        The module's name.
    purpose : str
        The feature that needs it: the subject of the error message.
    package : str, optional
        The name to install with pip, where it differs from the module's.

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
