"""Enrolment: a model of one speaker's word from 3 recordings or more, without training.

The bundled backbone turns audio into embeddings; those of the recordings become the templates of a
`kws.templates.TemplateHead` in the manifest of the new model.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.audio_files import audio_below, not_audio
from kws.commands.record import check_take
from kws.config import SourceSettings
from kws.errors import AudioError, ConfigError
from kws.features import Features
from kws.manifest import DecisionDefaults, Head, Manifest, Template, read_manifest, repack
from kws.model import Model, backbone_path, background_path, mean_embeddings, open_model
from kws.names import nfc
from kws.sources import open_source
from kws.templates import TemplateHead, pack_vectors, unit_vectors

__all__ = ["FEWEST", "MOST_TEMPLATES", "Enrolment", "enroll", "recordings_in", "word_span"]

FEWEST, MOST_TEMPLATES = 3, 10
_LONGEST_S = 5.0
_PAD = np.zeros(SAMPLE_RATE_HZ * 2 // 5, np.int16)
_FEWEST_STEPS = 6
_PAUSE_STEPS = 4
_PEAK_STEPS = 25
_BUDGET_PER_HOUR = 0.5


class Enrolment(NamedTuple):
    """The outcome of an enrolment."""

    scores: dict[Path, float]
    """For each recording used, its highest posterior under the templates of the others."""
    refused: dict[Path, str]
    """Recordings that were not used, and the reason."""


class _Take(NamedTuple):
    """A recording that can be used."""

    embeddings: npt.NDArray[np.float32]
    """[shape=(n_steps, n_values)], of the padded recording."""
    template: npt.NDArray[np.float32]
    """[shape=(n, n_values)], unit vectors of the steps of the word."""


def enroll(
    word: str,
    recordings: Sequence[Path],
    out: Path,
    *,
    backbone: Path | None = None,
    name: str | None = None,
) -> Enrolment:
    """Write a model that detects `word` spoken by one person.

    Parameters
    ----------
    word : str
    recordings : sequence of Path
        Three or more, each of the word alone. Of more than ten, the ten that the others are most
        alike become templates.
    out : Path
        The .tflite to write.
    backbone : Path, optional
        A file of `kws export --embedding`; the bundled one by default.
    name : str, optional
        Of the model in events; by default the name of `out` without its ending.

    Raises
    ------
    ConfigError
        If the word is no printable text, the backbone gives no embeddings, or fewer than three
        recordings can be used.
    """
    _check_count(len(recordings), "")
    word = nfc(word)
    _check_word(word)
    path = backbone or backbone_path()
    manifest, content = _read_backbone(path)
    takes, refused = _read_takes(recordings, open_model(path))
    if refused:
        first, reason = next(iter(refused.items()))
        _check_count(len(takes), f" usable of {len(recordings)}: {first} is {reason}")
    chosen = _most_typical(takes, manifest)
    templates = {recording: takes[recording] for recording in chosen}
    enrolled = _with_offset(
        _manifest(manifest, word, templates, name=name or out.stem),
        background=background_path(path),
    )
    scores = {
        recording: _score(
            take.embeddings,
            enrolled,
            without=chosen.index(recording) if recording in templates else None,
        )
        for recording, take in takes.items()
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(repack(content, enrolled))
    return Enrolment(scores, refused)


def recordings_in(paths: Iterable[Path]) -> list[Path]:
    """Return the files, and of each folder all audio files, by name."""
    found: list[Path] = []
    for path in paths:
        inside, nameless = audio_below(path) if path.is_dir() else ([path], {})
        found += sorted((*inside, *nameless))
    return found


def word_span(levels: npt.NDArray[np.float32]) -> tuple[int, int]:
    """Return the span of a word, [start, end) in steps, from the level of each step.

    It grows from the loudest step over the steps in the upper 60 % of the range, across short
    pauses. Two steps are added at the end, because embeddings lag behind the sound.
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


def _read_backbone(path: Path) -> tuple[Manifest, bytes]:
    manifest, content = read_manifest(path)
    if manifest.embedding is None or manifest.head is None:
        raise ConfigError(
            f"A backbone must give embeddings. Received: {path}, which gives posteriors. Make one "
            f"with `kws export RUN --embedding`, or leave --backbone out."
        )
    return manifest, content


