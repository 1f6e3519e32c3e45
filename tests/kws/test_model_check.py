import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from kws import model_check
from kws.errors import ModelError
from kws.manifest import FeatureSettings, read_manifest
from kws.model import bundled_models
from kws.model_check import check_features, check_model, open_bounded

COMMANDS = bundled_models()["commands"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "untrusted.tflite"
    shutil.copy(COMMANDS, path)
    return path


@pytest.fixture
def checks(tmp_path, monkeypatch):
    """Let a shell script stand for the subprocess; count its runs."""
    python, runs = tmp_path / "python", tmp_path / "runs"
    runs.touch()
    monkeypatch.setattr(sys, "executable", str(python))

    def end_with(script):
        python.write_text(f"#!/bin/sh\necho >> {runs}\n{script}\n")
        python.chmod(0o755)

    end_with("exit 0")
    return end_with, lambda: len(runs.read_text())


def refused(path):
    with pytest.raises(ModelError) as caught:
        check_model(path)
    return str(caught.value)


def test_a_good_model_passes_and_a_bad_one_has_the_error_of_open_model(file):
    check_model(file)
    file.write_bytes(b"not a model")
    assert refused(file) == (
        f"The model must be a whole .tflite file. Received: {file}, 11 bytes without its mark "
        f"TFL3. Copy it again, or make one with `kws export`."
    )


@pytest.mark.parametrize(
    ("script", "received"),
    [
        ("kill -SEGV $$", "SIGSEGV"),
        ("kill -ABRT $$", "SIGABRT"),
        ("kill -XCPU $$", "more than 5 s of CPU time"),
        ("kill -40 $$", "signal 40"),
        ("echo terminate called >&2; exit 3", "exit status 3: terminate called"),
    ],
)
def test_a_model_that_ends_its_process_is_refused(file, checks, script, received):
    end_with, _ = checks
    end_with(script)
    assert refused(file) == (
        f"A model must run in a subprocess before it is used. Received: {received} from {file}. "
        f"The file is damaged or malicious: copy or export it again."
    )


def test_a_model_that_takes_too_long_is_refused(file, checks, monkeypatch):
    end_with, _ = checks
    end_with("exec sleep 60")
    monkeypatch.setattr("kws.model_check._WALL_S", 0.2)
    assert re.search(r"Received: no end within 0\.2 s", refused(file))


def test_a_model_is_checked_once_until_its_file_changes(file, checks):
    _, n_runs = checks
    check_model(file)
    check_model(file)
    assert n_runs() == 1
    file.write_bytes(file.read_bytes() + b"\0")
    check_model(file)
    assert n_runs() == 2


def test_ctrl_c_is_for_kws_and_not_for_the_check(file, checks, tmp_path):
    end_with, _ = checks
    end_with(f"exec cat /proc/self/stat > {tmp_path / 'stat'}")
    check_model(file)
    session = (tmp_path / "stat").read_text().rpartition(")")[2].split()[3]
    assert int(session) != os.getsid(0)


def test_the_bundled_models_are_trusted(checks):
    _, n_runs = checks
    check_model(COMMANDS)
    assert n_runs() == 0


HOSTILE = Path(__file__).parents[1] / "data" / "hostile"


@pytest.mark.parametrize(
    ("name", "received"),
    [
        ("spec", "33,857,538 and 33,857,538,000 in "),
        ("hanglater", "the operator WHILE in "),
        ("memlater", "operator 94 with a size computed from audio in "),
    ],
)
def test_a_model_that_costs_too_much_later_is_refused_with_the_reason(name, received):
    assert f"Received: {received}{HOSTILE}/{name}.tflite." in refused(HOSTILE / f"{name}.tflite")


def test_control_characters_of_a_file_are_escaped_in_errors():
    message = refused(HOSTILE / "esc_input.tflite")
    assert message.isprintable()
    assert r"an input tensor `\x1b]0;OWNED\x07\x1b[2J" in message


@pytest.mark.parametrize(
    ("changes", "received"),
    [
        ({"features": FeatureSettings(n_fft=2048, n_mels=256)}, None),
        ({"features": FeatureSettings(kind="spectrogram", n_fft=1024)}, None),
        (
            {"features": FeatureSettings(kind="spectrogram", n_fft=2048)},
            "2,162,690 and 216,269,000 in x. Use",
        ),
        (
            {"features": FeatureSettings(n_mels=256, hop_samples=16)},
            "147,712 and 147,712,000 in x. Use a",
        ),
        ({"features": FeatureSettings(), "n_frames": 1000, "hop_frames": 1000}, None),
        ({"features": FeatureSettings(), "n_frames": 1001, "hop_frames": 1001}, "every 10 s in x."),
    ],
)
def test_the_cost_of_features_is_bounded_as_a_product(make_model, tmp_path, changes, received):
    path = tmp_path / "loud.tflite"
    path.write_bytes(make_model(**changes))
    manifest, _ = read_manifest(path)
    allowed = contextlib.nullcontext()
    with pytest.raises(ModelError, match=re.escape(received)) if received else allowed:
        check_features(manifest, name="x")


class Steps:
    """A model that keeps its input, and takes so much CPU time a step."""

    def __init__(self, manifest, *, cpu_s=0.0, grows=False):
        self.manifest, self.seen, self.n_resets = manifest, [], 0
        self._cpu_s, self._grows = cpu_s, grows

    def step(self, frames):
        self.seen.append(frames)
        end_s = time.process_time() + self._cpu_s
        while time.process_time() < end_s:
            pass

    def tensor_shapes(self):
        return [[len(self.seen) if self._grows else 1]]

    def reset(self):
        self.n_resets += 1


@pytest.fixture
def opened(model, monkeypatch):
    """Let `open_model` return such a model."""

    def make(**behaviour):
        steps = Steps(read_manifest(model)[0], **behaviour)

        def open_steps(path, n_threads):
            assert n_threads == 1
            return steps

        monkeypatch.setattr(model_check, "open_model", open_steps)
        return steps

    return make


def test_the_trial_is_noise_full_scale_and_silence(model, opened):
    steps = opened()
    assert open_bounded(model) is steps
    assert steps.n_resets == 1
    energy = np.concatenate(steps.seen)[:, 0]
    thirds = energy[:100], energy[105:200], energy[-95:]
    assert [round(float(one.mean())) for one in thirds] == [26, 24, -36]
    assert thirds[0].std() > 10 * thirds[1].std()


@pytest.mark.parametrize(("hop_frames", "n_of_each"), [(1, 16_000 + 400), (100, 32_000 + 400)])
def test_each_signal_lasts_a_second_or_two_calls_and_a_window(model, hop_frames, n_of_each):
    manifest = replace(read_manifest(model)[0], n_frames=hop_frames, hop_frames=hop_frames)
    noise, square, silence = model_check._signals(manifest)
    assert [len(one) for one in (noise, square, silence)] == [n_of_each] * 3
    assert (noise.min() < -32_000, noise.max() > 32_000) == (True, True)
    assert set(square.tolist()) == {-32_768, 32_767}
    assert not silence.any()


def test_a_model_slower_than_real_time_is_refused(model, opened):
    opened(cpu_s=0.011)
    with pytest.raises(ModelError, match=r"faster than real time. Received: .*takes 1\.[1-9] s of"):
        open_bounded(model)


@pytest.mark.parametrize(("needed_mb", "is_refused"), [(80, False), (81, True)])
def test_a_model_that_takes_much_memory_is_refused(
    model, opened, monkeypatch, needed_mb, is_refused
):
    opened()
    peaks_mb = iter([40.0, 40.0 + needed_mb])
    monkeypatch.setattr(model_check, "peak_mb", lambda: next(peaks_mb))
    message = rf"within 80 MiB of memory\. Received: .*, which takes {needed_mb} MiB\."
    expected = pytest.raises(ModelError, match=message) if is_refused else contextlib.nullcontext()
    with expected:
        open_bounded(model)


def test_a_model_whose_memory_grows_is_refused(model, opened):
    opened(grows=True)
    with pytest.raises(ModelError, match=r"must keep their sizes\. Received: `loud`, whose memory"):
        open_bounded(model)


@pytest.fixture
def limits(monkeypatch):
    """What the process limits itself to, without that it holds for the tests."""
    limits = {}
    monkeypatch.setattr(resource, "setrlimit", lambda what, pair: limits.update({what: pair}))
    monkeypatch.setattr(model_check, "end_with", lambda parent: None)
    return limits


def run_check(monkeypatch, path, n_threads=1):
    monkeypatch.setattr(sys, "argv", ["check", str(path), str(n_threads), str(os.getpid())])
    return model_check.main()


def test_the_subprocess_has_limits(monkeypatch, model, limits):
    assert run_check(monkeypatch, model) == 0
    assert limits[resource.RLIMIT_CORE] == (0, 0)
    assert 4 <= limits[resource.RLIMIT_CPU][0] - int(time.process_time()) <= 5
    memory, _ = limits[resource.RLIMIT_DATA]
    present_mb = (
        int(Path("/proc/self/status").read_text().partition("VmData:")[2].split()[0]) / 1024
    )
    assert memory / 2**20 == pytest.approx(present_mb + 80, abs=16)


def test_each_thread_of_a_model_has_a_stack_beyond_the_limit(monkeypatch, model, limits):
    memory = []
    for n_threads in (1, 3):
        assert run_check(monkeypatch, model, n_threads) == 0
        memory.append(limits[resource.RLIMIT_DATA][0])
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    assert memory[1] - memory[0] == pytest.approx(2 * stack, abs=2**20)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("")])
def test_a_model_that_gets_no_more_memory_is_refused_with_the_reason(
    monkeypatch, model, limits, capsys, error
):
    """numpy raises the one, LiteRT the other."""

    def starve(content, **options):
        raise error

    real = model_check.open_model

    def open_starved(path, **options):
        if path != model:
            return real(path, **options)
        with monkeypatch.context() as starved:
            starved.setattr("kws.model._interpreter", starve)
            return real(path, **options)

    monkeypatch.setattr(model_check, "open_model", open_starved)
    assert run_check(monkeypatch, model) == ModelError.exit_code
    assert capsys.readouterr().out == (
        f"A model must run within 80 MiB of memory. Received: {model}, which takes more than "
        f"80 MiB. Train a smaller one; if it is small, it is damaged or malicious.\n"
    )


