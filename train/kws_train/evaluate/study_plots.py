"""Plots of a hyper-parameter search: losses of its trials, importance of its settings."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kws_train.evaluate.plots import save, theme
from kws_train.optional import load_library

__all__ = ["draw_history", "draw_importance", "draw_study"]

_COLOURS = {"complete": "#0072b2", "pruned": "#8a939d"}


def draw_study(study: Any, run: Path) -> list[Path]:
    """Write history.png and, with two complete trials, importance.png; return their paths."""
    pictures = {run / "history.png": draw_history(study)}
    if len([trial for trial in study.get_trials() if trial.state.name == "COMPLETE"]) > 1:
        pictures[run / "importance.png"] = draw_importance(study)
    for path, figure in pictures.items():
        save(figure, path)
    return list(pictures)


def draw_history(study: Any) -> Figure:
    """Draw the least validation loss of each trial, and of all trials up to it."""
    found = [
        (trial.number, min(trial.intermediate_values.values()), trial.state.name.lower())
        for trial in study.get_trials()
        if trial.intermediate_values and trial.state.name.lower() in _COLOURS
    ]
    with theme(dark=False):
        figure = Figure(figsize=(6.0, 3.4), layout="constrained")
        axes = figure.subplots()
        for state, colour in _COLOURS.items():
            among = [(number, loss) for number, loss, one in found if one == state]
            if among:
                numbers, losses = zip(*among, strict=True)
                axes.scatter(numbers, losses, s=18, color=colour, label=state)
        complete = [(number, loss) for number, loss, state in found if state == "complete"]
        if complete:
            numbers, losses = zip(*complete, strict=True)
            best = np.minimum.accumulate(losses)
            axes.step(numbers, best, where="post", color="#d55e00", label="best")
        axes.set(xlabel="trial", ylabel="validation loss", yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")  # 1 and 2, not powers of ten
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.legend()
    return figure


def draw_importance(study: Any) -> Figure:
    """Draw the importance of each setting by PED-ANOVA (Watanabe et al. 2023)."""
    optuna = load_library("optuna", purpose="`kws train --search`")
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    names = list(shares)[::-1]
    with theme(dark=False):
        figure = Figure(figsize=(6.0, 0.9 + 0.32 * len(names)), layout="constrained")
        axes = figure.subplots()
        axes.barh(names, [shares[name] for name in names], color="#0072b2")
        axes.set(xlabel="importance for the validation loss", xlim=(0, 1))
    return figure
