"""The tests that run a network convert one first, and are slow for TensorFlow's import alone."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from kws.errors import ModelError
from kws.features import Features
from kws.manifest import FeatureSettings, Manifest, pack
from kws.model import StepModel, WindowModel, bundled_models, model_path, open_model

GOLDEN = Path(__file__).parents[1] / "data" / "golden.npz"
FORMATS = ["int8", "int16x8", "float32"]
ANY = Manifest(
    name="any",
    labels=("yes",),
    kind="window",
    features=FeatureSettings(),
    n_frames=10,
    hop_frames=2,
)


def exactly(message):
    return f"^{re.escape(message)}$"


def run(model, frames):
    hop = model.manifest.hop_frames
    starts = range(0, len(frames) - hop + 1, hop)
    return np.concatenate([model.step(frames[start : start + hop]) for start in starts])


@pytest.fixture
def write(tmp_path):
    """Write a model file out of a flatbuffer and a manifest."""

    def write(flatbuffer, manifest):
        path = tmp_path / "model.tflite"
        path.write_bytes(pack(flatbuffer, manifest))
        return path

    return write


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "says", "received"),
    [
        ({"labels": ("_silence_", "_unknown_", "yes")}, "3 labels", "4 outputs"),
        ({"labels": ("_silence_", "yes")}, "2 labels", "4 outputs"),
        (
            {"features": FeatureSettings(kind="logmel", n_mels=9)},
            "an input of 2 frames of 9",
            "16 values",
        ),
        ({"n_frames": 4, "hop_frames": 4}, "an input of 4 frames of 8", "16 values"),
        ({"input": ""}, "an input tensor ``", "frames, state_0, state_1, state_2"),
        ({"input": "mfcc"}, "an input tensor `mfcc`", "frames, state_0, state_1, state_2"),
        (
            {"output": "logits"},
            "an output tensor `logits`",
            "Identity, Identity_1, Identity_2, Identity_3",
        ),
        ({"states": ()}, "0 states", "3 beside the input"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_manifest_that_disagrees_with_the_tensors_is_refused(
    tiny_models, write, changes, says, received
):
    flatbuffer, manifest = tiny_models("float32")
    path = write(flatbuffer, msgspec.structs.replace(manifest, **changes))
    message = (
        f"The manifest of `tiny` must agree with its tensors: it says {says}. "
        f"Received: {received}. Export the model again."
    )
    with pytest.raises(ModelError, match=exactly(message)):
        open_model(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "says", "received"),
    [
        ({"input": "h"}, "a tensor `h`", "none"),
        ({"output": "h"}, "a tensor `h`", "none"),
        ({"shape": (1, 9)}, "a state of shape (1, 9)", "(1, 8)"),
        ({"shape": (8,)}, "a state of shape (8,)", "(1, 8)"),
        ({"output": "Identity_2"}, "a state of shape (1, 8)", "(1, 2, 1, 8)"),
    ],
)
def test_a_state_that_is_not_in_the_file_is_refused(tiny_models, write, changes, says, received):
    flatbuffer, manifest = tiny_models("float32")
    *others, last = manifest.states
    states = (*others, msgspec.structs.replace(last, **changes))
    path = write(flatbuffer, msgspec.structs.replace(manifest, states=states))
    message = (
        f"The manifest of `tiny` must agree with its tensors: it says {says}. "
        f"Received: {received}. Export the model again."
    )
    with pytest.raises(ModelError, match=exactly(message)):
        open_model(path)


@pytest.mark.slow
def test_a_state_too_few_is_refused(tiny_models, write):
    flatbuffer, manifest = tiny_models("float32")
    path = write(flatbuffer, msgspec.structs.replace(manifest, states=manifest.states[:2]))
    message = (
        "The manifest of `tiny` must agree with its tensors: it says 2 states. "
        "Received: 3 beside the input. Export the model again."
    )
    with pytest.raises(ModelError, match=exactly(message)):
        open_model(path)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(tiny_models, tmp_path, share):
    content = pack(*tiny_models("int8"))
    path = tmp_path / "short.tflite"
    path.write_bytes(content[: max(8, int(share * len(content)))])
    message = (
        f"A model must carry its manifest kws.json inside the file, or beside it as "
        f"short.kws.json. Received: {path} with none that can be read: the file is cut short or "
        f"not from kws. Copy it again, export it with `kws export`, or write short.kws.json."
    )
    with pytest.raises(ModelError, match=exactly(message)):
        open_model(path)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_flatbuffer_cut_short_under_a_sound_manifest_does_not_crash(tiny_models, write, share):
    """In a process of its own: an interpreter that believes such a file may die of it."""
    flatbuffer, manifest = tiny_models("int8")
    path = write(flatbuffer[: max(8, int(share * len(flatbuffer)))], manifest)
    program = (
        "import sys; from pathlib import Path; from kws.model import open_model\n"
        "from kws.errors import ModelError\n"
        "try: open_model(Path(sys.argv[1]))\n"
        "except ModelError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"The model must be one that ai_edge_litert can run\. Received: \S.*\. "
        r"Copy or export it again, or update the interpreter\.\n",
        done.stdout,
    )


def test_without_any_interpreter_the_message_names_both(monkeypatch, write):
    for module in ("ai_edge_litert", "tflite_runtime"):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(sys.modules, f"{module}.interpreter", None)
    path = write(b"\x1c\x00\x00\x00TFL3" + bytes(64), ANY)
    message = (
        "A model needs an interpreter, ai-edge-litert or tflite-runtime. Received: neither can be "
        "imported. Run `pip install ai-edge-litert`, or on 32-bit ARM with Python up to 3.11 "
        "`pip install tflite-runtime 'numpy<2'`."
    )
    with pytest.raises(ModelError, match=exactly(message)):
        open_model(path)


@pytest.mark.slow
def test_tflite_runtime_serves_where_litert_is_missing(monkeypatch, tiny_file, tiny_examples):
    import ai_edge_litert.interpreter as litert

    expected = run(open_model(tiny_file()), tiny_examples[0])
    for name in ("ai_edge_litert", "ai_edge_litert.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    package = type(sys)("tflite_runtime")
    package.interpreter = litert
    monkeypatch.setitem(sys.modules, "tflite_runtime", package)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", litert)
    assert np.array_equal(run(open_model(tiny_file()), tiny_examples[0]), expected)


@pytest.mark.parametrize("failure", [ImportError, SystemError])
def test_an_interpreter_built_for_another_numpy_is_named(monkeypatch, write, failure):
    def load_native_half(**_):
        raise failure("numpy.core.multiarray failed to import")

    interpreter = type(sys)("tflite_runtime.interpreter")
    interpreter.Interpreter = load_native_half
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime", type(sys)("tflite_runtime"))
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", interpreter)
    path = write(b"\x1c\x00\x00\x00TFL3" + bytes(64), ANY)
    message = (
        f"tflite_runtime must fit the installed numpy. Received: numpy {np.__version__}. "
        "Run `pip install 'numpy<2'`, or `pip install ai-edge-litert`."
    )
    with pytest.raises(ModelError, match=exactly(message)):
        open_model(path)


@pytest.mark.slow
def test_opening_a_model_says_nothing_on_the_terminal(tiny_file, capfd):
    open_model(tiny_file())
    assert capfd.readouterr() == ("", "")


def test_a_name_that_is_neither_bundled_nor_a_file_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("kws.model.files", lambda _: tmp_path)
    (tmp_path / "commands.tflite").write_bytes(b"")
    message = (
        "A model must be a bundled model's name or a file. Received: comands. "
        "Did you mean `commands`? Bundled: commands."
    )
    with pytest.raises(ModelError, match=exactly(message)):
        model_path("comands")


def test_with_no_model_bundled_the_message_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("kws.model.files", lambda _: tmp_path)
    message = "A model must be a bundled model's name or a file. Received: /no/such. Bundled: none."
    with pytest.raises(ModelError, match=exactly(message)):
        model_path("/no/such")


def test_a_bundled_model_goes_by_its_name_and_a_file_by_its_path(monkeypatch, tmp_path):
    monkeypatch.setattr("kws.model.files", lambda _: tmp_path)
    bundled, own = tmp_path / "commands.tflite", tmp_path / "mine.bin"
    bundled.write_bytes(b"")
    own.write_bytes(b"")
    assert bundled_models() == {"commands": bundled}
    assert model_path("commands") == bundled
    assert model_path(str(own)) == own


@pytest.mark.slow
@pytest.mark.parametrize("quantization", FORMATS)
def test_posteriors_come_one_row_an_output_and_sum_to_one(tiny_file, tiny_examples, quantization):
    model = open_model(tiny_file(quantization))
    assert isinstance(model, StepModel)
    assert model.n_outputs == 1
    posteriors = run(model, tiny_examples[0])
    assert posteriors.shape == (75, 4)
    assert posteriors.dtype == np.float32
    assert np.abs(posteriors.sum(axis=1) - 1).max() < 0.02


@pytest.mark.slow
def test_a_call_of_four_frames_gives_two_rows_the_same_as_two_calls_of_two(
    tiny_file, tiny_examples
):
    two, four = (open_model(tiny_file("float32", n_frames=n)) for n in (2, 4))
    assert four.n_outputs == 2
    frames = tiny_examples[0][:148]
    assert np.abs(run(four, frames) - run(two, frames)).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("quantization", FORMATS)
def test_reset_gives_the_same_outputs_again(tiny_file, tiny_examples, quantization):
    model = open_model(tiny_file(quantization))
    first = run(model, tiny_examples[0])
    assert not np.array_equal(run(model, tiny_examples[0]), first), "states must carry over"
    model.reset()
    assert np.array_equal(run(model, tiny_examples[0]), first)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["int8", "int16x8"])
@pytest.mark.parametrize("sign", [1, -1])
def test_values_beyond_the_range_saturate(tiny_file, quantization, sign):
    """Wrapped around they would come out at the other end of the range."""
    model = open_model(tiny_file(quantization), reference=True)
    far = run(model, np.full((20, 8), sign * 1e6, np.float32))
    model.reset()
    beyond = run(model, np.full((20, 8), sign * 50.0, np.float32))
    model.reset()
    other_end = run(model, np.full((20, 8), sign * -50.0, np.float32))
    assert np.array_equal(far, beyond)
    assert not np.array_equal(far, other_end)


@pytest.mark.slow
def test_a_state_whose_scales_differ_is_brought_from_one_to_the_other(tiny_models, write):
    """int16x8 scales a recurrent state anew on its way round; bytes copied as they are drift."""
    flatbuffer, manifest = tiny_models("int16x8")
    model = open_model(write(flatbuffer, manifest))
    taken = {d["name"]: d for d in model._interpreter.get_input_details()}["state_2"]
    given = {d["name"]: d for d in model._interpreter.get_output_details()}["Identity_3"]
    assert taken["quantization"] != given["quantization"]
    rng = np.random.default_rng(1)
    for _ in range(10):
        model.step(rng.normal(5, 2, (2, 8)).astype(np.float32))
    came = model._interpreter.get_tensor(given["index"]) * given["quantization"][0]
    went = model._interpreter.get_tensor(taken["index"]) * taken["quantization"][0]
    assert np.abs(came).max() > 0.05
    assert np.abs(came - went).max() <= taken["quantization"][0] / 2 * 1.001


@pytest.mark.slow
def test_the_reference_kernels_give_the_same_bits_in_any_number_of_threads(
    tiny_file, tiny_examples
):
    one = open_model(tiny_file(), n_threads=1, reference=True)
    two = open_model(tiny_file(), n_threads=2, reference=True)
    assert np.array_equal(run(one, tiny_examples[0]), run(two, tiny_examples[0]))


@pytest.mark.skipif(
    "commands-small" not in bundled_models() or not GOLDEN.is_file(),
    reason="needs the bundled model and tests/data/golden.npz, made by tests/golden.py",
)
def test_the_bundled_model_gives_its_golden_outputs_bit_for_bit():
    stored = np.load(GOLDEN)
    model = open_model(bundled_models()["commands-small"], reference=True)
    posteriors = run(model, stored["frames"])
    assert len(posteriors) >= 200
    assert posteriors.dtype == stored["posteriors"].dtype
    assert np.array_equal(posteriors, stored["posteriors"])


@pytest.fixture(scope="module")
def window_flatbuffer(tensorflow):
    """Frames (1, 5, 3) to two posteriors: the newest value and the oldest, of feature 0."""
    tf = tensorflow.tf

    def classify(frames):
        return tf.stack([frames[:, -1, 0], frames[:, 0, 0]], axis=1)

    spec = tf.TensorSpec((1, 5, 3), tf.float32, name="frames")
    function = tf.function(classify, autograph=False).get_concrete_function(spec)
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([function]).convert())


@pytest.fixture
def window_manifest():
    return Manifest(
        name="window",
        labels=("new", "old"),
        kind="window",
        features=FeatureSettings(n_mfcc=3),
        n_frames=5,
        hop_frames=2,
        quantization="float32",
    )


@pytest.mark.slow
def test_a_window_slides_and_begins_with_copies_of_the_first_frame(
    window_flatbuffer, window_manifest, write
):
    model = open_model(write(window_flatbuffer, window_manifest))
    assert isinstance(model, WindowModel)
    frames = np.repeat(np.arange(1, 11, dtype=np.float32)[:, None], 3, axis=1)
    newest_oldest = [[2, 1], [4, 1], [6, 2], [8, 4], [10, 6]]
    assert run(model, frames).tolist() == newest_oldest


@pytest.mark.slow
def test_a_window_is_empty_after_reset(window_flatbuffer, window_manifest, write):
    model = open_model(write(window_flatbuffer, window_manifest))
    frames = np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32)
    first = run(model, frames)
    model.reset()
    assert np.array_equal(run(model, frames), first)


@pytest.mark.slow
def test_a_window_of_another_length_is_refused(window_flatbuffer, window_manifest, write):
    path = write(window_flatbuffer, msgspec.structs.replace(window_manifest, n_frames=6))
    message = (
        "The manifest of `window` must agree with its tensors: it says an input of 6 frames of 3. "
        "Received: 15 values. Export the model again."
    )
    with pytest.raises(ModelError, match=exactly(message)):
        open_model(path)


@pytest.mark.slow
def test_a_window_model_with_states_is_refused(tiny_models, write):
    flatbuffer, manifest = tiny_models("float32")
    path = write(flatbuffer, msgspec.structs.replace(manifest, kind="window"))
    message = (
        "The manifest of `tiny` must agree with its tensors: it says a window, its only "
        "input. Received: 4 inputs. Export the model again."
    )
    with pytest.raises(ModelError, match=exactly(message)):
        open_model(path)


@pytest.fixture(scope="module")
def counting_flatbuffer(tensorflow):
    """Frames (1, 1, 4) to one posterior, which grows by 0.1 a call in a variable of the network."""
    tf = tensorflow.tf

    class Counter(tf.Module):
        def __init__(self):
            super().__init__()
            self.total = tf.Variable([[0.0]])

        @tf.function(input_signature=[tf.TensorSpec((1, 1, 4), tf.float32, name="frames")])
        def __call__(self, frames):
            return self.total.assign_add([[0.1]]) + 0 * tf.reduce_mean(frames)

    counter = Counter()
    function = counter.__call__.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], counter)
    converter.experimental_enable_resource_variables = True
    return bytes(converter.convert())


@pytest.mark.slow
def test_memory_inside_the_network_is_cleared_by_reset(counting_flatbuffer):
    """What a network keeps in variables outlived `reset`, the trial step at opening included."""
    manifest = Manifest(
        name="accumulate",
        labels=("go",),
        kind="step",
        quantization="float32",
        features=FeatureSettings(kind="logmel", n_mels=4),
        n_frames=1,
        hop_frames=1,
    )
    model = StepModel(manifest, counting_flatbuffer, n_threads=1, reference=False)
    model.try_step()
    frames = np.zeros((3, 4), np.float32)
    for _ in range(3):
        np.testing.assert_allclose(model.run(frames)[:, 0], [0.1, 0.2, 0.3], rtol=1e-6)


def test_a_network_without_memory_inside_is_not_opened_again(tiny_file, monkeypatch):
    model = open_model(tiny_file())
    monkeypatch.setattr("kws.model._interpreter", None)
    model.reset()


def test_a_window_is_brought_to_full_scale_before_the_logarithm(
    write, window_flatbuffer, window_manifest
):
    settings = replace(
        window_manifest.features,
        preemphasis=0.0,
        spectrum="magnitude",
        sample_scale="unit",
        log_addend=1e-6,
        floor=1e-12,
        normalization="window_peak",
    )
    manifest = replace(window_manifest, features=settings)
    model = open_model(write(window_flatbuffer, manifest))
    n = settings.window_samples + settings.hop_samples * (manifest.n_frames - 1)
    wave = np.random.default_rng(2).integers(-3000, 3000, n).astype(np.int16)
    loud = (wave * np.int16(4)).astype(np.int16)
    outputs = [model.run(Features(settings).whole(one))[-1] for one in (wave, loud)]
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-5)
    plain = replace(settings, normalization="none")
    scaled = wave / np.float32(wave.max()) * 32_768
    wanted = Features(plain).whole(scaled)[-manifest.n_frames :]
    of_plain = open_model(write(window_flatbuffer, replace(manifest, features=plain)))
    np.testing.assert_allclose(outputs[0], of_plain.run(wanted)[-1], atol=1e-5)


def test_a_copy_has_states_of_its_own_and_the_same_outputs():
    random = np.random.default_rng(8)
    model = open_model("computer")
    frames = random.normal(10, 3, (40, model.manifest.n_inputs)).astype(np.float32)
    expected = model.run(frames)
    copy = model.copy()
    model.run(frames[::-1].copy())  # leaves the states of the first elsewhere
    assert np.array_equal(copy.run(frames), expected)
    assert copy.manifest is model.manifest
