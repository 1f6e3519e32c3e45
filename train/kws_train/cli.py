"""The commands `kws train`, `eval`, `align`, `splice` and `synth`: a thin function each."""

import contextlib
import logging
import math
import multiprocessing
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec

from kws.command_group import MODEL, Command, Group, only_one
from kws.errors import ConfigError
from kws_train.optional import load_library

__all__ = ["align", "evaluate", "leave_at_once", "splice", "synth", "train", "voice_options"]

_PATH = click.Path(path_type=Path)
SPLITS = ["train", "validation", "test", "all"]
_RESUME_TRAINING = "interrupted: run the same command to resume after the last completed epoch"


@click.command(cls=Command)
@click.option("--config", type=_PATH, help="The recipe, a TOML file.")
@click.option(
    "--fine-tune",
    "mined",
    type=_PATH,
    help="Instead of a recipe: a folder of `kws mine`, to fine-tune the run given by --start.",
)
@click.option(
    "--data", required=True, type=_PATH, help="Folder that the paths in the recipe are relative to."
)
@click.option(
    "--out", "run", required=True, type=_PATH, help="The run folder; an unfinished run is resumed."
)
@click.option("--start", type=_PATH, help="A run folder to take the initial weights from.")
@click.option("--epochs", type=click.IntRange(1), help="Number of epochs; overrides the recipe.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), help="Random seed; overrides the recipe."
)
@click.option(
    "--search",
    "n_trials",
    type=click.IntRange(1),
    help="Number of trials of a search over [search].",
)
@click.option("--storage", help="With --search: URL of a study shared between machines.")
@click.option("--study", help="With --search: name of the study; default: that of the recipe.")
@click.option("--wandb", "project", help="Also log to this project of Weights & Biases.")
def train(
    config: Path | None,
    *,
    mined: Path | None,
    data: Path,
    run: Path,
    start: Path | None,
    epochs: int | None,
    seed: int | None,
    n_trials: int | None,
    storage: str | None,
    study: str | None,
    project: str | None,
) -> None:
    """Train a model by a recipe.

    Ctrl-C stops it; the same command resumes.
    """
    from kws_train.evaluate.training_plots import draw_training
    from kws_train.fit.training import fit_stages

    logging.getLogger("kws").setLevel(logging.INFO)
    recipe = _recipe(config, mined=mined, start=start)
    changes = {"epochs": epochs, "seed": seed}
    changed = {key: value for key, value in changes.items() if value is not None}
    recipe = msgspec.structs.replace(recipe, fit=msgspec.structs.replace(recipe.fit, **changed))
    try:
        if n_trials is not None:
            _search(recipe, data, run, start, n_trials=n_trials, storage=storage, study=study)
            return
        with _wandb_callbacks(project, recipe, run) as callbacks:
            model, recipe = fit_stages(recipe, data=data, run=run, start=start, callbacks=callbacks)
    except KeyboardInterrupt:
        click.echo(_RESUME_TRAINING, err=True)
        leave_at_once()
    for plot in draw_training(run, model, recipe, data=data):
        click.echo(f"plot: {plot}")
    click.echo(f"trained: {run}. Next: kws export {run} --out {recipe.name}.tflite")


def leave_at_once() -> NoReturn:
    """Exit with code 130 without joining the scene process, which may hang after an interrupt."""
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(130)


def _recipe(config: Path | None, *, mined: Path | None, start: Path | None) -> Any:
    """Return the recipe of a file, or the one that fine-tunes a run on mined clips."""
    if mined and start and not config:
        from kws_train.mining.finetune import fine_tuning_recipe

        return fine_tuning_recipe(start, mined)
    if config and not mined:
        from kws_train.recipe import load_recipe

        return load_recipe(config)
    raise click.UsageError("Give --config, or --fine-tune and --start.")


