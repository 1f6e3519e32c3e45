import json
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from kws.cli import cli
from kws.commands import bench
from kws.commands.bench import Measured, cpu_by_stage, speechlike, table
from kws.config import GateSettings
from kws.errors import KwsError
from kws.gate import Gate
from kws.manifest import FeatureSettings, Manifest
from kws.model import open_model

STAGES = ["gate", "features", "model", "decision", "all", "gate_closed"]
MEASURED = Measured(
    model="commands",
    model_bytes=81_234,
    cpu_ms_per_s={
        "80": dict.fromkeys(STAGES, 0.5) | {"all": 2.0},
        "20": dict.fromkeys(STAGES, 1.25),
    },
    rss_over_numpy_mb=12.5,
    import_ms_over_numpy=31.0,
    first_frame_s=0.251,
    python="3.11.7",
    machine="x86_64",
    interpreter="ai-edge-litert 2.3.0",
)


class CountingModel:
    """A model that does nothing but count its calls, and costs as much as it is told to."""

    n_outputs = 1
    manifest = Manifest(
        name="counting",
        labels=("_silence_", "stop"),
        kind="step",
        features=FeatureSettings(),
        n_frames=2,
        hop_frames=2,
    )

    def __init__(self, *, work=0):
        self.n_calls = 0
        self._work = work

    def reset(self):
        pass

    def step(self, frames):
        assert frames.shape == (2, 13)
        self.n_calls += 1
        sum(range(self._work))
        return np.zeros((1, 2), np.float32)


@pytest.fixture(autouse=True)
def few_runs(monkeypatch):
    monkeypatch.setattr(bench, "_N_RUNS", 1)


def test_synthetic_speech_holds_the_gate_open_and_is_always_the_same():
    samples = speechlike(3)
    assert (samples.dtype, samples.shape) == (np.int16, (48_000,))
    np.testing.assert_array_equal(samples, speechlike(3))
    verdicts = Gate(GateSettings(), sample_rate_hz=16_000).process(samples)
    assert np.mean(verdicts) > 0.95


def test_every_stage_is_measured():
    costs = cpu_by_stage(CountingModel(), speechlike(1), chunk_ms=80)
    assert list(costs) == STAGES
    assert all(cost >= 0 for cost in costs.values())
    assert costs["features"] > 0


def test_the_model_runs_on_every_frame_while_the_gate_is_open_and_never_while_it_is_closed():
    model = CountingModel()
    samples = np.append(speechlike(1), np.zeros(32_000, np.int16))  # a pause must not close it
    cpu_by_stage(model, samples, chunk_ms=20)
    n_steps = (1 + (len(samples) - 400) // 160) // 2
    # Once for the posteriors, once measured alone, once in all but the closed pipeline.
    assert model.n_calls == pytest.approx(3 * n_steps, abs=5)


def test_a_costly_model_shows_in_its_own_stage_and_in_all():
    samples = speechlike(1)
    cheap = cpu_by_stage(CountingModel(), samples, chunk_ms=80)
    dear = cpu_by_stage(CountingModel(work=20_000), samples, chunk_ms=80)
    assert dear["model"] > 10 * cheap["model"]
    assert dear["all"] > cheap["all"] + dear["model"] / 2
    assert dear["gate_closed"] < dear["model"] / 2


def test_the_recording_falls_back_on_synthetic_speech(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "files", lambda package: tmp_path)
    np.testing.assert_array_equal(bench.recording(), speechlike(20))


def test_the_table_has_a_row_for_each_length_of_chunk():
    assert table(MEASURED).splitlines() == [
        "commands, 81 kB",
        "ai-edge-litert 2.3.0, Python 3.11.7",
        "x86_64",
        "",
        "CPU, ms per second of audio",
        "chunk         gate    features       model    decision         all gate closed",
        "80 ms         0.50        0.50        0.50        0.50        2.00        0.50",
        "20 ms         1.25        1.25        1.25        1.25        1.25        1.25",
        "",
        "memory beyond Python and numpy  12.5 MB",
        "import after numpy              31 ms",
        "start to first frame            0.25 s",
    ]


def test_memory_that_the_system_does_not_report_is_unknown():
    unknown = msgspec.structs.replace(MEASURED, rss_over_numpy_mb=None)
    assert "memory beyond Python and numpy  unknown" in table(unknown)


def test_with_json_one_object_is_printed_with_units_in_its_keys(monkeypatch, tmp_path):
    path = tmp_path / "m.tflite"
    path.touch()
    monkeypatch.setattr("kws.spotter.open_for_sources", lambda model: CountingModel())
    monkeypatch.setattr("kws.commands.bench.measure", lambda model, path: MEASURED)
    result = CliRunner().invoke(cli, ["bench", "--json", "--model", str(path)])
    assert result.exit_code == 0
    assert list(json.loads(result.stdout)) == [
        "model",
        "model_bytes",
        "cpu_ms_per_s",
        "rss_over_numpy_mb",
        "import_ms_over_numpy",
        "first_frame_s",
        "python",
        "machine",
        "interpreter",
    ]


def test_a_process_that_fails_is_an_error_with_its_last_line(monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho Traceback >&2\necho no luck >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(KwsError) as failed:
        bench._import_ms()
    assert str(failed.value) == (
        "`kws bench` must be able to run kws in a separate process. Received: no luck. "
        "`kws doctor` shows what is missing."
    )
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(bench, "_LIMIT_S", 0.2)
    with pytest.raises(KwsError, match=r"Received: no end within 0\.2 s\."):
        bench._import_ms()


def test_several_models_are_measured_one_after_the_other(monkeypatch, tmp_path):
    monkeypatch.setattr("kws.spotter.open_for_sources", lambda model: CountingModel())
    monkeypatch.setattr("kws.commands.bench.measure", lambda model, path: MEASURED)
    options = [word for name in ("commands", "computer") for word in ("--model", name)]
    result = CliRunner().invoke(cli, ["bench", "--json", *options])
    assert [json.loads(line)["model"] for line in result.stdout.splitlines()] == ["commands"] * 2


def test_a_listening_that_does_not_start_is_an_error_too(tmp_path):
    with pytest.raises(KwsError, match="Received: Error: A model must be a bundled model's name"):
        bench._first_frame_s(tmp_path / "none.tflite")


@pytest.mark.slow
def test_importing_kws_takes_no_longer_than_importing_numpy():
    """CPU, not elapsed, and the least of five in turn: machines differ, and are busy at times.

    On a quiet machine it is half of numpy's; what would break this is a library the size of numpy.
    """
    code = "import time; at = time.process_time(); import numpy; print(time.process_time() - at)"
    numpy_ms, kws_ms = [], []
    for _ in range(5):
        kws_ms.append(bench._probe("import-time")[1])
        numpy_ms.append(1000 * float(subprocess.check_output([sys.executable, "-c", code])))
    assert min(kws_ms) <= min(numpy_ms)


@pytest.mark.slow
def test_a_real_model_is_measured_from_end_to_end(tiny_file):
    path = tiny_file()
    measured = bench.measure(open_model(path), path=path)
    assert (measured.model, measured.model_bytes) == ("tiny", path.stat().st_size)
    assert list(measured.cpu_ms_per_s) == ["80", "20"]
    assert measured.cpu_ms_per_s["80"]["all"] > measured.cpu_ms_per_s["80"]["gate_closed"]
    assert 0 < measured.import_ms_over_numpy < 1000
    assert 0 < measured.first_frame_s < 30
    if sys.platform == "linux":
        assert 0 < measured.rss_over_numpy_mb < 100
