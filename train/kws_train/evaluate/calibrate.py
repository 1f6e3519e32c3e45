"""The calibration table of a model file: thresholds of each keyword per false-alarm rate.

Measured on tuning streams (`kws_train.evaluate.tuning_streams`), never on the streams of the final
figures.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from kws.errors import ConfigError, ModelError
from kws.manifest import (
    CalibrationBasis,
    CalibrationPoint,
    Manifest,
    read_manifest,
    repack,
    sidecar,
)
from kws_train.atomic import replacing
from kws_train.data.audio_files import duration_s
from kws_train.evaluate.build_stream import Stream
from kws_train.evaluate.det import DetCurve, count_errors, false_alarms_within
from kws_train.evaluate.stream_results import StreamResults

__all__ = ["RATES", "calibrate_manifest", "tail_threshold", "write_manifest"]

RATES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""False alarms per hour of the rows that a table may have."""

Array: TypeAlias = npt.NDArray[np.floating[Any]]

# Prior of `tail_threshold`, as pseudo-observations: about what models of one phrase, with their
# logits divided by three, show on unseen speech.
_PRIOR_N_TAIL, _PRIOR_TAIL_MEAN = 16.0, 0.4  # false alarms, and their mean excess in log odds
_PRIOR_N_FALSE, _PRIOR_HOURS = 4.0, 0.4  # false alarms above the lowest threshold, in so many hours
_LOWEST, _HIGHEST = 0.3, 0.995
_N_LEVELS = 128  # thresholds to choose from
_FIT_FROM = 0.7  # low enough that every keyword has false alarms within hours
# Pseudo-counts at the mean of all keywords, added to each keyword's false alarms and their excess.
_POOLED_COUNT, _POOLED_EXCESS = 3.0, 10.0
_PRICES, _N_PRICES = (20.0, 0.002), 180  # of one false alarm by `_false_alarms`, as a miss rate


def calibrate_manifest(
    manifest: Manifest,
    results: StreamResults,
    *,
    beyond: bool = False,
    n_tail: int | None = None,
) -> Manifest:
    """Return the manifest with a calibration table measured on tuning streams, with the gate.

    A rate has a row where the streams are long enough for one such false alarm to be expected, and
    where its thresholds detect any keyword. Each keyword has its own threshold: keywords with more
    false alarms, or false alarms of higher scores, have a higher one.

    Parameters
    ----------
    manifest : Manifest
    results : StreamResults
        Of the tuning streams.
    beyond : bool
        True: extrapolate rates that the streams are too short to measure, with an exponential fit
        to the tail of false-alarm scores over their log odds (peaks over threshold, Pickands 1975).
        A rate then holds in each condition, with noise and without, not on their mean.
    n_tail : int, optional
        False alarms of each condition that the fit is made to, those of the highest scores; by
        default all.

    Raises
    ------
    ModelError
        If the table would be empty.
    """
    hours = sum(stream.duration_s for stream in results.streams) / 3600
    said = Counter(word.word for stream in results.streams for word in stream.words)
    n_words = sum(said[keyword] for keyword in manifest.keywords)
    if beyond:
        found = [
            (rate, dict.fromkeys(manifest.keywords, round(threshold, 4)))
            for rate, threshold in _extrapolated(
                results.by_condition(), streams=results.streams, n_tail=n_tail
            )
        ]
    else:
        found = list(_measured(results, hours=hours, n_words=n_words))
    points = [
        CalibrationPoint(
            false_alarms_per_hour=rate,
            thresholds=thresholds,
            miss_rate=_miss_rate(results, thresholds, n_words=n_words),
        )
        for rate, thresholds in found
    ]
    if not points:
        raise ModelError(
            f"A model must detect keywords at {RATES[-1]:g} false alarms per hour to be "
            f"calibrated. Received: {manifest.name}, which detects none in {hours:.2g} hours. "
            f"Train it longer, or measure longer streams with --minutes."
        )
    basis = CalibrationBasis(
        hours=round(hours, 2),
        speech_hours=round(_speech_hours(results.streams), 2),
        words=n_words,
        conditions=tuple(dict.fromkeys(stream.name for stream in results.streams)),
    )
    return msgspec.structs.replace(manifest, calibration=tuple(points), calibrated_on=basis)


def _miss_rate(
    results: StreamResults, thresholds: Mapping[str, float], *, n_words: int
) -> float | None:
    """Return the share of words missed at thresholds, with the gate, on the mean of the streams."""
    if not n_words:
        return None
    return round(count_errors(results.gated, results.streams, dict(thresholds))[1] / n_words, 4)


def write_manifest(path: Path, manifest: Manifest, out: Path) -> None:
    """Write the model of `path` with another manifest to `out`, which may be the same file.

    Raises
    ------
    ConfigError
        If it cannot be written; an existing `out` is unchanged.
    """
    content = repack(read_manifest(path)[1], manifest)
    beside = sidecar(out)
    try:
        with replacing(out) as begun:
            begun.write_bytes(content)
            begun.chmod(path.stat().st_mode)
        if beside:  # it comes before the one inside
            beside.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    except OSError as error:
        raise ConfigError(
            f"A model must go to a file that can be written. Received: {out} ({error.strerror}). "
            f"Give another with --out."
        ) from error


