"""Calibration to a room: thresholds and gain from minutes of audio without the keywords.

The model runs on all of it, without the gate. A threshold must lie above the highest smoothed
posterior, so that the room causes no false alarm. Audio in which a keyword is said would make the
model deaf to it, and is refused: where a posterior rises as only the word makes it rise, or where
more rises come than the model's calibration table has false alarms.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from kws.audio import SAMPLE_RATE_HZ
from kws.commands.record import loudest_dbfs
from kws.config import DecisionSettings, GateSettings
from kws.errors import AudioError, ConfigError
from kws.events import Detection, NearMiss
from kws.manifest import Manifest
from kws.model import Model
from kws.sources import Source
from kws.sources.silence import CHECK_MUTED, is_digital_silence
from kws.spotter import Spotter

__all__ = ["Room", "fragment", "measure_room"]

_LEAST_S = 10.0
_MARGIN = 0.05
_SPEECH_DBFS = -26.0
_MAX_GAIN_DB = 30.0
_MAX_THRESHOLD = 0.99
_LEAST_RISE = 0.02
_SAID_SCORE = _MAX_THRESHOLD - _MARGIN
_SAID_P = 0.01
"""Rises that are less probable than this as false alarms are taken for words."""
_N_TOLD = 5
_SILENCE_DBFS, _QUIET_DBFS = -100.0, -70.0


_Rise: TypeAlias = Detection | NearMiss


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
        If there are less than ten seconds of audio, most of it is digital silence, or keywords are
        said in it.
    """
    manifest = model.manifest
    if manifest.decision.kind != "words":
        raise ConfigError(
            f"A room is measured with a model of words. Received: `{manifest.name}`, of sequences. "
            f"Set its `threshold` in kws.toml by hand."
        )
    levels_dbfs, rises, measured_s = _measure(source, model, seconds=seconds, show=show)
    if measured_s < _LEAST_S:
        raise AudioError(
            f"A room must be measured for at least {_LEAST_S:g} s. Received: {measured_s:.1f} s. "
            f"Give a longer recording."
        )
    if said := _said(rises, manifest, hours=measured_s / 3600):
        raise _words_said(said, name=source.name)
    scores = dict.fromkeys(manifest.keywords, 0.0)
    for rise in rises:
        scores[rise.keyword] = max(scores[rise.keyword], rise.score)
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
) -> tuple[list[float], list[_Rise], float]:
    """Return the level of each second, the rises of keywords by time, and the length [s]."""
    # Only a posterior of 1 is a detection; all other rises are near misses, with their peak.
    spotter = Spotter(
        model,
        gate=GateSettings(enabled=False),
        decision=DecisionSettings(threshold=1.0),
        near_miss_score=_LEAST_RISE,
    )
    levels_dbfs: list[float] = []
    second = np.zeros(0, np.int16)
    rises: list[_Rise] = []
    n_samples = n_silent = 0
    for chunk in source:
        rises += [*spotter.process(chunk), *spotter.take_near_misses()]
        second = np.concatenate((second, chunk))
        if len(second) >= SAMPLE_RATE_HZ:
            levels_dbfs.append(max(loudest_dbfs(second), _SILENCE_DBFS))
            n_silent += is_digital_silence(second)
            # A muted microphone is not waited for; a noise gate may be silent for a while.
            if n_silent == len(levels_dbfs) == _LEAST_S:
                break
            second = second[:0]
        n_samples += len(chunk)
        show(n_samples / SAMPLE_RATE_HZ)
        if n_samples >= seconds * SAMPLE_RATE_HZ:
            break
    if n_samples >= _LEAST_S * SAMPLE_RATE_HZ and n_silent > len(levels_dbfs) / 2:
        raise AudioError(
            f"A room must be measured with sound. Received: {n_silent} of {len(levels_dbfs)} s of "
            f"digital silence from {source.name}. {CHECK_MUTED}; or give another recording."
        )
    rises += [*spotter.flush(), *spotter.take_near_misses()]
    return levels_dbfs, sorted(rises, key=lambda one: one.end_s), n_samples / SAMPLE_RATE_HZ


def _said(rises: Sequence[_Rise], manifest: Manifest, *, hours: float) -> list[_Rise]:
    """Return the rises that are likely words: too high for a threshold, or too many together."""
    said = [one for one in rises if one.score > _SAID_SCORE]
    for point in manifest.calibration or ():
        over = [one for one in rises if one.score >= point.thresholds.get(one.keyword, 1.0)]
        if _p_so_many(len(over), expected=point.false_alarms_per_hour * hours) < _SAID_P:
            said += [one for one in over if one not in said]
    return sorted(said, key=lambda one: one.end_s)


def _p_so_many(n: int, *, expected: float) -> float:
    """Return the probability of `n` events or more, by Poisson."""
    fewer = sum(expected**k / math.factorial(k) for k in range(min(n, 100)))
    return 1.0 - math.exp(-expected) * fewer


def _words_said(said: Sequence[_Rise], *, name: str) -> AudioError:
    told = [f"`{one.keyword}` at {one.end_s:.1f} s ({one.score:.2f})" for one in said[:_N_TOLD]]
    more = f" and {len(said) - _N_TOLD} more" if len(said) > _N_TOLD else ""
    return AudioError(
        f"A room must be measured while nobody says a keyword. Received: {', '.join(told)}{more} "
        f"in {name}. Measure again without these words, or give another recording; if nobody said "
        f"them, set `[decision] threshold` in kws.toml by hand."
    )


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
