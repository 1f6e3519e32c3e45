"""report.html: one self-contained page on a trained model, with pictures and sounds inside it."""

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
from kws_train.data.splits import SplitName
from kws_train.evaluate.build_stream import Stream
from kws_train.evaluate.clips import ClipScores, evaluate_clips
from kws_train.evaluate.cost import count_operations
from kws_train.evaluate.det import BUDGETS
from kws_train.evaluate.groups import Group
from kws_train.evaluate.plots import draw_det, draw_learning, draw_reliability, draw_spectrogram
from kws_train.evaluate.stream import Heard, StreamScores, evaluate_stream
from kws_train.evaluate.worst_errors import Moment, worst_false_alarms, worst_misses

__all__ = ["write_report"]

_CHUNK_MS = 80
_FOLDER = Path(__file__).parent


def write_report(
    run: Path,
    path: Path,
    *,
    clips: Path,
    heard: Heard,
    split: SplitName = "test",
    command: str = "",
) -> Path:
    """Measure a model file and write RUN/report.html.

    Parameters
    ----------
    run : Path
        The run folder: its settings and its history are shown.
    path : Path
        The model file that was exported from it.
    clips : Path
        Isolated words, as for `kws eval clips`; of those, `split`.
    heard : Heard
        What the model said over streams, as for `kws eval stream`.
    command : str
        What makes the page again; shown on it.

    Raises
    ------
    ConfigError
        If the run folder lacks what it should hold, or cannot be written to.
    """
    history, settings = run / "history.csv", run / "settings.json"
    if missing := [one for one in (history, settings) if not one.is_file()]:
        raise ConfigError(
            f"A run folder must hold settings.json and history.csv. Received: {run} without "
            f"{missing[0].name}. Give the folder that `kws train --out` wrote."
        )
    model = open_model(path)
    sorted_ = evaluate_clips(model, clips, split=split, model_bytes=path.stat().st_size)
    scores = evaluate_stream(heard)
    figures: Mapping[str, Callable[..., Figure]] = {
        "det": lambda **page: draw_det(heard.curves(), **page),
        "learning": lambda **page: draw_learning(history, **page),
        "reliability": lambda **page: draw_reliability(sorted_.reliability, **page),
    }
    page = (
        _environment()
        .get_template("report.html")
        .render(
            manifest=model.manifest,
            facts=list(facts(model.manifest, n_bytes=path.stat().st_size)),
            cost=count_operations(path.read_bytes(), model.manifest),
            cpu=cpu_by_stage(model, recording(), chunk_ms=_CHUNK_MS),
            clips=sorted_,
            confusion=_confusion(sorted_),
            scores=scores,
            operating=_operating(scores, heard.streams),
            budgets=BUDGETS,
            thresholds=sorted({one.threshold for one in scores.groups}),
            groups=_groups(scores.groups),
            pictures={
                name: {"light": _svg(draw(dark=False)), "dark": _svg(draw(dark=True))}
                for name, draw in figures.items()
            },
            false_alarms=[_playable(one) for one in worst_false_alarms(heard)],
            misses=[_playable(one) for one in worst_misses(heard)],
            settings=settings.read_text(encoding="utf-8"),
            evaluated=_evaluated(clips, sorted_, heard),
            command=command,
            version=version("kws"),
        )
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


def _operating(scores: StreamScores, streams: Sequence[Stream]) -> list[dict[str, Any]]:
    """Return what is in the tables of points: each stream, and all together where several."""
    rows: list[dict[str, Any]] = [
        {"name": one.name, "points": one.points, "gated": one.gated_points}
        for one in scores.conditions
    ]
    name = "all together" if rows else streams[0].name
    return [*rows, {"name": name, "points": scores.points, "gated": scores.gated_points}]


def _groups(groups: Sequence[Group]) -> dict[str, dict[str, dict[float, Group]]]:
    """Put groups in order: by what, then value, then threshold."""
    ordered: dict[str, dict[str, dict[float, Group]]] = {}
    for one in groups:
        ordered.setdefault(one.by, {}).setdefault(one.value, {})[one.threshold] = one
    return ordered


def _confusion(scores: ClipScores) -> list[dict[str, Any]]:
    """Return the rows of the matrix that have clips, in percent."""
    rows = []
    for label, counts in zip(scores.labels, scores.confusion, strict=True):
        if total := sum(counts):
            cells = [
                {"percent": 100 * n / total, "n": n, "heard": heard}
                for n, heard in zip(counts, scores.labels, strict=True)
            ]
            rows.append({"label": label, "n": total, "cells": cells})
    return rows


def _evaluated(clips: Path, scores: ClipScores, heard: Heard) -> list[str]:
    """Say what the figures were measured on."""
    parts = {part.path for stream in heard.streams for part in stream.background}
    speakers = {path.name.partition("-")[0] for path in parts}
    words = {clip for stream in heard.streams for clip in stream.clips}
    return [
        f"{scores.n} isolated clips of {clips.name}",
        f"{heard.curve.hours:.1f} hours of streams ({', '.join(s.name for s in heard.streams)}): "
        f"{heard.curve.n_words} keywords, of {len(words)} clips, among {len(parts)} different "
        f"utterances of {len(speakers)} speakers",
    ]


def _playable(moment: Moment) -> dict[str, Any]:
    """Return a moment as the page shows it: facts, a picture and a sound."""
    sound = io.BytesIO()
    soundfile.write(sound, moment.samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    picture = io.BytesIO()
    draw_spectrogram(moment.samples, marked_s=moment.marked_s).savefig(picture, dpi=110)
    return {
        "moment": moment,
        "sound": _data_uri("audio/flac", sound.getvalue()),
        "picture": _data_uri("image/png", picture.getvalue()),
    }


def _svg(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return _data_uri("image/svg+xml", file.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
