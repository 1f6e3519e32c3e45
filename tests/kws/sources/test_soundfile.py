import re
import sys
from pathlib import Path

import numpy as np
import pytest
import sounds

from kws.config import SourceSettings
from kws.errors import FormatError
from kws.sources import open_source
from kws.sources.soundfile_ import SoundFileSource

soundfile = pytest.importorskip("soundfile")

NOISE = np.random.default_rng(4).integers(-20_000, 20_000, 40_000).astype(np.int16)


def tone(rate_hz):
    return sounds.sine(1_000, rate_hz, peak=8_000 / 32_768, rate_hz=rate_hz)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save(name, data):
    Path(name).write_bytes(data)
    return SourceSettings(input=name)


def encoded(samples, name, **settings):
    soundfile.write(name, samples, **settings)
    return Path(name).read_bytes()


def hear_until(settings, message):
    heard = [np.zeros(0, np.int16)]
    exactly = f"^{re.escape(message)}$"
    with open_source(settings) as source, pytest.raises(FormatError, match=exactly):
        heard.extend(source)
    return np.concatenate(heard)


@pytest.mark.parametrize("name", ["a.flac", "a.aiff", "a.caf", "a.rf64"])
def test_lossless_formats_are_bit_identical(name):
    soundfile.write(name, NOISE, 16_000, subtype="PCM_16")
    with open_source(SourceSettings(input=name, chunk_ms=100)) as source:
        assert isinstance(source, SoundFileSource)
        assert (source.name, source.duration_s, source.live) == (name, 2.5, False)
        chunks = list(source)
    assert [len(chunk) for chunk in chunks] == [1_600] * 25
    np.testing.assert_array_equal(np.concatenate(chunks), NOISE)


@pytest.mark.parametrize(
    ("name", "rate_hz", "settings"),
    [
        ("a.ogg", 44_100, {}),
        ("a.opus", 48_000, {"format": "OGG", "subtype": "OPUS"}),
        ("a.mp3", 22_050, {}),
    ],
)
def test_lossy_formats_keep_a_tone(name, rate_hz, settings):
    soundfile.write(name, np.stack([tone(rate_hz)] * 2, axis=1), rate_hz, **settings)
    with open_source(SourceSettings(input=name)) as source:
        heard = np.concatenate(list(source))
    assert len(heard) == pytest.approx(16_000, abs=10)
    spectrum = np.abs(np.fft.rfft(heard[4_000:12_000])) / 4_000
    assert np.argmax(spectrum) == 500
    assert spectrum[500] == pytest.approx(8_000, rel=0.05)


def test_the_content_decides_and_not_the_name(make_wav):
    flac = encoded(NOISE, "a.flac", samplerate=16_000)
    for name in ("a.wav", "a.raw", "a"):
        with open_source(save(name, flac)) as source:
            np.testing.assert_array_equal(np.concatenate(list(source)), NOISE)
    with open_source(save("wav.flac", make_wav(NOISE.tobytes()))) as source:
        np.testing.assert_array_equal(np.concatenate(list(source)), NOISE)


@pytest.mark.parametrize("name", ["a.flac", "a.raw", "a.wav", "a.mp3"])
def test_what_is_not_audio_is_refused(name):
    message = (
        f"The input must be a whole audio file (WAV, FLAC, Ogg, MP3, AIFF). Received: {name} "
        f"(Format not recognised). Copy it again, or if it is audio of another kind convert it: "
        f"`ffmpeg -i INPUT -ar 16000 -ac 1 out.wav`."
    )
    with pytest.raises(FormatError, match=f"^{re.escape(message)}$"):
        open_source(save(name, b"To whom it may concern\n" * 100))


def test_a_truncated_flac_gives_what_it_holds_before_the_error():
    flac = encoded(NOISE, "a.flac", samplerate=16_000)
    settings = save("a.flac", flac[: len(flac) * 3 // 4])
    message = (
        "An audio file must hold all the samples it promises. Received: 28672 of 40000 samples "
        "(1.792 s) in a.flac (flac decoder lost sync). All of them were used; copy or record it "
        "again."
    )
    np.testing.assert_array_equal(hear_until(settings, message), NOISE[:28_672])


def test_a_file_without_samples_is_an_error():
    settings = save("a.aiff", encoded(NOISE[:0], "b.aiff", samplerate=16_000))
    message = (
        "An audio file must hold all the samples it promises. Received: 0 of 0 samples "
        "(0.000 s) in a.aiff (it holds none). All of them were used; copy or record it again."
    )
    assert len(hear_until(settings, message)) == 0


def test_nan_is_an_error_after_the_samples_before_it():
    samples = np.array([0.5, np.nan, 0.5], np.float32)
    settings = save("a.aiff", encoded(samples, "b.aiff", samplerate=16_000, subtype="FLOAT"))
    message = (
        "Every sample must be a finite number. Received: nan in a.aiff at sample 1 (0.000 s). "
        "Mend or export the recording again."
    )
    assert hear_until(settings, message).tolist() == [16_384]


def test_without_soundfile_the_remedy_is_named(monkeypatch, no_ffmpeg):
    settings = save("a.flac", encoded(NOISE, "a.flac", samplerate=16_000))
    monkeypatch.setitem(sys.modules, "soundfile", None)
    message = (
        "The input must be WAV unless soundfile is there to read other files. Received: a.flac, "
        "which does not begin as a WAV. "
        "Run `pip install 'kws[files]'`."
    )
    with pytest.raises(FormatError, match=f"^{re.escape(message)}$"):
        open_source(settings)


def test_a_second_iteration_begins_at_the_start():
    with open_source(save("a.flac", encoded(NOISE, "a.flac", samplerate=16_000))) as source:
        first, second = (np.concatenate(list(source)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW", "MS_ADPCM", "IMA_ADPCM", "GSM610"])
def test_compressed_wavs_are_read(subtype):
    soundfile.write("a.wav", tone(16_000), 16_000, subtype=subtype)
    with open_source(SourceSettings(input="a.wav")) as source:
        assert isinstance(source, SoundFileSource)
        heard, again = (np.concatenate(list(source))[:16_000] for _ in range(2))
    np.testing.assert_array_equal(heard, again)
    spectrum = np.abs(np.fft.rfft(heard[4_000:12_000])) / 4_000
    assert np.argmax(spectrum) == 500
    assert spectrum[500] == pytest.approx(8_000, rel=0.1)


def test_without_soundfile_a_compressed_wav_names_the_remedy(monkeypatch, no_ffmpeg):
    soundfile.write("a.wav", tone(16_000), 16_000, subtype="ULAW")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    message = (
        "A WAV must hold PCM or float samples. Received: a.wav with mu-law (0x0007). "
        "Run `pip install 'kws[files]'`, or convert it: "
        "`ffmpeg -i in.wav -c:a pcm_s16le -ar 16000 -ac 1 out.wav`."
    )
    with pytest.raises(FormatError, match=f"^{re.escape(message)}$"):
        open_source(SourceSettings(input="a.wav"))


def test_a_file_that_libsndfile_does_not_read_is_named():
    settings = save("a.dat", b"\0\0\0 ftypM4A \0\0\0\0" + bytes(100))
    with pytest.raises(FormatError, match=re.escape("Received: a.dat (MP4 or M4A: Format not rec")):
        open_source(settings)
