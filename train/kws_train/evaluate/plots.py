"""Plots of scores and of trainings, with a light and a dark theme."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.errors import ConfigError
from kws_train.evaluate.clips import Reliability
from kws_train.evaluate.det import BUDGETS, DetCurve, wilson_interval

__all__ = [
    "draw_confusion",
    "draw_det",
    "draw_learning",
    "draw_reliability",
    "draw_spectrogram",
    "save",
    "theme",
]

mpl.use("agg")

# The palette of Okabe and Ito, which colour-blind readers tell apart, and its brighter half.
_COLOURS = {
    False: ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#7f6000"),
    True: ("#56b4e9", "#f0a04b", "#4cd3a5", "#e39ac6", "#f0e442"),
}
_LEAST_PER_HOUR = 0.05
_DPI = 120


def draw_det(curves: Mapping[str, DetCurve], *, dark: bool = False) -> Figure:
    """Draw the miss rate over false alarms per hour, with its 95 % interval as a band.

    Parameters
    ----------
    curves : mapping of str to DetCurve
        By their names in the legend.
    dark : bool
        For a dark page.
    """
    with theme(dark=dark):
        figure = Figure(figsize=(8.4, 4.0), layout="constrained")
        axes = figure.subplots()
        for (name, curve), colour in zip(curves.items(), _cycle(dark=dark), strict=False):
            _add_curve(axes, curve, name, colour)
        most = max(curve.at_budget(_LEAST_PER_HOUR).miss_high for curve in curves.values())
        axes.set(
            xscale="log",
            xlim=(_LEAST_PER_HOUR, 30),
            ylim=(0, min(1.04, 1.1 * most)),
            xlabel="false alarms per hour",
            ylabel="miss rate",
        )
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xticks([*BUDGETS, 2, 5, 10, 20])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend()
    return figure


def draw_reliability(reliability: Reliability, *, dark: bool = False) -> Figure:
    """Draw accuracy over score (reliability diagram); on the diagonal they are equal."""
    with theme(dark=dark):
        figure = Figure(figsize=(4.6, 4.4), layout="constrained")
        axes = figure.subplots()
        bins = reliability.bins
        accuracy = np.array([one.accuracy for one in bins])
        edges = [wilson_interval(round(one.accuracy * one.n), one.n) for one in bins]
        bars = np.abs(np.array(edges).T - accuracy) if bins else np.zeros((2, 0))
        axes.plot([0, 1], [0, 1], linestyle=":", color="gray")
        score = [one.score for one in bins]
        axes.errorbar(score, accuracy, bars, marker="o", color=_COLOURS[dark][0], capsize=3)
        axes.set(
            xlim=(0, 1), ylim=(0, 1.02), xlabel="score of the predicted label", ylabel="accuracy"
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return figure


def draw_learning(history: Path, *, dark: bool = False) -> Figure:
    """Draw loss and validation loss over epochs, from Keras's CSV log."""
    with history.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    epochs = [int(row["epoch"]) + 1 for row in rows]
    with theme(dark=dark):
        figure = Figure(figsize=(4.6, 4.4), layout="constrained")
        axes = figure.subplots()
        for (key, label), colour in zip(
            (("loss", "training"), ("val_loss", "validation")), _cycle(dark=dark), strict=False
        ):
            axes.plot(epochs, [float(row[key]) for row in rows], label=label, color=colour)
        axes.set(xlabel="epoch", ylabel="loss, nats per output", yscale="log")
        for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            set_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.legend()
    return figure


def draw_confusion(
    confusion: npt.NDArray[Any], labels: Sequence[str], *, dark: bool = False
) -> Figure:
    """Draw a confusion matrix in percent: rows are true labels, columns predicted labels."""
    share = 100 * confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    size = 2.5 + 0.5 * len(labels)
    with theme(dark=dark):
        figure = Figure(figsize=(size, size), layout="constrained")
        axes = figure.subplots()
        axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
        ticks = range(len(labels))
        axes.set_xticks(ticks, labels, rotation=60, ha="right")
        axes.set_yticks(ticks, labels)
        axes.grid(visible=False)
        axes.set(xlabel="predicted", ylabel="true", title="Confusion, % of the true label")
        for (row, column), value in np.ndenumerate(share):
            if value >= 0.5:
                colour = "white" if value > 50 else "black"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour)
    return figure


def draw_spectrogram(samples: Samples, *, marked_s: tuple[float, float] | None = None) -> Figure:
    """Draw the spectrogram of a short excerpt, 0 to 8 kHz over 80 dB, without axes.

    `marked_s` is framed, in seconds from the start.
    """
    with theme(dark=True):
        figure = Figure(figsize=(4.0, 1.6))
        axes = figure.add_axes((0, 0, 1, 1))
        # Noise of half a quantisation step, since digital silence has no logarithm.
        wave = samples + np.random.default_rng(0).normal(0, 0.5, len(samples))
        peak_db = 10 * np.log10(float(np.max(wave**2)) + 1.0) - 25
        axes.specgram(
            wave,
            NFFT=512,
            Fs=SAMPLE_RATE_HZ,
            noverlap=352,
            cmap="magma",
            vmin=peak_db - 80,
            vmax=peak_db,
        )
        if marked_s:
            axes.axvspan(*marked_s, fill=False, edgecolor="#7fe0ff", linewidth=1.4)
        axes.set_axis_off()
        axes.set_xlim(0, len(samples) / SAMPLE_RATE_HZ)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file, in the format of its suffix.

    Raises
    ------
    ConfigError
        If the format is unknown, or the file cannot be written.
    """
    try:
        figure.savefig(path, dpi=_DPI)
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"A picture must be a file that can be written, with a name such as det.png or "
            f"det.svg. Received: {path} ({error}). Give another."
        ) from error


def _add_curve(axes: Any, curve: DetCurve, name: str, colour: str) -> None:
    rates = np.unique(np.concatenate((curve.n_false / curve.hours, [_LEAST_PER_HOUR])))
    rates = rates[rates >= _LEAST_PER_HOUR]
    points = [curve.at_budget(rate) for rate in rates.tolist()]
    missed = [point.miss_rate for point in points]
    axes.step(rates, missed, where="post", color=colour, label=f"{name}, {curve.hours:.1f} h")
    low, high = [p.miss_low for p in points], [p.miss_high for p in points]
    axes.fill_between(rates, low, high, step="post", color=colour, alpha=0.16, linewidth=0)
    marks = [curve.at_budget(budget) for budget in BUDGETS]
    axes.plot(BUDGETS, [p.miss_rate for p in marks], "o", color=colour)
    for budget, mark in zip(BUDGETS, marks, strict=True):
        axes.annotate(
            f"{mark.miss_rate:.1%}",
            (budget, mark.miss_rate),
            xytext=(4, 5),
            textcoords="offset points",
            fontsize=8,
            color=colour,
        )


def _cycle(*, dark: bool) -> Iterator[str]:
    while True:
        yield from _COLOURS[dark]


@contextmanager
def theme(*, dark: bool) -> Iterator[None]:
    """Set colours for a light or a dark page, within a block; the background is transparent."""
    ink = "#d8dee6" if dark else "#30363d"
    with mpl.rc_context(
        {
            "text.color": ink,
            "axes.labelcolor": ink,
            "axes.edgecolor": "#8a939d",
            "xtick.color": ink,
            "ytick.color": ink,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#8a939d",
            "grid.alpha": 0.25,
            "axes.facecolor": "none",
            "figure.facecolor": "none" if dark else "white",
            "legend.frameon": False,
            "svg.fonttype": "none",
            "font.family": "sans-serif",
        }
    ):
        yield
