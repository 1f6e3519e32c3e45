"""Proof 9: models from a stranger. No crash, no hang, no memory above a bound, no lost audio.

Half a minute as it is; `KWS_FUZZ=long` opens 10,000 models and reloads a daemon with each. A model
is made from its number, which every failure names.
"""

import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import zipfile
from collections import Counter
from contextlib import ExitStack
from random import Random

import flatbuffers
import msgspec
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from spoil import spoil

from kws.daemon.status_client import ask
from kws.errors import ModelError
from kws.manifest import FeatureSettings, Manifest, pack, read_manifest
from kws.model import bundled_models, open_model
from kws.model_check import check_model

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(20_000)]

IS_LONG = os.environ.get("KWS_FUZZ") == "long"
N_OPENED = 10_000 if IS_LONG else 1_000
N_RELOADS = 10_000 if IS_LONG else 20
MOST_CPU_S = 5.0
MOST_MB = 150.0  # 10^6 bytes
MOST_RELOAD_S = 60.0
COMMANDS = bundled_models()["commands"]
FLATBUFFER = COMMANDS.read_bytes()
with zipfile.ZipFile(COMMANDS) as archive:
    ARCHIVE_AT = archive.infolist()[0].header_offset
TAIL = FLATBUFFER[ARCHIVE_AT:]
MANIFEST = msgspec.json.decode(msgspec.json.encode(read_manifest(COMMANDS)[0]))
NUMBERS = [-1, 0, 1, 2, 3, 7, 8, 16, 255, 4096, 8192, 2**31, 2**63, 10**400, 1e308]


def hostile_model(number):
    """Return the bytes of a model: two in five with a spoilt network of ours, three with others."""
    match number % 5:
        case 0 | 1:
            return spoil([FLATBUFFER[:ARCHIVE_AT]], number) + TAIL
        case 2 | 3:
            return pack(spoil([SMALL_NETWORK], number), SMALL)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        # Unlike msgspec's, with integers of any size.
        writer.writestr("kws.json", json.dumps(spoilt_manifest(Random(number))))
    return FLATBUFFER[:ARCHIVE_AT] + archive.getvalue()


def spoilt_manifest(random):
    """Return the manifest of `commands` with one to four values replaced."""
    manifest = msgspec.json.decode(msgspec.json.encode(MANIFEST))
    tables = [manifest, manifest["features"], manifest["decision"], *manifest["states"]]
    for _ in range(random.randint(1, 4)):
        table = random.choice(tables)
        key = random.choice(sorted(table))
        some = [random.choice(NUMBERS) for _ in range(random.randrange(5))]
        text = "".join(chr(random.randrange(1, 0x3000)) for _ in range(random.randrange(6)))
        is_number = isinstance(table[key], int | float)
        table[key] = random.choice([*NUMBERS, *([] if is_number else [text, some] * 8)])
    return manifest


# Each model is opened and used, in a copy of a process that has loaded all it needs. What ends the
# copy before T is what the check refuses; nothing may end it after. Limits are those of the check.
ZYGOTE = """
import os, signal, struct, sys
import numpy as np
from pathlib import Path
from kws.errors import KwsError
from kws.model import open_model
from kws.spotter import Spotter
from kws.model_check import limit_check, open_bounded
import ai_edge_litert.interpreter

path = Path(sys.argv[1])
noise = np.random.default_rng(0).integers(-20000, 20000, 16000).astype(np.int16)
Spotter(open_model(Path(sys.argv[2]))).process(noise)  # what is loaded late is loaded here

def use():
    try:
        model = open_bounded(path)
    except (KwsError, MemoryError) as error:
        return b"E" + type(error).__name__.encode()
    os.write(out, b"T")
    try:
        spotter = Spotter(model)
    except KwsError as error:
        return b"E" + type(error).__name__.encode()
    features = model.manifest.features.n_features
    for scale in (0, 1, 1e9):
        model.step(np.full((model.manifest.hop_frames, features), scale, np.float32))
    model.reset()
    if model.manifest.features.sample_rate_hz == 16000:
        spotter.process(noise)
        spotter.flush()
    return b"ok"

while head := sys.stdin.buffer.read(4):
    (size,) = struct.unpack("<I", head)
    path.write_bytes(sys.stdin.buffer.read(size))
    into, out = os.pipe()
    if not (pid := os.fork()):
        limit_check()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            told = use()
        except BaseException as error:
            told = b"X" + repr(error).encode()[:300]
        os.write(out, told)
        os._exit(0)
    os.close(out)
    said = b""
    while data := os.read(into, 4096):
        said += data
    os.close(into)
    _, status, usage = os.wait4(pid, 0)
    cpu_s, mb = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6
    answer = said + (b" signal %d" % (status & 127) if status else b"")
    answer += b" %.3f %.0f" % (cpu_s, mb)
    sys.stdout.buffer.write(struct.pack("<I", len(answer)) + answer)
    sys.stdout.buffer.flush()
"""


