"""What each way to vary synthetic clips is worth to a head: misses of people, each way alone.

    python benchmarks/word_augmentation.py runs/heads/computer-0.work --recordings data/wake_words

Takes a finished work folder of `benchmarks/own_word.py --recordings 0`, and trains its head again
on other scenes of the same clips; speech, noise, seed and settings stay the same. Misses are those
of the float head, without the gate, on the evaluation streams, clean and at 10 dB: means over the
operating points of one to six false alarms, as in `benchmarks/head_smoothing.py`. `--engine` adds
clips by another engine. `--recordings` adds what the work folder's own head takes for the word
among the first three quarters of every folder of recordings, whatever they are called: how a model
could label what it hears in use.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import keras
import msgspec
import numpy as np
from head_smoothing import curve_at, run_over

from kws.arrays import Frames
from kws.model import n_cold_vectors, open_embedding, open_model
from kws_train.data.audio_files import audio_files, read_samples
from kws_train.data.vector_cache import VectorCache, vector_cache_folder
from kws_train.evaluate.build_stream import Stream
from kws_train.evaluate.traces import posterior_trace, silence_before
from kws_train.fit.vector_training import train_on_vectors
from kws_train.fit.vector_windows import VectorFit
from kws_train.networks.keras_backend import make_deterministic
from kws_train.networks.spotting import Spotting
from kws_train.own_word.evaluation import evaluation_streams
from kws_train.own_word.prepare import labels_of_request
from kws_train.own_word.word_vectors import WORD_AUGMENTATION, WordVectors, collect_vectors
from kws_train.own_word.workspace import Request, Workspace
from kws_train.recipe import AugmentRecipe
from kws_train.synth.synthesize import synthesize
from kws_train.synth.voices.discover import open_engines

_WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "tempo as spoken, not 0.8 to 1.2": {"speed": (1.0, 1.0)},
    "tempo 0.65 to 1.4": {"speed": (0.65, 1.4)},
    "pitch and formants as spoken, not times 0.86 to 1.18": {"warp": (1.0, 1.0)},
    "pitch and formants times 0.75 to 1.3": {"warp": (0.75, 1.3)},
    "no codec, not in 20 %": {"codec_share": 0.0},
    "a codec in 50 %": {"codec_share": 0.5},
    "no room, not in 45 %": {"room_share": 0.0},
    "a room in 80 %": {"room_share": 0.8},
    "no cheap microphone, not in 25 %": {"microphone_share": 0.0},
}
_LABELLED_FROM = 0.9
_N_ENGINE_CLIPS = 150
_PATH = click.Path(path_type=Path, exists=True)


@click.command()
@click.argument("folder", metavar="WORK", type=_PATH)
@click.option("--engine", "engines", multiple=True, help="Such as espeak-ng.")
@click.option("--recordings", type=_PATH, help="Folders of recordings by word.")
@click.option("--seeds", default=1, show_default=True, help="Trainings of each way; their mean.")
@click.option("--jobs", "n_jobs", default=2, show_default=True)
@click.option("--only", multiple=True, help="Ways, by what they begin with.")
def main(
    folder: Path,
    *,
    engines: tuple[str, ...],
    recordings: Path | None,
    seeds: int,
    n_jobs: int,
    only: tuple[str, ...],
) -> None:
    """Print a row of a table for each way."""
    workspace = Workspace(folder, notify=lambda text: click.echo(text, err=True))
    request = workspace.read_request()
    streams = evaluation_streams(request, workspace)
    embedding = open_embedding(open_model(workspace.exported))
    heard = [run_over(embedding, stream) for stream in streams]
    click.echo(f"| scenes of {request.phrases[0]} | missed, clean | missed, 10 dB |\n|---|---|---|")
    for name, augment, clips in _ways(request, workspace, engines, recordings):
        if only and not name.startswith(only):
            continue
        vectors = _collect(request, workspace, augment, clips, n_jobs=n_jobs)
        trials = [
            _misses(_train(request, vectors, seed=seed), workspace, streams, heard)
            for seed in range(1, seeds + 1)
        ]
        click.echo(
            "| " + " | ".join((name, *(f"{one:.1%}" for one in np.mean(trials, axis=0)))) + " |"
        )


def _ways(
    request: Request, workspace: Workspace, engines: tuple[str, ...], recordings: Path | None
) -> Iterator[tuple[str, AugmentRecipe, list[Path]]]:
    """Yield a name, how scenes of words are disturbed, and more clips of the word."""
    for name, changed in _WAYS.items():
        yield name, msgspec.structs.replace(WORD_AUGMENTATION, **changed), []
    for engine in engines:
        out = workspace.folder / "more" / engine
        synthesize({request.phrases[0]: _N_ENGINE_CLIPS}, out, open_engines([engine]))
        yield f"{_N_ENGINE_CLIPS} clips by {engine} more", WORD_AUGMENTATION, audio_files(out)
    if recordings:
        clips = _labelled_by_head(workspace, recordings)
        (label,) = labels_of_request(request)
        n_right = sum(path.parent.name == label for path in clips)
        name = f"{len(clips)} recordings that the head labelled, {n_right} rightly"
        yield name, WORD_AUGMENTATION, clips


def _labelled_by_head(workspace: Workspace, recordings: Path) -> list[Path]:
    model = open_model(workspace.model)
    before = silence_before(model.manifest)
    found = []
    for folder in sorted(recordings.iterdir()):
        paths = audio_files(folder)
        for path in paths[: len(paths) * 3 // 4]:
            trace = posterior_trace(model, np.concatenate((before, read_samples(path))))
            if trace.smoothed.max(initial=0.0) >= _LABELLED_FROM:
                found.append(path)
    return found


def _collect(
    request: Request,
    workspace: Workspace,
    augment: AugmentRecipe,
    clips: list[Path],
    *,
    n_jobs: int,
) -> WordVectors:
    cache = VectorCache(vector_cache_folder())
    return collect_vectors(
        request, workspace, cache=cache, n_jobs=n_jobs, words=augment, more_clips=clips
    )


def _train(request: Request, vectors: WordVectors, *, seed: int) -> Spotting:
    keras.backend.clear_session()
    make_deterministic(seed=seed)
    return train_on_vectors(
        vectors.training,
        vectors.validation,
        n_labels=1 + len(request.phrases),
        settings=VectorFit(),
        seed=seed,
    )


def _misses(
    head: Spotting, workspace: Workspace, streams: list[Stream], heard: list[Frames]
) -> list[float]:
    model = open_model(workspace.exported)
    n_cold = n_cold_vectors(open_embedding(model).manifest)
    misses = []
    for stream, vectors in zip(streams, heard, strict=True):
        posteriors = np.array(keras.ops.softmax(head(vectors[None])))[0]
        posteriors[:n_cold] = 0
        decision = model.manifest.decision
        misses.append(
            curve_at(model.manifest, posteriors, stream, decision.smoothing_ms).mean_misses()
        )
    return misses


if __name__ == "__main__":
    main()