def _measured(
    results: StreamResults, *, hours: float, n_words: int
) -> Iterator[tuple[float, dict[str, float]]]:
    """Yield the rates that the streams can measure, and the thresholds that meet them.

    For a price per false alarm, each keyword's threshold minimises the cost of misses and false
    alarms: false alarms by the fit of `_false_alarms`, misses by the rate of all keywords together,
    since tuning streams have too few words of some. A row uses the lowest price from which on no
    more false alarms were counted than its rate permits.
    """
    levels = expit(np.linspace(logit(_LOWEST), logit(_HIGHEST), _N_LEVELS))
    n_missed = [
        count_errors(results.gated, results.streams, float(level)).n_missed for level in levels
    ]
    misses = np.array(n_missed) / max(1, n_words)
    false = _false_alarms(results, levels)
    rows = [
        {name: round(float(levels[np.argmin(misses + price * n)]), 4) for name, n in false.items()}
        for price in np.geomspace(*_PRICES, _N_PRICES)
    ]
    counts = [count_errors(results.gated, results.streams, row) for row in rows]
    for rate in RATES:
        most = false_alarms_within(rate, hours=hours)
        n_kept = next((i for i, one in enumerate(counts) if one.n_false > most), len(counts))
        if most >= 1 and n_kept and counts[n_kept - 1].n_missed < n_words:
            yield rate, rows[n_kept - 1]


def _false_alarms(results: StreamResults, levels: Array) -> dict[str, Array]:
    """Fit each keyword's number of false alarms by threshold, relative to the mean at `_FIT_FROM`.

    An exponential fit over the log odds of their scores. Counts and mean excesses of keywords with
    few false alarms are shrunk towards the mean over all keywords.
    """
    odds = logit(levels[levels >= _FIT_FROM])
    silent = dict.fromkeys(results.manifest.keywords, np.inf)
    counts = np.array(
        [
            [
                count_errors(
                    results.gated, results.streams, silent | {keyword: float(level)}
                ).n_false
                for level in levels[levels >= _FIT_FROM]
            ]
            for keyword in silent
        ]
    )
    counts = np.minimum.accumulate(counts, axis=1)
    first, excess = counts[:, 0], counts[:, 1:] @ np.diff(odds)
    mean = (excess.sum() + _PRIOR_N_TAIL * _PRIOR_TAIL_MEAN) / (first.sum() + _PRIOR_N_TAIL)
    ns = (first + _POOLED_COUNT) / (first.mean() + _POOLED_COUNT)
    excesses = (excess + _POOLED_EXCESS * mean) / (first + _POOLED_EXCESS)
    return {
        keyword: n * np.exp((odds[0] - logit(levels)) / own)
        for keyword, n, own in zip(silent, ns, excesses, strict=True)
    }


def _extrapolated(
    curves: Mapping[str, DetCurve], *, streams: Sequence[Stream], n_tail: int | None
) -> Iterator[tuple[float, float]]:
    """Yield every rate, and the threshold that meets it in each condition."""
    n_draws = Counter(stream.name for stream in streams)
    for rate in RATES:
        estimates = (
            tail_threshold(curve, rate, n_draws=n_draws[name], n_tail=n_tail)
            for name, curve in curves.items()
        )
        yield rate, max(estimates)


def tail_threshold(
    curve: DetCurve, rate: float, *, n_draws: int = 1, n_tail: int | None = None
) -> float:
    """Estimate the threshold of a rate from the scores of all false alarms of a curve.

    An exponential fit to the log odds of their scores above the lowest threshold, regularised by
    pseudo-observations: `_PRIOR_N_FALSE` false alarms above the lowest threshold in `_PRIOR_HOURS`,
    and `_PRIOR_N_TAIL` with a mean excess of `_PRIOR_TAIL_MEAN`.

    Parameters
    ----------
    curve : DetCurve
    rate : float
        False alarms per hour.
    n_draws : int
        How many times the curve's streams repeat the same speech in different noise: a false alarm
        in each repetition is one independent observation.
    n_tail : int, optional
        Independent false alarms that are fitted, those of the highest scores; by default all.
        Averages of posteriors saturate: their tail falls faster than what lies below it.
    """
    # A word that is detected twice at a high threshold and once at a low one is no false alarm.
    counts = np.minimum.accumulate(curve.n_false) / n_draws
    first = 0 if n_tail is None else int(np.argmax(counts <= n_tail))
    thresholds, counts = curve.thresholds[first:], counts[first:]
    odds = np.log(thresholds / np.maximum(1 - thresholds, 1e-6))
    excess = float(np.sum(counts[1:] * np.diff(odds)))
    mean = (excess + _PRIOR_N_TAIL * _PRIOR_TAIL_MEAN) / (counts[0] + _PRIOR_N_TAIL)
    per_hour = (counts[0] + _PRIOR_N_FALSE) / (curve.hours / n_draws + _PRIOR_HOURS)
    above = mean * np.log(per_hour / rate)
    return float(np.clip(1 / (1 + np.exp(-odds[0] - above)), thresholds[0], _HIGHEST))


def _speech_hours(streams: Sequence[Stream]) -> float:
    """Return the duration of the distinct background utterances."""
    paths = {one.path for stream in streams for one in stream.background}
    return sum(map(duration_s, paths)) / 3600
