import json
import re
import sys
import wave
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from kws.errors import ModelError
from kws.features import Features
from kws.foreign import openwakeword
from kws.model import open_model, with_embedding
from kws.model_file import read_model
from kws.spotter import Spotter
from kws_train.networks.speech_embedding import load_weights

WORDS = ("alexa", "hey_jarvis")
_PHASE = 640  # the package's vectors end so many samples earlier in a step
_FIRST = 76  # scores of the package of the 8 s of zeros that it begins with


@pytest.fixture(scope="module")
def package():
    """The folder of pyopen-wakeword's models, which are openWakeWord's."""
    pyopen_wakeword = pytest.importorskip("pyopen_wakeword")
    return Path(pyopen_wakeword.__file__).parent / "models"


@pytest.fixture
def write(tmp_path):
    def written(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return written


def test_the_scale_is_that_of_the_bundled_embedding():
    scale, weights = openwakeword._published_scale(), load_weights()
    np.testing.assert_array_equal(np.float32(scale.scale), weights["std"])
    np.testing.assert_array_equal(np.float32(scale.offset), weights["mean"])


@pytest.mark.parametrize("word", WORDS)
def test_scores_are_those_of_the_package(word, package, spoken):
    samples = spoken(word)
    theirs = _scores_of_package(samples, package, word)[_FIRST:]
    model = with_embedding(open_model(package / f"{word}.tflite"))
    shifted = np.concatenate((np.zeros(_PHASE, np.int16), samples))
    ours = model.run(Features(model.manifest.features).whole(shifted))[:, 0]
    n = min(len(theirs), len(ours))
    theirs, ours = theirs[26:n], ours[26:n]  # the windows before reach into zeros
    assert np.corrcoef(theirs, ours)[0, 1] > 0.98
    assert theirs.max() > 0.9
    assert ours.max() == pytest.approx(theirs.max(), abs=0.05)


@pytest.mark.parametrize("word", WORDS)
def test_the_word_of_the_file_is_detected_once(word, package, spoken):
    models = [package / f"{one}.tflite" for one in (*WORDS, "hey_mycroft")]
    (found,) = Spotter(models).listen(spoken(word))
    assert (found.keyword, found.model) == (word, word)
    assert found.end_s == pytest.approx(2 + len(spoken(word)) / 16_000 - 3, abs=0.4)


def test_a_word_at_the_very_beginning_of_a_stream_is_detected(package, spoken):
    (found,) = Spotter(package / "alexa.tflite").listen(spoken("alexa")[31_000:])
    assert found.keyword == "alexa"


def test_the_command_detects_by_a_file_of_the_package(kws, package, spoken, tmp_path):
    path = tmp_path / "alexa.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(spoken("alexa").tobytes())
    code, out, err = kws("listen", path, "--model", package / "alexa.tflite", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out.splitlines()[0])["keyword"] == "alexa"


def test_a_head_with_a_branch_is_run(package):
    # The verifier of hey_jarvis stands in a branch of IF.
    Spotter(package / "hey_jarvis.tflite").process(np.zeros(16_000, np.int16))


def test_a_head_without_metadata_is_described(kws, write, head_of):
    path = write("my_word_v0.2.tflite", head_of(np.zeros((1, 16, 96))))
    code, out, err = kws("info", path)
    assert (code, err) == (0, "")
    assert re.findall(r"^(?:keywords|kind|latency|decision) .*", out, re.MULTILINE) == [
        "keywords      my_word",
        "kind          window: 16 vectors of speech_embedding per call, moved by 1",
        "latency       a call every 80 ms; trained for 0 ms after the end of a word",
        "decision      threshold 0.5, smoothing 0 ms, refractory 2000 ms",
    ]


def test_a_head_of_several_scores_has_a_keyword_for_each_but_the_first(write, head_of):
    manifest, _ = read_model(write("timer_v0.1.tflite", head_of(np.zeros((3, 34, 96)))))
    assert manifest.labels == ("_unknown_", "timer_1", "timer_2")
    assert manifest.n_frames == 34
    assert manifest.context_frames == 76 + 33 * 8


def test_a_manifest_beside_the_head_goes_before_its_format(write, head_of):
    path = write("timer.tflite", head_of(np.zeros((2, 16, 96))))
    manifest, _ = read_model(path)
    named = msgspec.structs.replace(manifest, labels=("_unknown_", "tea_time"))
    path.with_suffix(".kws.json").write_bytes(msgspec.json.encode(named))
    assert read_model(path)[0] == named


def test_the_head_is_given_the_values_of_the_published_network(write, head_of):
    """A head of one value: its score tells that value of the newest vector."""
    weights = np.zeros((1, 16, 96))
    weights[0, -1, 5] = 0.1
    head = open_model(write("x.tflite", head_of(weights)))
    vector = np.linspace(-2, 2, 96, dtype=np.float32)[None]
    (score,) = head.step(vector)[0]
    known = load_weights()
    published = vector[0, 5] * known["std"][5] + known["mean"][5]
    assert np.log(score / (1 - score)) == pytest.approx(0.1 * published, abs=1e-4)


OTHER_SHAPES = (
    "A model without a manifest must have the shapes of openWakeWord's: one floating-point input "
    "[1, n, 96] and one output [1, k]. Received: {path}, which takes {taken} and gives {given}. "
    "Name the file of a wake word, not of an embedding or spectrogram; for another network write "
    "{stem}.kws.json (docs/architecture.md)."
)


@pytest.mark.parametrize("taken", [(1, 16, 40), (1, 76, 32, 1), (2, 16, 96), (1, 600, 96)])
def test_other_shapes_are_refused(taken, write, head_of):
    weights = np.zeros((1, int(np.prod(taken)), 1))
    path = write("other.tflite", head_of(weights, taken=taken))
    with pytest.raises(ModelError) as caught:
        read_model(path)
    assert str(caught.value) == OTHER_SHAPES.format(
        path=path, taken=list(taken), given=[1, 1], stem="other"
    )


def test_the_embedding_of_the_package_is_refused(package):
    with pytest.raises(ModelError, match=r"Name the file of a wake word, not of an embedding"):
        read_model(package / "embedding_model.tflite")


@pytest.mark.parametrize("taken", [(1, 1536), (1, 13)])
def test_a_network_of_less_dimensions_needs_a_manifest(taken, write, head_of):
    weights = np.zeros((1, int(np.prod(taken)), 1))
    path = write("other.tflite", head_of(weights, taken=taken))
    with pytest.raises(ModelError, match=r"A model must carry its manifest kws.json inside"):
        read_model(path)


def _scores_of_package(samples, package, word):
    from pyopen_wakeword import OpenWakeWord, OpenWakeWordFeatures

    features = OpenWakeWordFeatures.from_builtin()
    model = OpenWakeWord.from_model(package / f"{word}.tflite")
    return np.array(
        [
            score
            for at in range(0, len(samples) - 1279, 1280)
            for vectors in features.process_streaming(samples[at : at + 1280].tobytes())
            for score in model.process_streaming(vectors)
        ]
    )


def _onnx_head(operator="Sigmoid", *, taken=(1, 16, 96), **attributes):
    flat = int(np.prod(taken))
    weights = helper.make_tensor("w", TensorProto.FLOAT, [flat, 1], np.full(flat, 1e-3))
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["input"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w"], ["logits"]),
            helper.make_node(operator, ["logits"], ["score"], **attributes),
        ],
        "head",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1, 1])],
        [weights],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def test_onnx_and_tflite_files_of_a_head_give_the_same_scores(write, head_of):
    same = np.full((1, 16, 96), 1e-3)
    by_onnx = open_model(write("a.onnx", _onnx_head().SerializeToString()))
    by_tflite = open_model(write("b.tflite", head_of(same)))
    vectors = np.random.default_rng(1).normal(size=(40, 96)).astype(np.float32)
    expected = by_tflite.run(vectors)
    assert expected.std() > 0.01
    np.testing.assert_allclose(by_onnx.run(vectors), expected, atol=1e-5)
    np.testing.assert_allclose(by_onnx.copy().run(vectors), expected, atol=1e-5)


def test_an_onnx_head_passes_the_trial_in_a_subprocess(write):
    path = write("my_word.onnx", _onnx_head().SerializeToString())
    assert Spotter(path).keywords == ("my_word",)


def test_without_onnxruntime_the_extra_is_named(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=re.escape("Run `pip install 'kws[onnx]'`")):
        open_model(write("a.onnx", _onnx_head().SerializeToString()))


def test_an_onnx_file_of_other_shapes_is_refused(write):
    path = write("other.onnx", _onnx_head(taken=(1, 76, 32)).SerializeToString())
    with pytest.raises(ModelError) as caught:
        read_model(path)
    assert str(caught.value) == OTHER_SHAPES.format(
        path=path, taken=[1, 76, 32], given=[1, 1], stem="other"
    )


def test_an_onnx_file_that_onnxruntime_refuses_has_our_error(write):
    path = write("a.onnx", _onnx_head("Concat").SerializeToString())  # lacks its axis
    with pytest.raises(ModelError, match=r"The model must be one that onnxruntime can run"):
        open_model(path)