def test_an_interpreter_that_aborts_for_want_of_memory_is_refused_with_the_reason(file, checks):
    end_with, _ = checks
    end_with("echo \"terminate called after throwing 'std::bad_alloc'\" >&2; kill -ABRT $$")
    assert refused(file).startswith(
        f"A model must run within 80 MiB of memory. Received: {file}, which takes more than 80 MiB."
    )


def test_a_hang_ends_at_the_limit_of_cpu_time(monkeypatch, file, tmp_path):
    """The limit itself, in a real process: a step that never returns."""
    hang = tmp_path / "hang.py"
    hang.write_text(
        "import sys\nfrom kws import model_check\n"
        "model_check._CPU_S = 0\n"
        "def run(path, n_threads):\n    while True: pass\n"
        "model_check.open_bounded = run\nsys.exit(model_check.main())\n"
    )
    command = [sys.executable, str(hang), str(file), "1", str(os.getpid())]
    ended = subprocess.run(command, check=False, timeout=30)
    assert ended.returncode == -signal.SIGXCPU


def test_the_check_ends_with_the_process_that_started_it(tmp_path, file):
    pid = tmp_path / "pid"
    hang = tmp_path / "hang.py"
    hang.write_text(
        "import os, sys, time, pathlib\nfrom kws import model_check\n"
        f"def run(path, n_threads):\n    pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "model_check.open_bounded = run\nmodel_check.main()\n"
    )
    starts = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, {str(hang)!r}, 'x', '1', str(os.getpid())])\n"
        f"while not (os.path.exists({str(pid)!r}) and open({str(pid)!r}).read()):\n"
        "    time.sleep(0.01)\n"
    )
    subprocess.run([sys.executable, "-c", starts], check=True, timeout=30)
    deadline_s = time.monotonic() + 5
    while Path(f"/proc/{pid.read_text()}").exists() and time.monotonic() < deadline_s:
        stat = Path(f"/proc/{pid.read_text()}/stat").read_text()
        if stat.rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.01)
    else:
        assert not Path(f"/proc/{pid.read_text()}").exists()
