"""Scenes around one word, and disturbed utterances, as vectors of a front end.

A scene ends `AFTER_S` after its word. Before the word, and after it, there is silence or speech;
then come room, babble, noise, microphone and codec, as `kws_train.scenes.acoustics` has them. Each
scene has a random generator of its own, seeded by its digest: the same files and settings give the
same vectors on any number of processes.
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws_train.data.audio_files import read_samples
from kws_train.data.corpus import Spoken
from kws_train.data.front_ends import FrontEnd, Vectors
from kws_train.data.speech_span import speech_span
from kws_train.data.vector_cache import VectorCache, digest_of
from kws_train.recipe import AugmentRecipe
from kws_train.scenes import augment
from kws_train.scenes.acoustics import Acoustics, level
from kws_train.scenes.augment import Random, Wave
from kws_train.scenes.rooms import room_bank

__all__ = [
    "AFTER_S",
    "Disturbance",
    "SceneItem",
    "content_digest",
    "n_scene_vectors",
    "utterance_digest",
    "utterance_vectors",
    "word_digest",
    "word_end_vector",
    "word_vectors",
]

AFTER_S = 0.7
"""From the end of the word to the end of the scene."""
_SCENE_S = 3.2
_MOST_WORD_S = 2.2
_MARGIN_S = 0.05
_N_BABBLE = 40  # utterances to make babble of
_CONTEXT_SHARE, _CONTEXT_AFTER_SHARE = 0.45, 0.6
_GAP_S = (0.02, 0.4)


@dataclass(frozen=True)
class Disturbance:
    """What scenes are made with besides words; pickles as paths.

    Attributes
    ----------
    recipe : AugmentRecipe
    noise : tuple of Path
        Its folders are kinds of noise, and each kind is drawn equally often.
    speech : tuple of Path
        For context and babble; none: words alone.
    digest : str
        Of the recipe and the content of all files, computed from them by default.
    """

    recipe: AugmentRecipe = field(compare=False)
    noise: tuple[Path, ...] = field(default=(), compare=False)
    speech: tuple[Path, ...] = field(default=(), compare=False)
    digest: str = ""

    def __post_init__(self) -> None:
        if not self.digest:
            contents = [[content_digest(path) for path in one] for one in (self.noise, self.speech)]
            settings = msgspec.json.encode(self.recipe).decode()
            sizes = [len(kind) for kind in _by_kind(self.noise).values()]
            object.__setattr__(self, "digest", digest_of(settings, *contents, sizes))


@dataclass(frozen=True)
class SceneItem:
    """One scene to make: a clip or utterance, and the number of its variant."""

    path: Path
    n: int = 0
    said: str = ""
    """The word or phrase of a clip."""


def word_digest(item: SceneItem, around: Disturbance) -> str:
    """Return the digest that the vectors of a scene around a word are kept under."""
    return digest_of("word", content_digest(item.path), item.n, item.said, around.digest)


def utterance_digest(item: SceneItem, around: Disturbance) -> str:
    """Return the digest that the vectors of an utterance are kept under."""
    return digest_of("utterance", content_digest(item.path), item.n, around.digest)


def word_vectors(item: SceneItem, *, around: Disturbance, cache: VectorCache) -> Vectors:
    """Return the vectors of a scene around a clip of a word: float16 [shape=(n, size)].

    There are `n_scene_vectors` of the cache's front end.
    """
    digest = word_digest(item, around)
    n_samples = cache.front_end.n_samples(n_scene_vectors(cache.front_end))
    return cache.vectors(
        digest,
        lambda: cache.front_end.vectors(
            _word_scene(item, around, _random(digest), n_samples=n_samples)
        ),
    )


def utterance_vectors(item: SceneItem, *, around: Disturbance, cache: VectorCache) -> Vectors:
    """Return the vectors of a whole utterance or noise; variant 0 is disturbed by a gain only.

    The utterance is preceded by its own last second, so that each of its vectors has context.
    """
    digest = utterance_digest(item, around)
    n_before = cache.front_end.n_samples(0)
    return cache.vectors(
        digest,
        lambda: cache.front_end.vectors(
            _utterance(item, around, _random(digest), n_before=n_before)
        ),
    )


def n_scene_vectors(front_end: FrontEnd) -> int:
    """Return the vectors of a scene."""
    return round(_SCENE_S * RATE_HZ) // front_end.hop_samples


def word_end_vector(front_end: FrontEnd) -> int:
    """Return the index, in a scene, of the first vector that ends after the word's end."""
    n_samples = front_end.n_samples(n_scene_vectors(front_end))
    return front_end.vector_after(n_samples - round(AFTER_S * RATE_HZ))


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    stat = path.stat()
    return _content_digest(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1 << 17)
