"""Settings of the runtime, one class for each table of kws.toml: keys, units, defaults, rules.

A value that breaks its rule is an error when the settings are made, in Python as from a file.
Command-line options override the file.

- `actions`: tables of what follows a detection: hooks, recorded clips, the daemon
- `explanation`: what is wrong in a file, with the value and the nearest known key
- `pipeline`: tables of source, gate, model and decision
- `reading`: kws.toml and its drop-ins, read into settings
- `root_table`: all tables together
- `services`: tables of Wyoming, MQTT and the page in the browser
- `table`: the class below all tables, checked as they are made
"""

from kws.config.actions import DaemonSettings, HookSettings, RecordingSettings
from kws.config.pipeline import (
    Channel,
    DecisionSettings,
    GateSettings,
    ListenerSettings,
    ModelSettings,
    SampleFormat,
    SourceSettings,
)
from kws.config.reading import load_config, parse_config
from kws.config.root_table import Config
from kws.config.services import MqttSettings, UiSettings, WyomingSettings

__all__ = [
    "Channel",
    "Config",
    "DaemonSettings",
    "DecisionSettings",
    "GateSettings",
    "HookSettings",
    "ListenerSettings",
    "ModelSettings",
    "MqttSettings",
    "RecordingSettings",
    "SampleFormat",
    "SourceSettings",
    "UiSettings",
    "WyomingSettings",
    "load_config",
    "parse_config",
]
