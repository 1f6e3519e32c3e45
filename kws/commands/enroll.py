"""Enrolment: a model of one speaker's word from 3 recordings or more, without training.

Recordings become vectors of the bundled speech embedding; `kws.word_filter` makes a filter of them,
which goes into the network of a small model file: a head on the speech embedding as any other.
"""

import contextlib
import functools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.audio_files import audio_below, not_audio
from kws.commands.enrolment_data import N_VECTORS, fill_network, read_enrolment_data
from kws.commands.record import check_take
from kws.config import SourceSettings
from kws.errors import AudioError, ConfigError, ModelError
from kws.features import Features
from kws.manifest import (
    CalibrationBasis,
    CalibrationPoint,
    DecisionDefaults,
    Manifest,
    StateTensor,
    pack,
    read_manifest,
)
from kws.model import Model, embedding_reference, model_path, n_cold_vectors, open_model
from kws.names import nfc
from kws.sources import open_source
from kws.word_filter import (
    Speech,
    WordFilter,
    WordFilters,
    rate_levels,
    scores_of,
    speech_statistics,
)

__all__ = ["FEWEST", "Enrolment", "FittedWord", "enroll", "fit_word", "recordings_in", "word_span"]

FEWEST = 3
_LONGEST_S = 5.0
_SHORTEST_FRAMES = 16
_PAUSE_FRAMES, _PHRASE_PAUSE_FRAMES = 16, 60  # within a word; between the words of a phrase
_AFTER_MS = 480  # what comes after a word tells it from the beginnings of others
_VECTORS_PER_S = 12
_N_SHIFTS = 4  # of a recording against the steps of the embedding, 20 ms each
_LEAST_NOISE = 3.0  # amplitude of the noise around recordings, of 16 bits
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


class FittedWord(NamedTuple):
    """A filter and the scores that background speech exceeds at several rates."""

    filter: WordFilter
    levels: dict[float, float]
    """By false alarms per hour."""
    hours: float
    """Of background speech."""
    n_recordings: int
    word_ms: float = 0.0

    @property
    def bias(self) -> float:
        """Log odds of vectors of 0; the posterior is 1/2 at half a false alarm per hour."""
        return _SLOPE * (self.filter.bias - self.levels[_BUDGET_PER_HOUR])

    def posterior(self, score: float) -> float:
        """Return the posterior of a score."""
        odds = _SLOPE * (score - self.levels[_BUDGET_PER_HOUR])
        return float(1 / (1 + np.exp(-np.clip(odds, -50, 50))))


class _Take(NamedTuple):
    """A recording that can be used."""

    word_ms: float
    ends: npt.NDArray[np.float32]
    """[shape=(n_shifts, n, size)]: vectors up to the one that ends after the word, by shift."""


def enroll(
    word: str, recordings: Sequence[Path], out: Path, *, name: str | None = None
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
    fitted, enrolment = fit_word(word, recordings)
    manifest = _manifest(word, fitted, name=name or out.stem)
    network = fill_network(
        read_enrolment_data().network, _SLOPE * fitted.filter.weights, fitted.bias
    )
    _write(out, pack(network, manifest))
    return enrolment


def fit_word(word: str, recordings: Sequence[Path]) -> tuple[FittedWord, Enrolment]:
    """Do as `enroll`, but return the filter in place of a file."""
    data = read_enrolment_data()
    if data.embedding_sha256 != embedding_reference().sha256:
        raise ModelError(
            f"The background speech of enrolment must be of the speech embedding that comes with "
            f"kws, {embedding_reference().sha256[:12]}.... Received: that of "
            f"{data.embedding_sha256[:12]}.... Install kws again."
        )
    embedding = open_model(embedding_reference().name)
    takes, refused = _read_takes(recordings, embedding, is_phrase=len(word.split()) > 1)
    if refused:
        first, reason = next(iter(refused.items()))
        _check_count(len(takes), f" usable of {len(recordings)}: {first} is {reason}")
    word_ms = float(np.median([take.word_ms for take in takes.values()]))
    n_vectors = min(N_VECTORS, round((word_ms + _AFTER_MS) / embedding.manifest.call_ms) + 1)
    windows = np.stack([take.ends[:, -n_vectors:].mean(axis=0) for take in takes.values()])
    filters = WordFilters(windows, _background(n_vectors))
    scores = _scores_by_others(filters, list(takes.values()), data.utterances)
    chosen = _detected(scores)
    fitted = _fit(filters, chosen, data.utterances)._replace(word_ms=word_ms)
    paths = list(takes)
    left_out = tuple(path for i, path in enumerate(paths) if i not in chosen)
    return fitted, Enrolment(dict(zip(paths, scores, strict=True)), left_out, refused)


def recordings_in(paths: Iterable[Path]) -> list[Path]:
    """Return the files, and of each folder all audio files, by name."""
    found: list[Path] = []
    for path in paths:
        inside, nameless = audio_below(path) if path.is_dir() else ([path], {})
        found += sorted((*inside, *nameless))
    return found


def word_span(levels: npt.NDArray[Any], *, pause_frames: int = _PAUSE_FRAMES) -> tuple[int, int]:
    """Return the span of a word, [start, end) in frames, from the level of each frame.

    It grows from the loudest frame over the frames in the upper 60 % of the range, across short
    pauses.
    """
    smooth = np.convolve(np.pad(levels, 2, mode="edge"), np.ones(5) / 5, "valid")
    low = np.percentile(smooth, 10)
    loud = np.flatnonzero(smooth > low + 0.4 * (smooth.max() - low))
    if not len(loud):
        return 0, 0
    breaks = np.flatnonzero(np.diff(loud) > pause_frames)
    at = int(np.searchsorted(loud, int(smooth.argmax())))
    first = max((b + 1 for b in breaks if b < at), default=0)
    last = min((b for b in breaks if b >= at), default=len(loud) - 1)
    return int(loud[first]), int(loud[last]) + 1


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
    takes: Sequence[_Take],
    utterances: Sequence[npt.NDArray[np.float32]],
) -> list[float]:
    """Return the highest posterior of each recording under a filter of the others."""
    scores = []
    for i, take in enumerate(takes):
        others = _fit(filters, [other for other in range(len(takes)) if other != i], utterances)
        highest = [scores_of(others.filter, one).max() for one in take.ends]
        scores.append(others.posterior(float(np.median(highest))))
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


