"""Calibration to a room: thresholds and gain from minutes of audio without the keywords.

The model runs on all of it, without the gate. A threshold must lie above the highest smoothed
posterior, so that the room causes no false alarm.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from kws.audio import SAMPLE_RATE_HZ
from kws.commands.record import loudest_dbfs
from kws.config import DecisionSettings, GateSettings
from kws.errors import AudioError, ConfigError
from kws.events import Detection, NearMiss
from kws.model import Model
from kws.sources import Source
from kws.spotter import Spotter

__all__ = ["Room", "fragment", "measure_room"]

_LEAST_S = 10.0
_MARGIN = 0.05
_SPEECH_DBFS = -26.0
_MAX_GAIN_DB = 30.0
_MAX_THRESHOLD = 0.99
_SILENCE_DBFS, _QUIET_DBFS = -100.0, -70.0


class Room(NamedTuple):
    """The measurement of a room, and the settings that follow from it."""

    seconds: float
    floor_dbfs: float
    """Median of the levels of the seconds."""
    loudest_dbfs: float
    """99th percentile of the levels of the seconds."""
    scores: dict[str, float]
    """Highest smoothed posterior of each keyword."""
    thresholds: dict[str, float]
    gain_db: float
    """Gain that brings the loud seconds to the level of training data."""


def measure_room(
    source: Source,
    model: Model,
    *,
    seconds: float,
    show: Callable[[float], None] = lambda measured_s: None,
) -> Room:
    """Run a model on a source for some time, or until the source ends.

    Parameters
    ----------
    source : Source
    model : Model
    seconds : float
    show : callable
        Takes the seconds measured so far, after each chunk.

    Raises
    ------
    ConfigError
        If the model detects sequences of words.
    AudioError
        If there are less than ten seconds of audio.
    """
    manifest = model.manifest
    if manifest.decision.kind != "words":
        raise ConfigError(
            f"A room is measured with a model of words. Received: `{manifest.name}`, of sequences. "
            f"Set its `threshold` in kws.toml by hand."
        )
    levels_dbfs, scores, measured_s = _measure(source, model, seconds=seconds, show=show)
    if measured_s < _LEAST_S:
        raise AudioError(
            f"A room must be measured for at least {_LEAST_S:g} s. Received: {measured_s:.1f} s. "
            f"Give a longer recording."
        )
    loudest_second_dbfs = float(np.percentile(levels_dbfs, 99))
    return Room(
        seconds=round(measured_s, 1),
        floor_dbfs=round(float(np.median(levels_dbfs)), 1),
        loudest_dbfs=round(loudest_second_dbfs, 1),
        scores=scores,
        thresholds=_thresholds(scores, default=manifest.decision.threshold),
        gain_db=round(_gain_db(loudest_second_dbfs), 1),
    )


def fragment(room: Room, *, model: str) -> str:
    """Return the lines for kws.toml, with the measurement in comments."""
    upper = -math.log(0.05) / (room.seconds / 3600)  # Poisson: 95 % bound after none was counted
    lines = [
        f"# {room.seconds:g} s of this room: median {room.floor_dbfs:g} dBFS, loud seconds "
        f"{room.loudest_dbfs:g} dBFS.",
        f"# No false alarm there at these thresholds: with 95 % confidence fewer than {upper:.1f} "
        f"an hour.",
        "[model]",
        f"name = {_quoted(model)}",
        "",
        "[source]",
        f"gain_db = {room.gain_db:g}",
        "",
        "[decision.thresholds]",
        *(f"{_quoted(word)} = {value:g}" for word, value in room.thresholds.items()),
    ]
    return "\n".join(lines) + "\n"


def _measure(
    source: Source, model: Model, *, seconds: float, show: Callable[[float], None]
) -> tuple[list[float], dict[str, float], float]:
    """Return the level of each second, the highest score of each keyword, and the length [s]."""
    # Only a posterior of 1 is a detection; all else is one rise over 0 and its peak a near miss.
    spotter = Spotter(
        model,
        gate=GateSettings(enabled=False),
        decision=DecisionSettings(threshold=1.0),
        near_miss_score=0.0,
    )
    levels_dbfs: list[float] = []
    second = np.zeros(0, np.int16)
    events: list[Detection | NearMiss] = []
    n_samples = 0
    for chunk in source:
        events += spotter.process(chunk)
        second = np.concatenate((second, chunk))
        if len(second) >= SAMPLE_RATE_HZ:
            levels_dbfs.append(max(loudest_dbfs(second), _SILENCE_DBFS))
            second = second[:0]
        n_samples += len(chunk)
        show(n_samples / SAMPLE_RATE_HZ)
        if n_samples >= seconds * SAMPLE_RATE_HZ:
            break
    events += [*spotter.flush(), *spotter.take_near_misses()]
    scores = dict.fromkeys(model.manifest.keywords, 0.0)
    for event in events:
        scores[event.keyword] = max(scores[event.keyword], event.score)
    return levels_dbfs, scores, n_samples / SAMPLE_RATE_HZ


def _thresholds(scores: Mapping[str, float], *, default: float) -> dict[str, float]:
    """Return thresholds a margin above the scores, at least the default of the model."""
    return {
        word: round(min(_MAX_THRESHOLD, max(default, score + _MARGIN)), 2)
        for word, score in scores.items()
    }


def _gain_db(loudest_second_dbfs: float) -> float:
    if loudest_second_dbfs <= _QUIET_DBFS:  # a muted microphone
        return 0.0
    return float(np.clip(_SPEECH_DBFS - loudest_second_dbfs, 0, _MAX_GAIN_DB))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
