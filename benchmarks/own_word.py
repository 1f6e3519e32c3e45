"""What `kws new` comes to with text alone, and with 50 and 300 real recordings: a table.

    python benchmarks/own_word.py --data data --out runs/own_word --minutes 10 --kokoro MODEL VOICES

For each word of `data/wake_words`, whose last quarter by name is for the figures and the rest for
training. Fold 4 of ESC-10 is for the figures, nothing trains on it; of other speech, every fourth
speaker is. What was made before is found again. With `--model` nothing is trained: that file is
measured on the same streams.

A word without recordings is learned from text and measured on held-out synthetic voices; its false
alarms are those of people's speech, like the others'. The last line adds up false alarms at the
models' own thresholds.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Literal

import click

from kws.model import open_model
from kws_train.atomic import link
from kws_train.data.audio_files import audio_files
from kws_train.evaluate.det import OperatingPoint, poisson_interval
from kws_train.evaluate.stream import evaluate_stream
from kws_train.evaluate.stream_results import process_streams
from kws_train.own_word.evaluation import evaluation_streams
from kws_train.own_word.figures import Figures, points_by_stream
from kws_train.own_word.people import Comparison
from kws_train.own_word.pipeline import build_word_model
from kws_train.own_word.prepare import prepare_noise, prepare_recordings, prepare_speech
from kws_train.own_word.workspace import Request, Workspace
from kws_train.synth.voices.discover import open_engines

_PATH = click.Path(path_type=Path)
_SPEECH = (
    "librispeech",
    "more_speech/librispeech_train",
    "more_speech/librispeech_other",
    "more_speech/alphanumeric",
    "more_speech/coffee_orders",
)
_NOISE = ("noise", "household_noise")
_KINDS = {"text": 0, "text and 50 recordings": 50, "text and 300 recordings": 300}


@click.command()
@click.option("--data", required=True, type=_PATH)
@click.option("--out", required=True, type=_PATH, help="Folder for models and work.")
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--small", is_flag=True, help="A whole small network, not a head.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["kws", "microwakeword"]),
    default="kws",
    show_default=True,
)
@click.option("--speech", multiple=True, default=_SPEECH, help="Below --data.")
@click.option("--noise", "kinds", multiple=True, default=_NOISE, help="Below --data.")
@click.option("--jobs", "n_jobs", default=2, show_default=True)
@click.option("--clips", "n_clips", default=800, show_default=True)
@click.option("--word", "words", multiple=True, default=("computer", "snowboy", "view glass"))
@click.option("--recordings", "counts", multiple=True, type=int, default=tuple(_KINDS.values()))
@click.option("--kokoro", type=(_PATH, _PATH), metavar="MODEL VOICES")
@click.option("--cache", type=_PATH)
@click.option("--model", type=_PATH, help="Of the word: measured, nothing is trained.")
def main(
    data: Path,
    *,
    out: Path,
    minutes: float,
    small: bool,
    file_format: Literal["kws", "microwakeword"],
    speech: tuple[str, ...],
    kinds: tuple[str, ...],
    n_jobs: int,
    n_clips: int,
    words: tuple[str, ...],
    counts: tuple[int, ...],
    kokoro: tuple[Path, Path] | None,
    cache: Path | None,
    model: Path | None,
) -> None:
    """Train and measure each word in each way; print a table."""
    engines = () if model else open_engines(kokoro_files=kokoro)
    noise = _noise([data / one for one in kinds], out)
    rows: list[str] = []
    compared: list[str] = []
    all_figures: list[Figures] = []
    for n_recordings, word in product(counts, words):
        place = data / "wake_words" / word.replace(" ", "_")
        is_recorded = place.is_dir()
        if n_recordings and not is_recorded:
            continue
        folders = _recordings(place, out, n_recordings) if is_recorded else (None, None)
        name = f"{place.name}-{n_recordings}"
        request = Request(
            phrases=(word,),
            recordings=folders[0] if n_recordings else None,
            test=folders[1],
            speech=tuple(data / one for one in speech),
            small=small,
            format=file_format,
            noise=(noise,),
            minutes=minutes,
            n_clips=n_clips,
        )
        workspace = Workspace(out / f"{name}.work", notify=lambda text: click.echo(text, err=True))
        if model:
            _measure(model, request, workspace)
            continue
        result = build_word_model(
            request,
            out=out / f"{name}.tflite",
            workspace=workspace,
            engines=engines,
            cache=cache,
            vectors=cache and cache / "vectors",
            n_jobs=n_jobs,
        )
        figures = result.figures
        all_figures.append(figures)
        if not n_recordings and is_recorded:
            compared += _compare(figures, request, workspace)
        wanted = request.budget, None  # None: at the model's own threshold for that budget
        cells = [
            _cell(point)
            for budget in wanted
            for points in figures.points.values()
            for point in points
            if point.budget == budget
        ]
        kind = next(kind for kind, n in _KINDS.items() if n == n_recordings)
        rows.append(
            f"| {kind} | {word} | {' | '.join(cells)} | {figures.n_bytes / 1000:.1f} kB | "
            f"{figures.cpu_ms:.1f} ms | {figures.minutes:.0f} |"
        )
        click.echo(rows[-1], err=True)
    if model:
        return
    columns = "missed, clean | missed, 10 dB | as set, clean | as set, 10 dB"
    click.echo(f"| from | word | {columns} | file | CPU | minutes |")
    click.echo("|---|---|---|---|---|---|---|---|---|")
    click.echo("\n".join((*rows, *compared, "", _pooled(all_figures))))


def _compare(figures: Figures, request: Request, workspace: Workspace) -> Iterator[str]:
    """Yield rows of `kws_train.own_word.people.MEASURED`: misses of voices and of people."""
    results = process_streams(
        open_model(workspace.model), evaluation_streams(request, workspace, by_voices=True)
    )
    for name, curve in results.by_condition().items():
        voices = curve.at_threshold(results.manifest.decision.threshold)
        people = figures.points[name][-1]
        counts = [
            (round(point.miss_rate * n), n)
            for point, n in ((voices, curve.n_words), (people, figures.n_words))
        ]
        yield f"{name}: {Comparison(request.phrases[0], *counts)}"


def _pooled(models: Sequence[Figures]) -> str:
    """Describe the false alarms of all models in all streams, each at its own threshold."""
    points = [(one.hours, points[-1]) for one in models for points in one.points.values()]
    hours = sum(hours for hours, _ in points)
    n = round(sum(hours * point.fa_per_hour for hours, point in points))
    low, high = (count / hours for count in poisson_interval(n))
    return (
        f"as set for {models[0].budget:g} false alarms per hour, {len(models)} models: {n} in "
        f"{hours:.1f} h, {n / hours:.2f} [{low:.2f}, {high:.2f}] per hour"
    )


def _measure(path: Path, request: Request, workspace: Workspace) -> None:
    """Print what a model file comes to on the streams of a word, its own threshold last."""
    workspace.begin(request)
    prepare_recordings(request, workspace)
    prepare_speech(request, workspace, speak=None)
    prepare_noise(request, workspace)
    scores = evaluate_stream(
        process_streams(open_model(path), evaluation_streams(request, workspace))
    )
    for stream, points in points_by_stream(scores).items():
        for point in points:
            click.echo(f"{stream}, threshold {point.threshold:.3f}: missed {_cell(point)}")


def _recordings(folder: Path, out: Path, n: int) -> tuple[Path, Path]:
    """Link recordings to train with, taken evenly, and the last quarter, to test with."""
    paths = audio_files(folder)
    n_known = len(paths) * 3 // 4
    chosen = [paths[i * n_known // n] for i in range(min(n, n_known))] if n else []
    places = out / "recordings" / f"{folder.name}-{n}", out / "recordings" / f"{folder.name}-test"
    for place, part in zip(places, (chosen, paths[n_known:]), strict=True):
        for path in part:
            link(path, place / path.name)
    return places


def _noise(folders: Sequence[Path], out: Path) -> Path:
    """Link noise, divided as for the bundled models: ESC-10's fold 4 is to test with."""
    place = out / "recordings" / "noise"
    for path in (path for folder in folders for path in audio_files(folder)):
        split = "test" if path.name.startswith("4-") else "train"
        link(path, place / split / path.parent.name / path.name)
    return place


def _cell(point: OperatingPoint) -> str:
    misses = [100 * rate for rate in (point.miss_rate, point.miss_low, point.miss_high)]
    return f"{misses[0]:.1f} % [{misses[1]:.0f}, {misses[2]:.0f}] at {point.fa_per_hour:.2f}/h"


if __name__ == "__main__":
    main()
