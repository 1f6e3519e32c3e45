"""A personal word from a few recordings: no training, no TensorFlow, seconds of CPU.

The bundled backbone, the convolutions of the model `commands`, turns audio into embeddings; those
of the recordings become the templates of a `kws.templates.TemplateHead` in the new model's
manifest.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from kws.audio import SAMPLE_RATE_HZ, Samples
from kws.commands.record import check_take
from kws.config import SourceSettings
from kws.embedding import embed
from kws.errors import ConfigError
from kws.features import Features
from kws.manifest import DecisionDefaults, Head, Manifest, Template, read_manifest, repack
from kws.model import Model, backbone_path, background_path, open_model
from kws.sources import open_source
from kws.templates import TemplateHead, pack_vectors, unit_vectors

__all__ = ["FEWEST", "MOST", "Enrolment", "enroll", "recordings_in", "word_span"]

FEWEST, MOST = 3, 10
_SUFFIXES = {".wav", ".flac", ".ogg", ".opus"}
_LONGEST_S = 5.0
_PAD = np.zeros(SAMPLE_RATE_HZ * 2 // 5, np.int16)
_FEWEST_STEPS = 6
_PAUSE_STEPS = 4
_PEAK_STEPS = 25
_BUDGET_PER_HOUR = 0.5


class Enrolment(NamedTuple):
    """What came of an enrolment."""

    scores: dict[Path, float]
    """Of each recording kept, the posterior that the others alone give it."""
    refused: dict[Path, str]
    """Recordings that were not used, and why."""


def enroll(
    word: str, recordings: Sequence[Path], out: Path, *, backbone: Path | None = None
) -> Enrolment:
    """Write a model that hears one person's `word`.

    Parameters
    ----------
    word : str
    recordings : sequence of Path
        3 to 10, of the word alone.
    out : Path
        The .tflite to write.
    backbone : Path, optional
        A file of `kws export --embedding`; the bundled one by default.

    Raises
    ------
    ConfigError
        If fewer than 3 or more than 10 recordings can be used.
    AudioError
        If one cannot be read.
    """
    _check_count(len(recordings), "")
    if not word.strip() or not word.isprintable() or word.startswith("_"):
        raise ConfigError(
            f"A word must be printable text that begins with no underscore. Received: {word!r}. "
            f"Write another."
        )
    manifest, content = read_manifest(path := backbone or backbone_path())
    if manifest.embedding is None or manifest.head is None:
        raise ConfigError(
            f"A backbone must give embeddings. Received: {path}, which gives posteriors. Make one "
            f"with `kws export RUN --embedding`, or leave --backbone out."
        )
    model = open_model(path)
    templates: dict[Path, npt.NDArray[np.float32]] = {}
    refused: dict[Path, str] = {}
    for recording in recordings:
        samples = _read(recording)
        problem = check_take(samples)
        if not problem and len(samples) > _LONGEST_S * SAMPLE_RATE_HZ:
            problem = f"longer than {_LONGEST_S:g} s: cut it, or use `kws record --input`"
        if not problem:
            unit = unit_vectors(_embedded(model, samples), manifest.head)
            start, end = word_span(_levels(samples, manifest))
            if end - start >= _FEWEST_STEPS:
                templates[recording] = unit[start:end]
                continue
            problem = "shorter than a quarter of a second"
        refused[recording] = problem
    if refused:
        why = f": {next(iter(refused))} is {next(iter(refused.values()))}"
        _check_count(len(templates), f" usable of {len(recordings)}{why}")
    full = _manifest(manifest, word, templates)
    offset = _threshold(full, background=background_path(path))
    full = replace(full, head=replace(full.head or Head(), offset=offset))
    scores = {
        recording: _score(model, _read(recording), full, without=i, n_values=manifest.embedding)
        for i, recording in enumerate(templates)
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(repack(content, full))
    return Enrolment(scores, refused)


def recordings_in(paths: Iterable[Path]) -> list[Path]:
    """Return files as they are, and of folders all WAV, FLAC, OGG and Opus files, by name."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(one for one in path.rglob("*") if one.suffix.lower() in _SUFFIXES)
        found += inside if path.is_dir() else [path]
    return found


