import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from micro_package import detected_by_package

from kws.errors import ModelError
from kws.micro_features import MicroFeatures
from kws.model import open_model
from kws.model_file import read_model
from kws.spotter import Spotter

WORDS = ("alexa", "hey_jarvis")


@pytest.fixture(scope="module")
def package():
    """The folder of pymicro-wakeword's models, which are microWakeWord's."""
    return Path(pytest.importorskip("pymicro_wakeword").__file__).parent / "models"


@pytest.fixture
def copied(package, tmp_path):
    """Copy alexa; its JSON with changes, or None for none."""

    def copy(**changes):
        path = tmp_path / "alexa.tflite"
        shutil.copy(package / "alexa.tflite", path)
        known = json.loads((package / "alexa.json").read_text(encoding="utf-8"))
        path.with_suffix(".json").write_text(json.dumps(known | changes), encoding="utf-8")
        return path

    return copy


@pytest.mark.parametrize("word", WORDS)
def test_probabilities_and_detections_are_those_of_the_package(word, package, spoken):
    samples = np.tile(spoken(word), 2)
    probabilities, ends_s = detected_by_package(samples, package / f"{word}.json")
    model = open_model(package / f"{word}.tflite")
    values = model.run(MicroFeatures().whole(samples))[:, 0]
    np.testing.assert_array_equal(values, probabilities)
    found = list(Spotter(package / f"{word}.tflite", gate=False).listen(samples))
    assert [one.end_s for one in found] == ends_s
    assert len(ends_s) == 2
    gated = list(Spotter(package / f"{word}.tflite").listen(samples))
    assert [(one.keyword, one.end_s) for one in gated] == [(word, end_s) for end_s in ends_s]


def test_a_reset_clears_the_memory_within_the_network(package, spoken):
    model = open_model(package / "alexa.tflite")
    frames = MicroFeatures().whole(spoken("alexa"))
    first = model.run(frames)
    assert first.max() > 0.9
    np.testing.assert_array_equal(model.run(frames), first)


def test_the_json_may_be_named_in_place_of_the_model(package, spoken):
    (found,) = Spotter([package / "alexa.json"]).listen(spoken("alexa"))
    assert found.keyword == "alexa"


def test_what_the_json_says_becomes_the_manifest(copied):
    path = copied(
        wake_word="Hey  Snow Ball",
        author="A. Person",
        micro={"probability_cutoff": 0.8, "sliding_window_size": 10, "feature_step_size": 10},
    )
    manifest, _ = read_model(path)
    assert manifest.labels == ("hey_snow_ball",)
    assert manifest.description == "microWakeWord model by A. Person"
    assert manifest.decision.threshold == pytest.approx(0.8, abs=1e-6)
    assert (manifest.decision.smoothing_ms, manifest.decision.delay_ms) == (300, 270)
    assert (manifest.n_frames, manifest.kernels) == (3, "reference")
    # Frames that the variables of this network hold, and those of a call.
    assert 60 < manifest.context_frames < 400


def test_a_mean_equal_to_the_cut_off_is_no_detection(copied):
    manifest, _ = read_model(copied())
    assert np.float32(manifest.decision.threshold) > np.float32(0.9)


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        (1, "Models of version 1 take other features: use the model's version 2, or train anew."),
        (3, "This version of kws does not know it: update kws, or use the model's version 2."),
        ("two", "Take the JSON that belongs to the model."),
        ([2], "Take the JSON that belongs to the model."),
    ],
)
def test_other_versions_of_the_json_are_refused(version, remedy, copied):
    path = copied(version=version)
    with pytest.raises(ModelError) as caught:
        read_model(path)
    assert str(caught.value) == (
        f"The JSON of a microWakeWord model must have version 2. Received: {version} in "
        f"{path.with_suffix('.json')}. {remedy}"
    )


@pytest.mark.parametrize(
    ("changes", "received"),
    [
        ({"micro": {"probability_cutoff": 2, "sliding_window_size": 5}}, "`float` <= 1.0"),
        ({"micro": {"probability_cutoff": 0.5}}, "missing required field `sliding_window_size`"),
        ({"micro": 5}, "Expected `object`, got `int`"),
        ({"wake_word": ""}, "Expected `str` of length >= 1"),
        (
            {
                "micro": {
                    "probability_cutoff": 0.5,
                    "sliding_window_size": 5,
                    "feature_step_size": 20,
                }
            },
            "Expected `int` <= 10",
        ),
    ],
)
def test_a_json_that_breaks_a_rule_is_refused(changes, received, copied):
    with pytest.raises(ModelError) as caught:
        read_model(copied(**changes))
    assert str(caught.value).startswith(
        "The JSON of a microWakeWord model must keep the rules of version 2. Received: "
    )
    assert received in str(caught.value)


def test_without_its_json_the_model_is_refused(copied):
    path = copied()
    path.with_suffix(".json").unlink()
    with pytest.raises(ModelError) as caught:
        read_model(path)
    assert str(caught.value) == (
        f"A microWakeWord model must have its JSON of version 2 beside it. Received: {path} "
        f"without alexa.json. Copy that too."
    )


@pytest.mark.parametrize("model", ["gone.tflite", "../alexa.tflite", ""])
def test_a_json_that_names_no_file_beside_it_is_refused(model, copied):
    path = copied(model=model).with_suffix(".json")
    with pytest.raises(ModelError) as caught:
        read_model(path)
    assert str(caught.value) == (
        f"The JSON of a microWakeWord model must name a file beside it in `model`. Received: "
        f"`{model}` in {path}. Put the .tflite into that folder."
    )


def test_a_network_of_other_shapes_beside_the_json_is_refused(copied, head_of):
    path = copied()
    path.write_bytes(head_of(np.zeros((1, 3, 40)), kind=schema.TensorType.INT8))
    read_model(path)  # eight bits and 40 values
    path.write_bytes(head_of(np.zeros((1, 3, 32)), kind=schema.TensorType.INT8))
    with pytest.raises(ModelError) as caught:
        read_model(path)
    assert str(caught.value) == (
        f"A microWakeWord model must have one 8-bit input [1, n, 40] and one output [1, 1]. "
        f"Received: {path}, which takes [1, 3, 32] and gives [1, 1]. Take the .tflite that belongs "
        f"to its JSON."
    )


@pytest.mark.parametrize("text", ["", "[1]", '{"micro', '{"labels": 1}', "\xff"])
def test_another_json_beside_a_model_is_left_alone(text, tmp_path, head_of):
    path = tmp_path / "word.tflite"
    path.write_bytes(head_of(np.zeros((1, 16, 96))))
    path.with_suffix(".json").write_text(text, encoding="latin-1")
    assert read_model(path)[0].labels == ("word",)


def test_without_pymicro_features_the_extra_is_named(kws, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymicro_features", None)
    with pytest.raises(ModelError, match=re.escape("Run `pip install 'kws[micro]'`")):
        Spotter(open_model(package / "alexa.tflite"))
