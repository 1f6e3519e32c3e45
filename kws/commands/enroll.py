"""Enrolment: a model of one speaker's word from 3 recordings or more, without training.

Recordings become vectors of the bundled speech embedding; `kws.word_filter` makes a filter of them,
which goes into the network of a small model file: a head on the speech embedding as any other.
"""

import contextlib
import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kws.commands.enrolment_data import N_VECTORS, fill_network, read_enrolment_data
from kws.commands.enrolment_takes import AFTER_MS, Take, read_takes
from kws.commands.speaker_data import read_speaker_statistics, speaker_check
from kws.errors import ConfigError, ModelError
from kws.manifest import (
    CalibrationBasis,
    CalibrationPoint,
    DecisionDefaults,
    Manifest,
    SpeakerCheck,
    StateTensor,
    pack,
    read_manifest,
)
from kws.model import embedding_reference, model_path, open_model
from kws.names import nfc
from kws.word_filter import (
    Speech,
    WordFilter,
    WordFilters,
    rate_levels,
    scores_of,
    speech_statistics,
)

__all__ = ["FEWEST", "Enrolment", "FittedWord", "enroll", "fit_word"]

FEWEST = 3
_VECTORS_PER_S = 12
_RATES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_BUDGET_PER_HOUR = 0.5
_REFRACTORY_MS, _DELAY_MS = 1000, 300
_MARGIN = 0.2  # in standard deviations: there are more voices than those of the background
_SLOPE = 0.3  # log odds to a standard deviation: the surer of two voices can be told
_DETECTED = 0.5


class Enrolment(NamedTuple):
    """The outcome of an enrolment."""

    scores: dict[Path, float]
    """For each usable recording, its highest posterior under a model of the others."""
    left_out: tuple[Path, ...]
    """Recordings that the others do not detect and the model is not made of."""
    refused: dict[Path, str]
    """Recordings that cannot be used, and the reason."""
    speaker_scores: dict[Path, float]
    """With a check of the speaker: the score of each recording under one made of the others."""


class FittedWord(NamedTuple):
    """A filter and the scores that background speech exceeds at several rates."""

    filter: WordFilter
    levels: dict[float, float]
    """By false alarms per hour."""
    hours: float
    """Of background speech."""
    n_recordings: int
    word_ms: float = 0.0
    speaker: SpeakerCheck | None = None

    @property
    def bias(self) -> float:
        """Log odds of vectors of 0; the posterior is 1/2 at half a false alarm per hour."""
        return _SLOPE * (self.filter.bias - self.levels[_BUDGET_PER_HOUR])

    def posterior(self, score: float) -> float:
        """Return the posterior of a score."""
        odds = _SLOPE * (score - self.levels[_BUDGET_PER_HOUR])
        return float(1 / (1 + np.exp(-np.clip(odds, -50, 50))))


def enroll(
    word: str,
    recordings: Sequence[Path],
    out: Path,
    *,
    name: str | None = None,
    only_me: bool = False,
) -> Enrolment:
    """Write a model that detects `word` spoken by one person.

    Parameters
    ----------
    word : str
    recordings : sequence of Path
        Three or more, each of the word alone. Those that the others do not detect are left out,
        while three remain.
    out : Path
        The .tflite to write.
    name : str, optional
        Of the model in events; by default the name of `out` without its ending.
    only_me : bool
        Detect the word by the speaker of the recordings only: others that say it are near misses.

    Raises
    ------
    ConfigError
        If the word is no printable text, or fewer than three recordings can be used.
    ModelError
        If files that come with kws are damaged or do not fit together.
    """
    _check_count(len(recordings), "")
    word = nfc(word)
    _check_word(word)
    fitted, enrolment = fit_word(word, recordings, only_me=only_me)
    manifest = _manifest(word, fitted, name=name or out.stem)
    network = fill_network(
        read_enrolment_data().network, _SLOPE * fitted.filter.weights, fitted.bias
    )
    _write(out, pack(network, manifest))
    return enrolment


def fit_word(
    word: str, recordings: Sequence[Path], *, only_me: bool = False
) -> tuple[FittedWord, Enrolment]:
    """Do as `enroll`, but return the filter in place of a file."""
    data = read_enrolment_data()
    if data.embedding_sha256 != embedding_reference().sha256:
        raise ModelError(
            f"The background speech of enrolment must be of the speech embedding that comes with "
            f"kws, {embedding_reference().sha256[:12]}.... Received: that of "
            f"{data.embedding_sha256[:12]}.... Install kws again."
        )
    embedding = open_model(embedding_reference().name)
    takes, refused = read_takes(recordings, embedding, is_phrase=len(word.split()) > 1)
    if refused:
        first, reason = next(iter(refused.items()))
        _check_count(len(takes), f" usable of {len(recordings)}: {first} is {reason}")
    word_ms = float(np.median([take.word_ms for take in takes.values()]))
    n_vectors = min(N_VECTORS, round((word_ms + AFTER_MS) / embedding.manifest.call_ms) + 1)
    windows = np.stack([take.ends[:, -n_vectors:].mean(axis=0) for take in takes.values()])
    filters = WordFilters(windows, _background(n_vectors))
    scores = _scores_by_others(filters, list(takes.values()), data.utterances)
    chosen = _detected(scores)
    fitted = _fit(filters, chosen, data.utterances)._replace(word_ms=word_ms)
    paths = list(takes)
    left_out = tuple(path for i, path in enumerate(paths) if i not in chosen)
    enrolment = Enrolment(dict(zip(paths, scores, strict=True)), left_out, refused, {})
    if only_me:
        described = {paths[i]: takes[paths[i]].statistics for i in chosen}
        fitted = fitted._replace(
            speaker=speaker_check(list(described.values()), read_speaker_statistics())
        )
        enrolment = enrolment._replace(speaker_scores=_alike(described))
    return fitted, enrolment


