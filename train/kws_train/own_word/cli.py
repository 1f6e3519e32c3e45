"""The command `kws new`: a model of a custom phrase from text, recordings or both."""

import math
import shlex
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import click

from kws.command_group import OWN_WORD, Command
from kws_train.cli import leave_at_once, voice_options

__all__ = ["new"]

_PATH = click.Path(path_type=Path)
_CLIPS, _SMALL_CLIPS = (80, 400, 1500), (27, 200, 3000)  # per minute, fewest, most
_ESPHOME_VAD = "vad"
_DEFAULT_FOLDERS = {"speech": "librispeech", "noise": "noise"}


@click.command(cls=Command, section=OWN_WORD)
@click.argument("phrases", nargs=-1, required=True, metavar="PHRASE...")
@click.option("--out", required=True, type=_PATH, help="The .tflite to write.")
@click.option(
    "--recordings",
    type=_PATH,
    help="Folder of recordings of PHRASE; with several phrases, a subfolder each.",
)
@click.option(
    "--test", type=_PATH, help="Recordings used for evaluation only; a folder like --recordings."
)
@click.option("--speech", multiple=True, type=_PATH, help="Folder of speech without the phrase.")
@click.option("--noise", multiple=True, type=_PATH, help="Folder of noise.")
@click.option(
    "--words", multiple=True, type=_PATH, help="Folder of clips of other words: word/clip files."
)
@click.option(
    "--data",
    default="data",
    show_default=True,
    type=_PATH,
    help="Folder with librispeech/ and noise/, used if --speech or --noise is not given.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(1),
    default=10.0,
    show_default=True,
    help="Time for training, after synthesis: 3, 10 or, to fine-tune on 50 recordings or more, 30; "
    "with --small, 30 or 120.",
)
@click.option(
    "--small",
    is_flag=True,
    help="Train a whole network below 100 kB, not a head on the speech embedding.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["kws", "microwakeword"]),
    default="kws",
    show_default=True,
    help="microwakeword: .tflite and .json for voice satellites with ESPHome; one PHRASE.",
)
@click.option(
    "--false-alarms-per-hour",
    "budget",
    type=click.FloatRange(0.1, 20),
    default=0.5,
    show_default=True,
    help="Rate that the lines for kws.toml in the report are set for.",
)
@click.option(
    "--clips", "n_clips", type=click.IntRange(20), help="Number of synthetic clips of each PHRASE."
)
@click.option("--language", default="en", show_default=True, help="Language of the phrases.")
@voice_options
@click.option("--no-voices", is_flag=True, help="Train on recordings only.")
@click.option(
    "--cache", type=_PATH, help="Folder that keeps synthesised clips and vectors for the next run."
)
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Number of processes."
)
@click.option(
    "--work",
    "folder",
    type=_PATH,
    help="Working folder for clips and checkpoints; default: next to --out.",
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Random seed.")
def new(
    phrases: Sequence[str],
    *,
    out: Path,
    recordings: Path | None,
    test: Path | None,
    data: Path,
    minutes: float,
    small: bool,
    file_format: Literal["kws", "microwakeword"],
    budget: float,
    n_clips: int | None,
    language: str,
    names: Sequence[str],
    voices: Path | None,
    kokoro: tuple[Path, Path] | None,
    no_voices: bool,
    cache: Path | None,
    jobs: int,
    folder: Path | None,
    seed: int,
    **given: Sequence[Path],
) -> None:
    """Train a model of your own phrase from text, recordings or both.

    Synthetic voices speak PHRASE and similar phrases, a small network is trained to tell them
    apart, and a report gives its miss rate and its false alarms per hour. It ends in a verdict;
    the exit code is 1 if the model is not usable. Ctrl-C stops it; the same command resumes.
    """
    from kws.commands.machine import kernel_costs
    from kws.stderr import quiet_stderr
    from kws_train.data.audio_files import audio_files
    from kws_train.own_word.workspace import Request, Workspace

    _check(phrases, out=out, recordings=recordings, no_voices=no_voices)
    if file_format == "microwakeword":
        _check_micro(phrases, small=small)
    for one in filter(None, (recordings, test, *chain(*given.values()))):
        audio_files(one)  # fails now, not after an hour
    found_folders = {kind: _folders_of(kind, folders, data=data) for kind, folders in given.items()}
    engines = _engines(
        names, voices, kokoro, language=language, needed=recordings is None, no_voices=no_voices
    )
    per_minute, least, most = _SMALL_CLIPS if small else _CLIPS
    n_default = int(min(max(per_minute * minutes, least), most))
    request = Request(
        phrases=tuple(phrases),
        recordings=recordings,
        test=test,
        minutes=minutes,
        n_clips=n_clips or n_default,
        language=language,
        budget=budget,
        seed=seed,
        small=small,
        format=file_format,
        speech=found_folders["speech"],
        noise=found_folders["noise"],
        words=found_folders["words"],
    )
    workspace = Workspace(
        folder or out.with_suffix(".work"), notify=lambda text: click.echo(text, err=True)
    )
    _print_plan(request, workspace, engines)
    if not small and not request.is_micro and (costs := kernel_costs()) and not costs.are_fast:
        click.echo(
            f"This machine's interpreter has no fast int8 kernels: a head takes "
            f"{costs.fastest_ms:.1f} ms of CPU per second of audio here. If it is to run on this "
            f"machine, `--small` makes a network that takes a fraction of that.",
            err=True,
        )
    with quiet_stderr():  # TensorFlow logs while it is imported
        from kws_train.own_word.figures import describe_figures
        from kws_train.own_word.pipeline import build_word_model
        from kws_train.own_word.verdict import grounds_of, judge

    try:
        result = build_word_model(
            request,
            out=out,
            workspace=workspace,
            engines=engines,
            cache=cache,
            vectors=cache and cache / "vectors",
            n_jobs=jobs,
            command=shlex.join(["kws", *sys.argv[1:]]),
        )
    except KeyboardInterrupt:
        click.echo("interrupted: run the same command again to continue", err=True)
        leave_at_once()
    grounds = grounds_of(request, workspace, engines=[one.name for one in engines])
    verdict = judge(result.figures, grounds)
    figures = describe_figures(
        result.figures,
        model=out,
        report=result.report,
        with_config=verdict.is_usable,
        is_micro=request.is_micro,
    )
    click.echo(f"{figures}\n")
    click.echo("\n".join(filter(None, (verdict.text, verdict.advice))))
    if not verdict.is_usable:
        click.get_current_context().exit(1)


def _check(phrases: Sequence[str], *, out: Path, recordings: Path | None, no_voices: bool) -> None:
    if out.suffix != ".tflite":
        raise click.BadParameter(
            f"give a name that ends in .tflite; received {out}", param_hint="--out"
        )
    if no_voices and recordings is None:
        raise click.UsageError("--no-voices needs --recordings to train on.")
    if len({phrase.casefold() for phrase in phrases}) < len(phrases):
        raise click.UsageError("Give each PHRASE once.")


def _check_micro(phrases: Sequence[str], *, small: bool) -> None:
    """Refuse what a model of microWakeWord cannot be, before anything is synthesised."""
    from kws.micro_features import MicroFeatures

    if len(phrases) > 1:
        raise click.UsageError(
            f"A model of microWakeWord has one word. Received: {len(phrases)} phrases with "
            f"--format microwakeword. Make a model of each; a device runs several."
        )
    if small:
        raise click.UsageError(
            "--format microwakeword and --small exclude each other: that network is small. Leave "
            "--small out."
        )
    if phrases[0].strip().casefold() == _ESPHOME_VAD:
        raise click.UsageError(
            f"ESPHome takes a model of the word {_ESPHOME_VAD} for voice activity detection. Give "
            f"another PHRASE."
        )
    MicroFeatures()  # needs pymicro-features


def _folders_of(kind: str, folders: Sequence[Path], *, data: Path) -> tuple[Path, ...]:
    """Return the given folders of a kind, or the default one in the data folder, if it exists."""
    default = data / _DEFAULT_FOLDERS.get(kind, "")
    return tuple(folders) or ((default,) if kind in _DEFAULT_FOLDERS and default.is_dir() else ())


def _engines(
    names: Sequence[str],
    voices: Path | None,
    kokoro: tuple[Path, Path] | None,
    *,
    language: str,
    needed: bool,
    no_voices: bool,
) -> Sequence[Any]:
    """Open the text-to-speech engines; without any, recordings are enough."""
    from kws.errors import ConfigError
    from kws_train.synth.voices.discover import open_engines

    if no_voices:
        return []
    try:
        return open_engines(names, folder=voices, kokoro_files=kokoro, language=language)
    except ConfigError as error:
        if needed or names or kokoro:
            raise
        click.echo(f"no voices, only recordings are used: {error}", err=True)
        return []


def _print_plan(request: Any, workspace: Any, engines: Sequence[Any]) -> None:
    """Print what will be done, with which data, and how long it takes."""
    from kws_train.own_word.verdict import weak_voices_warning
    from kws_train.synth.phrase_check import check_phrase
    from kws_train.synth.phrases import Phrase
    from kws_train.synth.synthesize import seconds_per_clip
    from kws_train.synth.voices.discover import describe_engines

    phrases = [Phrase.of(text, language=request.language) for text in request.phrases]
    for phrase in phrases:
        for warning in check_phrase(phrase).warnings:
            click.echo(f"warning: {warning}", err=True)
    click.echo(
        f"keywords: {', '.join(one.label for one in phrases)}; working folder: {workspace.folder}",
        err=True,
    )
    for kind in ("speech", "noise", "words"):
        folders = ", ".join(map(str, getattr(request, kind))) or "none"
        click.echo(f"{kind}: {folders}", err=True)
    if warning := weak_voices_warning([one.name for one in engines]):
        click.echo(f"warning: {warning}", err=True)
    if engines:
        seconds = seconds_per_clip(phrases[0], engines)
        n = round(1.6 * request.n_clips * len(phrases))
        click.echo(
            f"voices: {describe_engines(engines)}; {n} clips at {seconds:.2g} s of one core each, "
            f"{math.ceil(n * seconds / 60)} min, less for cached clips",
            err=True,
        )
    click.echo(f"training: {request.minutes:g} min; evaluation: about 5 min", err=True)