@contextlib.contextmanager
def _wandb_callbacks(project: str | None, recipe: Any, run: Path) -> Iterator[Sequence[Any]]:
    """Yield the callbacks that log all stages of a training as one Weights & Biases run, or none.

    With WANDB_MODE=offline nothing is uploaded; the log is in the run folder.
    """
    if project is None:
        yield ()
        return
    wandb = load_library("wandb", purpose="--wandb")
    integration = load_library("wandb.integration.keras", purpose="--wandb")
    run.mkdir(parents=True, exist_ok=True)
    try:
        logged = wandb.init(
            project=project, name=run.name, dir=str(run), config=msgspec.to_builtins(recipe)
        )
    except wandb.errors.Error as error:
        raise ConfigError(
            f"--wandb needs an account, or WANDB_MODE=offline. Received: {error}. Run `wandb "
            f"login`, or set that variable."
        ) from error
    try:
        yield (integration.WandbMetricsLogger(),)
    finally:
        logged.finish()


def _search(recipe: Any, data: Path, run: Path, start: Path | None, **study: Any) -> None:
    from kws_train.fit.search import search

    search(recipe, data=data, run=run, start=start, **study)
    best = run / "best.toml"
    click.echo(f"best: {best}. Next: kws train --config {best} --data {data} --out FOLDER")


@click.group(cls=Group)
def evaluate() -> None:
    """Evaluate a model on data that it was not trained on."""


