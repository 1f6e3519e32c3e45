"""The root table of kws.toml: all others, and what stands in for those left out."""

import msgspec
from msgspec.structs import replace

from kws.config.actions import DaemonSettings, HookSettings, RecordingSettings
from kws.config.pipeline import (
    DecisionSettings,
    GateSettings,
    ListenerSettings,
    ModelSettings,
    SourceSettings,
)
from kws.config.services import MqttSettings, UiSettings, WyomingSettings
from kws.config.table import Table

__all__ = ["Config"]


class Config(Table, frozen=True, kw_only=True):
    """All tables of kws.toml."""

    model: ModelSettings = ModelSettings()
    models: list[ListenerSettings] = []
    source: SourceSettings = SourceSettings()
    sources: list[SourceSettings] = []
    gate: GateSettings = GateSettings()
    decision: DecisionSettings = msgspec.field(default_factory=DecisionSettings)
    hooks: list[HookSettings] = []
    recording: RecordingSettings = RecordingSettings()
    daemon: DaemonSettings = DaemonSettings()
    wyoming: WyomingSettings = msgspec.field(default_factory=WyomingSettings)
    mqtt: MqttSettings = MqttSettings()
    ui: UiSettings = msgspec.field(default_factory=UiSettings)

    @property
    def every_source(self) -> list[SourceSettings]:
        """`[[sources]]`, or else the one `[source]`; commands without a name are numbered."""
        sources, n = [], 0
        for one in self.sources or [self.source]:
            n += (is_unnamed := bool(one.command and not one.name))
            sources.append(replace(one, name=f"command {n}") if is_unnamed else one)
        return sources

    @property
    def every_model(self) -> list[ListenerSettings]:
        """`[[models]]`, or else the one `[model]`, each with its decision settings."""
        models = self.models or [
            ListenerSettings(name=self.model.name, n_threads=self.model.n_threads)
        ]
        return [replace(one, decision=one.decision or self.decision) for one in models]
