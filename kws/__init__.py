"""Keyword spotting on small computers: samples in, detections out.

::

    import kws

    spotter = kws.Spotter("computer")  # a bundled model's name or the path of a .tflite
    for detection in spotter.listen("recording.wav"):
        print(detection.keyword, detection.score, detection.end_s)

======================  =====================================================================
`Spotter`               the pipeline: `listen`, `process`, `flush`, `reset`
`Detection`             a detected keyword; `Peak`, `NearMiss`, `End`, `StateChange` likewise
`to_json`, `from_json`  events as JSON lines and back
`open_model`            a model file, ready to run; `bundled_models` lists those that come along
`open_source`           audio from a microphone, a file, a port, a command or standard input
`load_config`           the settings of a kws.toml, a `Config`; a class for each of its tables
`KwsError`              the root of all errors; `kws.errors` draws the tree
======================  =====================================================================
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kws.config import (
        Config,
        DaemonSettings,
        DecisionSettings,
        GateSettings,
        HookSettings,
        ListenerSettings,
        ModelSettings,
        RecordingSettings,
        SourceSettings,
        load_config,
    )
    from kws.errors import (
        AudioError,
        ConfigError,
        DeviceError,
        FormatError,
        HookError,
        KwsError,
        ModelError,
    )
    from kws.events import (
        Detection,
        End,
        Event,
        NearMiss,
        Peak,
        StateChange,
        from_json,
        to_json,
    )
    from kws.manifest import Manifest
    from kws.matching import LabelledRecording, Matches, Word, match
    from kws.model import Model, bundled_models, open_model
    from kws.sources import Source, open_source
    from kws.spotter import Spotter

    __version__: str

__all__ = [
    "AudioError",
    "Config",
    "ConfigError",
    "DaemonSettings",
    "DecisionSettings",
    "Detection",
    "DeviceError",
    "End",
    "Event",
    "FormatError",
    "GateSettings",
    "HookError",
    "HookSettings",
    "KwsError",
    "LabelledRecording",
    "ListenerSettings",
    "Manifest",
    "Matches",
    "Model",
    "ModelError",
    "ModelSettings",
    "NearMiss",
    "Peak",
    "RecordingSettings",
    "Source",
    "SourceSettings",
    "Spotter",
    "StateChange",
    "Word",
    "__version__",
    "bundled_models",
    "from_json",
    "load_config",
    "match",
    "open_model",
    "open_source",
    "to_json",
]

# From light to heavy: a name is looked up in each, so that `kws --help` imports no numpy.
_MODULES = ("errors", "events", "config", "manifest", "matching", "model", "sources", "spotter")


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name == "__version__":
        from importlib.metadata import version  # slow to import

        return version("kws")
    if name in __all__:
        for module in map(import_module, (f"kws.{one}" for one in _MODULES)):
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