@evaluate.command()
@click.argument("model", type=MODEL)
@click.argument("data", type=_PATH)
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    default="test",
    show_default=True,
    help="By the speaker hash of Speech Commands; _unknown_ and the like are used whole.",
)
@click.option("--reliability", type=_PATH, help="Write a reliability diagram to this image.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def clips(model: str, data: Path, *, split: str, reliability: Path | None, as_json: bool) -> None:
    """Accuracy, recall and confusion on clips of single words.

    DATA holds word/clip files.
    """
    from kws.model import model_path, open_model
    from kws_train.evaluate.clips import evaluate_clips
    from kws_train.evaluate.tables import clip_table

    path = model_path(model)
    scores = evaluate_clips(
        open_model(path),
        data,
        split=split,  # type: ignore[arg-type]
        model_bytes=path.stat().st_size,
    )
    click.echo(msgspec.json.encode(scores).decode() if as_json else clip_table(scores))
    if reliability:
        from kws_train.evaluate.plots import draw_reliability, save

        save(draw_reliability(scores.reliability), reliability)


_STREAM_OPTIONS = (
    click.option("--keywords", type=_PATH, help="Clips of keywords: word/clip files."),
    click.option(
        "--background", type=_PATH, help="Background speech, in the layout of LibriSpeech."
    ),
    click.option("--noise", type=_PATH, help="Noise recordings, mixed into the whole stream."),
    click.option(
        "--noise-pattern",
        default="*",
        show_default=True,
        help="Names of the noise files, such as `4-*`.",
    ),
    click.option(
        "--snr-db",
        multiple=True,
        type=float,
        default=(10.0,),
        show_default=True,
        help="SNR; repeat it for a stream each, `inf` is without noise.",
    ),
    click.option(
        "--snr-rule",
        type=click.Choice(["mean", "peak"]),
        default="mean",
        show_default=True,
        help="SNR by mean power, or by the loudest 512 samples of each.",
    ),
    click.option(
        "--speakers",
        type=click.Choice(["second", "all"]),
        default="second",
        show_default=True,
        help="Background speakers: the half that recipes keep for evaluation, or all.",
    ),
    click.option(
        "--split",
        type=click.Choice(SPLITS),
        default="test",
        show_default=True,
        help="Split of the keywords, by the speaker hash of Speech Commands.",
    ),
    click.option(
        "--sentences",
        "n_background",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Number of utterances between two keywords.",
    ),
    click.option("--without", multiple=True, help="Also leave out utterances with this word."),
    click.option(
        "--minutes",
        type=click.FloatRange(0, min_open=True),
        help="Length of a stream; default: every clip once.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0),
        default=1,
        show_default=True,
        help="Random seed of the streams.",
    ),
)


def _stream_options(command: Any) -> Any:
    """Add the options that describe streams to a command."""
    for option in reversed(_STREAM_OPTIONS):
        command = option(command)
    return command


@evaluate.command()
@click.argument("model", type=MODEL)
@_stream_options
@click.option("--audio", type=_PATH, help="A recording, instead of --keywords and --background.")
@click.option("--labels", type=_PATH, help="Labels of --audio: of Audacity, or JSON lines.")
@click.option(
    "--groups",
    type=_PATH,
    help="CSV that assigns clips or speakers to groups; scores are given per group.",
)
@click.option("--det", type=_PATH, help="Write a DET plot to this image: misses over false alarms.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def stream(
    model: str,
    *,
    audio: Path | None,
    labels: Path | None,
    groups: Path | None,
    det: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Miss rate and false alarms per hour on a stream of speech.

    The stream is built of keywords between sentences, or is a labelled recording.
    """
    from kws.model import model_path, open_model
    from kws_train.evaluate.groups import read_metadata
    from kws_train.evaluate.stream import evaluate_stream
    from kws_train.evaluate.stream_options import StreamOptions, build_streams
    from kws_train.evaluate.stream_results import process_streams
    from kws_train.evaluate.tables import stream_table

    metadata = read_metadata(groups) if groups else None
    spotting = open_model(model_path(model))
    if audio and labels:
        from kws_train.evaluate.label_files import labelled_stream

        streams = [labelled_stream(audio, labels)]
    elif audio or labels or not (options["keywords"] and options["background"]):
        raise click.UsageError("Give --keywords and --background, or --audio and --labels.")
    else:
        streams = build_streams(StreamOptions(**options), spotting.manifest.keywords)
    results = process_streams(spotting, streams)
    scores = evaluate_stream(results, metadata=metadata)
    click.echo(msgspec.json.encode(scores).decode() if as_json else stream_table(scores))
    if det:
        from kws_train.evaluate.plots import draw_det, save

        save(draw_det(results.curves()), det)


@evaluate.command()
@click.argument("run", type=_PATH)
@click.option(
    "--model",
    required=True,
    multiple=True,
    callback=only_one,
    type=MODEL,
    help="The file exported from RUN, or a bundled name.",
)
@click.option(
    "--clips",
    required=True,
    type=_PATH,
    help="Clips of single words: word/clip files; the test split is used.",
)
@_stream_options
def report(run: Path, *, model: str, clips: Path, **options: Any) -> None:
    """Write RUN/report.html: all figures, plots and the worst errors.

    The clips of the worst errors can be played in it.
    """
    from kws.model import model_path, open_model
    from kws_train.evaluate.report import write_report
    from kws_train.evaluate.stream_options import StreamOptions, build_streams
    from kws_train.evaluate.stream_results import process_streams

    if not (options["keywords"] and options["background"]):
        raise click.UsageError("Give --keywords and --background.")
    path = model_path(model)
    spotting = open_model(path)
    streams = build_streams(StreamOptions(**options), spotting.manifest.keywords)
    results = process_streams(spotting, streams)
    command = shlex.join(["kws", *sys.argv[1:]])
    page = write_report(run, path, clips=clips, results=results, command=command)
    click.echo(f"written: {page}")


@evaluate.command()
@click.argument("model", type=MODEL)
@click.option("--config", required=True, type=_PATH, help="The recipe that MODEL was trained by.")
@click.option(
    "--data", required=True, type=_PATH, help="Folder that the paths in the recipe are relative to."
)
@click.option("--out", type=_PATH, help="The calibrated file; default: MODEL itself.")
@click.option(
    "--background",
    multiple=True,
    type=_PATH,
    help="More speech not used in training, in the layout of LibriSpeech.",
)
@click.option(
    "--snr-db",
    multiple=True,
    type=float,
    default=(math.inf, 10.0),
    show_default=True,
    help="SNR; repeat it for a stream each, `inf` is without noise.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="Length of a stream; default: every clip once.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Random seed of the streams.",
)
def calibrate(
    model: str,
    *,
    config: Path,
    data: Path,
    out: Path | None,
    background: tuple[Path, ...],
    snr_db: tuple[float, ...],
    minutes: float | None,
    seed: int,
) -> None:
    """Fill a model's table of thresholds by false alarms per hour.

    Measured on data that the recipe keeps for validation: keywords of the validation split among
    validation sentences. `kws listen` then accepts such a rate with this model.
    """
    from kws.commands.info import facts
    from kws.model import model_path, open_model
    from kws_train.evaluate.calibrate import calibrate_manifest, write_manifest
    from kws_train.evaluate.stream_results import process_streams
    from kws_train.evaluate.tuning_streams import tuning_streams
    from kws_train.recipe import load_recipe

    path = model_path(model)
    spotting = open_model(path)
    recipe = load_recipe(config).stages()[-1]
    streams = tuning_streams(
        recipe.data, data, background=background, snr_db=snr_db, minutes=minutes, seed=seed
    )
    manifest = calibrate_manifest(spotting.manifest, process_streams(spotting, streams))
    write_manifest(path, manifest, out or path)
    for title, text in facts(manifest, n_bytes=path.stat().st_size):
        if title.startswith("calibra"):
            click.echo(f"{title}: {text}")
    click.echo(f"calibrated: {out or path}")


@click.command(cls=Command)
@click.argument("corpus", type=_PATH)
@click.argument("out", type=_PATH)
@click.option(
    "--half",
    type=click.Choice(["first", "second", "all"]),
    show_default="first",
    help="Half of the speakers, in the order of SPEAKERS.TXT; the second is for evaluation.",
)
@click.option(
    "--recognize",
    is_flag=True,
    help="Recognise the words of all files: for speech without transcripts.",
)
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Number of processes."
)
@click.option("--scheduler", help="Address of a Dask cluster to use instead.")
def align(
    corpus: Path,
    out: Path,
    *,
    half: str | None,
    recognize: bool,
    jobs: int,
    scheduler: str | None,
) -> None:
    """Find the time of every word in a corpus of speech.

    CORPUS has the layout of LibriSpeech or, with --recognize, a folder for each speaker; OUT gets
    JSON lines. Words are recognised as American English, many of them wrongly: enough to tell most
    places where a keyword is said.
    """
    from kws_train.data.align import align as run

    if recognize and half:
        raise click.UsageError(
            "`--half` must be left out with `--recognize`, which takes all files. Received: both. "
            "Choose speakers by `speakers` in the recipe."
        )
    summary = run(
        corpus,
        out,
        half=half or "first",
        recognize=recognize,
        n_jobs=jobs,
        scheduler=scheduler,
        progress=True,
    )
    click.echo(
        f"{out}: {summary.n_aligned} utterances aligned, {summary.n_kept} already there, "
        f"{len(summary.left_out)} left out"
    )


@click.command(cls=Command)
@click.argument("corpus", type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--word", required=True, help="The word to make; clips go to OUT/WORD.")
@click.option(
    "--part",
    "parts",
    multiple=True,
    required=True,
    metavar="WORD:PHONE",
    help="A phone of a word of CORPUS in ARPAbet, such as stop:AA; repeat it, in order.",
)
@click.option(
    "--most", type=click.IntRange(1), default=1000, show_default=True, help="Clips at most."
)
@click.option(
    "--stretch",
    type=(click.FloatRange(0.5, 3.0), click.FloatRange(0.5, 3.0)),
    default=(1.0, 1.0),
    metavar="LOW HIGH",
    help="Range of the factor by which each part is lengthened.",
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Random seed.")
def splice(
    corpus: Path,
    out: Path,
    *,
    word: str,
    parts: Sequence[str],
    most: int,
    stretch: tuple[float, float],
    seed: int,
) -> None:
    """Make clips of a new word from parts of words in a corpus."""
    from kws_train.synth.splice import splice as run

    pairs = [part.partition(":")[::2] for part in parts]
    n = run(corpus, out, word=word, parts=pairs, most=most, stretch=stretch, seed=seed)
    click.echo(f"{out / word}: {n} clips")


_VOICE_OPTIONS = (
    click.option(
        "--backend",
        "names",
        multiple=True,
        help="piper, kokoro, flite or espeak-ng; default: the best available.",
    ),
    click.option("--voices", type=_PATH, help="Folder with the models of Piper and Kokoro."),
    click.option(
        "--kokoro",
        type=(_PATH, _PATH),
        metavar="MODEL VOICES",
        help="Files of Kokoro: the ONNX model and the voices, an .npz.",
    ),
)


def voice_options(command: Any) -> Any:
    """Add the options that choose the voices to a command."""
    for option in reversed(_VOICE_OPTIONS):
        command = option(command)
    return command


@click.command(cls=Command)
@click.argument("out", type=_PATH)
@click.option("--word", "words", multiple=True, metavar="WORD=N", help="N clips of WORD.")
@click.option(
    "--near",
    "near",
    multiple=True,
    metavar="WORD=N",
    help="N clips of phrases that sound like WORD, as negatives.",
)
@voice_options
@click.option("--held-out", is_flag=True, help="Use only the voices reserved for evaluation.")
@click.option("--language", default="en", show_default=True, help="Language of the words.")
@click.option("--read-back", is_flag=True, help="Drop clips that Whisper tiny does not recognise.")
@click.option("--cache", type=_PATH, help="Folder that keeps synthesised clips for the next run.")
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Number of processes."
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Random seed.")
def synth(
    out: Path,
    *,
    words: Sequence[str],
    near: Sequence[str],
    names: Sequence[str],
    voices: Path | None,
    kokoro: tuple[Path, Path] | None,
    held_out: bool,
    language: str,
    read_back: bool,
    cache: Path | None,
    jobs: int,
    seed: int,
) -> None:
    """Synthesise clips of words with text-to-speech voices.

    Clips go to OUT/WORD. Ctrl-C stops it; the same command resumes.
    """
    from kws_train.synth.clip_checks import Whisper
    from kws_train.synth.synthesize import synthesize
    from kws_train.synth.voices.discover import describe_engines, open_engines

    wanted, required = _clips_wanted(words, near, language=language, seed=seed)
    if not wanted:
        raise click.UsageError("Give --word WORD=N, such as off=100, or --near WORD=N.")
    engines = open_engines(
        names, folder=voices, kokoro_files=kokoro, language=language, held_out=held_out
    )
    click.echo(f"voices: {describe_engines(engines)}", err=True)
    try:
        report = synthesize(
            wanted,
            out,
            engines,
            cache=cache,
            transcriber=Whisper(language=language) if read_back else None,
            language=language,
            n_jobs=jobs,
            seed=seed,
        )
    except KeyboardInterrupt:
        click.echo("interrupted: run the same command to resume", err=True)
        raise
    click.echo(f"{out}: {report.describe()}")
    report.require(required)


def _clips_wanted(
    words: Sequence[str], near: Sequence[str], *, language: str, seed: int
) -> tuple[Counter[str], list[str]]:
    """Return the number of clips by text, and the texts of which there must be clips."""
    from kws_train.synth.negatives import allocate_clips, find_negatives, without_keywords
    from kws_train.synth.phrases import Phrase

    said, alike = _counted(words), _counted(near)
    phrases = {word: Phrase.of(word, language=language) for word, _ in (*said, *alike)}
    wanted = Counter(dict(said))
    for word, n in alike:
        others = [phrase for other, phrase in phrases.items() if other != word]
        found = without_keywords(find_negatives(phrases[word], seed=seed), others)
        wanted.update(allocate_clips(found, n_clips=n))
    return wanted, [phrases[word].text for word, _ in said]


def _counted(words: Sequence[str]) -> list[tuple[str, int]]:
    """Parse WORD=N."""
    counted = []
    for option in words:
        word, _, n = option.rpartition("=")
        if not word or not n.isdecimal():
            raise click.BadParameter(f"give WORD=N, such as off=100; received {option!r}")
        counted.append((word, int(n)))
    return counted
