"""A Raspberry Pi's userland, emulated: kws installs there, and hears what it hears on a PC."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.system]

LISTEN = ("listen", "--json", "--input")


@pytest.fixture(scope="module", params=["arm64", "armhf"])
def board(request, box, source, wheel, wheels):
    """A board on which the installer has just installed the wheel."""
    binds = [(source, "/checkout"), (wheels(request.param), "/wheels"), (wheel.parent, "/dist")]
    board = box(request.param, binds=binds)
    install = ("sh", "/checkout/deploy/install.sh", "--no-start", "--wheel", f"/dist/{wheel.name}")
    # What Python would compile at installation is not what is asked here, and dear when emulated.
    said = board.run(*install, limit_s=500, environment={"PIP_NO_COMPILE": "1"})
    assert request.param in said
    return request.param, board


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


def _listen_here():
    command = [sys.executable, "-m", "kws", *LISTEN, str(_recording())]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _recording():
    from importlib.resources import files

    return files("kws.models") / "demo.wav"


def _events(said):
    """Detections alone: what the run cost is the machine's own."""
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "detection"]
