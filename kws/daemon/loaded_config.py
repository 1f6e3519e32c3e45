"""All that a configuration asks for, read, opened and checked before anything changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from kws.config import Config, DaemonSettings, SourceSettings, load_config
from kws.daemon.listeners import Channel, Listener, Voice, voices_of
from kws.errors import ConfigError
from kws.sinks.clip_recorder import ClipRecorder
from kws.sinks.hooks import Hooks

__all__ = ["Setup"]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A configuration with its models open and its hooks checked.

    Attributes
    ----------
    config : Config
    keywords : tuple of str
        What all models together can hear.
    listeners : dict of str to list of Listener
        For each source, by its label.
    hooks : Hooks
    recording : ClipRecorder
    """

    config: Config
    keywords: tuple[str, ...]
    listeners: dict[str, list[Listener]]
    hooks: Hooks
    recording: ClipRecorder

    @property
    def models(self) -> list[str]:
        """Names of the models that hear every source."""
        return [one.name for one in next(iter(self.listeners.values()))]

    @classmethod
    def read(
        cls, path: Path, old: "Setup | None" = None, channels: Sequence[Channel] = ()
    ) -> "Setup":
        """Read kws.toml and open what it asks for; what `old` has open and is the same is kept.

        Raises
        ------
        KwsError
            If anything is not as it must be. Nothing has changed then.
        """
        config = load_config(path)
        voices = voices_of(config)
        listeners = {
            source.label: _listeners(source, voices, channels) for source in config.every_source
        }
        some = next(iter(listeners.values()))
        _check_names([one.name for one in some])
        keywords = tuple(dict.fromkeys(word for one in some for word in one.spotter.keywords))
        if old and (old.config.hooks, old.keywords) == (config.hooks, keywords):
            hooks = old.hooks
        else:
            hooks = Hooks(config.hooks, keywords=keywords)
        if old and _recorded(old.config) == _recorded(config):
            recording = old.recording
        else:
            recording = ClipRecorder(config.recording, config=config)
        return cls(
            config=config,
            keywords=keywords,
            listeners=listeners,
            hooks=hooks,
            recording=recording,
        )


def _recorded(config: Config) -> Config:
    """Leave out what no recording says anything of."""
    return replace(config, hooks=[], daemon=DaemonSettings())


def _listeners(
    source: SourceSettings, voices: Sequence[Voice], channels: Sequence[Channel]
) -> list[Listener]:
    """Return a listener for each voice: the one that hears this source already, or a new one."""
    known = [
        one for channel in channels if channel.ear.settings == source for one in channel.listeners
    ]
    return [
        next((one for one in known if one.voice == voice), None) or Listener.open(voice)
        for voice in voices
    ]


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"Each of [[models]] must have a name of its own in its manifest, which events "
                f"carry. Received: `{name}` {names.count(name)} times. Leave one out."
            )
