"""The calibration table of a model file: false alarms per hour to a threshold for each keyword.

It is measured on streams for tuning, never on those that figures are stated on: keyword clips of
the validation split, between sentences that training left out.
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
from kws.manifest import CalibrationBasis, CalibrationPoint, Manifest, read_manifest, repack
from kws_train.atomic import replacing
from kws_train.data.align import read_alignment
from kws_train.data.audio_files import audio_matching, duration_s
from kws_train.data.corpus import unaligned_utterances
from kws_train.data.librispeech import quiet_utterances, speaker_halves
from kws_train.data.splits import is_validation
from kws_train.evaluate.build_stream import SnrRule, Stream, build_stream, keyword_clips
from kws_train.evaluate.det import Curve, count
from kws_train.evaluate.stream import Heard
from kws_train.recipe import DataRecipe, SpeechCorpus

__all__ = ["RATES", "calibrate", "tail_threshold", "tuning_streams", "write_manifest"]

RATES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""False alarms per hour that a table may hold."""

Array: TypeAlias = npt.NDArray[np.floating[Any]]

_TAIL, _TAIL_MEAN = 16.0, 0.4
_SEEN, _SEEN_HOURS = 4.0, 0.4
_LOWEST, _HIGHEST = 0.3, 0.995
_N_LEVELS = 128  # thresholds to choose from
_FROM = 0.7  # low enough that every keyword is heard falsely in some hours
_USUAL_COUNT, _USUAL_EXCESS = 3.0, 10.0  # false alarms as of all keywords, added to a keyword's own
_PRICES, _N_PRICES = (20.0, 0.002), 180  # of `_false_alarms`, in shares of all words


