"""Which files are audio, and how ffmpeg is asked to decode them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import sounds

from kws.audio_files import AUDIO_SUFFIXES, audio_below, decode, ffmpeg_command
from kws.errors import FormatError

PHONES = (".m4a", ".mp3", ".aac", ".opus", ".webm", ".3gp", ".amr", ".wav", ".flac", ".ogg", ".caf")


def test_what_phones_record_is_audio():
    assert set(PHONES) <= set(AUDIO_SUFFIXES)


def test_audio_is_found_below_a_folder_in_any_case_and_sorted(tmp_path):
    for name in ("b/take.M4A", "a.mp3", "notes.txt", "c.webm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, left_out = audio_below(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a.mp3", "b/take.M4A", "c.webm"]
    assert left_out == {}


def test_a_name_that_is_not_utf8_is_left_out_with_the_reason(tmp_path):
    (tmp_path / "good.wav").touch()
    bad = Path(os.fsdecode(os.fsencode(tmp_path) + b"/gr\xfcn.wav"))
    bad.touch()
    found, left_out = audio_below(tmp_path)
    assert found == [tmp_path / "good.wav"]
    assert left_out == {
        bad: f"The name of a file must be UTF-8. Received: {tmp_path}/gr\\udcfcn.wav. Rename it."
    }


def test_ffmpeg_decodes_a_file_or_a_part_and_follows_no_address(tmp_path, fake_ffmpeg):
    command = ffmpeg_command(tmp_path / "a.m4a", start_s=1.5, length_s=2)
    assert command[1:] == [
        "-v", "error", "-nostdin", "-protocol_whitelist", "file,pipe", "-ss", "1.500000",
        "-i", f"file:{tmp_path}/a.m4a", "-t", "2.000000", "-vn",
        "-f", "s16le", "-ac", "1", "-ar", "16000", "-",
    ]  # fmt: skip


def test_samples_are_what_ffmpeg_writes(tmp_path, fake_ffmpeg):
    wave = sounds.tone(440, 0.2)
    assert decode(fake_ffmpeg(tmp_path / "a.m4a", wave)) == wave.tobytes()


def test_what_ffmpeg_cannot_read_is_said_in_its_words(tmp_path, fake_ffmpeg):
    path = tmp_path / "a.m4a"
    path.write_bytes(b"text")
    with pytest.raises(FormatError) as raised:
        decode(path)
    assert str(raised.value) == (
        f"An audio file must be readable. Received: {path} (Invalid data found). Remove it."
    )


def test_without_ffmpeg_the_remedy_is_named(tmp_path, no_ffmpeg):
    with pytest.raises(FormatError) as raised:
        decode(tmp_path / "a.m4a")
    assert str(raised.value) == (
        f"An audio file must be readable. Received: {tmp_path / 'a.m4a'}, and .m4a needs ffmpeg, "
        f"which is not installed. Install ffmpeg, or convert the file to WAV."
    )


@pytest.mark.system
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
@pytest.mark.parametrize("suffix", [".m4a", ".aac", ".mp4", ".mka"])
def test_the_true_ffmpeg_decodes_what_it_encodes(tmp_path, suffix):
    path = tmp_path / f"tone{suffix}"
    wave = sounds.tone(440, 1.0, peak=8000)
    encode = ["ffmpeg", "-v", "error", "-f", "s16le", "-ar", "16000", "-i", "-", "-c:a", "aac"]
    subprocess.run([*encode, path], input=wave.tobytes(), check=True)
    decoded = decode(path)
    assert len(decoded) / 2 == pytest.approx(16_000, abs=3000)
    part = decode(path, start_s=0.25, length_s=0.5)
    assert len(part) / 2 == pytest.approx(8_000, abs=10)
