"""Proof 8: bytes from a stranger. No crash, no hang, no memory above a bound, no foreign code.

About a minute as it is; `KWS_FUZZ=long` runs more than 200,000 cases. Every failure is printed by
hypothesis with the bytes, or the number for `spoil`, that make it.
"""

import contextlib
import io
import os
import re
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from random import Random

import flatbuffers
import msgspec
import numpy as np
import pytest
import tomli_w
from ai_edge_litert import schema_py_generated as schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kws
from kws.config import Config, parse_config
from kws.errors import AudioError, ConfigError, HookError, ModelError
from kws.manifest import Manifest, pack, read_manifest
from kws.model import bundled_models, open_model
from kws.model_check import check_model
from kws.sources.wav import WavSource, read_frames, read_header

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(7200)]

IS_LONG = os.environ.get("KWS_FUZZ") == "long"
MOST_GROWTH_MB = 128
MOST_S = 20.0
MOST_HANG_S = 8.0  # 5 s of CPU time are the limit, on a machine with other work
PEAK = Path("/proc/self/clear_refs")
COMMANDS = bundled_models()["commands"]


def cases(short, long):
    """Run so many cases, the same ones each time unless the run is long."""
    return settings(
        max_examples=long if IS_LONG else short,
        derandomize=not IS_LONG,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture
def bounded():
    """Check the time and the memory that a case takes."""

    @contextlib.contextmanager
    def case():
        PEAK.write_text("5")  # from here on
        before_mb, started_s = peak_mb(), time.monotonic()
        yield
        assert time.monotonic() - started_s < MOST_S
        assert peak_mb() - before_mb < MOST_GROWTH_MB

    return case


def peak_mb():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


EDGES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]


def spoilt(seeds, *, longest=None):
    """Give the seeds with a few bytes changed, moved, left out or added.

    Only a number is drawn: a case costs a tenth of what it does with every byte from hypothesis.
    """
    return st.integers(0, 2**48 - 1).map(lambda number: spoil(seeds, number, longest=longest))


def spoil(seeds, number, *, longest=None):
    random = Random(number)
    data = bytearray(random.choice(seeds))
    for _ in range(random.choice([1, 1, 1, 2, 3, 8])):
        at = random.randrange(max(1, min(len(data), longest or len(data))))
        match random.randrange(13) // 2:
            case 0 if data:
                data[at] ^= 1 << random.randrange(8)
            case 1 if data:
                data[at] = random.randrange(256)
            case 2:
                at &= ~3
                value = random.choice([*EDGES, random.randrange(64), random.randrange(2**32)])
                data[at : at + 4] = struct.pack("<I", value)
            case 3:
                source, n = random.randrange(len(data) + 1), random.choice([1, 2, 4, 8, 64])
                data[at : at + n] = data[source : source + n]
            case 4:
                data[at:at] = random.randbytes(random.randrange(17))
            case 5:
                del data[at : at + random.randrange(1, 65)]
            case 6:
                del data[at:]
    return bytes(data)


# The configuration