def _read_takes(
    recordings: Sequence[Path], embedding: Model, *, is_phrase: bool
) -> tuple[dict[Path, _Take], dict[Path, str]]:
    """Read and embed each recording once; return those to use, and why the others are not."""
    takes: dict[Path, _Take] = {}
    refused: dict[Path, str] = {}
    for recording in recordings:
        try:
            samples = _read(recording)
        except AudioError as error:
            is_mac = recording.name.startswith("._")
            refused[recording] = str(not_audio(recording, "") if is_mac else error)
            continue
        if problem := _problem(samples):
            refused[recording] = problem
            continue
        features = Features(embedding.manifest.features)
        levels = features.whole(samples).mean(axis=1)
        pause = _PHRASE_PAUSE_FRAMES if is_phrase else _PAUSE_FRAMES
        start, end = word_span(levels, pause_frames=pause)
        if end - start < _SHORTEST_FRAMES:
            refused[recording] = "shorter than a sixth of a second"
            continue
        hop = embedding.manifest.features.hop_samples
        takes[recording] = _Take(
            word_ms=1000 * (end - start) * hop / SAMPLE_RATE_HZ,
            ends=_vectors_up_to(end * hop, samples, embedding, features),
        )
    return takes, refused


def _problem(samples: Samples) -> str:
    """Return why a recording cannot be used; empty if it can."""
    problem = check_take(samples)
    if not problem and len(samples) > _LONGEST_S * SAMPLE_RATE_HZ:
        return f"longer than {_LONGEST_S:g} s: cut it, or use `kws record --input`"
    return problem


def _read(path: Path) -> Samples:
    with open_source(SourceSettings(input=str(path))) as source:
        return np.concatenate([np.zeros(0, np.int16), *source])


def _vectors_up_to(
    end: int, samples: Samples, embedding: Model, features: Features
) -> npt.NDArray[np.float32]:
    """Return the last vectors up to `_AFTER_MS` after a word that ends at a sample, by shift.

    Around the recording there is noise of the level of its quietest parts.
    """
    manifest = embedding.manifest
    n_cold = n_cold_vectors(manifest)
    n_samples = (n_cold + N_VECTORS) * manifest.call_samples
    overlap = manifest.features.window_samples - manifest.features.hop_samples
    shift = manifest.call_samples // _N_SHIFTS
    random = np.random.default_rng(1)
    amplitude = max(_LEAST_NOISE, _floor(samples))
    before, after = (
        np.rint(random.normal(0, amplitude, n)).astype(np.int16)
        for n in (n_samples + overlap, _AFTER_MS * SAMPLE_RATE_HZ // 1000 + manifest.call_samples)
    )
    padded = np.concatenate((before, samples, after))
    last = len(before) + end + _AFTER_MS * SAMPLE_RATE_HZ // 1000
    by_shift = []
    for stop in range(last, last + _N_SHIFTS * shift, shift):
        part = padded[stop - n_samples - overlap : stop]
        by_shift.append(embedding.run(features.whole(part))[n_cold:])
    return np.stack(by_shift)


def _floor(samples: Samples) -> float:
    """Return the amplitude of the quietest tenth of the 10 ms blocks."""
    size = SAMPLE_RATE_HZ // 100
    blocks = samples[: len(samples) // size * size].reshape(-1, size).astype(np.float64)
    return float(np.percentile(np.sqrt(np.square(blocks).mean(axis=1)), 10))


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
        data=embedding.data,
    )