@functools.cache
def _background(n_lags: int) -> Speech:
    return speech_statistics(read_enrolment_data().utterances, n_lags=n_lags)


def _fit(
    filters: WordFilters, chosen: Sequence[int], utterances: Sequence[npt.NDArray[np.float32]]
) -> FittedWord:
    """Return the filter of some recordings, with its levels over background speech."""
    embedding = embedding_reference()
    word = filters.of(chosen)
    peaks: list[float] = []
    for utterance in utterances:
        scores = scores_of(word, utterance)
        seconds = range(0, len(scores), _VECTORS_PER_S)
        peaks += [float(scores[i : i + _VECTORS_PER_S].max()) for i in seconds]
    hours = sum(map(len, utterances)) * embedding.hop_frames / 360_000
    levels = _MARGIN + rate_levels(np.array(peaks), hours=hours, rates=_RATES)
    return FittedWord(word, dict(zip(_RATES, levels.tolist(), strict=True)), hours, len(chosen))


def _scores_by_others(
    filters: WordFilters,
    takes: Sequence[Take],
    utterances: Sequence[npt.NDArray[np.float32]],
) -> list[float]:
    """Return the highest posterior of each recording under a filter of the others."""
    scores = []
    for i, take in enumerate(takes):
        others = _fit(filters, [other for other in range(len(takes)) if other != i], utterances)
        highest = [scores_of(others.filter, one).max() for one in take.ends]
        scores.append(others.posterior(float(np.median(highest))))
    return scores


def _alike(described: Mapping[Path, npt.NDArray[np.float64]]) -> dict[Path, float]:
    """Return the score of each recording's speaker under a check made of the others."""
    scores = {}
    for path, statistics in described.items():
        others = [one for other, one in described.items() if other != path]
        check = speaker_check(others, read_speaker_statistics())
        scores[path] = float(statistics @ np.array(check.weights) + check.bias)
    return scores


def _detected(scores: Sequence[float]) -> list[int]:
    """Return which recordings to use: all, or those that the others detect if they are enough."""
    detected = [i for i, score in enumerate(scores) if score >= _DETECTED]
    return detected if len(detected) >= FEWEST else list(range(len(scores)))


def _write(out: Path, content: bytes) -> None:
    """Write a file whole or not at all; what was there before stays."""
    unfinished = out.with_name(f".{os.getpid()}-{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        unfinished.replace(out)
    except OSError as error:
        raise ConfigError(
            f"`--out` must be a file that can be written. Received: {out} ({error.strerror}). Free "
            f"some space, or name another."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def _check_count(n: int, which: str) -> None:
    if n < FEWEST:
        raise ConfigError(
            f"A word must be enrolled from {FEWEST} recordings or more. Received: {n}{which}. "
            f"Make more with `kws record`."
        )


def _check_word(word: str) -> None:
    if not word.strip() or not word.isprintable() or word.startswith("_"):
        raise ConfigError(
            f"A word must be printable text that begins with no underscore. Received: {word!r}. "
            f"Write another."
        )


def _manifest(word: str, fitted: FittedWord, *, name: str) -> Manifest:
    reference = embedding_reference()
    embedding, _ = read_manifest(model_path(reference.name))
    n_vectors, size = fitted.filter.weights.shape
    hours = round(fitted.hours, 2)
    return Manifest(
        name=re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:64] or "word",
        description=f"{word}, of one voice: {fitted.n_recordings} recordings",
        labels=(word,),
        kind="step",
        features=embedding.features,
        n_frames=1,
        hop_frames=1,
        input="frames",
        output="Identity",
        states=(StateTensor(input="state_0", output="Identity_1", shape=(1, N_VECTORS - 1, size)),),
        quantization="float32",
        decision=DecisionDefaults(
            threshold=_DETECTED,
            smoothing_ms=0,
            refractory_ms=_REFRACTORY_MS,
            word_ms=round(fitted.word_ms),
            delay_ms=_DELAY_MS,
        ),
        calibration=tuple(
            CalibrationPoint(
                false_alarms_per_hour=rate,
                thresholds={word: round(fitted.posterior(level), 4)},
            )
            for rate, level in fitted.levels.items()
        ),
        calibrated_on=CalibrationBasis(hours=hours, speech_hours=hours, words=0),
        takes=reference,
        context_frames=embedding.context_frames + (n_vectors - 1) * reference.hop_frames,
        speaker=fitted.speaker,
        data=embedding.data,
    )
