"""The settings of `kws listen`: kws.toml, overridden by the options of the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from kws.config import Config, DecisionSettings, ListenerSettings, load_config
from kws.errors import ConfigError

__all__ = ["listen_settings"]


def listen_settings(
    path: Path | None,
    *,
    models: Sequence[str] = (),
    source: str | None = None,
    device: str | None = None,
    threshold: float | None = None,
    false_alarms_per_hour: float | None = None,
    no_vad: bool = False,
    chunk_ms: int | None = None,
) -> Config:
    """Read kws.toml and override what is given.

    Parameters
    ----------
    path : Path or None
        The kws.toml; None stands for the defaults.
    models : sequence of str
        Names or files; several become `[[models]]`.
    source, device, chunk_ms
        Override `[source]`.
    threshold, false_alarms_per_hour
        Override all thresholds in `[decision]`.
    no_vad : bool
        Run the models on silence too.

    Raises
    ------
    ConfigError
        If the file cannot be read, or lists several sources.
    """
    config = load_config(path) if path else Config()
    if config.sources:
        raise ConfigError(
            f"`kws listen` takes one [source] from kws.toml. Received: [[sources]] in {path}. "
            f"Write [source], or run `kws daemon --config {path}`."
        )
    n_threads = config.model.n_threads
    named = [ListenerSettings(name=name, n_threads=n_threads) for name in models]
    listed = [
        replace(
            one,
            decision=one.decision and _decision(one.decision, threshold, false_alarms_per_hour),
        )
        for one in config.models
    ]
    return replace(
        config,
        models=named or listed,
        source=_override(config.source, input=source, device=device, chunk_ms=chunk_ms),
        gate=_override(config.gate, enabled=False if no_vad else None),
        decision=_decision(config.decision, threshold, false_alarms_per_hour),
    )


def _override(table: Any, **given: Any) -> Any:
    return replace(table, **{key: value for key, value in given.items() if value is not None})


def _decision(
    decision: DecisionSettings, threshold: float | None, false_alarms_per_hour: float | None
) -> DecisionSettings:
    if threshold is None and false_alarms_per_hour is None:
        return decision
    return replace(
        decision,
        threshold=threshold,
        thresholds={},
        false_alarms_per_hour=false_alarms_per_hour,
    )