def _read_takes(
    recordings: Sequence[Path], model: Model
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
        padded = np.concatenate((_PAD, samples, _PAD))
        frames = Features(model.manifest.features).whole(padded)
        start, end = word_span(_levels(frames, model.manifest.hop_frames))
        if end - start < _FEWEST_STEPS:
            refused[recording] = "shorter than a quarter of a second"
            continue
        embeddings = mean_embeddings(model, frames)
        unit = unit_vectors(embeddings, model.manifest.head or Head())
        takes[recording] = _Take(embeddings, unit[start:end])
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


def _most_typical(takes: dict[Path, _Take], backbone: Manifest) -> list[Path]:
    """Return the recordings to make templates of: all, or the ten that the others match best."""
    if len(takes) <= MOST_TEMPLATES:
        return list(takes)
    names = tuple(map(str, range(len(takes))))
    templates = tuple(
        Template(keyword=name, vectors=pack_vectors(take.template))
        for name, take in zip(names, takes.values(), strict=True)
    )
    head = TemplateHead(
        replace(backbone.head or Head(), templates=templates),
        keywords=names,
        n_values=backbone.embedding or 0,
    )
    matches = np.empty((len(takes), len(takes)), np.float32)
    for i, take in enumerate(takes.values()):
        head.reset()
        matches[i] = np.max([head.score(one) for one in take.embeddings], axis=0)
    np.fill_diagonal(matches, np.nan)
    order = np.argsort(-np.nanmedian(matches, axis=0), kind="stable")
    kept = set(order[:MOST_TEMPLATES].tolist())
    return [recording for i, recording in enumerate(takes) if i in kept]


def _levels(frames: npt.NDArray[Any], hop_frames: int) -> npt.NDArray[np.float32]:
    """Return the mean of the features of each step."""
    n = len(frames) // hop_frames
    levels: npt.NDArray[np.float32] = (
        frames[: n * hop_frames].reshape(n, -1).mean(axis=1).astype(np.float32)
    )
    return levels


def _manifest(backbone: Manifest, word: str, takes: dict[Path, _Take], *, name: str) -> Manifest:
    """Return the manifest of the enrolled model, without the offset of its head."""
    templates = [take.template for take in takes.values()]
    n_steps = float(np.median([len(one) for one in templates]))
    word_ms = round(n_steps * backbone.call_ms)
    packed = tuple(Template(keyword=word, vectors=pack_vectors(t)) for t in templates)
    return replace(
        backbone,
        name=re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:64] or "word",
        description=f"{word}, of one voice: {len(templates)} recordings",
        labels=(word,),
        head=replace(backbone.head or Head(), templates=packed),
        decision=DecisionDefaults(threshold=0.5, smoothing_ms=0, word_ms=word_ms),
    )


def _with_offset(manifest: Manifest, *, background: Path) -> Manifest:
    """Set the head's offset: the score that background speech reaches half a time per hour.

    The rate of scores above a level falls exponentially: a line is fitted to the logarithm of the
    rate over the upper 3 % of the highest scores of each second.
    """
    head = manifest.head or Head()
    peaks, hours = _background_peaks(manifest, background)
    top = np.sort(peaks)[::-1][: max(10, len(peaks) * 3 // 100)]
    per_hour = (np.arange(len(top)) + 0.5) / hours
    slope, level = np.polyfit(np.log(per_hour), top, 1)
    offset = float(max(level + slope * np.log(_BUDGET_PER_HOUR), top[0]))
    return replace(manifest, head=replace(head, offset=offset))


def _background_peaks(manifest: Manifest, background: Path) -> tuple[list[float], float]:
    """Return the highest score of each second of the background speech, and its hours."""
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
    return peaks, len(codes) * manifest.call_samples / SAMPLE_RATE_HZ / 3600


def _score(
    embeddings: npt.NDArray[np.float32], manifest: Manifest, *, without: int | None
) -> float:
    """Return the highest posterior of a recording under the templates of the others."""
    head = manifest.head or Head()
    others = tuple(one for i, one in enumerate(head.templates) if i != without)
    scorer = TemplateHead(
        replace(head, templates=others),
        keywords=manifest.labels,
        n_values=manifest.embedding or 0,
    )
    return max(float(scorer.step(one)[0]) for one in embeddings)
