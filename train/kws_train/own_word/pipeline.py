"""From a request to a model file: the stages of `kws new`, each a function of the workspace.

```
 phrases ─ voices ──▶ synthetic/   ┐
 recordings ────────▶ recordings/  ├▶ recipe.toml ▶ run/ ▶ exported.tflite ▶ model.tflite ▶ report
 speech, words, noise ─────────────┘                                                        figures
```

A stage that finds its results in the workspace keeps them. Evaluation data is set aside first, see
`kws_train.own_word.prepare`.
"""

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from kws.errors import ConfigError
from kws.model import open_model
from kws.run_progress import ProgressWriter
from kws.stderr import quiet_stderr
from kws_export.bundle import export_model
from kws_export.microwakeword import copy_description
from kws_train.atomic import replacing
from kws_train.data.front_ends import micro_frontend, speech_embedding
from kws_train.data.vector_cache import VectorCache, vector_cache_folder
from kws_train.evaluate.calibrate import calibrate_manifest, write_manifest
from kws_train.evaluate.report import write_report
from kws_train.evaluate.stream_results import StreamResults, process_streams
from kws_train.evaluate.tuning_streams import tuning_streams
from kws_train.fit.training import fit_stages
from kws_train.own_word.evaluation import NOISY_SNR_DB, evaluation_streams, link_test_clips
from kws_train.own_word.figures import Figures, measure_figures, thresholds_at
from kws_train.own_word.fine_tuning import fine_tune_word
from kws_train.own_word.head import export_word_head, train_word_head
from kws_train.own_word.micro import (
    export_word_micro,
    train_word_micro,
    write_calibrated_micro,
)
from kws_train.own_word.prepare import prepare_audio
from kws_train.own_word.pretrained import unpack_run
from kws_train.own_word.recipe import plan_recipe
from kws_train.own_word.stages import EpochProgress, Stages
from kws_train.own_word.word_vectors import collect_vectors, vector_tuning_streams
from kws_train.own_word.workspace import Request, Workspace
from kws_train.recipe import load_recipe
from kws_train.synth.synthesize import synthesize
from kws_train.synth.voices.engine import VoiceEngine

__all__ = [
    "WordModel",
    "build_word_model",
    "calibrate_thresholds",
    "export_network",
    "make_on_vectors",
    "score_streams",
    "train_network",
    "write_word_report",
]

_N_FRAMES, _TEMPERATURE = 4, 3.0
_N_NOISY_STREAMS, _TUNING_MINUTES = 6, 40.0
_N_VECTOR_TAIL = 20  # false alarms that the tail of a model on vectors is fitted to


@dataclass(frozen=True)
class WordModel:
    """A finished model: its file, its figures and its report."""

    model: Path
    figures: Figures
    report: Path


def build_word_model(
    request: Request,
    *,
    out: Path,
    workspace: Workspace,
    engines: Sequence[VoiceEngine],
    cache: Path | None = None,
    vectors: Path | None = None,
    n_jobs: int = 1,
    command: str = "",
) -> WordModel:
    """Build the model of a request, continuing with what the workspace holds.

    Parameters
    ----------
    request : Request
    out : Path
        The model file to write.
    workspace : Workspace
    engines : sequence of VoiceEngine
        Empty if recordings have to do.
    cache : Path, optional
        Cache of synthetic clips, see `synthesize`.
    vectors : Path, optional
        Cache of vectors to train on, by default `vector_cache_folder()`.
    n_jobs : int
        Processes for synthesis and embedding.
    command : str
        The command that reproduces the model; shown in the report.

    Raises
    ------
    ConfigError
        If voices cannot say a phrase, there is nothing to train on, the workspace belongs to
        another request, or the model cannot be written to `out`.
    """
    workspace.begin(request)
    figures = _find_figures(workspace)
    if figures:
        workspace.notify("already finished: nothing to do")
    else:
        minutes = _stage_minutes(request)
        with ProgressWriter(workspace.folder, minutes) as progress:
            told = dataclasses.replace(workspace, notify=_both(workspace.notify, progress.tell))
            stages = Stages(minutes, notify=workspace.notify, progress=progress)
            speak = partial(
                synthesize,
                engines=engines,
                cache=cache,
                language=request.language,
                n_jobs=n_jobs,
                seed=request.seed,
            )
            figures = _run_stages(
                request,
                told,
                stages,
                speak=speak if engines else None,
                vectors=vectors,
                n_jobs=n_jobs,
                command=command,
            )
    _copy_model(workspace.model, out, is_micro=request.is_micro)
    return WordModel(out, figures, workspace.report)


def make_on_vectors(
    request: Request, workspace: Workspace, *, vectors: Path | None, n_jobs: int = 1
) -> None:
    """Turn all audio into vectors, train a head or a micro network on them and export it."""
    if workspace.exported.is_file():
        return
    train, export = train_word_head, export_word_head
    if request.is_micro:
        train, export = train_word_micro, export_word_micro
    front_end = micro_frontend() if request.is_micro else speech_embedding()
    cache = VectorCache(vectors or vector_cache_folder(), front_end)
    with workspace.count_training_time():
        collected = collect_vectors(request, workspace, cache=cache, n_jobs=n_jobs)
        train(request, workspace, collected)
    export(request, workspace, collected)