def tables_of(kind):
    """Return a strategy for a table in the shape of a struct of settings, right and wrong."""
    anything = st.recursive(
        st.none().map(lambda _: "x")
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats()
        | st.text(max_size=8)
        | st.dates(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
        max_leaves=5,
    )
    optional = {}
    for field in msgspec.structs.fields(kind):
        right = anything
        with contextlib.suppress(TypeError):
            inner = field.type
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                right = tables_of(inner)
        if getattr(field.type, "__origin__", None) is list:
            (inner,) = field.type.__args__
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                right = st.lists(tables_of(inner), max_size=3)
        optional[field.name] = right | anything
    return st.fixed_dictionaries({}, optional=optional)


@cases(short=200, long=10_000)
@given(tables=tables_of(Config))
def test_settings_of_any_types_are_taken_or_refused(bounded, tables):
    text = tomli_w.dumps(tables)
    with bounded(), contextlib.suppress(ConfigError, HookError):
        parse_config(text)


SETTINGS = [
    block.encode()
    for block in re.findall(
        r"```toml\n(.*?)```",
        (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(),
        re.DOTALL,
    )
]


@cases(short=1_500, long=50_000)
@given(data=spoilt(SETTINGS))
def test_a_spoilt_configuration_is_taken_or_refused(bounded, data):
    with bounded(), contextlib.suppress(ConfigError, HookError):
        parse_config(data.decode("latin-1"))


# WAV files


def wav(*, codec=1, n_bits=16, n_channels=1, rate_hz=16_000, extensible=False):
    frame_bytes = n_channels * n_bits // 8
    form = struct.pack(
        "<HHIIHH",
        0xFFFE if extensible else codec,
        n_channels,
        rate_hz,
        rate_hz * frame_bytes,
        frame_bytes,
        n_bits,
    )
    if extensible:
        tail = bytes.fromhex("000000001000800000aa00389b71")
        form += struct.pack("<HHIH", 22, n_bits, 0, codec) + tail
    samples = np.random.default_rng(1).bytes(200 * frame_bytes)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"LIST" + struct.pack("<I", 4) + b"INFO"
    body += b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


WAVS = [
    wav(),
    wav(codec=3, n_bits=32, n_channels=2, rate_hz=44_100),
    wav(codec=3, n_bits=64, rate_hz=8_000),
    wav(n_bits=24, n_channels=6, rate_hz=48_000, extensible=True),
    wav(n_bits=8, rate_hz=11_025),
    wav(n_bits=32, n_channels=2),
]


@cases(short=1_500, long=50_000)
@given(data=spoilt(WAVS, longest=120))
def test_a_spoilt_wav_is_heard_or_refused(bounded, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "spoilt.wav"
    path.write_bytes(b"RIFF" + data[4:])
    with bounded(), contextlib.suppress(AudioError), WavSource(path, chunk_ms=80) as source:
        assert sum(len(chunk) for chunk in source) < 1_000_000


@cases(short=1_500, long=50_000)
@given(data=spoilt(WAVS, longest=120))
def test_a_spoilt_wav_in_a_pipe_is_heard_or_refused(bounded, data):
    stream = io.BufferedReader(io.BytesIO(data))
    with bounded(), contextlib.suppress(AudioError):
        header = read_header(stream, name="a pipe")
        assert sum(len(frames) for frames in read_frames(stream, header, name="a pipe")) < 100_000


# Model files

FLATBUFFER = COMMANDS.read_bytes()
with zipfile.ZipFile(COMMANDS) as archive:
    ARCHIVE_AT = archive.infolist()[0].header_offset
TAIL = FLATBUFFER[ARCHIVE_AT:]
MANIFEST = msgspec.json.decode(msgspec.json.encode(read_manifest(COMMANDS)[0]))


@cases(short=1_000, long=50_000)
@given(tail=spoilt([TAIL]))
def test_a_model_with_a_spoilt_archive_is_read_or_refused(bounded, tmp_path_factory, tail):
    path = tmp_path_factory.getbasetemp() / "spoilt.tflite"
    path.write_bytes(FLATBUFFER[:4096] + tail)
    with bounded(), contextlib.suppress(ModelError):
        read_manifest(path)


# A process that opens each model in a copy of itself, as `kws.model_check` does in a new one, and
# then uses it. What ends the copy before T is what the trial refuses; nothing may end it after.
ZYGOTE = """
import os, resource, signal, struct, sys
import numpy as np
from pathlib import Path
from kws.config import DecisionSettings
from kws.errors import KwsError
from kws.model import open_model
from kws.spotter import Spotter
from kws.model_check import open_bounded
import ai_edge_litert.interpreter

path = Path(sys.argv[1])
noise = np.random.default_rng(0).integers(-20000, 20000, 16000).astype(np.int16)
open_model(Path(sys.argv[2]))  # what is loaded late is loaded here

def use():
    try:
        model = open_bounded(path)
    except KwsError as error:
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
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (6, 7))
        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
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
    answer = said + (b" signal %d" % (status & 127) if status else b"")
    answer += b" %d MB" % (usage.ru_maxrss // 1024)
    sys.stdout.buffer.write(struct.pack("<I", len(answer)) + answer)
    sys.stdout.buffer.flush()
"""


@pytest.fixture(scope="module")
def open_apart(tmp_path_factory):
    """Open a model's bytes in a process of its own; returns what became of it, and its memory."""
    path = tmp_path_factory.mktemp("zygote") / "model.tflite"
    zygote = subprocess.Popen(
        [sys.executable, "-c", ZYGOTE, path, COMMANDS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    def open_it(content):
        zygote.stdin.write(struct.pack("<I", len(content)) + content)
        zygote.stdin.flush()
        (size,) = struct.unpack("<I", zygote.stdout.read(4))
        answer = zygote.stdout.read(size).decode(errors="replace")
        said, _, memory = answer.removesuffix(" MB").rpartition(" ")
        return said, int(memory)

    said, usual_mb = open_it(FLATBUFFER)
    assert said == "Tok"

    def check(content):
        started_s = time.monotonic()
        said, memory_mb = open_it(content)
        assert time.monotonic() - started_s < MOST_HANG_S
        assert re.fullmatch(r"Tok|T?EModelError|T?EConfigError| signal \d+", said), said
        assert memory_mb < usual_mb + MOST_GROWTH_MB or said.startswith((" signal", "E"))
        return said

    yield check
    zygote.stdin.close()
    zygote.wait()
    zygote.stdout.close()


@pytest.fixture(scope="module")
def small_model():
    """A network of one layer, in which nearly every byte is structure."""
    return one_layer(schema.BuiltinOperator.FULLY_CONNECTED)


@cases(short=400, long=15_000)
@given(number=st.integers(0, 2**48 - 1))
def test_a_spoilt_network_is_run_or_refused(open_apart, number):
    # The number alone, as hypothesis refuses to print so many bytes where it finds an error.
    open_apart(spoil([FLATBUFFER[:ARCHIVE_AT]], number) + TAIL)


@cases(short=400, long=15_000)
@given(number=st.integers(0, 2**48 - 1))
def test_a_small_spoilt_network_is_run_or_refused(open_apart, small_model, number):
    open_apart(pack(spoil([small_model], number), SMALL))


NUMBERS = st.sampled_from([-1, 0, 1, 2, 3, 7, 8, 16, 255, 4096, 8192, 2**31, 2**63, 10**400, 1e308])


@st.composite
def spoilt_manifests(draw):
    """Return the manifest with a few values replaced."""
    manifest = msgspec.json.decode(msgspec.json.encode(MANIFEST))
    tables = [manifest, manifest["features"], manifest["decision"], *manifest["states"]]
    for _ in range(draw(st.integers(1, 4))):
        table = draw(st.sampled_from(tables))
        key = draw(st.sampled_from(sorted(table)))
        like = NUMBERS if isinstance(table[key], int | float) else NUMBERS | st.text(max_size=5)
        table[key] = draw(like | st.lists(NUMBERS, max_size=4) if like is not NUMBERS else like)
    return manifest


@cases(short=300, long=10_000)
@given(manifest=spoilt_manifests())
def test_a_network_with_a_spoilt_manifest_is_run_or_refused(open_apart, manifest):
    text = repr_json(manifest)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("kws.json", text)
    open_apart(FLATBUFFER[:ARCHIVE_AT] + archive.getvalue())


def repr_json(value):
    import json

    return json.dumps(value)  # unlike msgspec's, with integers of any size


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
    with pytest.raises(ModelError, match=r"within 128 MiB of memory. Received: .*, which takes 2"):
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
    features=kws.manifest.FeatureSettings(),
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
