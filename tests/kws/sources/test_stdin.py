import io
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws.config import SourceSettings
from kws.errors import AudioError, ConfigError, FormatError
from kws.sources import open_source

RAMP = np.arange(-1_600, 1_700, dtype=np.int16)
RECORD = "arecord -q -t raw -f S16_LE -r 16000 -c 1 | kws listen --input -"


class Pieces(io.RawIOBase):
    """A pipe that hands over what was written in pieces of the given lengths."""

    def __init__(self, data, lengths):
        self.data = data
        self.lengths = iter(lengths)

    def readable(self):
        return True

    def readinto(self, buffer):
        n = min(next(self.lengths, len(buffer)), len(buffer), len(self.data))
        buffer[:n], self.data = self.data[:n], self.data[n:]
        return n


def pipe(monkeypatch, raw):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(raw)))


def open_stdin(chunk_ms=80):
    return open_source(SourceSettings(input="-", chunk_ms=chunk_ms))


def hear_until(message, kind=FormatError):
    heard = [np.zeros(0, np.int16)]
    with open_stdin() as source, pytest.raises(kind, match=f"^{re.escape(message)}$"):
        heard.extend(source)
    return np.concatenate(heard)


def test_raw_samples_are_cut_into_chunks(monkeypatch):
    pipe(monkeypatch, io.BytesIO(RAMP.tobytes()))
    with open_stdin(chunk_ms=100) as source:
        assert (source.name, source.duration_s, source.live) == ("standard input", None, False)
        chunks = list(source)
    assert [len(chunk) for chunk in chunks] == [1_600, 1_600, 100]
    np.testing.assert_array_equal(np.concatenate(chunks), RAMP)


@given(st.lists(st.integers(1, 3_000), max_size=20))
def test_samples_do_not_depend_on_how_they_arrive(lengths):
    with pytest.MonkeyPatch.context() as monkeypatch:
        pipe(monkeypatch, Pieces(RAMP.tobytes(), lengths))
        with open_stdin() as source:
            np.testing.assert_array_equal(np.concatenate(list(source)), RAMP)


@pytest.mark.parametrize("lengths", [[], [1] * 200])
def test_a_piped_wav_is_read_as_a_wav(monkeypatch, make_wav, lengths):
    stereo = np.stack([RAMP, RAMP], axis=1)
    pipe(monkeypatch, Pieces(make_wav(stereo.tobytes(), n_channels=2), lengths))
    with open_stdin() as source:
        np.testing.assert_array_equal(np.concatenate(list(source)), RAMP)


@pytest.mark.parametrize("promised", [0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF])
def test_a_wav_written_into_a_pipe_does_not_know_its_length(monkeypatch, make_wav, promised):
    pipe(monkeypatch, io.BytesIO(make_wav(RAMP.tobytes(), data_bytes=promised)))
    with open_stdin() as source:
        np.testing.assert_array_equal(np.concatenate(list(source)), RAMP)


def test_a_piped_wav_that_is_cut_short_loses_nothing(monkeypatch, make_wav):
    pipe(monkeypatch, io.BytesIO(make_wav(RAMP.tobytes(), data_bytes=64_000)))
    heard = hear_until(
        "A WAV must hold all the samples its header promises. Received: 3300 of 32000 samples "
        "(0.206 of 2.000 s) in standard input. All of them were used; the file is cut short or "
        "its header is wrong: copy or record it again."
    )
    np.testing.assert_array_equal(heard, RAMP)


def test_a_stray_byte_is_an_error_after_all_whole_samples(monkeypatch):
    pipe(monkeypatch, io.BytesIO(RAMP.tobytes() + b"x"))
    heard = hear_until(
        f"Standard input must end on a whole 16-bit sample. Received: 1 byte after 3300 samples "
        f"(0.206 s). All whole ones were used; check that it is s16le: `{RECORD}`."
    )
    np.testing.assert_array_equal(heard, RAMP)


def test_nothing_is_an_error(monkeypatch):
    pipe(monkeypatch, io.BytesIO(b""))
    hear_until(
        f"Standard input must carry audio. Received: nothing before its end. Check the program "
        f"that feeds it: `{RECORD}`."
    )


@pytest.mark.parametrize(("head", "kind"), [(b"fLaC", "FLAC"), (b"\0\0\0 ftypM4A ", "MP4 or M4A")])
def test_compressed_audio_is_not_heard_as_noise(monkeypatch, head, kind):
    pipe(monkeypatch, io.BytesIO(head + bytes(100)))
    hear_until(
        f"Standard input must be raw 16000 Hz mono s16le, or WAV. Received: {kind}. Decode it: "
        f"`ffmpeg -i FILE -f s16le -ar 16000 -ac 1 - | kws listen -`. FLAC, Ogg and MP3 can be "
        f"given as FILE in place of -."
    )


@pytest.mark.parametrize(
    ("sample_format", "data"),
    [
        ("s16le", RAMP.astype("<i2").tobytes()),
        ("s32le", (RAMP.astype("<i4") * 65_536).tobytes()),
        ("f32le", (RAMP.astype("<f4") / 32_768).tobytes()),
    ],
)
def test_raw_samples_of_every_format_are_read(monkeypatch, sample_format, data):
    pipe(monkeypatch, io.BytesIO(data))
    settings = SourceSettings(input="-", sample_format=sample_format)
    with open_source(settings) as source:
        np.testing.assert_array_equal(np.concatenate(list(source)), RAMP)


def test_a_stray_byte_names_the_format_that_is_set(monkeypatch):
    pipe(monkeypatch, io.BytesIO(bytes(4 * 160 + 2)))
    settings = SourceSettings(input="-", sample_format="f32le")
    message = (
        "Standard input must end on a whole 32-bit sample. Received: 2 bytes after 160 samples "
        f"(0.010 s). All whole ones were used; check that it is f32le: `{RECORD}`."
    )
    with open_source(settings) as source, pytest.raises(FormatError) as refused:
        list(source)
    assert str(refused.value) == message


def test_a_broken_pipe_is_reported(monkeypatch):
    class Broken(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            raise OSError(5, "Input/output error")

    pipe(monkeypatch, Broken())
    hear_until(
        f"Standard input cannot be read: Input/output error. Check the program that feeds it: "
        f"`{RECORD}`.",
        AudioError,
    )


@pytest.mark.parametrize(
    ("stdin", "what"),
    [
        (None, "none"),
        (type("Tty", (), {"closed": False, "isatty": lambda _: True})(), "a terminal"),
    ],
)
def test_a_terminal_is_refused_with_the_line_to_type(monkeypatch, stdin, what):
    monkeypatch.setattr(sys, "stdin", stdin)
    message = f"With `--input -` audio must come through a pipe. Received: {what}. Run `{RECORD}`."
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        open_stdin()


LISTEN = """
from kws.config import SourceSettings
from kws.sources import open_source
for chunk in open_source(SourceSettings(input="-", chunk_ms=20)):
    print(len(chunk), flush=True)
"""


def test_a_live_pipe_is_not_delayed_beyond_a_chunk():
    reader, writer = os.pipe()
    os.set_blocking(reader, False)  # as some shells leave it
    with subprocess.Popen([sys.executable, "-c", LISTEN], stdin=reader, stdout=-1, text=True) as it:
        os.close(reader)
        for _ in range(3):
            os.write(writer, bytes(640))
            assert it.stdout.readline() == "320\n"
            time.sleep(0.05)
        os.write(writer, bytes(300))
        os.close(writer)
        assert it.stdout.read() == "150\n"
    assert it.returncode == 0
