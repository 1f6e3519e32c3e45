"""A head exported for programs on openWakeWord gives the scores that it gives in kws."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from kws.errors import ModelError
from kws.manifest import CalibrationPoint, DecisionDefaults, pack, read_manifest, repack
from kws.model import model_path, open_model
from kws.spotter import Spotter
from kws_export import head as head_module
from kws_export import openwakeword
from kws_export.cli import export
from kws_export.openwakeword import export_openwakeword, read_head
from kws_train.data.audio_files import read_samples

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def network(tensorflow, unsettle):
    from kws_train.networks.embedding_head import embedding_head

    tensorflow.keras.utils.set_random_seed(4)
    model = embedding_head(3)
    unsettle(model, seed=7)
    return model


@pytest.fixture(scope="module")
def vectors():
    """Vectors of a minute of words."""
    from kws_train.data.front_ends import speech_embedding

    return (
        speech_embedding()
        .vectors(read_samples(model_path("commands").with_name("demo.wav")))
        .astype(np.float32)
    )


@pytest.fixture(scope="module")
def head(network, vectors, tmp_path_factory):
    """A head of two keywords with random weights."""
    out = tmp_path_factory.mktemp("head") / "head.tflite"
    manifest = head_module.head_manifest(
        network,
        name="two_words",
        description="one, two",
        keywords=("one", "two"),
        decision=DecisionDefaults(threshold=0.7, smoothing_ms=320, refractory_ms=1000),
    )
    calibration = CalibrationPoint(false_alarms_per_hour=0.5, thresholds={"one": 0.6, "two": 0.9})
    manifest = replace(manifest, calibration=(calibration,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_module, "MIN_AGREEMENT", 0.5)  # a random head is often undecided
        head_module.export_head(
            network, out, manifest=manifest, examples=vectors[:760].reshape(-1, 20, 96)
        )
    return out


@pytest.fixture(scope="module")
def exported(head):
    return export_openwakeword(head, head.with_name("own.tflite"))


def _averaged(head, vectors, column, *, n=4):
    """Return the averages of scores from the first with whole context on."""
    posteriors = open_model(head).run(vectors)[:, column]
    return np.convolve(posteriors, np.full(n, 1 / n), mode="valid")[12:]


def _smoothed_for(smoothing_ms, head, folder):
    manifest, content = read_manifest(head)
    longer = replace(manifest, decision=replace(manifest.decision, smoothing_ms=smoothing_ms))
    path = folder / "head.tflite"
    path.write_bytes(repack(content, longer))
    return path


def test_the_layers_are_those_of_the_trained_head(head, network):
    weights = read_head(head)
    assert [(len(one.kernel), one.dilation) for one in weights.convolutions] == [
        (1, 1),
        (3, 1),
        (3, 2),
        (3, 3),
    ]
    assert (weights.n_context, weights.size) == (13, 96)
    kernel, bias = network.stack[-1].dense.get_weights()
    np.testing.assert_allclose(weights.kernel, kernel, atol=np.abs(kernel).max() / 100)
    np.testing.assert_allclose(weights.bias, bias, atol=0.05)


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
@pytest.mark.parametrize(("column", "keyword"), [(1, "one"), (2, "two")])
def test_a_score_is_the_average_that_kws_decides_on(
    suffix, column, keyword, head, exported, vectors
):
    path = head.with_name(f"own_{keyword}{suffix}")
    expected = _averaged(head, vectors, column)
    assert expected.std() > 0.02
    model = open_model(path)  # as any model of openWakeWord: the file's values are the published
    assert (model.manifest.n_frames, model.manifest.labels) == (16, (f"own_{keyword}",))
    np.testing.assert_allclose(model.run(vectors)[15:, 0], expected, atol=0.05)
    assert exported[column - 1].keyword == keyword
    assert exported[column - 1].largest_difference < 0.05


def test_the_tflite_runs_in_pyopen_wakeword(head, exported, vectors):
    pyopen_wakeword = pytest.importorskip("pyopen_wakeword")
    engine = pyopen_wakeword.OpenWakeWord.from_model(exported[0].files[0])
    assert engine.input_windows == 16
    affine = open_model(exported[0].files[0]).manifest.input_affine
    published = vectors[:40] * np.float32(affine.scale) + np.float32(affine.offset)
    scores = [one for row in published for one in engine.process_streaming(row[None, None, None])]
    expected = _averaged(head, vectors[:40], 1)
    np.testing.assert_allclose(scores[-len(expected) :], expected, atol=0.05)


def test_the_note_has_what_the_files_have_no_place_for(exported):
    note = json.loads(exported[1].files[2].read_text(encoding="utf-8"))
    assert note == {
        "keyword": "two",
        "threshold": 0.7,
        "thresholds": {"0.5 false alarms/h": 0.9},
        "averaged_scores": 4,
        "averaged_scores_of_kws": 4,
        "refractory_seconds": 1.0,
        "licence": "as the data's",
        "data": note["data"],
    }
    assert [path.name for path in exported[1].files] == [
        "own_two.tflite",
        "own_two.onnx",
        "own_two.openwakeword.json",
    ]


def test_the_note_is_not_taken_for_a_manifest(exported):
    assert Spotter(exported[0].files[0]).keywords == ("own_one",)


def test_the_command_takes_a_folder_of_kws_new(head, tmp_path):
    (tmp_path / "work").mkdir()
    manifest, content = read_manifest(head)
    (tmp_path / "work/model.tflite").write_bytes(repack(content, manifest))
    out = tmp_path / "own.tflite"
    arguments = [str(tmp_path / "work"), "--out", str(out), "--format", "openwakeword"]
    result = CliRunner().invoke(export, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert re.fullmatch(
        r"one: own_one.tflite, own_one.onnx, own_one.openwakeword.json; averages 4 scores, largest "
        r"difference 0.0\d\d\ntwo: .*\n",
        result.stdout,
    )


def test_the_window_is_as_long_as_the_averages_of_kws(head, vectors, tmp_path):
    """Heads of `kws new` average eight scores; with four, a tenth more was detected than by kws."""
    pyopen_wakeword = pytest.importorskip("pyopen_wakeword")
    first, _ = export_openwakeword(_smoothed_for(640, head, tmp_path), tmp_path / "own.tflite")
    assert first.n_averaged == 8
    engine = pyopen_wakeword.OpenWakeWord.from_model(first.files[0])
    assert engine.input_windows == 20
    expected = _averaged(head, vectors, 1, n=8)
    for path in first.files[:2]:
        scores = open_model(path).run(vectors)[19:, 0]
        np.testing.assert_allclose(scores, expected, atol=0.05)


def test_more_averaging_than_the_longest_window_has_is_said(head, tmp_path, caplog):
    first, _ = export_openwakeword(_smoothed_for(10_000, head, tmp_path), tmp_path / "own.tflite")
    assert first.n_averaged == 108
    assert caplog.messages == [
        "kws averages 125 scores of this head, of which a window of 120 vectors has 108."
    ]


def test_a_model_that_is_no_head_is_refused(tmp_path):
    path = model_path("commands")
    with pytest.raises(ModelError) as caught:
        export_openwakeword(path, tmp_path / "own.tflite")
    assert str(caught.value) == (
        f"Only a head of `kws new` becomes a model of openWakeWord. Received: {path}. Train one "
        f"with `kws new`, without --small or --format."
    )


def test_a_network_that_is_no_chain_of_convolutions_is_refused(head, tmp_path):
    manifest, _ = read_manifest(head)
    path = tmp_path / "other.tflite"
    path.write_bytes(pack(Path(model_path("commands")).read_bytes(), manifest))
    with pytest.raises(ModelError, match=r"A head must be a chain of convolutions over time"):
        read_head(path)


def test_files_that_give_other_scores_are_not_written(head, tmp_path, monkeypatch):
    monkeypatch.setattr(openwakeword, "_difference", lambda *_, **__: 0.2)
    with pytest.raises(ModelError, match=r"Received: a difference of 0.200"):
        export_openwakeword(head, tmp_path / "own.tflite")
    assert list(tmp_path.iterdir()) == []
