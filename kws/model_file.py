"""Reading of a model file, with a manifest of kws or in the format of another tool."""

from pathlib import Path

from kws.foreign.microwakeword import microwakeword_manifest, microwakeword_model
from kws.foreign.openwakeword import openwakeword_manifest
from kws.manifest import Manifest, has_manifest, read_manifest

__all__ = ["read_model"]

_FORMATS = (microwakeword_manifest, openwakeword_manifest)


def read_model(path: Path) -> tuple[Manifest, bytes]:
    """Read a model file; one without a manifest of kws gets that of its format.

    Parameters
    ----------
    path : Path
        The model, or the JSON of a microWakeWord model beside it.

    Returns
    -------
    Manifest, bytes
        The manifest, and what an interpreter takes.

    Raises
    ------
    ModelError
        As `read_manifest`, or if the file breaks the rules of its format.
    """
    path = microwakeword_model(path)
    try:
        content = path.read_bytes()
    except OSError:
        return read_manifest(path)  # which reports the error
    if not has_manifest(path, content):
        for manifest_of in _FORMATS:
            if manifest := manifest_of(path, content):
                return manifest, content
    return read_manifest(path)
