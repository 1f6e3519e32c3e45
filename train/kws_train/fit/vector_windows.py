"""Windows of vectors that a network is trained on: around words, in speech and noise."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import msgspec
import numpy as np
import numpy.typing as npt

from kws_train.data.front_ends import Vectors
from kws_train.networks.embedding_head import N_CONTEXT_VECTORS
from kws_train.scenes import augment

__all__ = ["VectorBatches", "VectorData", "VectorFit", "scene_windows", "validation_windows"]

Array: TypeAlias = npt.NDArray[np.float32]


class VectorFit(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the training; the defaults are those of a head.

    Attributes
    ----------
    epochs, batches : int
    learning_rate : float
        Of Adam, at the beginning; a cosine lowers it to zero.
    n_keyword, n_other : int
        Windows of a batch with and without a keyword.
    window : int
        Vectors of a window.
    n_context : int
        First vectors of a window, after which its outputs count.
    first_answer, n_answer : int
        Vectors after the word's end; one average that ends at one of them has to answer.
    n_shifts : int
        Places of the answer at the end of its window, a vector each.
    noise : float
        Standard deviation of what is added to the standardised vectors.
    confusable_share, hard_share : float
        Of the windows without a keyword: scenes of other words; in the second half, moments that
        the head takes for a keyword.
    n_hard : int
        Moments that are drawn from; 0: none are looked for.
    apart : int
        Outputs from one moment to the next, at least.
    piece : int
        Vectors that are searched for moments at a time.
    longest_mask, widest_mask : int
        Vectors in a row, and values next to each other, that are replaced by the window's mean
        (SpecAugment, Park et al. 2019); 0: none.
    gamma : float
        Of the focal loss.
    n_smoothing : int
        Outputs whose mean posterior counts; that of heads averages eight (docs/experiments.md).
    """

    epochs: int = 9
    batches: int = 100
    learning_rate: float = 2e-3
    n_keyword: int = 64
    n_other: int = 192
    window: int = 27
    n_context: int = N_CONTEXT_VECTORS
    first_answer: int = 1
    n_answer: int = 6
    n_shifts: int = 3
    noise: float = 0.6
    confusable_share: float = 0.05
    hard_share: float = 1 / 3
    n_hard: int = 1500
    apart: int = 3
    piece: int = 512
    longest_mask: int = 0
    widest_mask: int = 0
    gamma: float = 2.0
    n_smoothing: int = 6


@dataclass(frozen=True)
class VectorData:
    """Vectors to train or validate a head on.

    Attributes
    ----------
    scenes : float16 [shape=(n, k, size)]
        Scenes around words.
    labels : int [shape=(n,)]
        Of each scene; 0: no keyword.
    weights : float [shape=(n,)]
        How often a scene is drawn, relative to others of its label.
    word_end : int
        The first vector of each scene that ends after its word.
    background : float16 [shape=(m, size)]
        Speech and noise without keywords, one after another.
    """

    scenes: Vectors
    labels: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    word_end: int
    background: Vectors


