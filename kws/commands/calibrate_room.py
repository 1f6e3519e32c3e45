"""Calibration to the user's own room: thresholds and gain, from minutes without the word.

The model hears the room without the gate; the highest average of its posteriors says how high a
threshold must be for the room to set nothing off.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kws.audio import SAMPLE_RATE_HZ
from kws.commands.record import loudest_dbfs
from kws.config import DecisionSettings, GateSettings
from kws.errors import AudioError, ConfigError
from kws.model import Model
from kws.sources import Source
from kws.spotter import Spotter

__all__ = ["Room", "fragment", "measure_room"]

_LEAST_S = 10.0
_MARGIN = 0.05
_SPEECH_DBFS = -26.0
_GAIN_DB = 30.0


class Room(NamedTuple):
    """What was heard in a room."""

    seconds: float
    floor_dbfs: float
    """Level of the median second."""
    loudest_dbfs: float
    """Level of the loudest second in a hundred."""
    scores: dict[str, float]
    """Of each keyword, the highest smoothed posterior."""
    thresholds: dict[str, float]
    gain_db: float
    """What brings the loud seconds to the level that models are trained at."""


def measure_room(
    source: Source,
    model: Model,
    *,
    seconds: float,
    show: Callable[[float], None] = lambda heard_s: None,
) -> Room:
    """Listen for some time, or until the source ends.

    Raises
    ------
    ConfigError
        If the model spells out sequences of words.
    AudioError
        If there are less than ten seconds of audio.
    """
    manifest = model.manifest
    if manifest.decision.kind != "words":
        raise ConfigError(
            f"A room is measured with a model of words. Received: `{manifest.name}`, of sequences. "
            f"Set its `threshold` in kws.toml by hand."
        )
    # All is one rise over 0, whose highest point is a near miss; only a posterior of 1 would fire.
    spotter = Spotter(
        model,
        gate=GateSettings(enabled=False),
        decision=DecisionSettings(threshold=1.0),
        near_miss_score=0.0,
    )
    levels: list[float] = []
    second = np.zeros(0, np.int16)
    n_samples = 0
    for chunk in source:
        spotter.process(chunk)
        second = np.concatenate((second, chunk))
        if len(second) >= SAMPLE_RATE_HZ:
            levels.append(loudest_dbfs(second))
            second = second[:0]
        n_samples += len(chunk)
        show(n_samples / SAMPLE_RATE_HZ)
        if n_samples >= seconds * SAMPLE_RATE_HZ:
            break
    spotter.flush()
    scores = dict.fromkeys(manifest.keywords, 0.0)
    for one in (*spotter.take_near_misses(), *spotter.take_peaks()):
        scores[one.keyword] = max(scores[one.keyword], one.score)
    heard_s = n_samples / SAMPLE_RATE_HZ
    if heard_s < _LEAST_S:
        raise AudioError(
            f"A room must be heard for at least {_LEAST_S:g} s. Received: {heard_s:.1f} s. "
            f"Give a longer recording."
        )
    sound = [max(level, -100.0) for level in levels]
    loudest = float(np.percentile(sound, 99))
    default = manifest.decision.threshold
    thresholds = {
        word: round(min(0.99, max(default, score + _MARGIN)), 2) for word, score in scores.items()
    }
    gain = float(np.clip(_SPEECH_DBFS - loudest, 0, _GAIN_DB)) if loudest > -70 else 0.0
    return Room(
        round(heard_s, 1),
        round(float(np.median(sound)), 1),
        round(loudest, 1),
        scores,
        thresholds,
        round(gain, 1),
    )


def fragment(room: Room, *, model: str) -> str:
    """Return the lines for kws.toml, with what they rest on in comments."""
    upper = -math.log(0.05) / (room.seconds / 3600)  # Poisson: 95 % bound after none was heard
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


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
