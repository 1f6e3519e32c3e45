"""The workbench's commands: `kws train`, `kws eval`, `kws align`. Thin; the work is elsewhere."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

__all__ = ["align", "evaluate", "train"]

_PATH = click.Path(path_type=Path)
SPLITS = ["train", "validation", "test", "all"]


@click.command()
@click.option("--config", required=True, type=_PATH, help="The recipe, a TOML file.")
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
    config: Path,
    *,
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
    from kws.train.fit import fit_stages
    from kws.train.report import draw
    from kws.train.settings import load_recipe

    logging.getLogger("kws").setLevel(logging.INFO)
    recipe = load_recipe(config)
    changes = {"epochs": epochs, "seed": seed}
    changed = {key: value for key, value in changes.items() if value is not None}
    recipe = msgspec.structs.replace(recipe, fit=msgspec.structs.replace(recipe.fit, **changed))
    try:
        if n_trials is not None:
            _search(recipe, data, run, start, n_trials=n_trials, storage=storage, study=study)
            return
        with _tracking(project, recipe, run) as callbacks:
            model, recipe = fit_stages(recipe, data=data, run=run, start=start, callbacks=callbacks)
    except KeyboardInterrupt:
        click.echo("interrupted: the same command goes on after the last whole epoch", err=True)
        raise
    for picture in draw(run, model, recipe, data=data):
        click.echo(f"drawn: {picture}")
    click.echo(f"trained: {run}. Next: kws export {run} --out {recipe.name}.tflite")


@contextlib.contextmanager
def _tracking(project: str | None, recipe: Any, run: Path) -> Iterator[Sequence[Any]]:
    """Give the callbacks that a training is tracked by, while it runs."""
    if project is None:
        yield ()
        return
    from kws.train.track import Track

    with contextlib.closing(Track(project, recipe=recipe, run=run)) as track:
        yield (track,)


def _search(recipe: Any, data: Path, run: Path, start: Path | None, **study: Any) -> None:
    from kws.train.search import search

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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def clips(model: str, data: Path, split: str, as_json: bool) -> None:
    """Sort the isolated words below DATA: accuracy, recall, confusion."""
    from kws.model import model_path, open_model
    from kws.train.evaluate import evaluate_clips
    from kws.train.tables import clip_table

    path = model_path(model)
    scores = evaluate_clips(
        open_model(path),
        data,
        split=split,  # type: ignore[arg-type]
        model_bytes=path.stat().st_size,
    )
    click.echo(msgspec.json.encode(scores).decode() if as_json else clip_table(scores))


@evaluate.command()
@click.argument("model", type=str)
@click.option("--keywords", required=True, type=_PATH, help="word/clip files; the test split.")
@click.option("--background", required=True, type=_PATH, help="Speech, in LibriSpeech's layout.")
@click.option("--noise", type=_PATH, help="Recordings to lay under the whole.")
@click.option("--snr-db", default=10.0, show_default=True, help="Speech over noise.")
@click.option(
    "--speakers",
    type=click.Choice(["second", "all"]),
    default="second",
    show_default=True,
    help="Of the background: the half that recipes keep for evaluation, or all.",
)
@click.option("--without", multiple=True, help="Leave out utterances with this word, too.")
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    help="Length of the stream; default: every clip once.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Another seed, another stream.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def stream(model: str, *, as_json: bool, **where: Any) -> None:
    """Count misses and false alarms per hour on a stream of words among sentences."""
    from kws.model import model_path, open_model
    from kws.train.evaluate import evaluate_stream
    from kws.train.tables import stream_table

    spotting = open_model(model_path(model))
    scores = evaluate_stream(spotting, _stream(spotting.manifest.keywords, **where))
    click.echo(msgspec.json.encode(scores).decode() if as_json else stream_table(scores))


def _stream(
    words: Sequence[str],
    *,
    keywords: Path,
    background: Path,
    noise: Path | None,
    snr_db: float,
    speakers: str,
    without: Sequence[str],
    minutes: float | None,
    seed: int,
) -> Any:
    """Build the stream that the options of `kws eval stream` describe."""
    from kws.train.align import train_speakers
    from kws.train.data import audio_below
    from kws.train.streams import build_stream, keyword_clips, quiet_utterances

    second = train_speakers(background)[1] if speakers == "second" else None
    return build_stream(
        keyword_clips(keywords, words),
        quiet_utterances(background, without=[*words, *without], speakers=second),
        audio_below(noise) if noise else (),
        snr_db=snr_db,
        seed=seed,
        most_s=None if minutes is None else 60 * minutes,
    )


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
    from kws.train.align import align as run

    summary = run(corpus, out, half=half, n_jobs=jobs, scheduler=scheduler, progress=True)
    click.echo(
        f"{out}: {summary.n_aligned} utterances aligned, {summary.n_kept} were there, "
        f"{len(summary.left_out)} left out"
    )
