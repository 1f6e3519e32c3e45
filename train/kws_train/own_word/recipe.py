"""The training recipe of a request: three stages that fit into its minutes."""

import importlib.util
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.manifest import DataSource, DecisionDefaults
from kws_train.data.audio_files import read_samples
from kws_train.data.speech_span import speech_span
from kws_train.evaluate.build_stream import keyword_clips
from kws_train.own_word.prepare import find_speech, labels_of_request
from kws_train.own_word.pretrained import pretrained_recipe, unpack_run
from kws_train.own_word.time_budget import fit_to_minutes, seconds_per_scene
from kws_train.own_word.workspace import Request, Workspace
from kws_train.recipe import (
    AugmentRecipe,
    DataRecipe,
    FitRecipe,
    Recipe,
    SpeechCorpus,
    WordCorpus,
    load_recipe,
    write_recipe,
)

__all__ = ["data_sources", "median_word_ms", "plan_recipe", "recording_weight", "word_recipe"]

_EPOCHS = (22, 10, 8)
_BATCH = 128
_HALF_SHARE_RECORDINGS = 30  # recordings that are drawn as often as all synthetic clips
_MAX_RECORDINGS_SHARE = 0.8


def plan_recipe(request: Request, workspace: Workspace) -> Recipe:
    """Return the recipe of a request; at the first call, measure this machine and write it."""
    if workspace.recipe.is_file():
        return load_recipe(workspace.recipe)
    labels = labels_of_request(request)
    folders = workspace.recordings / "train", workspace.synthetic_all
    clips = [path for one in folders for _, path in keyword_clips(one, labels, split="all")]
    recipe = word_recipe(
        labels,
        words=_word_corpora(labels, workspace),
        speech=find_speech(request, workspace).corpora,
        noise=["noise/train"],
        sources=data_sources(labels, request, workspace),
        word_ms=median_word_ms(clips),
        seed=request.seed,
    )
    workspace.notify("measuring the training speed of this machine")
    probe = workspace.folder / "probe"
    shutil.rmtree(probe, ignore_errors=True)  # of an interrupted call
    start = unpack_run(workspace.pretrained)
    scene_s = seconds_per_scene(recipe, data=workspace.folder, run=probe, start=start)
    shutil.rmtree(probe)
    recipe = fit_to_minutes(recipe, minutes=request.minutes, scene_s=scene_s)
    workspace.notify(
        f"training for about {request.minutes:g} min, {sum(_EPOCHS)} epochs of "
        f"{recipe.fit.scenes_per_epoch} scenes"
    )
    write_recipe(workspace.recipe, recipe)
    return recipe


def word_recipe(
    labels: Sequence[str],
    *,
    words: Sequence[WordCorpus],
    speech: Sequence[SpeechCorpus],
    noise: Sequence[str],
    sources: Sequence[DataSource],
    word_ms: int,
    seed: int,
) -> Recipe:
    """Return the recipe for keywords, before `fit_to_minutes` sets its number of scenes.

    Network and features are those of the pretrained network. Augmentation is strongest in the first
    stage; the later stages mine hard negatives with the network of the stage before.
    """
    start = pretrained_recipe()
    rooms = bool(importlib.util.find_spec("pyroomacoustics"))
    return Recipe(
        name=re.sub(r"[^A-Za-z0-9_.-]", "_", "-".join(labels))[:64],
        description=", ".join(label.replace("_", " ") for label in labels),
        licence="as the data's",
        data=DataRecipe(
            keywords=list(labels),
            words=list(words),
            speech=list(speech),
            noise=list(noise),
            sources=list(sources),
        ),
        features=start.features,
        model=start.model,
        augment=AugmentRecipe(
            keyword_share=0.55,
            speech_share=0.35,
            context_share=0.5,
            room_share=0.35,
            room="pyroomacoustics" if rooms else "polack",
            speech_word_share=0.0,
            noise_share=0.85,
            snr_db=(-5.0, 32.0),
            babble_share=0.08,
            microphone_share=0.25,
            speed=(0.82, 1.25),
            warp=(0.86, 1.18),
            tilt_db=12.0,
        ),
        fit=FitRecipe(
            seed=seed,
            epochs=_EPOCHS[0],
            batch_size=_BATCH,
            learning_rate=1.5e-3,
            echo=2,
            average=0.99,
            keep="last",
            patience=sum(_EPOCHS),
        ),
        decision=DecisionDefaults(
            threshold=0.8, smoothing_ms=80, refractory_ms=1000, word_ms=word_ms
        ),
        then=[
            {
                "augment": {"mined_share": 0.3},
                "fit": {"epochs": _EPOCHS[1], "learning_rate": 8e-4},
            },
            {
                "augment": {"mined_share": 0.3, "speech_share": 0.4},
                "fit": {"epochs": _EPOCHS[2], "learning_rate": 5e-4},
            },
        ],
    )


def median_word_ms(clips: Sequence[Path]) -> int:
    """Return the median duration of the words in clips, rounded to 50 ms."""
    spans = [speech_span(read_samples(path), said=path.parent.name) for path in clips]
    lengths = [end - start for start, end in spans]
    return max(100, round(float(np.median(lengths)) / RATE_HZ * 20) * 50)


def recording_weight(n_recordings: int, n_synthetic: int) -> float:
    """Return the weight of a recording in the draw of clips, relative to a synthetic clip.

    Thirty recordings are drawn as often as all synthetic clips, hundreds four times as often.
    """
    if not n_recordings or not n_synthetic:
        return 1.0
    share = min(_MAX_RECORDINGS_SHARE, n_recordings / (n_recordings + _HALF_SHARE_RECORDINGS))
    return share / (1 - share) * n_synthetic / n_recordings


def data_sources(labels: Sequence[str], request: Request, workspace: Workspace) -> list[DataSource]:
    """Return the data sources for the manifest; licences of the user's data are unknown."""
    n = len(keyword_clips(workspace.synthetic_all, labels, split="all"))
    sources = [DataSource(name="synthetic voices", licence="the voices'", clips=n)] * bool(n)
    given = (request.recordings, *request.speech, *request.words, *request.noise)
    return sources + [DataSource(name=one.name, licence="its own") for one in given if one]


def _word_corpora(labels: Sequence[str], workspace: Workspace) -> list[WordCorpus]:
    n_recordings, n_synthetic = (
        len(keyword_clips(folder / "train", labels, split="all"))
        for folder in (workspace.recordings, workspace.synthetic)
    )
    weight = recording_weight(n_recordings, n_synthetic)
    corpora: list[WordCorpus] = []
    for split in ("train", "validation"):
        if n_synthetic:
            corpora.append(WordCorpus(path=f"synthetic/{split}", split=split, synthetic=True))
        if (workspace.recordings / split).is_dir():
            corpora.append(WordCorpus(path=f"recordings/{split}", split=split, weight=weight))
        elif n_recordings and not n_synthetic:  # too few to split: they validate as well
            corpora.append(WordCorpus(path="recordings/train", split="validation"))
    if any(one.is_dir() for one in workspace.other_words.glob("*")):
        corpora.append(WordCorpus(path="other_words", unknown=True))
    return corpora
