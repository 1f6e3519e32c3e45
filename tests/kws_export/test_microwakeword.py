"""Networks for ESPHome: their operators and shapes, their JSON, and what other programs detect."""

import json
from pathlib import Path

import numpy as np
import pytest
import sounds
from ai_edge_litert.interpreter import Interpreter
from micro_package import detected_by_package

from kws.errors import ModelError
from kws.flatbuffer import INT8, UINT8, read_graphs
from kws.micro_features import MicroFeatures
from kws.model import model_path, open_model
from kws.spotter import Spotter

pytestmark = pytest.mark.slow

WINDOW = 4


@pytest.fixture(scope="module")
def microwakeword(tensorflow):
    pytest.importorskip("pymicro_features")
    from kws_export import microwakeword

    return microwakeword


@pytest.fixture(scope="module")
def network(microwakeword, tensorflow, unsettle):
    from kws_train.networks.micro_network import micro_network

    tensorflow.keras.utils.set_random_seed(4)
    model = micro_network(2, channels=16)
    unsettle(model, seed=7)
    return model


@pytest.fixture(scope="module")
def samples():
    """Speech-like sound with pauses."""
    quiet = np.random.default_rng(1).normal(0, 20, 16_000).astype(np.int16)
    return np.concatenate([part for i in (1, 2, 3) for part in (quiet, sounds.voice(1.0 + i / 4))])


@pytest.fixture(scope="module")
def scenes(samples):
    frames = MicroFeatures().whole(samples)
    return np.stack([frames[at : at + 200] for at in range(0, len(frames) - 200, 30)])


