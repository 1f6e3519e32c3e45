"""Keyword spotting on small computers: samples in, detections out.

::

    from kws import Spotter, model_path, open_model

    spotter = Spotter(open_model(model_path("commands")))
    for detection in spotter.process(samples):  # int16, mono, 16 kHz, any number
        print(detection.keyword, detection.end_s)

=====================  ======================================================
`Spotter`              the pipeline; `process`, `flush`, `reset`
`open_model`           a model file, ready to run; `model_path` finds bundled ones
`open_source`          audio from a microphone, a file or standard input
`load_config`          settings from kws.toml
`Detection`            what is heard; `to_json` gives the JSON line
`KwsError`             the root of all errors; the tree is in `kws.errors`
=====================  ======================================================
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kws.config import Config, load_config
    from kws.errors import KwsError
    from kws.events import Detection, to_json
    from kws.manifest import Manifest
    from kws.model import model_path, open_model
    from kws.sources import open_source
    from kws.spotter import Spotter

__all__ = [
    "Config",
    "Detection",
    "KwsError",
    "Manifest",
    "Spotter",
    "load_config",
    "model_path",
    "open_model",
    "open_source",
    "to_json",
]

_HOMES = {
    "Config": "kws.config",
    "Detection": "kws.events",
    "KwsError": "kws.errors",
    "Manifest": "kws.manifest",
    "Spotter": "kws.spotter",
    "load_config": "kws.config",
    "model_path": "kws.model",
    "open_model": "kws.model",
    "open_source": "kws.sources",
    "to_json": "kws.events",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `kws --help` then needs no numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
