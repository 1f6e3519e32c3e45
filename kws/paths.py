"""Paths of kws.toml and the command line: `~`, and what they are relative to."""

from pathlib import Path

from kws.errors import ConfigError, KwsError

__all__ = ["expanded", "relative_to_folder"]


def expanded(path: str, *, what: str, error: type[KwsError] = ConfigError) -> Path:
    """Return a path with `~` replaced by the home folder.

    Parameters
    ----------
    path : str
    what : str
        The setting, for messages.
    error : class
        Of the error.

    Raises
    ------
    KwsError
        If there is no such user, or the environment has no HOME and the user no entry.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise error(
            f"`~` in {what} must stand for a home folder. Received: {path}, and there is none: "
            f"HOME is not set, or there is no such user. Write the whole path."
        ) from None


def relative_to_folder(name: str, folder: Path) -> str:
    """Return a model's name as it is, or its relative path from a folder on.

    A name without a slash and without the ending .tflite is that of a bundled model.
    """
    is_path = "/" in name or name.endswith(".tflite")
    return str(folder / name) if is_path and not name.startswith("~") else name