def word_span(levels: npt.NDArray[np.float32]) -> tuple[int, int]:
    """Return where a word lies, [start, end) in steps, by the level of each.

    From the loudest step outward over all in the upper 60 % of the range, bridging short pauses;
    two more at the end, for what the embedding knows of the last sound comes late.
    """
    smooth = np.convolve(np.pad(levels, 1, mode="edge"), np.ones(3) / 3, "valid")
    low = np.percentile(smooth, 10)
    loud = np.flatnonzero(smooth > low + 0.4 * (smooth.max() - low))
    if not len(loud):
        return 0, 0
    breaks = np.flatnonzero(np.diff(loud) > _PAUSE_STEPS + 1)
    at = int(np.searchsorted(loud, int(smooth.argmax())))
    first = max((b + 1 for b in breaks if b < at), default=0)
    last = min((b for b in breaks if b >= at), default=len(loud) - 1)
    return int(loud[first]), min(len(levels), int(loud[last]) + 3)


def _threshold(manifest: Manifest, *, background: Path) -> float:
    """Return the score that speech of others reaches half a time an hour.

    The backbone's speech is heard, and the highest score of each second kept. How often scores go
    beyond a level falls exponentially there: a line through the logarithm of the upper 3 %.
    """
    n_values = manifest.embedding or 0
    with np.load(background, allow_pickle=False) as stored:
        books, codes, lengths = stored["books"], stored["codes"], stored["lengths"]
    vectors = books[np.arange(books.shape[0]), codes].reshape(len(codes), n_values) / np.float32(
        127
    )
    vectors /= np.sqrt(np.square(vectors).sum(axis=1, keepdims=True) + np.float32(1e-6))
    head = TemplateHead(manifest.head or Head(), keywords=manifest.labels, n_values=n_values)
    peaks: list[float] = []
    for utterance in np.split(vectors, np.cumsum(lengths)[:-1]):
        head.reset()
        scores = np.array([head.score_unit(one)[0] for one in utterance], np.float32)
        seconds = range(0, len(scores), _PEAK_STEPS)
        peaks += [float(scores[i : i + _PEAK_STEPS].max()) for i in seconds]
    n_samples = len(codes) * manifest.call_samples
    hours_heard = n_samples / SAMPLE_RATE_HZ / 3600
    top = np.sort(peaks)[::-1][: max(10, len(peaks) * 3 // 100)]
    per_hour = (np.arange(len(top)) + 0.5) / hours_heard
    slope, level = np.polyfit(np.log(per_hour), top, 1)
    return float(max(level + slope * np.log(_BUDGET_PER_HOUR), top[0]))


def _check_count(n: int, what: str) -> None:
    if not FEWEST <= n <= MOST:
        raise ConfigError(
            f"A word must be enrolled from {FEWEST} to {MOST} recordings. Received: {n}{what}. "
            f"Make more with `kws record`, or give fewer."
        )


def _read(path: Path) -> Samples:
    with open_source(SourceSettings(input=str(path))) as source:
        return np.concatenate([np.zeros(0, np.int16), *source])


def _embedded(model: Model, samples: Samples) -> npt.NDArray[np.float32]:
    return embed(model, np.concatenate((_PAD, samples, _PAD)))


def _levels(samples: Samples, manifest: Manifest) -> npt.NDArray[np.float32]:
    """Return the mean of the features of each step, of a padded recording."""
    frames = Features(manifest.features).whole(np.concatenate((_PAD, samples, _PAD)))
    n = len(frames) // manifest.hop_frames
    levels: npt.NDArray[np.float32] = (
        frames[: n * manifest.hop_frames].reshape(n, -1).mean(axis=1).astype(np.float32)
    )
    return levels


def _manifest(
    backbone: Manifest, word: str, templates: dict[Path, npt.NDArray[np.float32]]
) -> Manifest:
    n_steps = float(np.median([len(one) for one in templates.values()]))
    word_ms = round(n_steps * backbone.call_ms)
    packed = tuple(Template(keyword=word, vectors=pack_vectors(t)) for t in templates.values())
    return replace(
        backbone,
        name=re.sub(r"[^A-Za-z0-9_.-]+", "_", word)[:64] or "word",
        description=f"{word}, of one voice: {len(templates)} recordings",
        labels=(word,),
        head=replace(backbone.head or Head(), templates=packed),
        decision=DecisionDefaults(threshold=0.5, smoothing_ms=0, word_ms=word_ms),
    )


def _score(
    model: Model, samples: Samples, manifest: Manifest, *, without: int, n_values: int
) -> float:
    """Return the highest posterior of a recording under the templates of the others."""
    head = manifest.head or Head()
    others = tuple(one for i, one in enumerate(head.templates) if i != without)
    scorer = TemplateHead(
        replace(head, templates=others), keywords=manifest.labels, n_values=n_values
    )
    return max(float(scorer.step(one)[0]) for one in _embedded(model, samples))
