"""Cache of scenes, so that several trainings can share the same ones.

The cache holds audio and targets; features are computed for the settings of each recipe, and
targets are subsampled to the time stride of its model. A single training does better with new
scenes in every epoch (`kws_train.fit.training`).
"""

import hashlib
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import numpy.typing as npt

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.features import Features
from kws.manifest import FeatureSettings
from kws_train.atomic import replacing
from kws_train.data.corpus import Clip
from kws_train.recipe import Recipe
from kws_train.scenes import augment
from kws_train.scenes.ctc_scenes import SequenceScenes

__all__ = ["CachedBatches", "CachedScenes", "cached_scenes"]

_BLOCK = 256
_N_CLIPS = 600


class CachedScenes(msgspec.Struct, frozen=True):
    """The scenes of a folder.

    Attributes
    ----------
    samples : int16 [shape=(scenes, n)]
    targets : uint8
        The right labels at every frame [shape=(scenes, frames, labels)], or the sequence of word
        labels [shape=(scenes, words)], 0 after the last.
    weights : float32 [shape=(scenes, frames)] or None
        None for sequences of words.
    folder : Path
    """

    samples: npt.NDArray[np.int16]
    targets: npt.NDArray[np.uint8]
    weights: npt.NDArray[np.float32] | None
    folder: Path

    def frames(self, settings: FeatureSettings) -> npt.NDArray[np.float16]:
        """Return the scenes' frames (scenes, frames, features), computed once per settings."""
        digest = hashlib.sha1(msgspec.json.encode(settings), usedforsecurity=False).hexdigest()[:12]
        path = self.folder / f"frames-{digest}.npy"
        if not path.is_file():
            features = Features(settings)
            blocks = range(0, len(self.samples), _BLOCK)
            made = [features.whole(self.samples[i : i + _BLOCK]) for i in blocks]
            _save(path, np.concatenate(made).astype(np.float16))
        return np.load(path, mmap_mode="r")


def cached_scenes(scenes: Any, folder: Path, *, n_scenes: int, seed: int) -> CachedScenes:
    """Return the scenes that a folder holds, making them first if it holds none.

    Parameters
    ----------
    scenes : Scenes or SequenceScenes, or a function that gives one
        Called only if the folder is empty; with a time stride of one frame.
    folder : Path
        Of these scenes alone; other scenes need another folder.
    n_scenes, seed : int
        Number of scenes, and seed of the random generator.
    """
    audio = folder / "samples.npy"
    if not audio.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        scenes = scenes() if callable(scenes) else scenes
        random = np.random.default_rng(seed)
        made = [scenes.make(random) for _ in range(n_scenes)]
        if isinstance(scenes, SequenceScenes):
            _save(folder / "targets.npy", np.stack([scene.words for scene in made]))
        else:
            _save(folder / "targets.npy", np.stack([scene.targets.allowed for scene in made]))
            _save(folder / "weights.npy", np.stack([scene.targets.weight for scene in made]))
        _save(folder / "clips.npy", _clips(scenes.clips, random))
        _save(audio, np.stack([np.rint(scene.samples).astype(np.int16) for scene in made]))
    weights = folder / "weights.npy"
    return CachedScenes(
        np.load(audio, mmap_mode="r"),
        np.load(folder / "targets.npy"),
        np.load(weights) if weights.is_file() else None,
        folder,
    )


class CachedBatches(keras.utils.PyDataset):
    """Batches of cached scenes for a recipe, in another order in every epoch.

    Parameters
    ----------
    cached : CachedScenes
    recipe : Recipe
        Keywords of the scenes that it lacks become unknown words.
    labels : sequence of str
        Of the scenes.
    time_stride : int
        Of the model.
    training : bool
        False: in order, without augmentation.
    """

    def __init__(
        self,
        cached: CachedScenes,
        recipe: Recipe,
        *,
        labels: list[str],
        time_stride: int,
        training: bool,
    ) -> None:
        super().__init__(workers=1)
        self.cached, self.recipe, self.training = cached, recipe, training
        self.frames = cached.frames(recipe.features)
        self.time_stride = time_stride
        n_frames = self.frames.shape[1]
        if cached.weights is not None:  # windows of another length may give a frame more
            n_frames = min(n_frames, cached.weights.shape[1])
        self.n_outputs = n_frames // time_stride
        self._keywords = [labels.index(word) for word in recipe.data.keywords]
        self._others = [i for i in range(2, len(labels)) if i not in self._keywords]
        self._random = np.random.default_rng([recipe.fit.seed, int(training)])
        self.on_epoch_end()

    def __len__(self) -> int:
        return max(1, len(self.frames) // self.recipe.fit.batch_size)

    def __getitem__(self, index: int) -> Any:
        size = self.recipe.fit.batch_size
        chosen = np.sort(self._order[index * size : (index + 1) * size])
        frames = self.frames[chosen, : self.n_outputs * self.time_stride].astype(np.float32)
        if self.training:
            frames = np.stack([self._augmented(one) for one in frames])
        targets = self.cached.targets[chosen]
        if self.cached.weights is None:
            return frames, targets
        outputs = slice(self.time_stride - 1, self.n_outputs * self.time_stride, self.time_stride)
        return frames, self._merged(targets[:, outputs]), self.cached.weights[chosen][:, outputs]

    def on_epoch_end(self) -> None:
        """Shuffle."""
        n_scenes = len(self.frames)
        self._order = self._random.permutation(n_scenes) if self.training else np.arange(n_scenes)

    def _merged(self, targets: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Merge keywords that the recipe lacks into the unknown words."""
        if self._others:
            targets = targets.copy()
            targets[..., 1] |= targets[..., self._others].max(axis=-1)
        return targets[..., [0, 1, *self._keywords]]

    def _augmented(self, frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Tilt and mask log-power frames; cepstra are returned unchanged."""
        recipe = self.recipe.augment
        if self.recipe.features.kind == "mfcc":
            return frames
        frames = augment.tilt(frames, greatest_db=recipe.tilt_db, random=self._random)
        frames = np.maximum(frames, np.float32(np.log(self.recipe.features.floor)))
        scale = frames.shape[-1] / 40  # the recipe's mask sizes are for forty bands
        return augment.mask(
            frames,
            n_time=recipe.time_masks,
            time_frames=recipe.time_mask_frames,
            n_band=recipe.band_masks,
            bands=round(recipe.bands_per_mask * scale),
            random=self._random,
        )


def _clips(clips: list[Clip], random: np.random.Generator) -> npt.NDArray[np.int16]:
    """Return real clips, each padded with silence to one and a half seconds."""
    real = [clip.samples for clip in clips if clip.real] or [clip.samples for clip in clips]
    chosen = sorted(random.permutation(len(real))[:_N_CLIPS])
    n_samples = RATE_HZ * 3 // 2
    return np.stack([np.resize(np.pad(real[i], (0, n_samples)), n_samples) for i in chosen])


def _save(path: Path, values: npt.NDArray[Any]) -> None:
    with replacing(path) as begun:
        np.save(begun, values)