def _content_digest(path: Path, _size: int, _changed_ns: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _random(digest: str) -> Random:
    return np.random.default_rng(int(digest, 16))


def _word_scene(item: SceneItem, around: Disturbance, random: Random, *, n_samples: int) -> Wave:
    samples = np.zeros(n_samples, np.float32)
    end = len(samples) - round(AFTER_S * RATE_HZ)
    word, n_tail = _draw_word(item, around.recipe, random)
    start = end + n_tail - len(word)
    samples[max(0, start) : end + n_tail] = word[max(0, -start) :]
    if around.speech and random.random() < _CONTEXT_SHARE:
        gaps = random.uniform(*_GAP_S, 2) * RATE_HZ
        _add_speech(samples[: max(0, start - int(gaps[0]))], around, random, from_end=True)
        if random.random() < _CONTEXT_AFTER_SHARE:
            _add_speech(samples[end + int(gaps[1]) :], around, random, from_end=False)
    return _disturbed(samples, around, random)


def _draw_word(item: SceneItem, recipe: AugmentRecipe, random: Random) -> tuple[Wave, int]:
    """Return the word at random speed and level, and how many samples follow its end."""
    clip = read_samples(item.path)
    start, end = speech_span(clip, said=item.said)
    margin = round(_MARGIN_S * RATE_HZ)
    start, last = max(0, start - margin), min(len(clip), end + margin)
    speed, tempo = random.uniform(*recipe.warp), random.uniform(*recipe.speed)
    wave = augment.change_speed(clip[start:last].astype(np.float32), speed)
    wave = augment.stretch(wave, tempo)[: round(_MOST_WORD_S * RATE_HZ)]
    n_tail = min(round((last - end) / speed / tempo), len(wave))
    return level(augment.fade(wave), random.uniform(-4, 3)), n_tail


def _add_speech(room: Wave, around: Disturbance, random: Random, *, from_end: bool) -> None:
    """Fill a stretch of a scene with a piece of an utterance, in place."""
    said = read_samples(around.speech[int(random.integers(len(around.speech)))])
    n = min(len(room), len(said))
    offset = int(random.integers(len(said) - n + 1))
    piece = level(augment.fade(said[offset : offset + n].astype(np.float32)), random.uniform(-6, 3))
    where = slice(len(room) - n, None) if from_end else slice(0, n)
    room[where] += piece


def _utterance(item: SceneItem, around: Disturbance, random: Random, *, n_before: int) -> Wave:
    said = read_samples(item.path).astype(np.float32)
    if item.n == 0:
        samples = augment.gain(said, random.uniform(-10, 6))
    else:
        samples = level(augment.change_speed(said, random.uniform(0.93, 1.08)), 0.0)
        samples = _disturbed(samples, around, random)
    return np.concatenate((np.resize(samples[-n_before:], n_before), samples))


def _disturbed(samples: Wave, around: Disturbance, random: Random) -> Wave:
    acoustics = _acoustics(around)
    samples = acoustics.add_room(samples, random)
    samples = acoustics.add_babble(samples, random)
    samples = acoustics.add_background(samples, random, noise_share=around.recipe.noise_share)
    return acoustics.record(samples, random)


@functools.lru_cache(maxsize=4)
def _acoustics(around: Disturbance) -> Acoustics:
    """Read noise and babble, once in each process."""
    recipe = around.recipe
    return Acoustics(
        recipe,
        speech=[Spoken(path, read_samples(path), ()) for path in _spread(around.speech, _N_BABBLE)],
        noise=_each_kind_alike(around.noise),
        tones=(),
        rooms=room_bank(recipe.room_bank) if recipe.room == "pyroomacoustics" else (),
        note=lambda path: None,
    )


def _each_kind_alike(paths: Sequence[Path]) -> list[tuple[Samples, Path]]:
    """Read noise; repeat recordings so that each kind has as many as the largest."""
    kinds = [[(read_samples(path), path) for path in kind] for kind in _by_kind(paths).values()]
    most = max(map(len, kinds), default=0)
    return [kind[i % len(kind)] for kind in kinds for i in range(most)]


def _by_kind(paths: Sequence[Path]) -> dict[Path, list[Path]]:
    kinds: dict[Path, list[Path]] = {}
    for path in paths:
        kinds.setdefault(path.parent, []).append(path)
    return kinds


def _spread(paths: Sequence[Path], n: int) -> list[Path]:
    return [paths[i * len(paths) // n] for i in range(min(n, len(paths)))]
