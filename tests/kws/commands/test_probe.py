"""Probes run in a process of their own, where no test looks inside."""

import subprocess
import sys

import pytest

from kws.commands.probe import PROBES, run_probe


def numbers(name, *arguments):
    done = run_probe(name, *arguments, limit_s=60)
    assert (done.returncode, done.stderr) == (0, "")
    return [float(word) for word in done.stdout.split()]


def test_a_model_runs_or_its_error_is_printed(model, tmp_path):
    assert run_probe("model", str(model), limit_s=60).returncode == 0
    failed = run_probe("model", str(tmp_path / "none.tflite"), limit_s=60)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("A model must be a bundled model's name or a file.")


def test_a_source_is_recorded(recording):
    done = run_probe("source", f'{{"input": "{recording}"}}', limit_s=60)
    name, level = done.stdout.splitlines()
    assert name == str(recording)
    assert -40 < float(level) < 0


def test_the_import_is_timed():
    elapsed_ms, cpu_ms = numbers("import-time")
    assert cpu_ms > 0
    assert 0 < elapsed_ms < 10_000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_spotter_takes_more_memory_than_numpy(model):
    (numpy_mb,) = numbers("numpy-memory")
    (spotter_mb,) = numbers("spotter-memory", str(model))
    assert 10 < numpy_mb < spotter_mb < 300


def test_a_probe_imports_nothing_before_it_runs():
    done = subprocess.run(
        [sys.executable, "-c", "import kws.commands.probe, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert {one for one in loaded if one.startswith("kws")} == {
        "kws",
        "kws.commands",
        "kws.commands.probe",
    }
    assert not {"numpy", "subprocess", "click"} & loaded


def test_every_probe_is_described():
    import kws.commands.probe as module

    for name, probe in PROBES.items():
        assert f"`{name}" in module.__doc__
        assert probe.__doc__
