"""The workbench's commands: `kws train`, `kws eval`, `kws align`. Thin; the work is elsewhere."""

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

from kws.errors import ConfigError
from kws_train.optional import load_library

__all__ = ["align", "evaluate", "leave_at_once", "splice", "synth", "train", "voice_options"]

_PATH = click.Path(path_type=Path)
SPLITS = ["train", "validation", "test", "all"]


@click.command()
@click.option("--config", type=_PATH, help="The recipe, a TOML file.")
@click.option(
    "--fine-tune",
    "mined",
    type=_PATH,
    help="In place of a recipe: a folder of `kws mine`, for the run that --start names.",
)
@click.option("--data", required=True, type=_PATH, help="Folder its data paths are relative to.")
@click.option("--out", "run", required=True, type=_PATH, help="The run folder; resumed if begun.")
@click.option("--start", type=_PATH, help="A run folder whose weights to begin with.")
@click.option("--epochs", type=click.IntRange(1), help="In place of the recipe's number of epochs.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="In place of the recipe's seed.")
@click.option(
    "--search", "n_trials", type=click.IntRange(1), help="Try so many settings within [search]."
)
@click.option("--storage", help="With --search: URL of a study that other machines share.")
@click.option("--study", help="With --search: its name; default: the recipe's.")
@click.option("--wandb", "project", help="Log to this project of Weights & Biases, too.")
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
    """Train a model as a recipe says; Ctrl-C stops it, the same command goes on."""
    from kws_train.evaluate.training_plots import draw
    from kws_train.fit.training import fit_stages
    from kws_train.recipe import load_recipe

    logging.getLogger("kws").setLevel(logging.INFO)
    if mined and start and not config:
        from kws_train.mining.finetune import fine_tuning

        recipe = fine_tuning(start, mined)
    elif config and not mined:
        recipe = load_recipe(config)
    else:
        raise click.UsageError("Give --config, or --fine-tune and --start.")
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
        click.echo("interrupted: the same command goes on after the last whole epoch", err=True)
        leave_at_once()
    for picture in draw(run, model, recipe, data=data):
        click.echo(f"drawn: {picture}")
    click.echo(f"trained: {run}. Next: kws export {run} --out {recipe.name}.tflite")


def leave_at_once() -> NoReturn:
    """End without waiting for the process that makes scenes: interrupted, it may never answer."""
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(130)


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


@click.group()
def evaluate() -> None:
    """Measure a model file on data that it was not trained on."""


@evaluate.command()
@click.argument("model", type=str)
@click.argument("data", type=_PATH)
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    default="test",
    show_default=True,
    help="By the official speaker hash; folders such as _unknown_ are taken whole.",
)
@click.option("--reliability", type=_PATH, help="Draw how often scores are right to this picture.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def clips(model: str, data: Path, *, split: str, reliability: Path | None, as_json: bool) -> None:
    """Sort the isolated words below DATA: accuracy, recall, confusion."""
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
    click.option("--keywords", type=_PATH, help="word/clip files."),
    click.option("--background", type=_PATH, help="Speech, in LibriSpeech's layout."),
    click.option("--noise", type=_PATH, help="Recordings to lay under the whole."),
    click.option(
        "--noise-pattern",
        default="*",
        show_default=True,
        help="Names of the noise files to take, such as `4-*`.",
    ),
    click.option(
        "--snr-db",
        multiple=True,
        type=float,
        default=(10.0,),
        show_default=True,
        help="Speech over noise; several make a stream each, `inf` a clean one.",
    ),
    click.option(
        "--snr-rule",
        type=click.Choice(["mean", "peak"]),
        default="mean",
        show_default=True,
        help="By mean power, or by the loudest 512 samples of either.",
    ),
    click.option(
        "--speakers",
        type=click.Choice(["second", "all"]),
        default="second",
        show_default=True,
        help="Of the background: the half that recipes keep for evaluation, or all.",
    ),
    click.option(
        "--split",
        type=click.Choice(SPLITS),
        default="test",
        show_default=True,
        help="Of the keywords, by the official speaker hash.",
    ),
    click.option(
        "--sentences",
        "n_background",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Utterances from one keyword to the next.",
    ),
    click.option("--without", multiple=True, help="Leave out utterances with this word, too."),
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
        help="Another seed, another stream.",
    ),
)


def _stream_options(command: Any) -> Any:
    """Add the options that describe streams to a command."""
    for option in reversed(_STREAM_OPTIONS):
        command = option(command)
    return command


