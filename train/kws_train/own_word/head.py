"""A head on the speech embedding for the phrases of a request: vectors, training, export."""

import functools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np

from kws.errors import KwsError
from kws.manifest import DecisionDefaults
from kws.model import embedding_reference
from kws.stderr import quiet_stderr
from kws_export.head import export_head, head_manifest
from kws_train.atomic import replacing
from kws_train.data.audio_files import audio_files
from kws_train.data.vector_cache import VectorCache, Vectors
from kws_train.evaluate.build_stream import Stream, build_stream, keyword_clips
from kws_train.fit.head import HeadData, HeadFit, train_head
from kws_train.networks.architectures import Spotting
from kws_train.networks.embedding_head import embedding_head
from kws_train.networks.keras_backend import make_deterministic
from kws_train.own_word.prepare import divide_speech, labels_of_request
from kws_train.own_word.recipe import data_sources, median_word_ms, recording_weight
from kws_train.own_word.workspace import Request, Workspace
from kws_train.parallel import Failure, map_corpus
from kws_train.recipe import AugmentRecipe
from kws_train.scenes.word_scenes import (
    Disturbance,
    SceneItem,
    embed_utterance,
    embed_word,
    utterance_digest,
    word_digest,
    word_end_vector,
)

__all__ = [
    "WordVectors",
    "collect_vectors",
    "export_word_head",
    "head_tuning_streams",
    "train_word_head",
]

_SCENES_PER_MINUTE = 300
_N_SCENES = (600, 6000)  # of keywords; fewest and most
_MOST_VARIANTS = 20  # of one clip
_SPEECH_VARIANTS, _NOISE_VARIANTS, _OTHER_VARIANTS = 3, 2, 2
_WORD_SNR_DB = (-6.0, 25.0)
_N_AROUND = 600  # utterances to put around words
_TEMPERATURE = 1.0
_SMOOTHING_MS, _REFRACTORY_MS = 640, 1000
_DELAY_MS = 560  # an average over eight outputs rises so much later than the last of them
_N_EXAMPLES = 200
_N_NOISY_STREAMS = 3
_VECTORS_PER_NOISE = 375  # 30 s of each recording


@dataclass(frozen=True)
class WordVectors:
    """What a head is trained and validated on."""

    training: HeadData
    validation: HeadData


