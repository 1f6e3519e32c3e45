import re

import numpy as np
import pytest
import soundfile
import sounds
from sounds import RATE_HZ

from kws.errors import ConfigError, FormatError
from kws_train.data.audio_files import audio_files, duration_s, read_samples, readable


def exactly(message):
    return f"^{re.escape(message)}$"


def test_audio_files_are_found_by_their_endings_in_any_case_and_sorted(tmp_path):
    names = ["b/a.WAV", "a.flac", "c.opus", "d.Ogg"]
    for name in [*names, "b/readme.txt", "wav"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in audio_files(tmp_path)] == sorted(names)
    assert audio_files(tmp_path, "b/*") == [tmp_path / "b/a.WAV"]
    assert audio_files(tmp_path / "a.flac") == [tmp_path / "a.flac"]


def test_no_audio_files_are_an_error_unless_they_are_optional(tmp_path):
    message = (
        f"A data folder must hold audio (WAV, FLAC, MP3, M4A or another kind). Received: "
        f"{tmp_path} with none. Unpack the data there, or name another folder."
    )
    with pytest.raises(ConfigError, match=exactly(message)):
        audio_files(tmp_path)
    assert audio_files(tmp_path, optional=True) == []


@pytest.mark.parametrize(
    ("seconds", "fits"), [(0.04, False), (0.05, True), (1.0, True), (1.1, False)]
)
def test_a_clip_shorter_or_longer_than_permitted_is_refused(tmp_path, seconds, fits):
    path = sounds.write(tmp_path / "a.wav", sounds.tone(440, seconds))
    if fits:
        assert len(read_samples(path, least_s=0.05, most_s=1.0)) == seconds * RATE_HZ
        return
    message = (
        f"A word's clip must last 0.05 to 1 s. Received: {seconds:g} s in {path}. Cut it, or move "
        f"it to other data."
    )
    with pytest.raises(FormatError, match=exactly(message)):
        read_samples(path, least_s=0.05, most_s=1.0)


def test_a_duration_is_that_of_the_file(tmp_path):
    path = sounds.write(tmp_path / "a.wav", sounds.silence(0.75), rate_hz=8000)
    assert duration_s(path) == 1.5
    empty = sounds.write(tmp_path / "b.wav", np.zeros(0, np.int16))
    message = f"An audio file must hold samples. Received: none in {empty}. Remove it."
    with pytest.raises(FormatError, match=exactly(message)):
        duration_s(empty)


def test_a_clip_is_read_as_its_samples(tmp_path):
    wave = np.arange(-800, 800, dtype=np.int16) * 40
    soundfile.write(tmp_path / "a.wav", wave, RATE_HZ)
    samples = read_samples(tmp_path / "a.wav")
    assert samples.dtype == np.int16
    assert np.array_equal(samples, wave)


def test_a_stereo_clip_is_mixed_to_mono(tmp_path):
    left = np.arange(1600, dtype=np.int16) * 10
    soundfile.write(tmp_path / "a.wav", np.stack((left, -left), axis=1), RATE_HZ)
    samples = read_samples(tmp_path / "a.wav")
    assert samples.dtype == np.int16
    assert np.array_equal(samples, np.zeros(1600))


@pytest.mark.parametrize("rate_hz", [8000, 22_050, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_clip_at_another_rate_is_resampled(tmp_path, rate_hz, channels):
    wave = sounds.tone(440, 0.5, peak=5000, rate_hz=rate_hz)
    path = sounds.write(
        tmp_path / "a.wav", np.repeat(wave[:, None], channels, axis=1), rate_hz=rate_hz
    )
    samples = read_samples(path)
    assert samples.dtype == np.int16
    assert len(samples) == 8000
    middle = slice(400, -400)
    wanted = sounds.sine(440, len(samples), peak=5000)
    assert np.abs(samples[middle] - wanted[middle]).max() < 60


def test_a_clip_that_is_no_audio_is_refused(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"text")
    with pytest.raises(FormatError) as error:
        read_samples(path)
    assert re.fullmatch(
        rf"An audio file must be readable\. Received: {re.escape(str(path))} \(.+\)\. Remove it\.",
        str(error.value),
    )


def test_a_clip_without_samples_is_refused(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0, np.int16), RATE_HZ)
    message = f"An audio file must hold samples. Received: none in {path}. Remove it."
    with pytest.raises(FormatError, match=exactly(message)):
        read_samples(path)


def test_part_of_a_stereo_recording_of_another_rate_is_read(tmp_path):
    path = tmp_path / "a.wav"
    wave = sounds.tone(440, 2.0, peak=5000, rate_hz=48_000)
    soundfile.write(path, np.stack([wave, wave], axis=1), 48_000)
    samples = read_samples(path, start_s=0.5, end_s=5.0)
    assert samples.dtype == np.int16
    assert len(samples) == pytest.approx(1.5 * RATE_HZ, abs=2)
    assert np.abs(samples[1000:-1000]).max() == pytest.approx(5000, rel=0.02)
    assert len(read_samples(path, start_s=3.0)) == 0


def test_a_file_that_is_gone_is_said(tmp_path):
    with pytest.raises(
        FormatError, match=r"^An audio file must be readable\. Received: .*gone\.wav"
    ):
        read_samples(tmp_path / "gone.wav")


def test_a_recording_of_a_phone_is_decoded_by_ffmpeg(tmp_path, fake_ffmpeg):
    wave = sounds.tone(440, 1.0)
    path = fake_ffmpeg(tmp_path / "a.m4a", wave)
    assert np.array_equal(read_samples(path), wave)
    assert duration_s(path) == 1.0
    with pytest.raises(FormatError, match=r"^A word's clip must last 2 to 3 s\."):
        read_samples(path, least_s=2, most_s=3)


def test_a_file_that_libsndfile_fails_on_is_tried_with_ffmpeg(tmp_path, fake_ffmpeg):
    wave = sounds.tone(440, 0.5)
    path = fake_ffmpeg(tmp_path / "m4a_inside.wav", wave)
    assert np.array_equal(read_samples(path), wave)
    assert duration_s(path) == 0.5


def test_mp3_needs_no_ffmpeg(tmp_path, no_ffmpeg):
    path = sounds.write(tmp_path / "a.mp3", sounds.tone(440, 1.0))
    assert audio_files(tmp_path) == [path]
    assert len(read_samples(path)) == pytest.approx(RATE_HZ, rel=0.15)


def test_what_cannot_be_read_is_left_out_and_said(tmp_path, caplog, no_ffmpeg):
    good = sounds.write(tmp_path / "a.wav", sounds.tone(440, 0.5))
    for name in ("._a.wav", *(f"{i}.m4a" for i in range(5))):
        (tmp_path / name).write_bytes(b"\0\5\x16\7 no audio")
    (tmp_path / "empty.wav").touch()
    assert readable(audio_files(tmp_path)) == [good]
    assert caplog.messages[0] == (
        f"left out: An audio file must be readable. Received: {tmp_path / '._a.wav'}, no audio "
        f"but the attributes of a.wav, as macOS stores them on other disks. Remove it."
    )
    assert caplog.messages[1] == (
        f"left out: An audio file must be readable. Received: {tmp_path / '0.m4a'}, and .m4a "
        f"needs ffmpeg, which is not installed. Install ffmpeg, or convert the file to WAV."
    )
    assert caplog.messages[-1] == "left out: 2 more"