@evaluate.command()
@click.argument("model", type=str)
@_stream_options
@click.option("--audio", type=_PATH, help="A recording, in place of --keywords and --background.")
@click.option("--labels", type=_PATH, help="What is said in it: Audacity's labels, or JSON lines.")
@click.option("--groups", type=_PATH, help="CSV of clips or speakers and groups they belong to.")
@click.option("--det", type=_PATH, help="Draw misses over false alarms to this picture.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def stream(
    model: str,
    *,
    audio: Path | None,
    labels: Path | None,
    groups: Path | None,
    det: Path | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Count misses and false alarms per hour on a stream of words among sentences."""
    from kws.model import model_path, open_model
    from kws_train.evaluate.groups import read_metadata
    from kws_train.evaluate.stream import evaluate_stream, hear
    from kws_train.evaluate.tables import stream_table

    metadata = read_metadata(groups) if groups else None
    spotting = open_model(model_path(model))
    if audio and labels:
        from kws_train.evaluate.label_files import labelled_stream

        streams = [labelled_stream(audio, labels)]
    elif audio or labels or not (where["keywords"] and where["background"]):
        raise click.UsageError("Give --keywords and --background, or --audio and --labels.")
    else:
        streams = _streams(spotting.manifest.keywords, **where)
    heard = hear(spotting, streams)
    scores = evaluate_stream(heard, metadata=metadata)
    click.echo(msgspec.json.encode(scores).decode() if as_json else stream_table(scores))
    if det:
        from kws_train.evaluate.plots import draw_det, save

        save(draw_det(heard.curves()), det)


@evaluate.command()
@click.argument("run", type=_PATH)
@click.option("--model", required=True, help="The file exported from RUN, or a bundled name.")
@click.option("--clips", required=True, type=_PATH, help="word/clip files; the test split.")
@_stream_options
def report(run: Path, *, model: str, clips: Path, **where: Any) -> None:
    """Write RUN/report.html: every figure, picture and the worst moments to listen to."""
    from kws.model import model_path, open_model
    from kws_train.evaluate.report import write_report
    from kws_train.evaluate.stream import hear

    if not (where["keywords"] and where["background"]):
        raise click.UsageError("Give --keywords and --background.")
    path = model_path(model)
    spotting = open_model(path)
    heard = hear(spotting, _streams(spotting.manifest.keywords, **where))
    command = shlex.join(["kws", *sys.argv[1:]])
    click.echo(f"written: {write_report(run, path, clips=clips, heard=heard, command=command)}")


@evaluate.command()
@click.argument("model", type=str)
@click.option("--config", required=True, type=_PATH, help="The recipe it was trained by.")
@click.option("--data", required=True, type=_PATH, help="Folder its data paths are relative to.")
@click.option("--out", type=_PATH, help="The calibrated file; default: MODEL itself.")
@click.option(
    "--background",
    multiple=True,
    type=_PATH,
    help="More speech that training never heard, in LibriSpeech's layout.",
)
@click.option(
    "--snr-db",
    multiple=True,
    type=float,
    default=(math.inf, 10.0),
    show_default=True,
    help="Speech over noise; a stream each, `inf` is a clean one.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="Length of a stream; default: every clip once.",
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
def calibrate(model: str, *, config: Path, data: Path, out: Path | None, **where: Any) -> None:
    """Fill MODEL's table of false alarms per hour to thresholds.

    Measured on what the recipe's training left out: keywords of the validation split between
    sentences that were kept for validation. Afterwards `kws listen` takes a budget with this model.
    """
    from kws.commands.info import facts
    from kws.model import model_path, open_model
    from kws_train.evaluate.calibrate import calibrate as fill
    from kws_train.evaluate.calibrate import tuning_streams, write_manifest
    from kws_train.evaluate.stream import hear
    from kws_train.recipe import load_recipe

    path = model_path(model)
    spotting = open_model(path)
    recipe = load_recipe(config).stages()[-1]
    manifest = fill(spotting.manifest, hear(spotting, tuning_streams(recipe.data, data, **where)))
    write_manifest(path, manifest, out or path)
    for title, text in facts(manifest, n_bytes=path.stat().st_size):
        if title.startswith("calibra"):
            click.echo(f"{title}: {text}")
    click.echo(f"calibrated: {out or path}")


def _streams(
    words: Sequence[str],
    *,
    keywords: Path,
    background: Path,
    noise: Path | None,
    noise_pattern: str,
    snr_db: Sequence[float],
    snr_rule: Any,
    speakers: str,
    split: Any,
    n_background: int,
    without: Sequence[str],
    minutes: float | None,
    seed: int,
) -> Any:
    """Build the streams that the options of `kws eval stream` describe, one for each SNR."""
    from kws_train.data.align import train_speakers
    from kws_train.data.corpus import quiet_utterances
    from kws_train.evaluate.build_stream import build_stream, keyword_clips, noise_below

    second = train_speakers(background)[1] if speakers == "second" else None
    clips = keyword_clips(keywords, words, split=split)
    utterances = quiet_utterances(background, without=[*words, *without], speakers=second)
    recordings = noise_below(noise, noise_pattern) if noise else []
    return [
        build_stream(
            clips,
            utterances,
            recordings,
            snr_db=one,
            snr_rule=snr_rule,
            seed=seed,
            most_s=None if minutes is None else 60 * minutes,
            n_background=n_background,
        )
        for one in (snr_db if noise else [math.inf])
    ]


@click.command()
@click.argument("corpus", type=_PATH)
@click.argument("out", type=_PATH)
@click.option(
    "--half",
    type=click.Choice(["first", "second", "all"]),
    default="first",
    show_default=True,
    help="Which speakers, in the order of SPEAKERS.TXT; the second half is for evaluation.",
)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--scheduler", help="Address of a Dask cluster to do it instead.")
def align(corpus: Path, out: Path, half: str, jobs: int, scheduler: str | None) -> None:
    """Find out where each word is in a LibriSpeech-shaped CORPUS; write OUT, JSON lines."""
    from kws_train.data.align import align as run

    summary = run(corpus, out, half=half, n_jobs=jobs, scheduler=scheduler, progress=True)
    click.echo(
        f"{out}: {summary.n_aligned} utterances aligned, {summary.n_kept} were there, "
        f"{len(summary.left_out)} left out"
    )


@click.command()
@click.argument("corpus", type=_PATH)
@click.argument("out", type=_PATH)
@click.option("--word", required=True, help="The word to make; clips go to OUT/WORD.")
@click.option(
    "--part",
    "parts",
    multiple=True,
    required=True,
    metavar="WORD:PHONE",
    help="A phone of a word of CORPUS, in ARPAbet, such as stop:AA; in order, repeated.",
)
@click.option("--most", type=click.IntRange(1), default=1000, show_default=True, help="Clips.")
@click.option(
    "--stretch",
    type=(click.FloatRange(0.5, 3.0), click.FloatRange(0.5, 3.0)),
    default=(1.0, 1.0),
    metavar="LOW HIGH",
    help="Let each part last between so many times as long.",
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
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
    """Make clips of a word that CORPUS lacks out of parts of words that it has."""
    from kws_train.synth.splice import splice as run

    pairs = [part.partition(":")[::2] for part in parts]
    n = run(corpus, out, word=word, parts=pairs, most=most, stretch=stretch, seed=seed)
    click.echo(f"{out / word}: {n} clips")


_VOICE_OPTIONS = (
    click.option(
        "--backend",
        "names",
        multiple=True,
        help="piper, kokoro, flite, espeak-ng; default: the best.",
    ),
    click.option("--voices", type=_PATH, help="Folder of the models of Piper and Kokoro."),
    click.option(
        "--kokoro",
        type=(_PATH, _PATH),
        metavar="MODEL VOICES",
        help="Kokoro's ONNX model and its voices, an .npz, wherever they are.",
    ),
)


def voice_options(command: Any) -> Any:
    """Add the options that say which voices speak to a command."""
    for option in reversed(_VOICE_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("out", type=_PATH)
@click.option("--word", "words", multiple=True, metavar="WORD=N", help="N clips of WORD.")
@click.option(
    "--near",
    "near",
    multiple=True,
    metavar="WORD=N",
    help="N clips of what is like WORD and must not be taken for it.",
)
@voice_options
@click.option("--held-out", is_flag=True, help="Voices that are used for nothing else.")
@click.option("--language", default="en", show_default=True, help="Of the words.")
@click.option("--read-back", is_flag=True, help="Drop what Whisper tiny does not understand.")
@click.option("--cache", type=_PATH, help="Where spoken clips are kept, for the next time.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
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
    """Let synthetic voices say words, into OUT/WORD; the same command goes on."""
    from kws_train.synth.clip_checks import Whisper
    from kws_train.synth.negatives import apart_from, negatives, share_out
    from kws_train.synth.phrases import Phrase
    from kws_train.synth.synthesize import synthesize
    from kws_train.synth.voices.discover import describe, open_backends

    said, alike = _counted(words), _counted(near)
    phrases = {word: Phrase.of(word, language=language) for word, _ in (*said, *alike)}
    wanted = Counter(dict(said))
    for word, n in alike:
        others = [phrase for other, phrase in phrases.items() if other != word]
        found = apart_from(negatives(phrases[word], seed=seed), others)
        wanted.update(share_out(found, n_clips=n))
    if not wanted:
        raise click.UsageError("Give --word WORD=N, such as off=100, or --near WORD=N.")
    backends = open_backends(
        names, folder=voices, kokoro_files=kokoro, language=language, held_out=held_out
    )
    click.echo(f"voices: {describe(backends)}", err=True)
    try:
        report = synthesize(
            wanted,
            out,
            backends,
            cache=cache,
            reader=Whisper(language=language) if read_back else None,
            language=language,
            n_jobs=jobs,
            seed=seed,
        )
    except KeyboardInterrupt:
        click.echo("interrupted: the same command goes on", err=True)
        raise
    click.echo(f"{out}: {report.describe()}")
    report.require(phrases[word].text for word, _ in said)


def _counted(words: Sequence[str]) -> list[tuple[str, int]]:
    """Read WORD=N."""
    counted = []
    for option in words:
        word, _, n = option.rpartition("=")
        if not word or not n.isdecimal():
            raise click.BadParameter(f"give WORD=N, such as off=100; received {option!r}")
        counted.append((word, int(n)))
    return counted
