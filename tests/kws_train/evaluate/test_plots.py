"""Pictures hold what they are of, and go into files."""

import re

import numpy as np
import pytest

from kws.errors import ConfigError
from kws_train.evaluate.clips import reliability
from kws_train.evaluate.det import DetCurve
from kws_train.evaluate.plots import (
    draw_det,
    draw_learning,
    draw_reliability,
    draw_spectrogram,
    save,
)


@pytest.fixture
def curve():
    return DetCurve(
        np.array([0.5, 0.7, 0.9]),
        n_false=np.array([40, 4, 0]),
        n_missed=np.array([5, 10, 20]),
        hours=4.0,
        n_words=100,
    )


def test_a_det_curve_steps_down_where_a_false_alarm_is_allowed(curve):
    (axes,) = draw_det({"clean": curve}).axes
    step, marks = axes.lines
    assert step.get_xdata().tolist() == [0.05, 1.0, 10.0]
    assert step.get_ydata().tolist() == [0.2, 0.1, 0.05]
    assert marks.get_ydata().tolist() == [0.2, 0.2, 0.2, 0.1]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.texts] == ["20.0%", "20.0%", "20.0%", "10.0%"]
    assert axes.get_legend().get_texts()[0].get_text() == "clean, 4.0 h"


@pytest.mark.parametrize("name", ["det.png", "det.svg"])
def test_a_picture_is_written_as_its_name_says(tmp_path, curve, name):
    save(draw_det({"clean": curve}, dark=True), tmp_path / name)
    assert (tmp_path / name).read_bytes()[:5] in {b"\x89PNG\r", b"<?xml"}


@pytest.mark.parametrize("name", ["det.xyz", "none/det.png"])
def test_a_picture_that_cannot_be_written_is_refused(tmp_path, curve, name):
    message = (
        "A picture must be a file that can be written, with a name such as det.png or det.svg. "
        f"Received: {tmp_path / name} "
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        save(draw_det({"clean": curve}), tmp_path / name)


def test_reliability_and_learning_are_drawn_from_what_was_counted(tmp_path):
    figure = draw_reliability(reliability([0.15, 0.95, 0.95], [False, True, False]))
    points = figure.axes[0].lines[1]
    assert points.get_xdata() == pytest.approx([0.15, 0.95])
    assert points.get_ydata().tolist() == [0.0, 0.5]
    (tmp_path / "history.csv").write_text("epoch,loss,val_loss\n0,2.0,2.5\n1,1.0,1.5\n")
    training, validation = draw_learning(tmp_path / "history.csv").axes[0].lines
    assert training.get_ydata().tolist() == [2.0, 1.0]
    assert validation.get_xdata().tolist() == [1, 2]


def test_a_spectrogram_of_digital_silence_is_dark_and_warns_of_nothing():
    axes = draw_spectrogram(np.zeros(16_000, np.int16), marked_s=(0.2, 0.5)).axes[0]
    assert axes.get_xlim() == (0.0, 1.0)
    assert len(axes.patches) == 1
