"""Vectors of a front end for the phrases of a request, and streams to set thresholds on."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from kws.audio import SAMPLE_RATE_HZ
from kws.errors import KwsError
from kws_train.data.audio_files import audio_files
from kws_train.data.front_ends import Vectors
from kws_train.data.vector_cache import VectorCache
from kws_train.evaluate.build_stream import Stream, build_stream, keyword_clips
from kws_train.fit.vector_windows import VectorData
from kws_train.own_word.prepare import divide_speech, labels_of_request
from kws_train.own_word.recipe import recording_weight
from kws_train.own_word.workspace import Request, Workspace
from kws_train.parallel import Failure, map_corpus
from kws_train.recipe import AugmentRecipe
from kws_train.scenes.word_scenes import (
    Disturbance,
    SceneItem,
    utterance_digest,
    utterance_vectors,
    word_digest,
    word_end_vector,
    word_vectors,
)

__all__ = [
    "WORD_AUGMENTATION",
    "WordVectors",
    "collect_vectors",
    "spread_scenes",
    "validation_recordings",
    "vector_tuning_streams",
]

_SCENES_PER_MINUTE = 300
_N_SCENES = (600, 6000)  # of keywords; fewest and most
_MOST_VARIANTS = 20  # of one clip
_SPEECH_VARIANTS, _NOISE_VARIANTS, _OTHER_VARIANTS = 3, 2, 2
_N_AROUND = 600  # utterances to put around words
_N_NOISY_STREAMS = 3
_N_EXAMPLES = 200
_NOISE_S = 30.0  # of each recording

_SPEECH_AUGMENTATION = AugmentRecipe(
    room_share=0.45,
    room="pyroomacoustics" if find_spec("pyroomacoustics") else "polack",
    noise_share=0.85,
    snr_db=(-2.0, 25.0),
    gain_db=(-14.0, 6.0),
    babble_share=0.1,
    microphone_share=0.25,
    codec_share=0.2,
    speed=(0.8, 1.2),
    warp=(0.86, 1.18),
)
WORD_AUGMENTATION = msgspec.structs.replace(_SPEECH_AUGMENTATION, snr_db=(-6.0, 25.0))
"""How scenes of words are disturbed."""


@dataclass(frozen=True)
class WordVectors:
    """What a network is trained and validated on.

    Attributes
    ----------
    training, validation : VectorData
    background_s : float
        Speech and noise to train on.
    """

    training: VectorData
    validation: VectorData
    background_s: float


def collect_vectors(
    request: Request,
    workspace: Workspace,
    *,
    cache: VectorCache,
    n_jobs: int = 1,
    words: AugmentRecipe = WORD_AUGMENTATION,
    more_clips: Sequence[Path] = (),
) -> WordVectors:
    """Return the vectors of all scenes, speech and noise of a request; kept ones are read.

    Parameters
    ----------
    request : Request
    workspace : Workspace
    cache : VectorCache
        Of the front end.
    n_jobs : int
        Processes.
    words : AugmentRecipe
        How scenes of words are disturbed; speech alone always is as it is by default.
    more_clips : sequence of Path
        Clips of the first phrase to train on, beside those of the workspace.

    Raises
    ------
    ConfigError
        If the cache cannot be written to.
    """
    labels = labels_of_request(request)
    speech = divide_speech(request, workspace)
    noise = tuple(audio_files(workspace.noise / "train"))
    alone = Disturbance(_SPEECH_AUGMENTATION, noise)  # whatever the word, so that it is kept
    n_around = min(_N_AROUND, len(speech.training))
    around = Disturbance(
        words,
        noise,
        tuple(speech.training[i * len(speech.training) // n_around] for i in range(n_around)),
    )
    all_vectors = functools.partial(_all_vectors, cache=cache, n_jobs=n_jobs)
    workspace.notify("preparing speech and noise; what was prepared before is read")
    said = [SceneItem(path, n) for path in speech.training for n in range(_SPEECH_VARIANTS)]
    heard = [SceneItem(path, n) for path in noise for n in range(_NOISE_VARIANTS)]
    n_noise = round(_NOISE_S * SAMPLE_RATE_HZ / cache.front_end.hop_samples)
    background = all_vectors(utterance_vectors, said, around=alone)
    background += [one[:n_noise] for one in all_vectors(utterance_vectors, heard, around=alone)]
    held_out = [SceneItem(path, 1) for path in speech.thresholds]
    unheard = all_vectors(utterance_vectors, held_out, around=alone)
    data = []
    for split, vectors in (("train", background), ("validation", unheard)):
        items, classes, weights = _scenes(
            request, workspace, labels, split=split, more=more_clips if split == "train" else ()
        )
        workspace.notify(f"preparing {len(items)} scenes of words for {split}")
        scenes = all_vectors(word_vectors, items, around=around)
        data.append(
            VectorData(
                scenes=np.stack(scenes),
                labels=np.array(classes),
                weights=np.array(weights),
                word_end=word_end_vector(cache.front_end),
                background=np.concatenate(vectors),
            )
        )
    n_background = len(data[0].background)
    background_s = n_background * cache.front_end.hop_samples / SAMPLE_RATE_HZ
    return WordVectors(data[0], data[1], background_s)


def spread_scenes(data: VectorData) -> npt.NDArray[np.float32]:
    """Return scenes from all of the data in random order, to calibrate an export on."""
    chosen = np.linspace(0, len(data.scenes) - 1, _N_EXAMPLES).astype(int)
    return data.scenes[np.random.default_rng(1).permutation(chosen)].astype(np.float32)


def validation_recordings(request: Request, workspace: Workspace) -> list[tuple[str, Path]]:
    """Return the labelled recordings that nothing is trained on, none if they are too few."""
    folder = workspace.recordings / "validation"
    return keyword_clips(folder, labels_of_request(request), split="all")


def vector_tuning_streams(
    request: Request,
    workspace: Workspace,
    *,
    snr_db: float,
    seed: int,
    clips: Sequence[tuple[str, Path]] = (),
) -> list[Stream]:
    """Return streams of held-out speakers to set thresholds on: a clean one, others in noise.

    Parameters
    ----------
    request : Request
    workspace : Workspace
    snr_db : float
        Of the noisy streams.
    seed : int
    clips : sequence of (str, Path)
        Labelled clips; by default those of held-out voices, and recordings if there are any.
    """
    labels = labels_of_request(request)
    voices = keyword_clips(workspace.synthetic / "validation", labels, split="all")
    clips = clips or [*voices, *validation_recordings(request, workspace)]
    if not clips:  # too few recordings to split
        clips = keyword_clips(workspace.recordings / "train", labels, split="all")
    utterances = divide_speech(request, workspace).thresholds
    return [
        build_stream(
            clips,
            utterances,
            audio_files(workspace.noise / "train"),
            snr_db=ratio,
            snr_rule="peak",
            seed=seed + i,
            n_background=max(1, len(utterances) // len(clips)),
        )
        for i, ratio in enumerate((float("inf"), *_N_NOISY_STREAMS * (snr_db,)))
    ]


def _scenes(
    request: Request,
    workspace: Workspace,
    labels: Sequence[str],
    *,
    split: str,
    more: Sequence[Path],
) -> tuple[list[SceneItem], list[int], list[float]]:
    """Return scenes to make of a split, the label of each, and its weight."""
    synthetic, recorded = (
        keyword_clips(folder / split, labels, split="all")
        for folder in (workspace.synthetic, workspace.recordings)
    )
    if not synthetic and not recorded:  # too few recordings to split
        recorded = keyword_clips(workspace.recordings / "train", labels, split="all")
    weight = recording_weight(len(recorded), len(synthetic))
    known = [(*clip, 1.0) for clip in synthetic] + [(*clip, weight) for clip in recorded]
    known += [(labels[0], path, 1.0) for path in more]
    is_training = split == "train"
    n_scenes = np.clip(_SCENES_PER_MINUTE * request.minutes, *_N_SCENES)
    n_variants = min(_MOST_VARIANTS, max(1, round(n_scenes / len(known)))) if is_training else 1
    items, classes, weights = [], [], []
    for label, path, share in known:
        for n in range(n_variants):
            items.append(SceneItem(path, n, label))
            classes.append(1 + labels.index(label))
            weights.append(share)
    for path in _other_clips(workspace, labels, split=split):
        for n in range(_OTHER_VARIANTS if is_training else 1):
            items.append(SceneItem(path, n, path.parent.name))
            classes.append(0)
            weights.append(1.0)
    return items, classes, weights


def _other_clips(workspace: Workspace, labels: Sequence[str], *, split: str) -> list[Path]:
    """Return clips of confusable phrases and, to train on, of other words."""
    folders = [workspace.synthetic / split]
    if split == "train":
        folders.append(workspace.other_words)
    paths = [
        path for folder in folders if folder.is_dir() for path in audio_files(folder, optional=True)
    ]
    return [path for path in paths if path.parent.name not in labels]


def _all_vectors(
    function: Callable[..., Vectors],
    items: Sequence[SceneItem],
    *,
    around: Disturbance,
    cache: VectorCache,
    n_jobs: int,
) -> list[Vectors]:
    """Return the vectors of all items; only those that are not kept go to other processes."""
    digest = {word_vectors: word_digest, utterance_vectors: utterance_digest}[function]
    found = [cache.find(digest(item, around)) for item in items]
    work = functools.partial(function, around=around, cache=cache)
    missing = [item for item, one in zip(items, found, strict=True) if one is None]
    made = map_corpus(work, missing, n_jobs=n_jobs) if missing else iter(())
    results = []
    for one in found:
        vectors = next(made) if one is None else one
        if isinstance(vectors, Failure):
            raise KwsError(vectors.reason)
        results.append(vectors)
    return results
