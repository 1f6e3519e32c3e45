"""report.html: one self-contained page on a trained model, with embedded plots and audio."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import soundfile
from matplotlib.figure import Figure

from kws.audio import SAMPLE_RATE_HZ
from kws.commands.bench import cpu_by_stage, recording
from kws.commands.info import facts
from kws.errors import ConfigError
from kws.model import open_model
from kws_train.data.librispeech import speaker_of_utterance
from kws_train.data.splits import SplitName
from kws_train.evaluate.build_stream import Stream
from kws_train.evaluate.clips import ClipScores, evaluate_clips
from kws_train.evaluate.cost import count_operations
from kws_train.evaluate.det import BUDGETS
from kws_train.evaluate.groups import GroupScores
from kws_train.evaluate.plots import draw_det, draw_learning, draw_reliability, draw_spectrogram
from kws_train.evaluate.stream import StreamScores, evaluate_stream
from kws_train.evaluate.stream_results import StreamResults
from kws_train.evaluate.worst_errors import ErrorExcerpt, worst_false_alarms, worst_misses

__all__ = ["write_report"]

_CHUNK_MS = 80
_FOLDER = Path(__file__).parent


def write_report(
    run: Path,
    path: Path,
    *,
    clips: Path,
    results: StreamResults,
    split: SplitName = "test",
    command: str = "",
) -> Path:
    """Measure a model file and write RUN/report.html.

    Parameters
    ----------
    run : Path
        The run folder; its settings and history are shown.
    path : Path
        The model file that was exported from it.
    clips : Path
        Isolated words, as for `kws eval clips`.
    results : StreamResults
        Of streams, as for `kws eval stream`.
    command : str
        The command that reproduces the page; shown on it.

    Raises
    ------
    ConfigError
        If the run folder is incomplete, or cannot be written to.
    """
    history, settings = run / "history.csv", run / "settings.json"
    if missing := [one for one in (history, settings) if not one.is_file()]:
        raise ConfigError(
            f"A run folder must hold settings.json and history.csv. Received: {run} without "
            f"{missing[0].name}. Give the folder that `kws train --out` wrote."
        )
    model = open_model(path)
    clip_scores = evaluate_clips(model, clips, split=split, model_bytes=path.stat().st_size)
    scores = evaluate_stream(results)
    template = _environment().get_template("report.html")
    page = template.render(
        manifest=model.manifest,
        facts=list(facts(model.manifest, n_bytes=path.stat().st_size)),
        cost=count_operations(path.read_bytes(), model.manifest),
        cpu=cpu_by_stage(model, recording(), chunk_ms=_CHUNK_MS),
        clips=clip_scores,
        confusion=_confusion(clip_scores),
        scores=scores,
        operating_points=_operating_points(scores, results.streams),
        budgets=BUDGETS,
        thresholds=sorted({one.threshold for one in scores.groups}),
        groups=_groups(scores.groups),
        plots=_plots(results, clip_scores, history),
        false_alarms=[_embedded(one) for one in worst_false_alarms(results)],
        misses=[_embedded(one) for one in worst_misses(results)],
        settings=settings.read_text(encoding="utf-8"),
        evaluated=_evaluated(clips, clip_scores, results),
        command=command,
        version=version("kws"),
    )
    out = run / "report.html"
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"The report must go to a folder that can be written to. Received: {out} "
            f"({error.strerror}). Change its permissions, or free some space."
        ) from error
    return out


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value, digits=1: f"{100 * value:.{digits}f} %"
    environment.filters["clock"] = lambda at_s: f"{at_s // 60:.0f}:{at_s % 60:04.1f}"
    return environment


def _plots(
    results: StreamResults, clip_scores: ClipScores, history: Path
) -> dict[str, dict[str, str]]:
    """Return the plots of the page as data URIs, for light and dark pages."""
    figures: Mapping[str, Callable[..., Figure]] = {
        "det": lambda **page: draw_det(results.curves(), **page),
        "learning": lambda **page: draw_learning(history, **page),
        "reliability": lambda **page: draw_reliability(clip_scores.reliability, **page),
    }
    return {
        name: {"light": _svg(draw(dark=False)), "dark": _svg(draw(dark=True))}
        for name, draw in figures.items()
    }


def _operating_points(scores: StreamScores, streams: Sequence[Stream]) -> list[dict[str, Any]]:
    """Return the rows of the operating-point table: each stream, and all together if several."""
    rows: list[dict[str, Any]] = [
        {"name": one.name, "points": one.points, "gated": one.gated_points}
        for one in scores.conditions
    ]
    name = "all together" if rows else streams[0].name
    return [*rows, {"name": name, "points": scores.points, "gated": scores.gated_points}]


def _groups(groups: Sequence[GroupScores]) -> dict[str, dict[str, dict[float, GroupScores]]]:
    """Index groups by grouping, value and threshold."""
    ordered: dict[str, dict[str, dict[float, GroupScores]]] = {}
    for one in groups:
        ordered.setdefault(one.by, {}).setdefault(one.value, {})[one.threshold] = one
    return ordered


def _confusion(scores: ClipScores) -> list[dict[str, Any]]:
    """Return the rows of the confusion matrix that have clips, in percent."""
    rows = []
    for label, counts in zip(scores.labels, scores.confusion, strict=True):
        if total := sum(counts):
            cells = [
                {"percent": 100 * n / total, "n": n, "predicted": predicted}
                for n, predicted in zip(counts, scores.labels, strict=True)
            ]
            rows.append({"label": label, "n": total, "cells": cells})
    return rows


def _evaluated(clips: Path, scores: ClipScores, results: StreamResults) -> list[str]:
    """Describe the evaluation data, one line per item."""
    utterances = {one.path for stream in results.streams for one in stream.background}
    speakers = {speaker_of_utterance(path.name) for path in utterances}
    words = {clip for stream in results.streams for clip in stream.clips}
    names = ", ".join(stream.name for stream in results.streams)
    return [
        f"{scores.n} isolated clips of {clips.name}",
        f"{results.curve.hours:.1f} hours of streams ({names}): {results.curve.n_words} keywords, "
        f"of {len(words)} clips, among {len(utterances)} different utterances of "
        f"{len(speakers)} speakers",
    ]


def _embedded(excerpt: ErrorExcerpt) -> dict[str, Any]:
    """Return an excerpt with its audio and its spectrogram as data URIs."""
    sound = io.BytesIO()
    soundfile.write(sound, excerpt.samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    picture = io.BytesIO()
    draw_spectrogram(excerpt.samples, marked_s=excerpt.marked_s).savefig(picture, dpi=110)
    return {
        "excerpt": excerpt,
        "sound": _data_uri("audio/flac", sound.getvalue()),
        "picture": _data_uri("image/png", picture.getvalue()),
    }


def _svg(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return _data_uri("image/svg+xml", file.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