def train_network(workspace: Workspace) -> None:
    """Train the stages of the recipe, from the pretrained network."""
    recipe = load_recipe(workspace.recipe)
    start = unpack_run(workspace.pretrained)
    n_epochs = sum(stage.fit.epochs for stage in recipe.stages())
    progress = EpochProgress(n_epochs, notify=workspace.notify)
    fit_stages(
        recipe,
        data=workspace.folder,
        run=workspace.run,
        start=start,
        callbacks=[progress],
        quiet=True,
    )


def export_network(workspace: Workspace) -> None:
    """Export the trained network in int8."""
    if workspace.exported.is_file():
        return
    with quiet_stderr(), replacing(workspace.exported) as begun:  # TensorFlow logs much
        agreement = export_model(
            workspace.run, begun, n_frames=_N_FRAMES, temperature=_TEMPERATURE, force=True
        )
    workspace.notify(f"exported in int8: agrees with the trained network at {agreement.argmax:.1%}")


def calibrate_thresholds(request: Request, workspace: Workspace) -> None:
    """Calibrate thresholds on speech that is not trained on, and set the model's own threshold."""
    if workspace.model.is_file():
        return
    workspace.notify("calibrating thresholds on held-out speech")
    if request.small:
        streams = tuning_streams(
            load_recipe(workspace.recipe).data,
            workspace.folder,
            snr_db=(float("inf"), *_N_NOISY_STREAMS * (NOISY_SNR_DB,)),
            snr_rule="peak",
            minutes=_TUNING_MINUTES,
        )
    else:
        streams = vector_tuning_streams(request, workspace, snr_db=NOISY_SNR_DB, seed=1)
    results = process_streams(open_model(workspace.exported), streams)
    manifest = calibrate_manifest(
        results.manifest, results, beyond=True, n_tail=None if request.small else _N_VECTOR_TAIL
    )
    highest = max(thresholds_at(request.budget, manifest).values())
    if request.is_micro:
        write_calibrated_micro(request, workspace, threshold=highest)
        return
    decision = replace(manifest.decision, threshold=round(highest, 4))
    write_manifest(workspace.exported, replace(manifest, decision=decision), workspace.model)


def score_streams(request: Request, workspace: Workspace) -> StreamResults:
    """Run the calibrated model over streams of held-out words and speech."""
    workspace.notify("measuring on held-out words and speech")
    return process_streams(open_model(workspace.model), evaluation_streams(request, workspace))


def write_word_report(
    request: Request, workspace: Workspace, *, results: StreamResults, command: str = ""
) -> None:
    """Write the report page of the run, with `command` as the command that reproduces it."""
    link_test_clips(request, workspace)
    write_report(
        workspace.run,
        workspace.model,
        clips=workspace.test_clips,
        split="all",
        results=results,
        command=command,
    )


def _run_stages(
    request: Request,
    workspace: Workspace,
    stages: Stages,
    *,
    speak: Any,
    vectors: Path | None,
    n_jobs: int,
    command: str,
) -> Figures:
    """Run every stage; one that finds its results in the workspace keeps them."""
    stages.begin("audio")
    prepare_audio(request, workspace, speak=speak)
    stages.begin("training")
    if request.small:
        with workspace.count_training_time():
            plan_recipe(request, workspace)
            train_network(workspace)
        stages.begin("export")
        export_network(workspace)
    else:
        make_on_vectors(request, workspace, vectors=vectors, n_jobs=n_jobs)
        if not request.is_micro:
            fine_tune_word(request, workspace, vectors=vectors, n_jobs=n_jobs)
        stages.begin("export")
    stages.begin("thresholds")
    calibrate_thresholds(request, workspace)
    stages.begin("evaluation")
    results = score_streams(request, workspace)
    stages.begin("figures")
    figures = measure_figures(request, workspace, heard=results)
    stages.begin("report")
    write_word_report(request, workspace, results=results, command=command)
    _write_figures(workspace, figures)  # last: it marks a finished workspace
    return figures


def _both(one: Callable[[str], None], other: Callable[[str], None]) -> Callable[[str], None]:
    def tell(text: str) -> None:
        one(text)
        other(text)

    return tell


def _stage_minutes(request: Request) -> dict[str, float]:
    """Return the stages and an estimate of each in minutes; thresholds need most but training."""
    audio = request.n_clips * len(request.phrases) / 400
    return {
        "audio": audio,
        "training": request.minutes,
        "export": 0.5,
        "thresholds": 3,
        "evaluation": 1,
        "figures": 0.5,
        "report": 0.5,
    }


def _find_figures(workspace: Workspace) -> Figures | None:
    """Return the figures of a finished workspace; None if it is not finished."""
    if not all(one.is_file() for one in (workspace.figures, workspace.model, workspace.report)):
        return None
    try:
        return msgspec.json.decode(workspace.figures.read_bytes(), type=Figures)
    except msgspec.DecodeError:
        return None


def _write_figures(workspace: Workspace, figures: Figures) -> None:
    with replacing(workspace.figures) as begun:
        begun.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))


def _copy_model(model: Path, out: Path, *, is_micro: bool) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if is_micro:
            copy_description(model, out)
        with replacing(out) as begun:
            shutil.copyfile(model, begun)
    except OSError as error:
        raise ConfigError(
            f"`--out` must be a file that can be written. Received: {out} ({error.strerror}). "
            f"The model is in {model}; copy it from there."
        ) from error
