"""Batches of features, targets and weights, made of scenes that are drawn from a corpus."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.cepstra import Cepstra
from kws.features import Features
from kws_train.data.corpus import Clip, Corpus, Spoken
from kws_train.data.splits import Split
from kws_train.fit.soft_targets import has_soft_targets, taught_by, with_soft_targets
from kws_train.networks import architectures
from kws_train.recipe import CtcRecipe, Recipe
from kws_train.scenes import augment
from kws_train.scenes.bands import corpus_in_bands, mined_in_bands
from kws_train.scenes.ctc_scenes import SequenceScenes
from kws_train.scenes.scenes import Scenes

__all__ = [
    "Batch",
    "SceneBatches",
    "feature_statistics",
    "make_batches",
    "make_scenes",
    "write_examples",
]

Batch: TypeAlias = tuple[Any, ...]
"""Frames, targets, weights; or frames and label sequences for CTC."""

_N_STREAMS = 96
_N_CLIPS = 600
_N_STATISTICS_BATCHES = 4


def make_batches(
    recipe: Recipe, corpus: Corpus, *, split: Split, mined: Sequence[tuple[Spoken, int]] = ()
) -> "SceneBatches":
    """Return the batches of a split; `mined` are hard negatives, a recording and a sample each."""
    fit = recipe.fit
    stride = architectures.time_stride(recipe.model)
    if split == "train" and has_soft_targets(recipe):
        corpus = with_soft_targets(corpus, taught_by(recipe), labels=recipe.labels)
    recorded = [clip for clips in corpus.clips.values() for clip in clips]
    if recipe.augment.domain == "bands":
        corpus = corpus_in_bands(corpus, recipe.features)
        hop_samples = recipe.features.hop_samples
        mined = mined_in_bands(mined, corpus, hop_samples=hop_samples)
    scenes = make_scenes(corpus, recipe, time_stride=stride, mined=mined)
    n_scenes = fit.scenes_per_epoch if split == "train" else fit.validation_scenes
    training = split == "train"
    return SceneBatches(scenes, recipe, n_scenes=n_scenes, training=training, recorded=recorded)


def make_scenes(
    corpus: Corpus,
    recipe: Recipe,
    *,
    time_stride: int,
    mined: Sequence[tuple[Spoken, int]] = (),
) -> Scenes:
    """Return the scene generator of a recipe."""
    kind = SequenceScenes if isinstance(recipe.model, CtcRecipe) else Scenes
    return kind(
        corpus,
        recipe.data,
        recipe.augment,
        labels=recipe.labels,
        features=recipe.features,
        time_stride=time_stride,
        mined=mined,
    )


class SceneBatches(keras.utils.PyDataset):
    """Batches of features, targets and weights; batch i depends on the seed alone.

    In training there is no last batch: those of the next epochs follow those of the first.

    A batch is `echo` groups of scenes: one group of new scenes, the others from the batches
    before, disturbed anew. This is data echoing (Choi et al. 2019): a scene costs more CPU time
    than a mask.
    """

    def __init__(
        self,
        scenes: Scenes,
        recipe: Recipe,
        *,
        n_scenes: int,
        training: bool,
        recorded: Sequence[Clip] = (),
    ) -> None:
        super().__init__(workers=1)
        self.recorded = recorded
        """The clips as audio, whatever scenes are made of."""
        self.scenes, self.recipe, self.training = scenes, recipe, training
        self.n_batches = max(1, n_scenes // recipe.fit.batch_size)
        self.n_features = recipe.features.n_features
        self._features = Features(recipe.features)
        self._cepstra = Cepstra(recipe.features)
        self._validation_batches: dict[int, Batch] = {}
        self._groups: dict[int, Batch] = {}

    def __len__(self) -> int:
        return self.n_batches

    def __getitem__(self, index: int) -> Batch:
        if self.training:
            return self._training_batch(index)
        if index not in self._validation_batches:  # the same scenes in every epoch
            frames, *targets = self._make_scenes(index, self.recipe.fit.batch_size)
            self._validation_batches[index] = (self._finished(frames), *targets)
        return self._validation_batches[index]

    def files(self, epoch: int, index: int) -> list[Path]:
        """Return the files that went into a batch of an epoch; makes the batch again."""
        n_scenes = self.n_batches * self.recipe.fit.batch_size
        again = SceneBatches(
            self.scenes.recording_sources(), self.recipe, n_scenes=n_scenes, training=self.training
        )
        again[epoch * self.n_batches + index]
        return again.scenes.sources or []

    def close(self) -> None:
        """Free the corpus: TensorFlow keeps every dataset that a process has validated on."""
        del self.scenes, self.recorded
        self._validation_batches.clear()
        self._groups.clear()

    def example_frames(self, random: np.random.Generator, *, n: int) -> Any:
        """Return the features of new scenes (n, time, features), without masks and the like."""
        samples = np.stack([self.scenes.make(random).samples for _ in range(n)])
        return self._finished(self._frames(samples))

    def _training_batch(self, step: int) -> Batch:
        fit = self.recipe.fit
        n_groups = min(fit.echo, fit.batch_size)
        steps = range(step, step + n_groups)  # group numbers start at step, so none is negative
        self._groups = {
            i: self._groups.get(i) or self._make_scenes(i, fit.batch_size // n_groups)
            for i in steps
        }
        frames, *targets = (
            np.concatenate(parts) for parts in zip(*self._groups.values(), strict=True)
        )
        random = np.random.default_rng([fit.seed, 2, step])
        frames = np.stack([self._disturb(one, random) for one in frames])
        return self._mixup((self._finished(frames), *targets), random)

    def _make_scenes(self, index: int, n_scenes: int) -> Batch:
        """Return scenes without feature augmentation; frames (scenes, time, features or bands)."""
        random = np.random.default_rng([self.recipe.fit.seed, int(self.training), index])
        made: list[Any] = [self.scenes.make(random) for _ in range(n_scenes)]
        frames = self._frames(np.stack([scene.samples for scene in made]))
        n_outputs = len(self.scenes.output_ends)
        stride = frames.shape[1] // n_outputs
        if isinstance(self.scenes, SequenceScenes):
            return frames[:, : n_outputs * stride], np.stack([one.words for one in made])
        targets = np.stack([scene.targets.allowed for scene in made])
        weights = np.stack([scene.targets.weight for scene in made])
        if self.training and has_soft_targets(self.recipe):
            soft = np.stack([scene.targets.soft for scene in made])
            targets = np.concatenate((targets, soft), axis=-1, dtype=np.float32)
        return frames[:, : n_outputs * stride], targets, weights

    def _frames(self, scenes: Any) -> Any:
        """Return the frames of samples, or the floored logarithms of powers."""
        if self.recipe.augment.domain == "audio":
            return self._features.whole(scenes)
        return np.log(np.maximum(scenes[..., :-1], np.float32(self.recipe.features.floor)))

    def _finished(self, frames: Any) -> Any:
        """Return the features of frames; only logarithms of bands have a step left."""
        if self.recipe.augment.domain == "audio":
            return frames
        return self._cepstra.of_logs(frames)

    def _mixup(self, batch: Batch, random: np.random.Generator) -> Batch:
        recipe = self.recipe.augment
        if not recipe.mixup_share or len(batch) != 3:
            return batch
        share, alpha = recipe.mixup_share, recipe.mixup_alpha
        return augment.mixup(*batch, share=share, alpha=alpha, random=random)

    def _disturb(self, frames: Any, random: np.random.Generator) -> Any:
        """Warp, tilt and mask one scene's frames (time, bands)."""
        recipe, kind = self.recipe.augment, self.recipe.features.kind
        if kind == "mfcc":  # these augmentations are defined on bands
            if recipe.domain == "audio":
                return frames
            n = self.recipe.features.n_mels
            return np.hstack((self._disturb_bands(frames[:, :n], random), frames[:, n:]))
        return self._disturb_bands(frames, random)

    def _disturb_bands(self, frames: Any, random: np.random.Generator) -> Any:
        recipe, features = self.recipe.augment, self.recipe.features
        base = math.e if features.log_base == "e" else 10.0
        if features.kind != "spectrogram" and recipe.warp != (1.0, 1.0):
            frames = augment.warp(
                frames,
                random.uniform(*recipe.warp),
                low_hz=features.low_hz,
                high_hz=features.high_hz or RATE_HZ / 2,
            )
        frames = augment.tilt(frames, greatest_db=recipe.tilt_db, random=random, base=base)
        least = math.log(features.floor, base) + features.log_offset
        frames = np.maximum(frames, np.float32(least))
        if random.random() < 0.3:
            return frames.astype(np.float32)
        return augment.mask(
            frames,
            n_time=recipe.time_masks,
            time_frames=recipe.time_mask_frames,
            n_band=recipe.band_masks,
            bands=recipe.bands_per_mask,
            random=random,
        )


def feature_statistics(batches: SceneBatches) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each feature over the first batches."""
    first = [batches[i][0] for i in range(_N_STATISTICS_BATCHES)]
    frames = np.concatenate(first).reshape(-1, batches.n_features)
    return frames.mean(axis=0).tolist(), (frames.std(axis=0) + 1e-3).tolist()


def write_examples(path: Path, training: SceneBatches, validation: SceneBatches) -> None:
    """Write features for export: streams to calibrate int8 with, real clips to verify with."""
    random = np.random.default_rng(training.recipe.fit.seed)
    features = Features(training.recipe.features)
    streams = training.example_frames(random, n=_N_STREAMS)
    real = [clip for clip in validation.recorded if clip.real]
    clips = [
        features.whole(np.resize(np.pad(clip.samples, (0, 8 * RATE_HZ)), RATE_HZ * 3 // 2))
        for clip in real or validation.recorded
    ]
    chosen = random.permutation(len(clips))[:_N_CLIPS]
    np.savez_compressed(
        path,
        streams=streams.astype(np.float32),
        clips=np.stack([clips[i] for i in sorted(chosen)]).astype(np.float32),
    )
