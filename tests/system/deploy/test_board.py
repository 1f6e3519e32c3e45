"""A Raspberry Pi's userland, emulated: kws installs there, and hears what it hears on a PC."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import wave
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from kws.commands.demo import load_demo
from kws.commands.enroll import enroll
from kws.commands.enrolment_takes import recordings_in
from kws.commands.record import write_take
from kws.config import SourceSettings
from kws.sources import open_source

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(1800)]

LISTEN = ("listen", "--json", "--input")
COUNTER = Path(__file__).with_name("instructions.c")


@pytest.fixture(scope="module", params=["arm64", "armhf"])
def board(request, box, source, wheel, wheels):
    """A board on which the installer has just installed the wheel."""
    binds = [(source, "/checkout"), (wheels(request.param), "/wheels"), (wheel.parent, "/dist")]
    board = box(request.param, binds=binds)
    install = ("sh", "/checkout/deploy/install.sh", "--no-start", "--wheel", f"/dist/{wheel.name}")
    # What Python would compile at installation is not what is asked here, and dear when emulated.
    said = board.run(*install, environment={"PIP_NO_COMPILE": "1"})
    assert request.param in said
    return request.param, board


@pytest.fixture
def count(board, emulator, tmp_path):
    """Count the instructions of a command of kws on the board: `count("listen", ...)`."""
    architecture, machine = board
    qemu = shutil.which(f"qemu-{emulator(architecture)}")
    if not qemu or not shutil.which("cc"):
        pytest.skip("needs qemu-user and a C compiler: run tests/system/debian-packages")
    place = machine.path / "counter"
    place.mkdir(exist_ok=True)
    command = ["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(place / "counter.so")]
    subprocess.run([*command, str(COUNTER)], check=True)
    # qemu itself is this machine's program: its libraries and their loader come along.
    libraries = re.findall(r"(/\S+) \(0x", subprocess.check_output(["ldd", qemu], text=True))
    for path in (qemu, *libraries):
        shutil.copy(path, place)
    (loader,) = (Path(path).name for path in libraries if "/ld-" in path)
    run = [f"/counter/{loader}", "--library-path", "/counter", f"/counter/{Path(qemu).name}"]
    run += ["-plugin", "/counter/counter.so", "-d", "plugin", "-D", "/counter/said"]

    def run_counted(*words):
        machine.run(*run, "/opt/kws/bin/python", "-m", "kws", *words)
        (n,) = re.findall(r"instructions: (\d+)", (place / "said").read_text())
        return int(n)

    return run_counted


def test_a_board_hears_what_a_pc_hears(board):
    architecture, machine = board
    runtime = "tflite_runtime" if architecture == "armhf" else "ai_edge_litert"
    machine.run("/opt/kws/bin/python", "-c", f"import {runtime}")
    recording = "import kws.models as m; print(m.__path__[0] + '/demo.wav')"
    there = machine.run("/opt/kws/bin/python", "-c", recording).split()[-1]
    heard = _events(machine.run("kws", *LISTEN, there))
    expected = _events(_listen_here())
    assert len(expected) > 5
    assert [one["keyword"] for one in heard] == [one["keyword"] for one in expected]
    for one, other in zip(
        heard, expected, strict=True
    ):  # XNNPACK's kernels are the processor's own
        assert abs(one["end_s"] - other["end_s"]) <= 0.04
        assert abs(one["score"] - other["score"]) <= 0.13


@pytest.mark.parametrize("kind", ["network", "head"])
def test_instructions_per_second_of_audio(board, count, capsys, kind):
    architecture, machine = board
    audio_s, begin_s = _write_wavs(machine.path)
    listen = LISTEN
    if kind == "head":
        _enroll_word(machine.path / "word.tflite")
        listen = ("listen", "--model", "/word.tflite", *LISTEN[1:])
    count(*listen, "/begin.wav")  # Python compiles, as pip does where it is not told otherwise
    start = count(*listen, "/begin.wav")
    per_second_m = (count(*listen, "/whole.wav") - start) / (audio_s - begin_s) / 1e6
    with capsys.disabled():
        print(
            f"\n{architecture}, {kind}: {per_second_m:.1f} million instructions per second of"
            f" audio, {start / 1e6:.0f} million to start"
        )
    # A core of a Raspberry Pi does a thousand million in a second: a tenth of it, or a fifth for
    # a head, at the very most.
    assert 1 < per_second_m < {"network": 100, "head": 200}[kind]


def _write_wavs(folder):
    """Write the demonstration, and its begin, whose difference leaves out what starting costs."""
    with wave.open(str(_recording())) as demo:
        audio, rate_hz = demo.readframes(demo.getnframes()), demo.getframerate()
        begin = audio[: 2 * 2 * rate_hz]
        for name, part in (("begin", begin), ("whole", audio)):
            with wave.open(str(folder / f"{name}.wav"), "wb") as out:
                out.setparams(demo.getparams())
                out.writeframes(part)
    return len(audio) / 2 / rate_hz, len(begin) / 2 / rate_hz


def _enroll_word(out):
    """Enrol the longest word of the demonstration, at three speeds."""
    labels, path = load_demo()
    word = max(labels.words, key=lambda one: one.end_s - one.start_s)
    with open_source(SourceSettings(input=str(path))) as source:
        samples = np.concatenate(list(source))
    cut = samples[round((word.start_s - 0.1) * 16_000) : round((word.end_s + 0.1) * 16_000)]
    with tempfile.TemporaryDirectory() as folder:
        for speed in (0.96, 1.0, 1.04):
            at = np.arange(0, len(cut) - 1, speed)
            take = np.interp(at, np.arange(len(cut)), cut).astype(np.int16)
            write_take(Path(folder), take, speaker="me")
        enroll(word.word, recordings_in([Path(folder)]), out)


def _listen_here():
    command = [sys.executable, "-m", "kws", *LISTEN, str(_recording())]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _recording():
    return files("kws.models") / "demo.wav"


def _events(said):
    """Detections alone: what the run cost is the machine's own."""
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "detection"]