def tuning_streams(
    recipe: DataRecipe,
    root: Path,
    *,
    background: Sequence[Path] = (),
    snr_db: Sequence[float] = (float("inf"), 10.0),
    snr_rule: SnrRule = "mean",
    minutes: float | None = None,
    seed: int = 1,
) -> list[Stream]:
    """Build streams of what a recipe's training leaves out, its evaluation half excepted.

    Parameters
    ----------
    recipe : DataRecipe
        What was trained on.
    root : Path
        The folder that its paths are relative to.
    background : sequence of Path
        Further folders of speech in LibriSpeech's layout, of which training heard nothing.
    snr_db : sequence of float
        One stream each; infinity is a clean one. A ratio that comes again is another draw of noise.
    snr_rule : "mean" or "peak"
        As `kws_train.evaluate.build_stream.build_stream` takes it.
    minutes : float, optional
        Greatest length of each; by default every clip comes once, and every utterance as nearly as
        they can be shared out.
    seed : int

    Raises
    ------
    ConfigError
        If training left nothing out.
    """
    homophones = [word for words in recipe.homophones.values() for word in words]
    without = [*recipe.keywords, *homophones]
    clips = [
        clip
        for words in recipe.words
        if words.split != "train" and not words.unknown
        for clip in keyword_clips(
            root / words.path,
            recipe.keywords,
            split="validation" if words.split == "hash" else "all",
        )
    ]
    utterances = [
        path for corpus in recipe.speech for path in _left_out(corpus, root, without=without)
    ]
    utterances += [path for more in background for path in quiet_utterances(more, without=without)]
    noise = [path for name in recipe.noise for path in audio_matching(root, name)]
    return [
        build_stream(
            clips,
            utterances,
            noise,
            snr_db=one,
            snr_rule=snr_rule,
            seed=seed + list(snr_db[:i]).count(one),
            most_s=None if minutes is None else 60 * minutes,
            n_background=max(1, len(utterances) // max(1, len(clips))),
        )
        for i, one in enumerate(snr_db)
    ]


def calibrate(manifest: Manifest, heard: Heard, *, beyond: bool = False) -> Manifest:
    """Return the manifest with a table measured on streams for tuning, with the gate.

    A rate is in the table where the streams are long enough to see one such false alarm, and where
    its thresholds let any keyword through. Each keyword has a threshold of its own: what fires more
    often, or more surely, where nobody says it must be surer.

    Parameters
    ----------
    manifest : Manifest
    heard : Heard
        The streams for tuning.
    beyond : bool
        True: where the streams are too short for a rate, go on from what they show: scores of false
        alarms thin out exponentially over their log odds (peaks over threshold, Pickands 1975). A
        rate is then kept to in each condition, noise or none, not on the mean of them.

    Raises
    ------
    ModelError
        If no rate is.
    """
    hours = sum(stream.duration_s for stream in heard.streams) / 3600
    said = Counter(word.word for stream in heard.streams for word in stream.words)
    n_words = sum(said[keyword] for keyword in manifest.keywords)
    if beyond:
        found = [
            (rate, dict.fromkeys(manifest.keywords, round(threshold, 4)))
            for rate, threshold in _beyond(heard.by_condition(), streams=heard.streams)
        ]
    else:
        found = list(_within(heard, hours=hours, n_words=n_words))
    points = [
        CalibrationPoint(false_alarms_per_hour=rate, thresholds=thresholds)
        for rate, thresholds in found
    ]
    if not points:
        raise ModelError(
            f"A model must hear keywords at {RATES[-1]:g} false alarms an hour to be calibrated. "
            f"Received: {manifest.name}, which hears none in {hours:.2g} hours. Train it "
            f"longer, or listen for longer with --minutes."
        )
    basis = CalibrationBasis(
        hours=round(hours, 2),
        speech_hours=round(_speech_hours(heard.streams), 2),
        words=n_words,
        conditions=tuple(dict.fromkeys(stream.name for stream in heard.streams)),
    )
    return msgspec.structs.replace(manifest, calibration=tuple(points), calibrated_on=basis)


def write_manifest(path: Path, manifest: Manifest, out: Path) -> None:
    """Write the model of `path` with another manifest to `out`, which may be the same file.

    Raises
    ------
    ConfigError
        If it cannot be written; `out` is then as it was.
    """
    content = repack(read_manifest(path)[1], manifest)
    try:
        with replacing(out) as begun:
            begun.write_bytes(content)
            begun.chmod(path.stat().st_mode)
    except OSError as error:
        raise ConfigError(
            f"A model must go to a file that can be written. Received: {out} ({error.strerror}). "
            f"Give another with --out."
        ) from error


def _within(
    heard: Heard, *, hours: float, n_words: int
) -> Iterator[tuple[float, dict[str, float]]]:
    """Give the rates that the streams can tell, and the thresholds that keep to them.

    For a price of a false alarm, each keyword's threshold is the one at which misses and false
    alarms cost least: false alarms as `_false_alarms` has them, misses as of all keywords together,
    since streams for tuning have too few words of some. A row has the lowest price from which on no
    more false alarms were counted than asked for.
    """
    levels = expit(np.linspace(logit(_LOWEST), logit(_HIGHEST), _N_LEVELS))
    n_missed = [count(heard.gated, heard.streams, float(level))[1] for level in levels]
    misses = np.array(n_missed) / max(1, n_words)
    false = _false_alarms(heard, levels)
    rows = [
        {name: round(float(levels[np.argmin(misses + price * n)]), 4) for name, n in false.items()}
        for price in np.geomspace(*_PRICES, _N_PRICES)
    ]
    counts = [count(heard.gated, heard.streams, row) for row in rows]
    for rate in RATES:
        over = (i for i, (n_false, _) in enumerate(counts) if n_false > rate * hours)
        n_kept = next(over, len(counts))
        if rate * hours >= 1 and n_kept and counts[n_kept - 1][1] < n_words:
            yield rate, rows[n_kept - 1]


def _false_alarms(heard: Heard, levels: Array) -> dict[str, Array]:
    """Fit how many false alarms a keyword makes by itself at each level, 1 being usual at `_FROM`.

    They thin out exponentially over the log odds of their scores. Numbers and mean excesses of few
    are drawn to the mean over all keywords.
    """
    odds = logit(levels[levels >= _FROM])
    silent = dict.fromkeys(heard.manifest.keywords, np.inf)
    counts = np.array(
        [
            [
                count(heard.gated, heard.streams, silent | {keyword: float(level)})[0]
                for level in levels[levels >= _FROM]
            ]
            for keyword in silent
        ]
    )
    counts = np.minimum.accumulate(counts, axis=1)
    first, excess = counts[:, 0], counts[:, 1:] @ np.diff(odds)
    mean = (excess.sum() + _TAIL * _TAIL_MEAN) / (first.sum() + _TAIL)
    ns = (first + _USUAL_COUNT) / (first.mean() + _USUAL_COUNT)
    excesses = (excess + _USUAL_EXCESS * mean) / (first + _USUAL_EXCESS)
    return {
        keyword: n * np.exp((odds[0] - logit(levels)) / own)
        for keyword, n, own in zip(silent, ns, excesses, strict=True)
    }


def _beyond(
    curves: Mapping[str, Curve], *, streams: Sequence[Stream]
) -> Iterator[tuple[float, float]]:
    """Give every rate, and the threshold that keeps to it in each condition."""
    n_draws = Counter(stream.name for stream in streams)
    for rate in RATES:
        estimates = (
            tail_threshold(curve, rate, n_draws=n_draws[name]) for name, curve in curves.items()
        )
        yield rate, max(estimates)


def tail_threshold(curve: Curve, rate: float, *, n_draws: int = 1) -> float:
    """Estimate the threshold of a rate from the scores of all false alarms of a curve.

    Their log odds above the lowest threshold are taken for exponential. Few false alarms are kept
    from saying too much by others that are taken for seen: `_SEEN` above the lowest threshold in
    `_SEEN_HOURS`, and `_TAIL` of a mean excess of `_TAIL_MEAN`. That is about what models of one
    phrase, with their logits divided by three, show on speech that is new to them.

    Parameters
    ----------
    curve : Curve
    rate : float
        False alarms per hour.
    n_draws : int
        How often the curve's streams have the same speech, each time in other noise: what fires in
        all of them is still one thing said, not so many.
    """
    odds = np.log(curve.thresholds / np.maximum(1 - curve.thresholds, 1e-6))
    # A word that is heard twice at a high threshold, once at a low one, says nothing of speech.
    counts = np.minimum.accumulate(curve.n_false) / n_draws
    excess = float(np.sum(counts[1:] * np.diff(odds)))
    mean = (excess + _TAIL * _TAIL_MEAN) / (counts[0] + _TAIL)
    per_hour = (counts[0] + _SEEN) / (curve.hours / n_draws + _SEEN_HOURS)
    above = mean * np.log(per_hour / rate)
    return float(np.clip(1 / (1 + np.exp(-odds[0] - above)), curve.thresholds[0], _HIGHEST))


def _left_out(corpus: SpeechCorpus, root: Path, *, without: Sequence[str]) -> list[Path]:
    """Return the utterances of training speakers that training does not hear, keywords apart."""
    folder = root / corpus.path
    if corpus.alignment is None:
        return [
            path
            for path in unaligned_utterances(corpus, root, without=without)
            if is_validation(path.stem)
        ]
    speakers = None if corpus.speakers == "all" else speaker_halves(folder)[0]
    aligned = read_alignment(root / corpus.alignment)
    return [
        path
        for path in quiet_utterances(folder, without=without, speakers=speakers)
        if path.stem not in aligned or is_validation(path.stem)
    ]


def _speech_hours(streams: Sequence[Stream]) -> float:
    """Return the length of the different utterances in the background."""
    paths = {part.path for stream in streams for part in stream.background}
    return sum(map(duration_s, paths)) / 3600
