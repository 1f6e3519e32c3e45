"""Every example runs, with the bundled recording in place of a microphone."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from kws.commands.demo import load_demo
from kws.events import Detection, to_json

EXAMPLES = Path(__file__).parents[1] / "examples"
RECORDING = load_demo()[1]

# A PyAudio and a sounddevice whose only microphone is the file that the environment names.
PYAUDIO = """
import os, wave
paInt16 = 8
class PyAudio:
    def open(self, *, rate, channels, format, input, frames_per_buffer):
        assert (rate, channels, format, input) == (16_000, 1, paInt16, True)
        return Stream(wave.open(os.environ["MICROPHONE"]))
    def terminate(self):
        print("terminated")
class Stream:
    def __init__(self, file):
        self.file = file
    def is_active(self):
        return self.file.tell() < self.file.getnframes()
    def read(self, n_samples, *, exception_on_overflow):
        return self.file.readframes(n_samples)
    def close(self):
        self.file.close()
"""
SOUNDDEVICE = """
import os, threading, soundfile
class RawInputStream:
    def __init__(self, *, samplerate, channels, dtype, blocksize, callback, finished_callback):
        assert (samplerate, channels, dtype) == (16_000, 1, "int16")
        self.callback, self.finished, self.blocksize = callback, finished_callback, blocksize
    def __enter__(self):
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
    def run(self):
        samples, _ = soundfile.read(os.environ["MICROPHONE"], dtype="int16")
        for start in range(0, len(samples), self.blocksize):
            block = samples[start : start + self.blocksize]
            self.callback(memoryview(block.tobytes()), len(block), None, None)
        self.finished()
    def __exit__(self, *_):
        self.thread.join()
"""


@pytest.fixture(scope="module")
def keywords():
    """What is detected in the recording, in order."""
    printed = run("file.py", RECORDING)
    found = [line.split()[2] for line in printed.splitlines()]
    assert len(found) >= 5
    return found


@pytest.fixture
def microphone(tmp_path):
    (tmp_path / "pyaudio.py").write_text(PYAUDIO)
    (tmp_path / "sounddevice.py").write_text(SOUNDDEVICE)
    return {"MICROPHONE": str(RECORDING), "PYTHONPATH": str(tmp_path)}


def run(example, *arguments, cwd=None, **environment):
    done = subprocess.run(
        [sys.executable, EXAMPLES / example, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_pyaudio(microphone, keywords):
    *lines, last = run("microphone_pyaudio.py", **microphone).splitlines()
    assert [line.split()[0] for line in lines] == keywords
    assert last == "terminated"


def test_sounddevice(microphone, keywords):
    lines = run("microphone_sounddevice.py", **microphone).splitlines()
    assert [line.split()[0] for line in lines] == keywords


def test_asyncio(keywords):
    lines = run("asyncio_listen.py", RECORDING).splitlines()
    assert [line.split()[0] for line in lines] == keywords


def test_several_words(keywords):
    first, *lines = run("several_words.py", RECORDING).splitlines()
    assert first.endswith("go, computer, hey_computer")
    by_commands = [line.split()[2] for line in lines if line.endswith(" by commands")]
    assert by_commands == keywords


def test_threshold(keywords):
    low, one, budget = run("threshold.py", RECORDING).splitlines()
    assert low.startswith("0.5 for all: stop at 0.50, found [")
    assert one.startswith("0.3 for stop: stop at 0.30, found [")
    assert budget.startswith("1 false alarm an hour: stop at 0.")
    assert low.count("'") >= 2 * len(keywords) >= budget.count("'") > 0


def test_near_misses(keywords):
    lines = run("near_misses.py", RECORDING).splitlines()
    assert [line.split()[2] for line in lines if " detected, peak " in line] == keywords
    missed = [line for line in lines if " missed, " in line]
    assert missed
    assert all(" of 0.85" in line for line in missed)


def test_numpy_array(keywords):
    lines = run("numpy_array.py", RECORDING).splitlines()
    assert [line.split()[2] for line in lines] == keywords


def test_without_an_argument_the_bundled_recording_is_taken(keywords):
    for example in ("file.py", "numpy_array.py"):
        lines = run(example, cwd=EXAMPLES.parent).splitlines()
        assert [line.split()[2] for line in lines] == keywords
    assert run("evaluate.py", cwd=EXAMPLES.parent).startswith(f"{len(keywords)} hits, ")


def test_socket(keywords):
    server = subprocess.Popen(
        [sys.executable, EXAMPLES / "socket_server.py", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        port = int(server.stdout.readline().split()[-1].rstrip("."))
        samples, _ = soundfile.read(RECORDING, dtype="int16")
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(samples.tobytes())
            client.shutdown(socket.SHUT_WR)
            lines = client.makefile().read().splitlines()
        assert server.wait(10) == 0
    finally:
        server.kill()
        server.stdout.close()
    assert [json.loads(line)["keyword"] for line in lines] == keywords


def test_evaluate():
    printed = run("evaluate.py", RECORDING, RECORDING.with_suffix(".json"))
    hits, missed, false = (int(word) for word in printed.split() if word.isdigit())
    assert hits + missed == 10
    assert hits >= 5 >= false


def test_the_hook_writes_what_was_detected(tmp_path):
    event = Detection(keyword="stop", score=0.97, start_s=None, end_s=12.81, model="commands")
    subprocess.run(
        [sys.executable, EXAMPLES / "hook.py"],
        input=to_json(event),
        cwd=tmp_path,
        text=True,
        check=True,
    )
    assert (tmp_path / "detections.csv").read_text() == "stop,0.97,12.81\n"


def test_every_example_has_a_test():
    text = Path(__file__).read_text(encoding="utf-8")
    assert {path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in text} == set()


def test_a_number_said_in_one_utterance_runs_the_hook_of_its_digits(tmp_path):
    # One of the numbers that digits.tflite was trained on: this is no measure of it.
    number = EXAMPLES.parent / "tests/data/digits/one_two_three.opus"
    command = ["listen", "--config", EXAMPLES / "digits.toml", "--input", number, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "kws", *map(str, command)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    events = map(json.loads, done.stdout.splitlines())
    (event,) = (event for event in events if event["event"] == "detection")
    assert event["keyword"] == "one two three"
    assert event["end_s"] - event["start_s"] < 1.5
    logged = (tmp_path / "numbers.log").read_text()
    assert logged.startswith("one two three, score 0.5")