def collect_vectors(
    request: Request, workspace: Workspace, *, cache: Path, n_jobs: int = 1
) -> WordVectors:
    """Return the vectors of all scenes, speech and noise of a request; kept ones are read.

    Raises
    ------
    ConfigError
        If the cache cannot be written to.
    """
    labels = labels_of_request(request)
    speech = divide_speech(request, workspace)
    noise = tuple(audio_files(workspace.noise / "train"))
    recipe = _augmentation()
    alone = Disturbance(recipe, noise)  # not changed by words, so that it is kept for all of them
    n_around = min(_N_AROUND, len(speech.training))
    around = Disturbance(
        msgspec.structs.replace(recipe, snr_db=_WORD_SNR_DB),
        noise,
        tuple(speech.training[i * len(speech.training) // n_around] for i in range(n_around)),
    )
    embed_all = functools.partial(_embed_all, cache=VectorCache(cache), n_jobs=n_jobs)
    workspace.notify("embedding speech and noise; what was embedded before is read")
    said = [SceneItem(path, n) for path in speech.training for n in range(_SPEECH_VARIANTS)]
    heard = [SceneItem(path, n) for path in noise for n in range(_NOISE_VARIANTS)]
    background = embed_all(embed_utterance, said, around=alone)
    background += [
        one[:_VECTORS_PER_NOISE] for one in embed_all(embed_utterance, heard, around=alone)
    ]
    held_out = [SceneItem(path, 1) for path in speech.thresholds]
    unheard = embed_all(embed_utterance, held_out, around=alone)
    data = []
    for split, vectors in (("train", background), ("validation", unheard)):
        items, classes, weights = _scenes(request, workspace, labels, split=split)
        workspace.notify(f"embedding {len(items)} scenes of words for {split}")
        scenes = embed_all(embed_word, items, around=around)
        data.append(
            HeadData(
                scenes=np.stack(scenes),
                labels=np.array(classes),
                weights=np.array(weights),
                word_end=word_end_vector(),
                background=np.concatenate(vectors),
            )
        )
    return WordVectors(*data)


def train_word_head(request: Request, workspace: Workspace, vectors: WordVectors) -> None:
    """Train the head of a request into its run folder, unless it is there."""
    if (workspace.run / "settings.json").is_file():
        return
    workspace.run.mkdir(parents=True, exist_ok=True)
    n = len(vectors.training.background)
    workspace.notify(
        f"training a head on {len(vectors.training.labels)} scenes of words and "
        f"{n * 0.08 / 3600:.1f} hours of speech and noise"
    )
    make_deterministic(seed=request.seed)
    settings = HeadFit()
    model = train_head(
        vectors.training,
        vectors.validation,
        n_labels=1 + len(request.phrases),
        settings=settings,
        seed=request.seed,
        history=workspace.run / "history.csv",
    )
    model.save_weights(workspace.run / "model.weights.h5")
    content = {"head": msgspec.to_builtins(settings), "takes": _takes(), "seed": request.seed}
    with replacing(workspace.run / "settings.json") as begun:  # last: it marks a finished training
        begun.write_text(json.dumps(content, indent=1), encoding="utf-8")


def export_word_head(request: Request, workspace: Workspace, vectors: WordVectors) -> None:
    """Export the trained head in int8, verified on scenes of words."""
    if workspace.exported.is_file():
        return
    labels = labels_of_request(request)
    model = _restored(workspace, n_labels=1 + len(labels))
    folders = workspace.recordings / "train", workspace.synthetic_all
    clips = [path for one in folders for _, path in keyword_clips(one, labels, split="all")]
    manifest = head_manifest(
        model,
        name=re.sub(r"[^A-Za-z0-9_.-]", "_", "-".join(labels))[:64],
        description=", ".join(label.replace("_", " ") for label in labels),
        keywords=tuple(labels),
        decision=DecisionDefaults(
            threshold=0.8,
            smoothing_ms=_SMOOTHING_MS,
            refractory_ms=_REFRACTORY_MS,
            delay_ms=_DELAY_MS,
            word_ms=median_word_ms(clips),
        ),
        data=tuple(data_sources(labels, request, workspace)),
    )
    scenes = vectors.training.scenes
    chosen = np.linspace(0, len(scenes) - 1, _N_EXAMPLES).astype(int)
    with quiet_stderr(), replacing(workspace.exported) as begun:  # TensorFlow logs much
        agreement = export_head(
            model,
            begun,
            manifest=manifest,
            examples=scenes[np.random.default_rng(1).permutation(chosen)].astype(np.float32),
            temperature=_TEMPERATURE,
        )
    workspace.notify(f"exported in int8: agrees with the trained head at {agreement.argmax:.1%}")


def head_tuning_streams(
    request: Request, workspace: Workspace, *, snr_db: float, seed: int
) -> list[Stream]:
    """Return streams of held-out speakers to set thresholds on: a clean one, others in noise."""
    labels = labels_of_request(request)
    folders = [one / "validation" for one in (workspace.synthetic, workspace.recordings)]
    clips = [clip for one in folders for clip in keyword_clips(one, labels, split="all")]
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


def _restored(workspace: Workspace, *, n_labels: int) -> Spotting:
    model = embedding_head(n_labels, size=embedding_reference().size)
    model.load_weights(workspace.run / "model.weights.h5")
    return model


def _takes() -> dict[str, object]:
    content: dict[str, object] = msgspec.to_builtins(embedding_reference())
    return content


def _augmentation() -> AugmentRecipe:
    return AugmentRecipe(
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


def _scenes(
    request: Request, workspace: Workspace, labels: Sequence[str], *, split: str
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


def _embed_all(
    function: Callable[..., Vectors],
    items: Sequence[SceneItem],
    *,
    around: Disturbance,
    cache: VectorCache,
    n_jobs: int,
) -> list[Vectors]:
    """Return the vectors of all items; only those that are not kept go to other processes."""
    digest = {embed_word: word_digest, embed_utterance: utterance_digest}[function]
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
