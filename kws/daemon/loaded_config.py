"""A configuration with its models open and its hooks checked, before it takes effect."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from kws.config import (
    Config,
    DaemonSettings,
    MqttSettings,
    SourceSettings,
    UiSettings,
    load_config,
)
from kws.daemon.listeners import Listener, ListenerKey, SourceListeners, listener_keys
from kws.errors import ConfigError
from kws.mqtt.broker import Broker, open_broker
from kws.sinks.clip_recorder import ClipRecorder
from kws.sinks.hooks import Hooks
from kws.sources.command import check_command

__all__ = ["LoadedConfig"]


@dataclass(frozen=True, kw_only=True)
class LoadedConfig:
    """A configuration with its models open and its hooks checked.

    Attributes
    ----------
    config : Config
    keywords : tuple of str
        Those of all models together.
    listeners : dict of str to list of Listener
        For each source, by its label.
    hooks : Hooks
    clip_recorder : ClipRecorder
    broker : Broker or None
        None: no MQTT.
    """

    config: Config
    keywords: tuple[str, ...]
    listeners: dict[str, list[Listener]]
    hooks: Hooks
    clip_recorder: ClipRecorder
    broker: Broker | None = None

    @classmethod
    def read(
        cls,
        path: Path,
        *,
        old: "LoadedConfig | None" = None,
        sources: Sequence[SourceListeners] = (),
        override: Callable[[Config], Config] = lambda config: config,
    ) -> "LoadedConfig":
        """Read kws.toml; open its models and check its hooks.

        Parameters
        ----------
        path : Path
            Of kws.toml.
        old : LoadedConfig or None
            The one in effect; its unchanged parts are kept.
        sources : sequence of SourceListeners
            Those of `old`; their listeners with the same key are kept.
        override : callable
            Returns the settings to use in place of those of the file.

        Raises
        ------
        KwsError
            If a setting, model or hook cannot be used; nothing has changed then.
        """
        config = override(load_config(path))
        for settings in config.every_source:
            if settings.command is not None:
                check_command(settings.command)
        broker = open_broker(config.mqtt)
        keys = listener_keys(config)
        listeners = {
            source.label: _listeners(source, keys, sources) for source in config.every_source
        }
        of_one_source = next(iter(listeners.values()))
        _check_names([listener.name for listener in of_one_source])
        keywords = tuple(
            dict.fromkeys(word for one in of_one_source for word in one.spotter.keywords)
        )
        if old and (old.config.hooks, old.keywords) == (config.hooks, keywords):
            hooks = old.hooks
        else:
            hooks = Hooks(config.hooks, keywords=keywords)
        if old and _clip_settings(old.config) == _clip_settings(config):
            clip_recorder = old.clip_recorder
        else:
            clip_recorder = ClipRecorder(config.recording, config=config)
        return cls(
            config=config,
            keywords=keywords,
            listeners=listeners,
            hooks=hooks,
            clip_recorder=clip_recorder,
            broker=broker,
        )


def _clip_settings(config: Config) -> Config:
    """Return the settings that a clip recorder depends on: all but hooks, daemon, MQTT and ui."""
    others = {"daemon": DaemonSettings(), "mqtt": MqttSettings(), "ui": UiSettings()}
    return replace(config, hooks=[], **others)


def _listeners(
    settings: SourceSettings, keys: Sequence[ListenerKey], sources: Sequence[SourceListeners]
) -> list[Listener]:
    """Return a listener of a source for each key, the existing one or a new one."""
    existing = [
        listener
        for source in sources
        if source.supervisor.settings == settings
        for listener in source.listeners
    ]
    return [
        next((one for one in existing if one.key == key), None) or Listener.open(key)
        for key in keys
    ]


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"Each of [[models]] must have a name of its own in its manifest, which events "
                f"carry. Received: `{name}` {names.count(name)} times. Leave one out, or enrol it "
                f"again with `kws enroll --name`."
            )
