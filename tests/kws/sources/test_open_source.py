import os
import re
import sys

import numpy as np
import pytest
import sounds

from kws.config import SourceSettings
from kws.errors import AudioError, DeviceError, FormatError
from kws.sources import list_devices, open_source


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refuse(name, message):
    with pytest.raises(AudioError, match=f"^{re.escape(message)}$"):
        open_source(SourceSettings(input=name))


@pytest.mark.parametrize(
    ("name", "reason", "hint"),
    [
        ("none.wav", "No such file or directory", ""),
        ("mci", "No such file or directory", " Did you mean `mic`?"),
        ("folder", "Is a directory", ""),
        ("file/none.wav", "Not a directory", ""),
    ],
)
def test_a_path_that_is_no_readable_file_is_refused(tmp_path, name, reason, hint):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    refuse(
        name,
        f"The input must be `mic`, `-` or a file that can be read. Received: {name} ({reason})."
        f"{hint} Check the path and its permissions.",
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    (tmp_path / "a.wav").touch(mode=0)
    refuse(
        "a.wav",
        "The input must be `mic`, `-` or a file that can be read. Received: a.wav (Permission "
        "denied). Check the path and its permissions.",
    )


def test_a_named_pipe_is_refused_instead_of_waited_for():
    os.mkfifo("a pipe")
    refuse(
        "a pipe",
        "The input must be a regular file. Received: a pipe, a pipe or a device. Feed it with "
        "`kws listen --input - < 'a pipe'`.",
    )


@pytest.mark.parametrize("use", [lambda: open_source(SourceSettings()), list_devices])
def test_without_any_recorder_both_remedies_are_named(monkeypatch, tmp_path, use):
    monkeypatch.setitem(sys.modules, "pyaudio", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    message = (
        "A microphone needs PyAudio or arecord, and neither is installed. Run `pip install "
        "'kws[mic]'` or `sudo apt install alsa-utils`."
    )
    with pytest.raises(DeviceError, match=f"^{re.escape(message)}$"):
        use()


def test_a_file_that_only_ffmpeg_reads_is_opened_by_it(tmp_path, fake_ffmpeg):
    wave = sounds.tone(440, 0.5)
    path = fake_ffmpeg(tmp_path / "a.m4a", wave)
    with open_source(SourceSettings(input=str(path))) as source:
        for _ in range(2):  # every iteration begins at the start
            assert np.array_equal(np.concatenate(list(source)), wave)


def test_a_file_that_ffmpeg_cannot_read_is_an_error(tmp_path, fake_ffmpeg):
    path = tmp_path / "a.m4a"
    path.write_bytes(b"text")
    message = f"An audio file must be readable. Received: {path} (Invalid data found). Remove it."
    with (
        open_source(SourceSettings(input=str(path))) as source,
        pytest.raises(FormatError, match=f"^{re.escape(message)}$"),
    ):
        list(source)


def test_without_ffmpeg_such_a_file_is_refused_at_once(tmp_path, no_ffmpeg):
    path = tmp_path / "a.m4a"
    path.write_bytes(b"AUDI")
    with pytest.raises(FormatError, match=r"and \.m4a needs ffmpeg, which is not installed\."):
        open_source(SourceSettings(input=str(path)))


def test_another_format_under_the_name_of_a_wav_is_decoded_by_ffmpeg(tmp_path, fake_ffmpeg):
    wave = sounds.tone(440, 0.5)
    path = fake_ffmpeg(tmp_path / "m4a_inside.wav", wave)
    with open_source(SourceSettings(input=str(path))) as source:
        assert np.array_equal(np.concatenate(list(source)), wave)


def test_what_neither_library_nor_ffmpeg_reads_has_the_error_of_the_library(tmp_path, fake_ffmpeg):
    path = tmp_path / "text.wav"
    path.write_bytes(b"no audio")
    with pytest.raises(FormatError, match=r"^The input must be a whole audio file \(WAV, FLAC"):
        open_source(SourceSettings(input=str(path)))


@pytest.mark.parametrize(
    ("channel", "peak"), [(None, 3500), (0, 1000), (1, 6000), ("loudest", 6000)]
)
def test_a_channel_of_what_ffmpeg_decodes_can_be_chosen(
    tmp_path, fake_ffmpeg, make_wav, channel, peak
):
    """ffmpeg writes a WAV with all channels."""
    left, right = sounds.tone(440, 0.5, peak=1000), sounds.tone(440, 0.5, peak=6000)
    frames = np.stack([left, right], axis=1).tobytes()
    path = tmp_path / "stereo.m4a"
    path.write_bytes(b"AUDI" + make_wav(frames, n_channels=2))
    with open_source(SourceSettings(input=str(path), channel=channel)) as source:
        assert np.abs(np.concatenate(list(source))).max() == pytest.approx(peak, rel=0.01)
