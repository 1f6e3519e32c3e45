import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from kws.config import SourceSettings
from kws.daemon.capture_process import CAPTURE_COMMAND, CaptureProcess
from kws.model import bundled_models
from kws.model_check import check_model
from kws.sources import open_source

from .conftest import is_alive, lines_of, said, until


@pytest.fixture
def capture():
    """Start the process as the daemon does."""
    started = []

    def start(**settings):
        process = subprocess.Popen(
            CAPTURE_COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        process.stdin.write(msgspec.json.encode(SourceSettings(**settings)) + b"\n")
        process.stdin.flush()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


@pytest.fixture
def microphone(tmp_path, monkeypatch):
    """Put a script in the place of arecord; return a device that PyAudio does not take."""

    def install(script):
        (tmp_path / "arecord").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "arecord").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return "plughw:fake"

    return install


def test_a_file_comes_out_as_every_other_source_gives_it(capture, recording):
    process = capture(input=str(recording))
    audio = process.stdout.read()
    reports = lines_of(process.stderr.read().decode())
    with open_source(SourceSettings(input=str(recording))) as source:
        expected = np.concatenate(list(source))
    np.testing.assert_array_equal(np.frombuffer(audio, "<i2"), expected)
    assert reports == [{"report": "opened", "name": str(recording)}]
    assert process.wait(30) == 0


def test_an_error_is_reported_with_its_exit_code(capture, tmp_path):
    process = capture(input=str(tmp_path / "none.wav"))
    (report,) = lines_of(process.stderr.read().decode())
    assert report["report"] == "failed"
    assert report["message"].startswith("The input must be `mic`, `-` or a file that can be read.")
    assert process.wait(30) == 3


def test_what_was_lost_last_is_told_before_the_end(capture, microphone):
    process = capture(device=microphone("head -c 100 /dev/zero; sleep 0.3; echo 'overrun!!!' >&2"))
    _, *reports = lines_of(process.stderr.read().decode())
    assert [one["report"] for one in reports] == ["lost", "failed"]
    assert reports[0]["n_chunks"] == 1


def test_standard_input_is_no_source_of_the_daemon(capture):
    process = capture(input="-")
    (report,) = lines_of(process.stderr.read().decode())
    assert report["message"] == (
        "A source of the daemon must be a microphone, a file, a command or a port. Received: `-`, "
        "standard input. Use `kws listen --input -`."
    )
    assert process.wait(30) == 2


def test_it_ends_when_nobody_takes_its_audio(capture, microphone):
    process = capture(device=microphone("exec cat /dev/zero"))
    process.stdout.read(1000)
    process.stdout.close()
    assert process.wait(30) == 141


def test_asked_to_end_it_ends_its_program_first(capture, microphone, tmp_path):
    process = capture(device=microphone(f"echo $$ > {tmp_path}/pid; exec cat /dev/zero"))
    process.stdout.read(1000)
    process.terminate()
    process.stdout.read()
    assert process.wait(30) == 0
    assert not is_alive((tmp_path / "pid").read_text().strip())


def test_when_the_daemon_is_gone_it_goes_with_all_that_it_started(capture, microphone, tmp_path):
    script = f"trap '' TERM; echo $$ > {tmp_path}/pid; head -c 100000 /dev/zero; sleep 60 & wait"
    process = capture(device=microphone(script))
    process.stdout.read(1000)
    process.stdin.close()
    assert process.wait(30) == -signal.SIGKILL
    pid = (tmp_path / "pid").read_text().strip()
    asyncio.run(until(lambda: not is_alive(pid)))


def test_what_a_busy_daemon_leaves_in_the_process_until_it_is_lost_is_counted(microphone):
    device, heard, lost = microphone("exec cat /dev/zero"), [], []

    async def run():
        process = CaptureProcess(
            SourceSettings(device=device), on_audio=heard.append, on_loss=lost.append
        )
        await until(lambda: heard)
        process.pause()
        await asyncio.sleep(0.3)
        process.resume()
        await until(lambda: lost)
        await process.stop()

    asyncio.run(run())
    assert min(lost) > 0


@pytest.mark.slow
def test_a_daemon_that_is_killed_leaves_no_capture_process(microphone, tmp_path):
    device = microphone(f"echo $$ $PPID > {tmp_path}/pids; exec sleep 60")
    config = tmp_path / "kws.toml"
    config.write_text(f"[source]\ndevice = '{device}'\n")
    daemon = subprocess.Popen(
        [sys.executable, "-m", "kws", "daemon", "--config", config], stderr=subprocess.PIPE
    )
    asyncio.run(until(lambda: said(tmp_path / "pids"), limit_s=60))
    pids = (tmp_path / "pids").read_text().split()
    daemon.kill()
    daemon.communicate()
    asyncio.run(until(lambda: not any(map(is_alive, pids))))


def test_the_daemon_ends_one_that_is_stopped_in_its_tracks(microphone, tmp_path):
    device = microphone(f"echo $$ > {tmp_path}/pid; exec cat /dev/zero")
    heard = []

    async def run():
        process = CaptureProcess(SourceSettings(device=device), on_audio=heard.append)
        await until(lambda: heard)
        os.kill(process.pid, signal.SIGSTOP)
        await process.stop()
        return process

    process = asyncio.run(run())
    assert process.name == "arecord (plughw:fake)"
    assert not Path(f"/proc/{process.pid}").exists()
    pid = (tmp_path / "pid").read_text().strip()
    asyncio.run(until(lambda: not is_alive(pid)))


@pytest.mark.parametrize("module", ["kws.daemon.capture", "kws.model_check"])
def test_no_module_in_the_current_folder_is_imported(tmp_path, recording, module, monkeypatch):
    """The folder of a service may hold files of others."""
    for name in ("kws", "msgspec", "numpy", "signal"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    if module == "kws.daemon.capture":
        settings = msgspec.json.encode(SourceSettings(input=str(recording))) + b"\n"
        with subprocess.Popen(
            CAPTURE_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        ) as process:
            process.stdin.write(settings)
            process.stdin.flush()
            assert len(process.stdout.read()) == 96_000
    else:
        copied = tmp_path / "copied.tflite"
        copied.write_bytes(bundled_models()["commands"].read_bytes())
        check_model(copied)
    assert not (tmp_path / "run").exists()
