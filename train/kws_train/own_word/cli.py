"""`kws new`: a custom word from text, recordings, or both."""

import logging
import math
import shlex
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import click

from kws_train.cli import leave_at_once, voice_options

__all__ = ["new"]

_PATH = click.Path(path_type=Path)
_CLIPS_PER_MINUTE, _FEWEST_CLIPS, _MOST_CLIPS = 27, 200, 3000
_HERE = {"speech": "librispeech", "noise": "noise"}


@click.command()
@click.argument("phrases", nargs=-1, required=True, metavar="PHRASE...")
@click.option("--out", required=True, type=_PATH, help="The .tflite to write.")
@click.option(
    "--recordings", type=_PATH, help="Folder of real recordings of PHRASE, or of a folder for each."
)
@click.option("--test", type=_PATH, help="The same, to measure on alone.")
@click.option(
    "--speech", multiple=True, type=_PATH, help="Folder of people talking of other things."
)
@click.option("--noise", multiple=True, type=_PATH, help="Folder of noise.")
@click.option("--words", multiple=True, type=_PATH, help="Folder of other words: word/clip files.")
@click.option(
    "--data",
    default="data",
    show_default=True,
    type=_PATH,
    help="Where speech and noise are looked for that are not named.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(1),
    default=30.0,
    show_default=True,
    help="For training, once all is spoken: 10 to try, 120 for the best.",
)
@click.option(
    "--false-alarms-per-hour",
    "budget",
    type=click.FloatRange(0.1, 20),
    default=0.5,
    show_default=True,
    help="What the report's lines for kws.toml ask for.",
)
@click.option("--clips", "n_clips", type=click.IntRange(20), help="Synthetic clips of each PHRASE.")
@click.option("--language", default="en", show_default=True, help="Of the phrases.")
@voice_options
@click.option("--no-voices", is_flag=True, help="Learn from recordings alone.")
@click.option("--cache", type=_PATH, help="Where spoken clips are kept, for the next time.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--work", "folder", type=_PATH, help="Where it grows; default: beside --out.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
def new(
    phrases: Sequence[str],
    *,
    out: Path,
    recordings: Path | None,
    test: Path | None,
    data: Path,
    minutes: float,
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
    """Make a model of your own PHRASE: of text, of recordings, or of both.

    Voices say the phrase and what is like it, a small network learns to tell them apart, and a
    report says how often it will miss you and how often it will fire for nothing. Ctrl-C stops it;
    the same command goes on.
    """
    from kws.stderr import quiet_stderr
    from kws_train.data.corpus import audio_below
    from kws_train.own_word.workspace import Request, Work

    logging.getLogger("kws").setLevel(logging.WARNING)
    _check(phrases, out=out, recordings=recordings, no_voices=no_voices)
    for one in filter(None, (recordings, test, *chain(*given.values()))):
        audio_below(one)  # better now than after an hour
    found = {kind: _found(kind, folders, data=data) for kind, folders in given.items()}
    engines = _engines(
        names, voices, kokoro, language=language, needed=recordings is None, no_voices=no_voices
    )
    n_usual = int(min(max(_CLIPS_PER_MINUTE * minutes, _FEWEST_CLIPS), _MOST_CLIPS))
    request = Request(
        phrases=tuple(phrases),
        recordings=recordings,
        test=test,
        minutes=minutes,
        n_clips=n_clips or n_usual,
        language=language,
        budget=budget,
        seed=seed,
        **found,
    )
    work = Work(folder or out.with_suffix(".work"))
    _say_plan(request, work, engines)
    with quiet_stderr():  # TensorFlow comes with it, and says so
        from kws_train.own_word.figures import describe
        from kws_train.own_word.pipeline import make

    try:
        result = make(
            request,
            out=out,
            work=work,
            engines=engines,
            cache=cache,
            n_jobs=jobs,
            say=lambda text: click.echo(text, err=True),
            command=shlex.join(["kws", *sys.argv[1:]]),
        )
    except KeyboardInterrupt:
        click.echo("interrupted: the same command goes on where it stopped", err=True)
        leave_at_once()
    click.echo(describe(result.outcome, model=out, report=result.report))


def _check(phrases: Sequence[str], *, out: Path, recordings: Path | None, no_voices: bool) -> None:
    if out.suffix != ".tflite":
        raise click.BadParameter(
            f"give a name that ends in .tflite; received {out}", param_hint="--out"
        )
    if no_voices and recordings is None:
        raise click.UsageError("--no-voices leaves nothing to learn from: give --recordings.")
    if len({phrase.casefold() for phrase in phrases}) < len(phrases):
        raise click.UsageError("Give each PHRASE once.")


def _found(kind: str, folders: Sequence[Path], *, data: Path) -> tuple[Path, ...]:
    """Return the folders of a kind: those named, or the one that lies in the data folder."""
    usual = data / _HERE.get(kind, "")
    return tuple(folders) or ((usual,) if kind in _HERE and usual.is_dir() else ())


def _engines(
    names: Sequence[str],
    voices: Path | None,
    kokoro: tuple[Path, Path] | None,
    *,
    language: str,
    needed: bool,
    no_voices: bool,
) -> Sequence[Any]:
    """Open the voices; without any, recordings will do where there are some."""
    from kws.errors import ConfigError
    from kws_train.synth.voices.discover import open_engines

    if no_voices:
        return []
    try:
        return open_engines(names, folder=voices, kokoro_files=kokoro, language=language)
    except ConfigError as error:
        if needed or names or kokoro:
            raise
        click.echo(f"no voices, recordings have to do: {error}", err=True)
        return []


def _say_plan(request: Any, work: Any, engines: Sequence[Any]) -> None:
    """Say what will be done, with what, and how long it takes."""
    from kws_train.synth.phrase_check import check_phrase
    from kws_train.synth.phrases import Phrase
    from kws_train.synth.synthesize import seconds_per_clip
    from kws_train.synth.voices.discover import describe_engines

    phrases = [Phrase.of(text, language=request.language) for text in request.phrases]
    for phrase in phrases:
        for warning in check_phrase(phrase).warnings:
            click.echo(f"warning: {warning}", err=True)
    click.echo(
        f"keywords: {', '.join(one.label for one in phrases)}; work in {work.folder}", err=True
    )
    for kind in ("speech", "noise", "words"):
        folders = ", ".join(map(str, getattr(request, kind))) or "none"
        click.echo(f"{kind}: {folders}", err=True)
    if engines:
        seconds = seconds_per_clip(phrases[0], engines)
        n = round(1.6 * request.n_clips * len(phrases))
        click.echo(
            f"voices: {describe_engines(engines)}; {n} clips at {seconds:.2g} s of one core each, "
            f"{math.ceil(n * seconds / 60)} min, less for what is kept from before",
            err=True,
        )
    click.echo(f"training: {request.minutes:g} min; measuring: about 5 min", err=True)
