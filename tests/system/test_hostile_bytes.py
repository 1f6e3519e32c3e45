"""Proof 8: bytes from a stranger. No crash, no hang, no memory above a bound.

Half a minute as it is; `KWS_FUZZ=long` runs more than 200,000 cases. Every failure is printed by
hypothesis with the bytes, or the number for `spoil`, that make it.
"""

import contextlib
import io
import os
import re
import struct
import time
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spoil import spoilt

from kws.config import Config, parse_config
from kws.errors import AudioError, ConfigError, HookError, ModelError
from kws.manifest import read_manifest
from kws.model import bundled_models
from kws.sources.wav import WavSource, read_frames, read_header

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(7200)]

IS_LONG = os.environ.get("KWS_FUZZ") == "long"
MOST_GROWTH_MB = 128
MOST_S = 20.0
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


# The archive of a model file; test_hostile_models.py has the rest

FLATBUFFER = COMMANDS.read_bytes()
with zipfile.ZipFile(COMMANDS) as archive:
    ARCHIVE_AT = archive.infolist()[0].header_offset
TAIL = FLATBUFFER[ARCHIVE_AT:]


@cases(short=1_000, long=50_000)
@given(tail=spoilt([TAIL]))
def test_a_model_with_a_spoilt_archive_is_read_or_refused(bounded, tmp_path_factory, tail):
    path = tmp_path_factory.getbasetemp() / "spoilt.tflite"
    path.write_bytes(FLATBUFFER[:4096] + tail)
    with bounded(), contextlib.suppress(ModelError):
        read_manifest(path)
