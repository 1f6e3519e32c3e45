"""Accuracy on validation clips over the CPU time of a training: a callback, and a picture."""

import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from kws.arrays import Samples
from kws_train.evaluate.plots import save, theme
from kws_train.evaluate.training_plots import confusion_matrix
from kws_train.recipe import Recipe

__all__ = ["Curve", "Point", "draw_curves", "read_curve"]


class Curve(keras.callbacks.Callback):
    """Write the CPU time so far and the accuracy on validation clips after each epoch.

    Parameters
    ----------
    run : Path
        Gets curve.csv, which is continued after an interruption.
    recipe : Recipe
    clips : sequence of (label, samples)
    """

    def __init__(self, run: Path, recipe: Recipe, clips: Sequence[tuple[str, Samples]]) -> None:
        super().__init__()
        self.path, self.recipe, self.clips = run / "curve.csv", recipe, clips
        self.minutes = read_curve(self.path)[-1].minutes if self.path.is_file() else 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the clock."""
        self.began_s = cpu_s()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Add a row; its measurement is no time of the training."""
        self.minutes += (cpu_s() - self.began_s) / 60
        accuracy = float("nan")
        if self.clips:
            confusion = confusion_matrix(self.model, self.recipe, self.clips)
            accuracy = float(np.trace(confusion) / confusion.sum())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{self.minutes:.3f},{accuracy:.4f},{logs['val_loss']:.4f}\n")


class Point(NamedTuple):
    """A row of curve.csv."""

    minutes: float
    accuracy: float
    val_loss: float


def read_curve(path: Path) -> list[Point]:
    """Return the rows of curve.csv."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Point(*map(float, line.split(","))) for line in lines]


def cpu_s() -> float:
    """Return the CPU time of this process and of the one that prepares batches."""
    children = sum(child_cpu_s(child.pid) for child in multiprocessing.active_children())
    return time.process_time() + children


def child_cpu_s(pid: int | None) -> float:
    """Return the CPU time of a process; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def draw_curves(curves: Mapping[str, Sequence[Point]], path: Path) -> None:
    """Draw the accuracy of rows over minutes of CPU time; rows without an accuracy are left out."""
    known = {name: points for name, points in curves.items() if not np.isnan(points[-1].accuracy)}
    if not known:
        return
    with theme(dark=False):
        figure = Figure(figsize=(7.0, 3.8), layout="constrained")
        axes = figure.subplots()
        for name, points in known.items():
            minutes, accuracy, _ = zip(*points, strict=True)
            axes.plot(minutes, accuracy, marker=".", label=name)
        axes.set(xlabel="minutes of CPU time", ylabel="accuracy, validation clips")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend()
    save(figure, path)
