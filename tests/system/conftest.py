"""What the proofs of the daemon share: the daemon itself, counted from outside, and a sound server.

The microphone is PulseAudio's: what is played into a null sink comes out of a source that can be
unplugged. It runs as any user, without D-Bus, beside a server that is there already.
"""

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import wave
from pathlib import Path

import numpy as np
import pytest

from kws.commands.demo import load_demo
from kws.spotter import Spotter

RATE_HZ = 16_000
FORMAT = ("rate=16000", "channels=1", "format=s16le")
PROGRAMS = ("pulseaudio", "pactl", "paplay", "parec", "arecord")


@pytest.fixture(scope="session")
def wait_for():
    """Poll a condition until it holds; fails at the deadline; returns what it gave."""

    def wait(condition, *, limit_s=30.0, what="a condition", pause_s=0.01):
        deadline_s = time.monotonic() + limit_s
        while not (result := condition()):
            assert time.monotonic() < deadline_s, f"{what}: not within {limit_s} s"
            time.sleep(pause_s)
        return result

    return wait


def hurry(process):
    """Keep the machine's other work from starving a process, where that is allowed."""
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, process.pid, -10)


class Daemon:
    """`kws daemon --json` in a process of its own; its events with the wall time they came at."""

    def __init__(self, command, *, environment=None):
        self.events = []
        self.log = []
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            text=True,
            start_new_session=True,
        )
        hurry(self.process)
        self.pid = self.process.pid
        kept = ((self.process.stdout, self._event), (self.process.stderr, self._line))
        self._readers = [threading.Thread(target=self._copy, args=one, daemon=True) for one in kept]
        for reader in self._readers:
            reader.start()

    def of(self, *kinds, source=None):
        """Return the events of these kinds so far, as (wall time, event)."""
        return [
            (at, event)
            for at, event in list(self.events)
            if event["event"] in kinds and source in (None, event.get("source"))
        ]

    def n_open(self):
        """Return the numbers of descriptors and threads, and the processes below."""
        base = Path(f"/proc/{self.pid}")
        n_files = len(list((base / "fd").iterdir()))
        threads = list((base / "task").iterdir())
        children = [
            int(child) for thread in threads for child in (thread / "children").read_text().split()
        ]
        return n_files, len(threads), len(children)

    def rss_kb(self):
        """Return the resident memory."""
        fields = Path(f"/proc/{self.pid}/status").read_text()
        return int(fields.partition("VmRSS:")[2].split()[0])

    def cpu_s(self):
        """Return CPU time, own."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, limit_s=20.0):
        """Ask it to end; return its exit status and how long that took."""
        started_s = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            status = self.process.wait()
        took_s = time.monotonic() - started_s
        for reader in self._readers:
            reader.join(limit_s)
        return status, took_s

    def _copy(self, pipe, keep):
        with pipe:
            for line in pipe:
                keep(line)

    def _event(self, line):
        self.events.append((time.time(), json.loads(line)))

    def _line(self, line):
        self.log.append(line.rstrip())


@pytest.fixture
def daemon(tmp_path):
    """Start daemons from TOML; each is ended after the test."""
    started = []

    def start(toml, **options):
        config = tmp_path / f"kws{len(started)}.toml"
        config.write_text(toml)
        command = ["-m", "kws", "daemon", "--config", config, "--json"]
        started.append(Daemon(command, **options))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture
def run_service(tmp_path):
    """Run a script with a configuration and further arguments, as a daemon."""
    started = []

    def start(script, toml, *arguments):
        config = tmp_path / f"service{len(started)}.toml"
        config.write_text(toml)
        started.append(Daemon(["-c", script, config, *arguments]))
        return started[-1]

    yield start
    for one in started:
        one.end()


class SoundServer:
    """PulseAudio with a loudspeaker that is a microphone."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "home").mkdir(mode=0o700)
        (folder / "home" / ".asoundrc").write_text(
            "pcm.kws { type pulse device mic }\n"
            "pcm.!default { type pulse device mic }\nctl.!default { type pulse }\n"
        )
        self.environment = {
            "HOME": str(folder / "home"),
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_RUNTIME_PATH": str(folder / "pulse"),
            "PULSE_SERVER": f"unix:{folder / 'native'}",
        }
        self._players = []
        self.start()

    def start(self):
        """Start the server; its microphone is there when this returns."""
        (self.folder / "native").unlink(missing_ok=True)
        environment = {**os.environ, **self.environment}
        environment.pop("DBUS_SESSION_BUS_ADDRESS", None)
        protocol = f"module-native-protocol-unix auth-anonymous=1 socket={self.folder / 'native'}"
        with (self.folder / "pulseaudio.log").open("ab") as log:
            self._server = subprocess.Popen(
                [
                    *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"),
                    *(
                        "--use-pid-file=no",
                        "--realtime=no",
                        "--high-priority=no",
                        "--disable-shm=yes",
                    ),
                    *("--log-target=stderr", "--log-level=warn"),
                    *("-L", protocol),
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        hurry(self._server)
        deadline_s = time.monotonic() + 20
        while self.control("info", check=False).returncode:
            assert time.monotonic() < deadline_s, (self.folder / "pulseaudio.log").read_text()
            time.sleep(0.05)
        self.plug()

    def kill(self):
        """Kill the server, as a crash would."""
        self._server.kill()
        self._server.wait()

    def plug(self):
        """Connect the loudspeaker and the microphone before it."""
        self._modules = [
            self.control("load-module", *words).stdout.strip()
            for words in (
                ("module-null-sink", "sink_name=speaker", "norewinds=1", *FORMAT),
                ("module-remap-source", "source_name=mic", "master=speaker.monitor", "remix=no"),
            )
        ]

    def unplug(self):
        """Pull both: the server moves who records to another source as long as there is one."""
        for module in reversed(self._modules):
            self.control("unload-module", module)

    def suspend(self, *, on):
        """Let the microphone fall silent without an error, or wake it."""
        self.control("suspend-source", "mic", "1" if on else "0")

    def control(self, *words, check=True):
        """Run pactl."""
        return subprocess.run(
            ["pactl", *words],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=20,
            check=check,
        )

    def play(self, path):
        """Begin to play a WAV file."""
        player = subprocess.Popen(
            ["paplay", "--latency-msec=1000", "--device=speaker", str(path)],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        hurry(player)
        self._players.append(player)
        return player

    def stop_playing(self):
        """End what plays."""
        while self._players:
            player = self._players.pop()
            player.kill()
            player.wait()

    def close(self):
        """End everything."""
        self.stop_playing()
        self.kill()


@pytest.fixture
def sound_server(tmp_path_factory):
    """A sound server of this test's own."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: tests/debian-packages installs them")
    if not any(Path("/usr/lib").glob("**/alsa-lib/libasound_module_pcm_pulse.so")):
        pytest.skip("needs the ALSA plugin of PulseAudio: libasound2-plugins")
    folder = tmp_path_factory.mktemp("sound")
    folder.chmod(0o700)
    server = SoundServer(folder)
    yield server
    server.close()


class Reference:
    """A recorder of the tests' own, which knows when each sample came out of the microphone."""

    def __init__(self, server):
        self._arrivals = []
        self._data = bytearray()
        self._process = subprocess.Popen(
            [
                *("parec", "--device=mic", "--format=s16le", "--rate=16000", "--channels=1"),
                "--latency-msec=10",
            ],
            env={**os.environ, **server.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        hurry(self._process)
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def close(self):
        """Stop recording; return all samples, as bytes."""
        if self._process.stdout.closed:
            return bytes(self._data)
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        self._process.stdout.close()
        return bytes(self._data)

    def arrival_s(self, n_samples):
        """Return the wall time at which so many samples had come."""
        return next(at for n_bytes, at in self._arrivals if n_bytes >= 2 * n_samples)

    def _copy(self):
        while data := os.read(self._process.stdout.fileno(), 65_536):
            self._data += data
            self._arrivals.append((len(self._data), time.time()))


@pytest.fixture
def reference(sound_server):
    """Begin to record what comes out of the microphone; give it to `close`."""
    started = []

    def start():
        started.append(Reference(sound_server))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture(scope="session")
def demo():
    """The words of the bundled recording, and its samples."""
    labels, path = load_demo()
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
    return labels, samples


@pytest.fixture(scope="session")
def heard_in():
    """Return what the spotter hears in samples, as the daemon with these settings would."""

    @functools.cache
    def spotter(threshold):
        return Spotter(threshold=threshold)

    def hear(samples, *, threshold=None):
        one = spotter(threshold)
        one.reset()
        return one.process(samples) + one.flush()

    return hear


@pytest.fixture
def hook(tmp_path):
    """A command whose first instruction notes the time; returns it, and (time, keyword) so far."""
    path, notes = tmp_path / "hook", tmp_path / "notes"
    path.write_text(f'#!/bin/bash\necho "$EPOCHREALTIME $KWS_KEYWORD" >> {notes}\n')
    path.chmod(0o755)
    notes.touch()
    return path, lambda: [
        (float(at), word) for at, word in map(str.split, notes.read_text().splitlines())
    ]


@pytest.fixture(scope="session")
def write_wav():
    """Write 16 kHz mono samples to a file."""

    def write(path, samples):
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
            file.writeframes(samples.astype("<i2").tobytes())
        return path

    return write


@pytest.fixture(scope="session")
def drill(demo, heard_in):
    """Keywords that are found wherever in a stream they stand, one every two seconds.

    Returns keyword and [shape=(32000,)] samples of each; the word's end lies at 1.2 s.
    """
    labels, samples = demo
    end, length = int(1.2 * RATE_HZ), 2 * RATE_HZ
    found = []
    for word in labels.words:
        start = int(word.end_s * RATE_HZ) - end
        piece = samples[start : start + length].copy()
        piece[-RATE_HZ // 10 :] = 0
        shifts = (np.roll(piece, 71 * k) for k in range(9))
        heard = [[one.keyword for one in heard_in(np.tile(p, 2), threshold=0.5)] for p in shifts]
        if all(words == [word.word] * 2 for words in heard):
            found.append((word.word, piece))
    assert len(found) >= 4
    return found
