"""What is asked of the workbench's commands wrongly gets one line, before any work is done."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kws.errors import ConfigError
from kws.manifest import FeatureSettings, Manifest
from kws.matching import Word
from kws_export.bundle import export_model
from kws_export.cli import export as export_command
from kws_train.cli import align, train
from kws_train.cli import evaluate as evaluate_command
from kws_train.evaluate.build_stream import Stream, build_stream
from kws_train.evaluate.stream import evaluate_stream
from kws_train.evaluate.stream_results import process_streams
from kws_train.recipe import load_recipe

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "kws/models"

pytestmark = pytest.mark.slow  # for the import of TensorFlow

FEATURES = FeatureSettings(kind="logmel", n_mels=15, floor=1.0)
RECIPE = """
name = "small"
[data]
keywords = ["yes", "no"]
[[data.words]]
path = "words"
[features]
kind = "logmel"
"""


class Ticking:
    """A model that gives `n_outputs` a call, and says `go` in the 50th to the 64th of all."""

    def __init__(self, *, n_outputs, labels=("_silence_", "_unknown_", "go")):
        self.n_outputs = n_outputs
        self.manifest = Manifest(
            name="ticking",
            labels=labels,
            kind="step",
            features=FEATURES,
            n_frames=2 * n_outputs,
            hop_frames=2 * n_outputs,
        )
        self.reset()

    def reset(self):
        self.n_given = 0

    def step(self, _frames):
        at = np.arange(self.n_given, self.n_given + self.n_outputs)
        self.n_given += self.n_outputs
        is_go = ((at >= 50) & (at < 65)).astype(np.float32)
        return np.stack([1 - is_go, 0 * is_go, is_go], axis=1)


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (train, ["--epochs", "0"], "'--epochs': 0 is not in the range x>=1."),
        (train, ["--seed", "-1"], "'--seed': -1 is not in the range 0<=x<=4294967295."),
        (align, ["--jobs", "0"], "'--jobs': 0 is not in the range x>=1."),
        (
            evaluate_command,
            ["stream", "--minutes", "0"],
            "'--minutes': 0.0 is not in the range x>0.",
        ),
        (evaluate_command, ["stream", "--seed", "-1"], "'--seed': -1 is not in the range x>=0."),
        (export_command, ["--frames", "0"], "'--frames': 0 is not in the range x>=1."),
    ],
)
def test_a_number_out_of_range_is_a_usage_error(command, arguments, message):
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2
    assert done.output.splitlines()[-1] == f"Error: Invalid value for {message}"


@pytest.mark.parametrize(
    ("text", "received"),
    [
        (
            RECIPE + "[model]\narchitecture = 'crn'",
            "Invalid value 'crn' - at `$.model.architecture`. Did you mean `crnn`?",
        ),
        (
            RECIPE + "[model]\nchannels = [16, 0, 64]",
            "Expected `int` >= 1 - at `$.model.channels[1]`.",
        ),
        (RECIPE + "[augment]\nband_masks = -1", "Expected `int` >= 0 - at `$.augment.band_masks`."),
        (RECIPE + "[fit]\nseed = -1", "Expected `int` >= 0 - at `$.fit.seed`."),
        (
            RECIPE + "sample_rate_hz = 8000",
            "features.sample_rate_hz must be 16000, as every clip is read at; received 8000.",
        ),
        (
            RECIPE.replace('"small"', '"my model"'),
            "Expected `str` matching regex '^[A-Za-z0-9_.-]{1,64}\\\\Z' - at `$.name`.",
        ),
        (
            RECIPE.replace('"no"', r'"n\u0007"'),
            "keywords must be printable text - at `$.data`.",
        ),
    ],
)
def test_a_recipe_that_no_model_can_come_of_is_refused_before_training(tmp_path, text, received):
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    message = (
        f"{path} breaks a rule of recipes. Received: {received} docs/training.md lists every key."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        load_recipe(path)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 cut short"], ids=["empty", "cut short"])
def test_damaged_examples_are_named(tmp_path, monkeypatch, content):
    (tmp_path / "examples.npz").write_bytes(content)
    network = type("Network", (), {"time_stride": 2})()
    monkeypatch.setattr("kws_export.bundle.restore", lambda run: (network, None))
    message = (
        f"^A run folder must hold examples.npz with `streams` and `clips`. Received: {tmp_path} "
    )
    with pytest.raises(ConfigError, match=message):
        export_model(tmp_path, tmp_path / "out.tflite")


def test_a_stream_too_short_for_a_keyword_is_refused(speech):
    message = (
        "A stream must be long enough for an utterance and a keyword. Received: 0.5 s. "
        "Make it longer."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        build_stream([("go", speech)], [speech], most_s=0.5)


@pytest.mark.parametrize("n_outputs", [1, 2, 4])
def test_times_on_a_stream_do_not_depend_on_the_outputs_of_a_call(n_outputs):
    word = Word(word="go", start_s=0.7, end_s=1.0)
    stream = Stream(np.zeros(3 * 16_000, np.int16), (word,))
    scores = evaluate_stream(process_streams(Ticking(n_outputs=n_outputs), [stream]))
    # Two of three outputs have to say it: the second ends after 52 * 20 ms and the overlap, 15 ms.
    assert scores.latency_ms["p50"] == pytest.approx(1000 * (52 * 0.02 + 0.015 - 1.0))
    assert scores.points[-1].miss_rate == 0.0


def test_without_a_hit_the_latency_is_null_in_json(monkeypatch, speech, tmp_path):
    monkeypatch.setattr("kws.model.model_path", lambda name: tmp_path)
    monkeypatch.setattr("kws.model.open_model", lambda path: Ticking(n_outputs=1))
    stream = Stream(np.zeros(4800, np.int16), (Word(word="go", start_s=0.1, end_s=0.2),))
    monkeypatch.setattr(
        "kws_train.evaluate.stream_options.build_streams", lambda options, keywords: [stream]
    )
    where = ["--keywords", "k", "--background", "b", "--json"]
    done = CliRunner().invoke(evaluate_command, ["stream", "ticking", *where])
    assert done.exit_code == 0, done.output
    scores = json.loads(done.stdout, parse_constant=pytest.fail)
    assert scores["latency_ms"] == {"p50": None, "p95": None}
    assert scores["gate_kept"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["stream", "commands", "--keywords", "k"],
            "Give --keywords and --background, or --audio and --labels.",
        ),
        (
            ["stream", "commands", "--audio", "a.wav"],
            "Give --keywords and --background, or --audio and --labels.",
        ),
        (
            ["report", "run", "--model", "commands", "--clips", "c"],
            "Give --keywords and --background.",
        ),
    ],
)
def test_half_of_what_makes_a_stream_is_a_usage_error(arguments, message):
    done = CliRunner().invoke(evaluate_command, arguments)
    assert done.exit_code == 2
    assert done.output.splitlines()[-1] == f"Error: {message}"


def test_recognised_speech_has_no_halves(tmp_path):
    where = [str(tmp_path), str(tmp_path / "words.jsonl")]
    done = CliRunner().invoke(align, [*where, "--recognize", "--half", "all"])
    assert done.exit_code == 2
    assert "`--half` must be left out with `--recognize`" in done.output


def test_the_demonstration_is_evaluated_drawn_and_printed_as_one_object(tmp_path):
    demo = [f"{MODELS}/demo.wav", "--labels", f"{MODELS}/demo.json"]
    picture = tmp_path / "det.png"
    done = CliRunner().invoke(
        evaluate_command,
        ["stream", "commands", "--audio", *demo, "--det", str(picture), "--json"],
    )
    assert done.exit_code == 0, done.output
    scores = json.loads(done.stdout)
    # The contract that scripts depend on.
    assert {"hours", "keywords", "points", "latency_ms"} <= set(scores)
    keys = {"fa_per_hour", "threshold", "miss_rate", "miss_low", "miss_high"}
    assert all(keys <= set(point) for point in scores["points"])
    assert [point["budget"] for point in scores["points"]] == [0.1, 0.2, 0.5, 1.0, None]
    assert set(scores["latency_ms"]) == {"p50", "p95"}
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_a_calibrated_model_listens_by_its_budget_and_refuses_others(tmp_path, monkeypatch):
    from kws.cli import cli
    from kws_train.evaluate.label_files import labelled_stream

    made = tmp_path / "made.tflite"
    stream = labelled_stream(MODELS / "demo.wav", MODELS / "demo.json")
    words = [
        Word(word=one.word, start_s=one.start_s + at_s, end_s=one.end_s + at_s)
        for at_s in (0, stream.duration_s, 2 * stream.duration_s)
        for one in stream.words
    ]
    thrice = Stream(np.tile(stream.samples, 3), tuple(words), name="demo")
    monkeypatch.setattr(
        "kws_train.evaluate.tuning_streams.tuning_streams", lambda *_, **__: [thrice]
    )
    recipe = str(ROOT / "train/kws_train/recipes/commands.toml")
    where = ["--config", recipe, "--data", "data", "--out", str(made)]
    done = CliRunner().invoke(evaluate_command, ["calibrate", "commands", *where])
    assert done.exit_code == 0, done.output
    basis = "calibrated on: 0.05 h (demo) with 30 keywords among 0 h of different speech"
    assert basis in done.output
    listen = ["listen", "--model", str(made), "--input", str(MODELS / "demo.wav"), "--json"]
    loose = CliRunner().invoke(cli, [*listen, "--false-alarms-per-hour", "20"])
    assert loose.exit_code == 0, loose.output
    assert json.loads(loose.stdout.splitlines()[-1])["event"] == "end"
    refused = CliRunner().invoke(cli, [*listen, "--false-alarms-per-hour", "0.1"])
    assert "must lie in what the model `commands` was calibrated for" in str(refused.exception)


@pytest.fixture
def speech(tmp_path, voiced):
    import soundfile

    path = tmp_path / "speech.wav"
    soundfile.write(path, voiced, 16_000)
    return path