def export(microwakeword, network, scenes, out, *, cutoff=0.5):
    description = microwakeword.MicroDescription(
        wake_word="café computer",
        language="fr",
        probability_cutoff=cutoff,
        sliding_window_size=WINDOW,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(microwakeword, "MIN_AGREEMENT", 0.8)  # a random network is often undecided
        return microwakeword.export_microwakeword(
            network, out, description=description, examples=scenes
        )


@pytest.fixture(scope="module")
def exported(microwakeword, network, scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("micro") / "cafe.tflite"
    return out, export(microwakeword, network, scenes, out)


def test_steps_of_the_file_give_what_the_network_gives_for_the_whole(exported):
    _, agreement = exported
    assert agreement.n_outputs > 300
    assert agreement.argmax > 0.97
    assert agreement.largest_difference < 0.35


def test_the_file_has_operators_that_esphome_registers(exported, microwakeword):
    graphs = read_graphs(exported[0].read_bytes(), name="cafe")
    found = {one.code for graph in graphs for one in graph.operators}
    known = microwakeword.ESPHOME_OPERATORS
    assert found <= set(known.values())
    assert {known["READ_VARIABLE"], known["ASSIGN_VARIABLE"], known["CALL_ONCE"]} <= found
    assert known["LOGISTIC"] in found


def test_operators_of_published_models_are_in_the_list(microwakeword):
    """The list is ESPHome's, and these run there."""
    package = pytest.importorskip("pymicro_wakeword")
    for path in (Path(package.__file__).parent / "models").glob("*.tflite"):
        graphs = read_graphs(path.read_bytes(), name=path.name)
        codes = {one.code for graph in graphs for one in graph.operators}
        assert codes <= set(microwakeword.ESPHOME_OPERATORS.values())


def test_the_numbers_of_operators_are_those_of_the_schema(microwakeword):
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    for name, number in microwakeword.ESPHOME_OPERATORS.items():
        assert getattr(BuiltinOperator, name) == number


def test_frames_go_in_as_esphome_scales_them_and_a_probability_comes_out(exported):
    graph = read_graphs(exported[0].read_bytes(), name="cafe")[0]
    (taken,), (given,) = (
        [graph.tensors[i] for i in ends] for ends in (graph.inputs, graph.outputs)
    )
    assert (taken.type, taken.shape) == (INT8, (1, 3, 40))
    assert (given.type, given.shape) == (UINT8, (1, 1))
    interpreter = Interpreter(str(exported[0]))
    scale, zero = interpreter.get_input_details()[0]["quantization"]
    assert (scale, zero) == (pytest.approx(26 / 255, rel=1e-4), -128)
    assert interpreter.get_output_details()[0]["quantization"] == (1 / 256, 0)


def test_the_json_keeps_every_rule_of_esphomes_schema(exported):
    """MANIFEST_SCHEMA_V2 of the component; other keys would be refused."""
    stated = json.loads(exported[0].with_suffix(".json").read_text(encoding="utf-8"))
    micro = stated.pop("micro")
    assert stated == {
        "type": "micro",
        "wake_word": "café computer",
        "author": "kws",
        "model": "cafe.tflite",
        "trained_languages": ["fr"],
        "version": 2,
    }
    assert micro.pop("tensor_arena_size") % 1024 == 0
    assert micro == {
        "probability_cutoff": 0.5,
        "sliding_window_size": WINDOW,
        "feature_step_size": 10,
        "minimum_esphome_version": "2024.7.0",
    }


def test_probabilities_and_detections_are_those_of_pymicro_wakeword(
    exported, microwakeword, network, scenes, samples, tmp_path
):
    pytest.importorskip("pymicro_wakeword")
    values = open_model(exported[0]).run(MicroFeatures().whole(samples))[:, 0]
    means = np.convolve(values, np.full(WINDOW, 1 / WINDOW), "valid")
    out = tmp_path / "cafe.tflite"
    cutoff = round(float(means.min() + means.max()) / 2, 4)
    export(microwakeword, network, scenes, out, cutoff=cutoff)
    probabilities, ends_s = detected_by_package(samples, out.with_suffix(".json"))
    np.testing.assert_array_equal(values, probabilities)
    spotter = Spotter(out, gate=False)
    found = [one.end_s for one in spotter.listen(samples)]
    assert found
    # After a detection kws, as ESPHome, detects nothing for a second.
    expected = []
    for end_s in ends_s:
        if not expected or end_s - expected[-1] > 1.01:
            expected.append(end_s)
    assert found == expected


@pytest.mark.parametrize("n_chunk", [160, 1280, 5000])
def test_memory_lasts_from_one_chunk_to_the_next(exported, samples, n_chunk):
    model = open_model(exported[0])
    features = MicroFeatures()
    whole = model.run(features.whole(samples))
    spotter = Spotter(exported[0], gate=False)
    heard = []
    for at in range(0, len(samples), n_chunk):
        heard += [one.end_s for one in spotter.process(samples[at : at + n_chunk])]
    assert heard == [one.end_s for one in Spotter(exported[0], gate=False).listen(samples)]
    smoothed = whole[-WINDOW:, 0].mean()
    assert spotter.posteriors["café_computer"] == pytest.approx(smoothed, abs=1e-6)
    # Without memory, the last outputs would depend on the last frames alone.
    alone = open_model(exported[0]).run(MicroFeatures().whole(samples)[-3 * WINDOW :])
    assert not np.allclose(alone[:, 0], whole[-WINDOW:, 0])


def test_an_output_depends_on_the_stated_frames(network):
    from kws_train.networks.micro_network import N_CONTEXT_FRAMES

    random = np.random.default_rng(3)
    late = random.uniform(0, 20, (N_CONTEXT_FRAMES, 40))
    rows = [np.concatenate((random.uniform(0, 20, (37, 40)), late)) for _ in range(2)]
    first, second = np.asarray(network(np.stack(rows).astype(np.float32)))[:, -1]
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_a_network_that_disagrees_is_not_written(
    microwakeword, network, scenes, tmp_path, monkeypatch
):
    from kws_export.verify import Agreement

    monkeypatch.setattr(microwakeword, "verify", lambda *_: Agreement(0.5, 0.9, 100))
    with pytest.raises(ModelError, match=r"Received: 50.00% over 100"):
        export(microwakeword, network, scenes, tmp_path / "a.tflite")
    assert not list(tmp_path.iterdir())


def test_operators_that_a_device_lacks_are_refused(microwakeword):
    with pytest.raises(ModelError, match=r"must have operators that it registers\. Received: "):
        microwakeword._check_operators(model_path("commands").read_bytes())


def test_more_variables_than_a_device_has_are_refused(microwakeword, exported, monkeypatch):
    monkeypatch.setattr(microwakeword, "_MOST_VARIABLES", 5)
    with pytest.raises(ModelError, match=r"must have 5 variables at most\. Received: 6\."):
        microwakeword._check_operators(exported[0].read_bytes())


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9701, 0.99])
def test_a_cutoff_is_the_same_on_a_device(microwakeword, threshold):
    cutoff = microwakeword.cutoff_of(threshold)
    on_device = int(cutoff * 255) / 255
    assert threshold <= on_device < threshold + 1 / 255
    assert 0 <= cutoff - on_device <= 1e-4


def test_a_cutoff_can_be_exceeded(microwakeword):
    assert int(microwakeword.cutoff_of(1.0) * 255) == 254


def test_the_json_is_copied_under_another_name(microwakeword, exported, tmp_path):
    microwakeword.copy_description(exported[0], tmp_path / "other.tflite")
    copied = json.loads((tmp_path / "other.json").read_text(encoding="utf-8"))
    known = json.loads(exported[0].with_suffix(".json").read_text(encoding="utf-8"))
    assert copied == known | {"model": "other.tflite"}