@pytest.fixture
def open_apart(tmp_path):
    """Open a model's bytes in a process of its own; returns the outcome, CPU s and peak MB."""
    zygote = subprocess.Popen(
        [sys.executable, "-c", ZYGOTE, tmp_path / "model.tflite", COMMANDS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    def open_it(content):
        zygote.stdin.write(struct.pack("<I", len(content)) + content)
        zygote.stdin.flush()
        (size,) = struct.unpack("<I", zygote.stdout.read(4))
        said, cpu_s, mb = zygote.stdout.read(size).decode(errors="replace").rsplit(" ", 2)
        return said, float(cpu_s), float(mb)

    assert open_it(FLATBUFFER)[0] == "Tok"
    yield open_it
    zygote.stdin.close()
    zygote.wait()
    zygote.stdout.close()


def test_hostile_models_are_run_or_refused_within_bounds(open_apart, capsys):
    outcomes, most_cpu_s, most_mb = Counter(), 0.0, 0.0
    for number in range(N_OPENED):
        said, cpu_s, mb = open_apart(hostile_model(number))
        of_one = f"model {number}: {said}, {cpu_s:.1f} s, {mb:.0f} MB"
        assert re.fullmatch(r"Tok|T?E(Model|Config|Memory)Error| signal \d+", said), of_one
        assert cpu_s <= MOST_CPU_S, of_one
        assert mb < MOST_MB, of_one
        most_cpu_s, most_mb = max(most_cpu_s, cpu_s), max(most_mb, mb)
        outcomes[said.strip()] += 1
    with capsys.disabled():
        print(f"\n{N_OPENED} models: at most {most_cpu_s:.1f} s and {most_mb:.0f} MB; {outcomes}")
    assert outcomes["Tok"] < N_OPENED / 2


# Audio in real time, as a program gives it; the number of samples is written down.
RECORDER = """
import os, sys, time
import numpy as np
noise = np.random.default_rng(5).normal(0, 300, 1600).astype("<i2").tobytes()
started_s, n = time.monotonic(), 0
while not os.path.exists(sys.argv[1]):
    os.write(1, noise)
    n += 1
    time.sleep(max(0, started_s + n / 10 - time.monotonic()))
with open(sys.argv[2], "w") as given:
    given.write(str(n / 10))
time.sleep(600)
"""
CONFIG = """
[[models]]
name = "commands"
[[models]]
name = "{model}"
[source]
name = "noise"
command = {command}
[daemon]
backlog_s = 5
"""


@pytest.fixture
def notified_daemon(tmp_path):
    """Start a daemon; returns it, and a function that waits until it tells that it is ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, ExitStack() as at_exit:
        told.bind(str(tmp_path / "notify"))

        def start(config):
            environment = {
                **os.environ,
                "XDG_RUNTIME_DIR": str(tmp_path),
                "NOTIFY_SOCKET": str(tmp_path / "notify"),
            }
            environment.pop("RUNTIME_DIRECTORY", None)
            command = [sys.executable, "-m", "kws", "daemon", "--config", config]
            log = at_exit.enter_context((tmp_path / "log").open("wb"))
            daemon = at_exit.enter_context(subprocess.Popen(command, stderr=log, env=environment))
            at_exit.callback(daemon.kill)
            return daemon

        def wait_until_ready():
            deadline_s = time.monotonic() + MOST_RELOAD_S
            while b"READY=1" not in told.recv(65_536).split(b"\n"):
                told.settimeout(max(0.1, deadline_s - time.monotonic()))

        yield start, wait_until_ready


def test_reloads_with_hostile_models_lose_no_audio(tmp_path, notified_daemon, wait_for, capsys):
    start, wait_until_ready = notified_daemon
    stop, given, config = tmp_path / "stop", tmp_path / "given", tmp_path / "kws.toml"
    command = json.dumps([sys.executable, "-c", RECORDER, str(stop), str(given)])
    config.write_text(CONFIG.format(model="computer", command=command))
    daemon = start(config)
    wait_until_ready()
    took_s = []
    for number in range(N_RELOADS):
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(hostile_model(number))
        config.write_text(CONFIG.format(model=path, command=command))
        started_s = time.monotonic()
        daemon.send_signal(signal.SIGHUP)
        wait_until_ready()
        took_s.append(time.monotonic() - started_s)
        path.unlink()
    stop.touch()
    wait_for(given.exists)
    given_s = float(wait_for(given.read_text))
    of_source = wait_for(
        lambda: whole(tmp_path / "kws.sock", given_s), what=f"{given_s} s of audio"
    )
    with capsys.disabled():
        print(
            f"\n{N_RELOADS} reloads, at most {max(took_s):.1f} s each: "
            f"{given_s - of_source.audio_s:.1f} of {given_s:.0f} s of audio lost"
        )
    assert (of_source.dropped_s, of_source.n_overruns, of_source.n_reopened) == (0, 0, 0)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(10) == 0


def whole(socket_path, seconds):
    """Return the state of the only source once it has had so much audio, and no more waits."""
    (source,) = ask(socket_path).sources
    return source if source.audio_s >= seconds and not source.waiting_s else None


# No foreign code


def test_a_model_with_an_operator_of_its_own_is_refused(tmp_path):
    path = tmp_path / "custom.tflite"
    path.write_bytes(pack(one_layer(schema.BuiltinOperator.CUSTOM, custom="Evil"), SMALL))
    with pytest.raises(ModelError, match="unresolved custom op: Evil"):
        check_model(path)


def test_a_network_that_ends_the_interpreter_is_refused_in_a_process_of_its_own(tmp_path):
    path = tmp_path / "huge.tflite"
    path.write_bytes(pack(one_layer(schema.BuiltinOperator.FULLY_CONNECTED, n=2**29), SMALL))
    with pytest.raises(ModelError):
        check_model(path)


def test_a_small_file_that_takes_much_memory_is_refused(tmp_path):
    path = tmp_path / "wide.tflite"
    layers = one_layer(schema.BuiltinOperator.FULLY_CONNECTED, n_padding=2**26)
    path.write_bytes(pack(layers, msgspec.structs.replace(SMALL, output="posteriors")))
    open_model(path)
    with pytest.raises(
        ModelError, match=r"within 80 MiB of memory\. Received: .*takes more than 80 "
    ):
        check_model(path)


def test_a_model_that_opens_and_fails_in_its_first_step_is_refused(tmp_path):
    path = tmp_path / "empty.tflite"
    layer = one_layer(schema.BuiltinOperator.FULLY_CONNECTED, weights=b"")
    path.write_bytes(pack(layer, SMALL))
    with pytest.raises(ModelError, match="must be one that ai_edge_litert can run"):
        open_model(path)


def test_a_model_whose_tensors_have_no_utf8_names_is_refused(tmp_path):
    path = tmp_path / "names.tflite"
    layer = one_layer(schema.BuiltinOperator.FULLY_CONNECTED).replace(
        b"posteriors", b"\xffosteriors"
    )
    path.write_bytes(pack(layer, SMALL))
    with pytest.raises(ModelError, match="must be one that ai_edge_litert can run"):
        open_model(path)


WEIGHTS = np.zeros((3, 13), "<f4").tobytes()
SMALL = Manifest(
    name="small",
    labels=("_silence_", "stop", "go"),
    kind="step",
    features=FeatureSettings(),
    n_frames=1,
    hop_frames=1,
    quantization="float32",
)


def one_layer(operator, *, custom=None, n=13, weights=WEIGHTS, n_padding=0):
    """Return the flatbuffer of one layer, its input 13 values unless `n` says otherwise.

    With `n_padding` another layer makes so many zeros that nobody looks at.
    """
    padding = np.array([[0, 0], [0, n_padding]], "<i4")

    def tensor(name, shape, *, buffer=0, kind=schema.TensorType.FLOAT32):
        return schema.TensorT(name=name, shape=list(shape), type=kind, buffer=buffer)

    network = schema.ModelT(
        version=3,
        buffers=[
            schema.BufferT(),
            schema.BufferT(data=np.frombuffer(weights, np.uint8)),
            schema.BufferT(data=np.frombuffer(padding.tobytes(), np.uint8)),
        ],
        operatorCodes=[
            schema.OperatorCodeT(
                deprecatedBuiltinCode=operator, builtinCode=operator, customCode=custom
            ),
            schema.OperatorCodeT(
                deprecatedBuiltinCode=schema.BuiltinOperator.PAD,
                builtinCode=schema.BuiltinOperator.PAD,
            ),
        ],
        subgraphs=[
            schema.SubGraphT(
                tensors=[
                    tensor("frames", (1, n)),
                    tensor("weights", (3, 13), buffer=1),
                    tensor("posteriors", (1, 3)),
                    tensor("padding", (2, 2), buffer=2, kind=schema.TensorType.INT32),
                    tensor("padded", (1, n + n_padding)),
                ],
                inputs=[0],
                outputs=[2, 4][: 1 + (n_padding > 0)],
                operators=[
                    schema.OperatorT(
                        opcodeIndex=0,
                        inputs=[0, 1, -1],
                        outputs=[2],
                        builtinOptionsType=schema.BuiltinOptions.FullyConnectedOptions,
                        builtinOptions=schema.FullyConnectedOptionsT(),
                    ),
                    *[schema.OperatorT(opcodeIndex=1, inputs=[0, 3], outputs=[4])][: n_padding > 0],
                ],
            )
        ],
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(network.Pack(builder), b"TFL3")
    return bytes(builder.Output())


SMALL_NETWORK = one_layer(schema.BuiltinOperator.FULLY_CONNECTED)