class VectorBatches(keras.utils.PyDataset):
    """Batches of windows; each has its own random generator."""

    def __init__(
        self,
        data: VectorData,
        settings: VectorFit,
        *,
        n_labels: int,
        stride: int,
        seed: int,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.hard: npt.NDArray[np.int64] | None = None
        self.data, self._settings = data, settings
        self._n_labels, self._stride, self._seed, self._epoch = n_labels, stride, seed, 0
        self._others = np.flatnonzero(data.labels == 0)
        self._keyword_scenes = [
            np.flatnonzero(data.labels == label) for label in range(1, n_labels)
        ]

    def __len__(self) -> int:
        return self._settings.batches

    def on_epoch_end(self) -> None:
        """Draw other windows from here on."""
        self._epoch += 1

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        settings, data = self._settings, self.data
        random = np.random.default_rng([self._seed, self._epoch, index])
        scenes = self._draw_scenes(random)
        shifts = random.integers(settings.n_shifts, size=len(scenes))
        windows, wanted = scene_windows(
            data, scenes, shifts, settings, n_labels=self._n_labels, stride=self._stride
        )
        n_background = settings.n_keyword + settings.n_other - len(scenes)
        ends = random.integers(settings.window, len(data.background), size=n_background)
        if self.hard is not None and len(self.hard):
            n_hard = round(settings.hard_share * settings.n_other)
            moments = self.hard[random.integers(len(self.hard), size=n_hard)]
            late = random.integers(1, settings.window - settings.n_context, size=n_hard)
            ends[:n_hard] = np.clip(moments + late, settings.window, len(data.background))
        more, unwanted = _background_windows(
            data.background, ends, settings, n_labels=self._n_labels, stride=self._stride
        )
        x = np.concatenate((windows, more))
        x += settings.noise * random.standard_normal(x.shape, np.float32)
        if settings.longest_mask or settings.widest_mask:
            x = np.stack([_masked(one, settings, random) for one in x])
        return x, np.concatenate((wanted, unwanted))

    def _draw_scenes(self, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draw scenes of keywords, equally many of each, and some of other words."""
        settings = self._settings
        n_each = np.bincount(
            np.arange(settings.n_keyword) % len(self._keyword_scenes),
            minlength=len(self._keyword_scenes),
        )
        groups = list(zip(self._keyword_scenes, n_each, strict=True))
        if len(self._others):
            groups.append((self._others, round(settings.confusable_share * settings.n_other)))
        drawn = [
            random.choice(
                among, size=n, p=self.data.weights[among] / self.data.weights[among].sum()
            )
            for among, n in groups
        ]
        return np.concatenate(drawn)


def scene_windows(
    data: VectorData,
    scenes: npt.NDArray[np.int64],
    shifts: npt.NDArray[np.int64],
    settings: VectorFit,
    *,
    n_labels: int,
    stride: int,
) -> tuple[Array, Array]:
    """Cut windows out of scenes; of a keyword, the outputs from its end on count, else all."""
    first_answer = data.word_end + settings.first_answer
    past_answers = first_answer + settings.n_answer
    latest = data.scenes.shape[1] - settings.window
    starts = np.minimum(past_answers - settings.window + shifts, latest)
    rows = starts[:, None] + np.arange(settings.window)
    x = data.scenes[scenes[:, None], rows].astype(np.float32)
    labels = data.labels[scenes]
    ends = rows[:, stride - 1 :: stride]
    answers = (ends >= first_answer) & (ends < past_answers)
    counts = np.where(labels[:, None] > 0, answers, _warm(settings, stride=stride))
    return x, counts[..., None] * np.eye(n_labels, dtype=np.float32)[labels][:, None]


def _background_windows(
    background: Vectors,
    ends: npt.NDArray[np.int64],
    settings: VectorFit,
    *,
    n_labels: int,
    stride: int,
) -> tuple[Array, Array]:
    rows = ends[:, None] - settings.window + np.arange(settings.window)
    warm = _warm(settings, stride=stride)
    wanted = np.zeros((len(ends), len(warm), n_labels), np.float32)
    wanted[:, warm, 0] = 1
    return background[rows].astype(np.float32), wanted


def _warm(settings: VectorFit, *, stride: int) -> npt.NDArray[np.bool_]:
    """Return which outputs of a window depend on the window alone."""
    return np.arange(stride - 1, settings.window, stride) >= settings.n_context


def _masked(window: Array, settings: VectorFit, random: np.random.Generator) -> Array:
    return augment.mask(
        window,
        n_time=1,
        time_frames=settings.longest_mask,
        n_band=1,
        bands=settings.widest_mask,
        random=random,
    )


def validation_windows(
    data: VectorData, settings: VectorFit, *, n_labels: int, stride: int
) -> tuple[Array, Array]:
    """Return windows of all scenes, and three times as many of the background."""
    scenes = np.arange(len(data.labels))
    x, wanted = scene_windows(
        data, scenes, scenes % settings.n_shifts, settings, n_labels=n_labels, stride=stride
    )
    ends = np.linspace(settings.window, len(data.background), 3 * len(scenes)).astype(np.int64)
    more, unwanted = _background_windows(
        data.background, ends, settings, n_labels=n_labels, stride=stride
    )
    return np.concatenate((x, more)), np.concatenate((wanted, unwanted))
