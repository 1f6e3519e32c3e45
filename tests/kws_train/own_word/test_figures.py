"""The figures of a new model and their summary."""

from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from kws.model import bundled_models, open_model
from kws_train.evaluate.det import operating_point
from kws_train.own_word import figures as figures_module
from kws_train.own_word.figures import Figures, confusions, describe_figures

CHOSEN = operating_point(n_false=0, n_missed=1, hours=1.0, n_words=9, threshold=0.6, budget=0.5)
SET = operating_point(n_false=1, n_missed=0, hours=1.0, n_words=9, threshold=0.55, budget=None)
FIGURES = Figures(
    keywords=("robot",),
    tested_on="recordings",
    n_words=9,
    hours=1.0,
    points={"clean": (CHOSEN, SET)},
    thresholds={"robot": 0.5},
    budget=0.5,
    confused_by={"row but": (3, 4)},
    n_bytes=90_000,
    cpu_ms=1.5,
    minutes=3.0,
)


@pytest.fixture
def firing(monkeypatch, tmp_path):
    """Clips by word; those whose names begin with `fires` do."""
    monkeypatch.setattr(
        "kws_train.own_word.figures.read_samples", lambda path: np.int16([path.name[:5] == "fires"])
    )
    monkeypatch.setattr(
        "kws_train.own_word.figures.posterior_trace",
        lambda _, samples: SimpleNamespace(
            detections=lambda thresholds: [thresholds] if samples[-1] else []
        ),
    )

    def clips(n, n_all):
        return [tmp_path / f"{'fires' if i < n else 'rests'}-{i}.flac" for i in range(n_all)]

    return clips


def test_what_is_taken_for_the_phrase_comes_with_counts_the_surest_first(firing):
    said = {
        "once_of_one": firing(1, 1),
        "nearly_always": firing(5, 6),
        "hardly": firing(1, 20),
        "never": firing(0, 9),
    }
    model = open_model(bundled_models()["computer"])
    found = confusions(model, said, budget=0.5)
    assert list(found.items()) == [("nearly always", (5, 6)), ("once of one", (1, 1))]


def test_figures_are_summarised_and_come_back_from_json(tmp_path):
    assert msgspec.json.decode(msgspec.json.encode(FIGURES), type=Figures) == FIGURES
    text = describe_figures(FIGURES, model=tmp_path / "a.tflite", report=tmp_path / "report.html")
    assert " clean  0.5 false alarms/h:  11.1 % [2.0, 43.5] at threshold 0.600\n" in text
    own = "at the model's own threshold, 0.550:   0.0 % [0.0, 29.9] with 1.00 false alarms/h"
    assert f" clean  {own} [0.03, 5.57]\n" in text
    assert "confused with: row but (3 of 4)" in text
    none = msgspec.structs.replace(FIGURES, confused_by={})
    assert "confused with: none of the tested words" in describe_figures(
        none, model=tmp_path / "a.tflite", report=tmp_path / "report.html"
    )


def test_a_model_for_esphome_comes_with_lines_for_its_device(tmp_path):
    text = describe_figures(
        FIGURES, model=tmp_path / "a.tflite", report=tmp_path / "report.html", is_micro=True
    )
    assert text.endswith(
        "in the device's ESPHome configuration, with a.tflite and a.json beside it:\n\n"
        "micro_wake_word:\n  models:\n    - model: a.json"
    )
    assert "kws.toml" not in text


def test_misses_of_people_are_shown_as_an_estimate(tmp_path):
    estimated = figures_module._people({"clean": (CHOSEN, SET), "elsewhere": (SET,)}, n_words=9)
    figures = msgspec.structs.replace(FIGURES, people=estimated)
    text = describe_figures(figures, model=tmp_path / "a.tflite", report=tmp_path / "report.html")
    lines = text.splitlines()
    at = lines.index("estimated misses of people, at the model's own threshold:")
    # No voice of nine was missed: half a miss in ten, at 0.65, 1.47 and 2.94 times its odds.
    assert lines[at + 1] == "   clean  7% (3% to 13%), from words of which there are recordings"
    assert "elsewhere" not in text
