"""The recordings that a word is enrolled from: read, checked, and as vectors of the embedding."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.audio_files import audio_below, not_audio
from kws.commands.enrolment_data import N_VECTORS
from kws.commands.record import check_take
from kws.config import SourceSettings
from kws.errors import AudioError
from kws.features import Features
from kws.model import Model, n_cold_vectors
from kws.sources import open_source
from kws.speaker import word_statistics
from kws.word_span import PHRASE_PAUSE_FRAMES, WORD_PAUSE_FRAMES, word_span

__all__ = ["AFTER_MS", "Take", "read_takes", "recordings_in"]

AFTER_MS = 480
"""What comes after a word tells it from the beginnings of others."""

_LONGEST_S = 5.0
_SHORTEST_FRAMES = 16
_N_SHIFTS = 4  # of a recording against the steps of the embedding, 20 ms each
_LEAST_NOISE = 3.0  # amplitude of the noise around recordings, of 16 bits


class Take(NamedTuple):
    """A recording that can be used."""

    word_ms: float
    ends: npt.NDArray[np.float32]
    """[shape=(n_shifts, n, size)]: vectors up to the one that ends after the word, by shift."""
    statistics: npt.NDArray[np.float64]
    """Of the word, for a check of the speaker."""


def recordings_in(paths: Iterable[Path]) -> list[Path]:
    """Return the files, and of each folder all audio files, by name."""
    found: list[Path] = []
    for path in paths:
        inside, nameless = audio_below(path) if path.is_dir() else ([path], {})
        found += sorted((*inside, *nameless))
    return found


def read_takes(
    recordings: Sequence[Path], embedding: Model, *, is_phrase: bool
) -> tuple[dict[Path, Take], dict[Path, str]]:
    """Read and embed each recording once; return those to use, and why the others are not."""
    takes: dict[Path, Take] = {}
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
        frames = features.whole(samples)
        pause = PHRASE_PAUSE_FRAMES if is_phrase else WORD_PAUSE_FRAMES
        start, end = word_span(frames.mean(axis=1), pause_frames=pause)
        if end - start < _SHORTEST_FRAMES:
            refused[recording] = "shorter than a sixth of a second"
            continue
        hop = embedding.manifest.features.hop_samples
        takes[recording] = Take(
            word_ms=1000 * (end - start) * hop / SAMPLE_RATE_HZ,
            ends=_vectors_up_to(end * hop, samples, embedding, features),
            statistics=word_statistics(frames, is_phrase=is_phrase),
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
    """Return the last vectors up to `AFTER_MS` after a word that ends at a sample, by shift.

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
        for n in (n_samples + overlap, AFTER_MS * SAMPLE_RATE_HZ // 1000 + manifest.call_samples)
    )
    padded = np.concatenate((before, samples, after))
    last = len(before) + end + AFTER_MS * SAMPLE_RATE_HZ // 1000
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
