import re
import struct
import sys

import numpy as np
import pytest

from kws.config import SourceSettings
from kws.errors import AudioError, FormatError
from kws.sources import open_source
from kws.sources.wav import WavSource

RAMP = np.arange(-1_600, 1_700, dtype=np.int16)
GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
CONVERT = "Convert it: `ffmpeg -i in.wav -c:a pcm_s16le -ar 16000 -ac 1 out.wav`."


@pytest.fixture
def save(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(data):
        (tmp_path / "a.wav").write_bytes(data)
        return "a.wav"

    return write


def hear(name, *, chunk_ms=80):
    with open_source(SourceSettings(input=name, chunk_ms=chunk_ms)) as source:
        return np.concatenate(list(source))


def hear_until(name, message):
    """Return the samples yielded before the error, which must say `message`."""
    heard = [np.zeros(0, np.int16)]
    exactly = f"^{re.escape(message)}$"
    with (
        open_source(SourceSettings(input=name)) as source,
        pytest.raises(FormatError, match=exactly),
    ):
        heard.extend(source)
    return np.concatenate(heard)


def refuse(name, message, kind=FormatError):
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        open_source(SourceSettings(input=name))


def test_16_khz_mono_int16_is_bit_identical_and_cut_into_chunks(save, make_wav):
    name = save(make_wav(RAMP.tobytes()))
    with open_source(SourceSettings(input=name, chunk_ms=100)) as source:
        assert isinstance(source, WavSource)
        assert (source.name, source.live) == ("a.wav", False)
        assert source.duration_s == pytest.approx(3_300 / 16_000)
        chunks = list(source)
    assert [len(chunk) for chunk in chunks] == [1_600, 1_600, 100]
    assert all(chunk.dtype == np.int16 for chunk in chunks)
    np.testing.assert_array_equal(np.concatenate(chunks), RAMP)


@pytest.mark.parametrize(
    ("encoding", "data", "heard"),
    [
        ("u8", bytes([0, 128, 255]), [-32_768, 0, 32_512]),
        ("s24", bytes.fromhex("000080 000000 00ff7f"), [-32_768, 0, 32_767]),
        ("s32", struct.pack("<3i", -(2**31), 0, 32_767 << 16), [-32_768, 0, 32_767]),
        ("f32", struct.pack("<4f", -1.0, 0.0, 0.5, 1.5), [-32_768, 0, 16_384, 32_767]),
        ("f64", struct.pack("<4d", -1.0, 0.0, 0.5, 1.5), [-32_768, 0, 16_384, 32_767]),
    ],
)
def test_every_encoding_is_decoded(save, make_wav, encoding, data, heard):
    assert hear(save(make_wav(data, encoding=encoding))).tolist() == heard


@pytest.mark.parametrize(("encoding", "codec"), [("s16", 1), ("f32", 3)])
def test_extensible_headers_are_read(save, make_wav, encoding, codec):
    data = {"s16": struct.pack("<2h", 5, -6), "f32": struct.pack("<2f", 5 / 32768, -6 / 32768)}
    guid = struct.pack("<H", codec) + GUID_TAIL
    assert hear(save(make_wav(data[encoding], encoding=encoding, guid=guid))).tolist() == [5, -6]


def test_channels_are_mixed_and_rates_converted(save, make_wav):
    time_s = np.arange(44_100) / 44_100
    left = (8_000 * np.sin(2 * np.pi * 1_000 * time_s)).astype("<i2")
    stereo = np.stack([left, np.zeros_like(left)], axis=1)
    heard = hear(save(make_wav(stereo.tobytes(), n_channels=2, rate_hz=44_100)))
    assert len(heard) == 16_000
    spectrum = np.abs(np.fft.rfft(heard[4_000:12_000])) / 4_000
    assert np.argmax(spectrum) == 500
    assert spectrum[500] == pytest.approx(4_000, rel=1e-3)


def test_other_chunks_are_skipped_with_their_padding(save, make_wav):
    between = b"LIST" + struct.pack("<I", 5) + b"odd!!" + b"\0" + b"fact" + struct.pack("<I", 0)
    after = b"LIST" + struct.pack("<I", 4) + b"INFO"
    name = save(make_wav(RAMP.tobytes(), between=between, after=after))
    np.testing.assert_array_equal(hear(name), RAMP)


@pytest.mark.parametrize("promised", [0, 0xFFFFFFFF])
def test_the_length_of_a_streaming_writer_means_to_the_end(save, make_wav, promised):
    name = save(make_wav(RAMP.tobytes(), data_bytes=promised, riff_bytes=promised))
    np.testing.assert_array_equal(hear(name), RAMP)
    with open_source(SourceSettings(input=name)) as source:
        assert source.duration_s == pytest.approx(3_300 / 16_000)


def test_a_header_that_promises_less_than_there_is_loses_nothing(save, make_wav):
    message = (
        "A WAV must hold only the samples its header promises. Received: 3300 instead of 500 "
        "samples (0.206 instead of 0.031 s) in a.wav. All of them were used; fix its header: "
        "`ffmpeg -ignore_length 1 -i in.wav out.wav`."
    )
    heard = hear_until(save(make_wav(RAMP.tobytes(), data_bytes=1_000)), message)
    np.testing.assert_array_equal(heard, RAMP)
    np.testing.assert_array_equal(hear(save(make_wav(RAMP.tobytes(), data_bytes=0))), RAMP)


@pytest.mark.parametrize(
    "after",
    [
        b"LIST" + struct.pack("<I", 5_000) + b"\xfa" * 5_000,
        b"ID3\3" + b"\xfa" * 5_000,
        bytes(5_000),
        b"\xfa" * 4_096,
    ],
    ids=["chunk", "tag", "zeros", "block"],
)
def test_what_follows_the_samples_without_being_any_is_not_heard(save, make_wav, after):
    np.testing.assert_array_equal(hear(save(make_wav(RAMP.tobytes(), after=after))), RAMP)


def test_a_second_iteration_begins_at_the_start(save, make_wav):
    with open_source(SourceSettings(input=save(make_wav(RAMP.tobytes())))) as source:
        first, second = (np.concatenate(list(source)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_file_longer_than_a_block_is_whole(save, make_wav):
    noise = np.random.default_rng(3).integers(-30_000, 30_000, (50_001, 3)).astype("<i2")
    heard = hear(save(make_wav(noise.tobytes(), n_channels=3)))
    np.testing.assert_array_equal(heard, np.rint(noise.astype(np.float32).mean(axis=1)))


@pytest.mark.parametrize("promised", [6_602, 64_000, 0x7FFFFFFF])
def test_a_header_that_promises_more_than_there_is_loses_nothing(save, make_wav, promised):
    n = promised // 2
    message = (
        f"A WAV must hold all the samples its header promises. Received: 3300 of {n} samples "
        f"(0.206 of {n / 16_000:.3f} s) in a.wav. All of them were used; the file is cut short or "
        f"its header is wrong: copy or record it again."
    )
    heard = hear_until(save(make_wav(RAMP.tobytes(), data_bytes=promised)), message)
    np.testing.assert_array_equal(heard, RAMP)


def test_a_truncated_file_at_another_rate_gives_all_it_holds(save, make_wav):
    whole = make_wav(bytes(2 * 48_000), rate_hz=48_000)
    message = (
        "A WAV must hold all the samples its header promises. Received: 24000 of 48000 samples "
        "(0.500 of 1.000 s) in a.wav. All of them were used; the file is cut short or its header "
        "is wrong: copy or record it again."
    )
    assert len(hear_until(save(whole[:-48_000]), message)) == 8_000


@pytest.mark.parametrize("promised", [0xFFFFFFFF, 6_601])
def test_data_that_ends_within_a_sample_loses_nothing(save, make_wav, promised):
    message = (
        "A WAV must end on a whole sample of 2 bytes. Received: 1 byte(s) after sample 3300 "
        "(0.206 s) in a.wav. All whole ones were used; copy or record it again."
    )
    name = save(make_wav(RAMP.tobytes() + b"x", data_bytes=promised))
    np.testing.assert_array_equal(hear_until(name, message), RAMP)


def test_nan_is_an_error_after_the_samples_before_it(save, make_wav):
    message = (
        "Every sample must be a finite number. Received: nan in a.wav at sample 1 (0.000 s). "
        "Mend or export the recording again."
    )
    name = save(make_wav(struct.pack("<3f", 0.5, np.nan, 0.5), encoding="f32"))
    assert hear_until(name, message).tolist() == [16_384]


def test_a_wav_without_samples_is_an_error(save, make_wav):
    message = "A WAV must hold at least one sample. Received: none in a.wav. Record it again."
    assert len(hear_until(save(make_wav(b"", after=b"")), message)) == 0


def test_an_empty_file_is_refused(save):
    refuse(
        save(b""), "An audio file must hold audio. Received: a.wav, an empty file. Record it again."
    )


def test_a_riff_that_is_no_wave_is_refused(save):
    refuse(
        save(b"RIFF\x04\0\0\0AVI LIST"),
        f"A WAV must begin with RIFF, a length and WAVE. Received: a.wav, which begins with "
        f"b'RIFF\\x04\\x00\\x00\\x00AVI '. {CONVERT}",
    )


def test_a_header_cut_anywhere_is_refused(save, make_wav):
    whole = make_wav(b"")
    for n_bytes in range(4, 44):
        refuse(
            save(whole[:n_bytes]),
            "A WAV must have a whole `fmt ` chunk and then a `data` chunk. Received: a.wav, whose "
            "header lacks them or is cut short. Copy or record it again.",
        )


def test_samples_before_their_format_are_refused(save):
    refuse(
        save(b"RIFF\x10\0\0\0WAVEdata\x04\0\0\0abcd"),
        "A WAV must have a whole `fmt ` chunk and then a `data` chunk. Received: a.wav, whose "
        "header lacks them or is cut short. Copy or record it again.",
    )


@pytest.mark.parametrize(
    ("codec", "shown"),
    [
        (0x02, "Microsoft ADPCM (0x0002)"),
        (0x06, "A-law (0x0006)"),
        (0x07, "mu-law (0x0007)"),
        (0x11, "IMA ADPCM (0x0011)"),
        (0x55, "MP3 (0x0055)"),
        (0x1234, "an unknown codec (0x1234)"),
    ],
)
def test_an_unsupported_codec_is_named(save, make_wav, monkeypatch, codec, shown, no_ffmpeg):
    """Without soundfile, which reads some of them."""
    monkeypatch.setitem(sys.modules, "soundfile", None)
    is_readable = codec in {0x02, 0x06, 0x07, 0x11, 0x31}
    remedy = CONVERT.replace("Convert", "Run `pip install 'kws[files]'`, or convert")
    refuse(
        save(make_wav(b"\0\0", codec=codec)),
        f"A WAV must hold PCM or float samples. Received: a.wav with {shown}. "
        f"{remedy if is_readable else CONVERT}",
    )


def test_an_extensible_header_with_a_foreign_guid_is_refused(save, make_wav):
    refuse(
        save(make_wav(b"\0\0", guid=bytes(16))),
        f"A WAV must hold PCM or float samples. Received: a.wav with an unknown codec (0xfffe). "
        f"{CONVERT}",
    )


@pytest.mark.parametrize(
    ("codec", "n_bits", "rule"),
    [
        (1, 12, "PCM samples must have 8, 16, 24 or 32 bits."),
        (1, 0, "PCM samples must have 8, 16, 24 or 32 bits."),
        (3, 16, "Float samples must have 32 or 64 bits."),
    ],
)
def test_unsupported_widths_are_refused(save, make_wav, codec, n_bits, rule):
    refuse(
        save(make_wav(b"\0\0", codec=codec, n_bits=n_bits)),
        f"{rule} Received: {n_bits} in a.wav. {CONVERT}",
    )


def test_no_channels_are_refused(save, make_wav):
    refuse(
        save(make_wav(b"\0\0", n_channels=0)),
        "A WAV must have at least one channel. Received: 0 in a.wav. Record it again.",
    )


@pytest.mark.parametrize("rate_hz", [0, 4_000_000_000])
def test_absurd_rates_are_refused(save, make_wav, rate_hz):
    refuse(
        save(make_wav(b"\0\0", rate_hz=rate_hz)),
        f"The sample rate must lie in 1000..768000 Hz. Received: {rate_hz} Hz in a.wav. "
        f"Export the recording again.",
    )


def test_a_block_align_that_disagrees_is_refused(save, make_wav):
    refuse(
        save(make_wav(b"\0\0", align=4)),
        "A WAV's block align must be channels times bytes a sample, 2 for 1 channel(s) of 16 "
        "bits. Received: 4 in a.wav. Export it again.",
    )


def test_a_disk_that_fails_is_reported_after_what_it_gave(save, make_wav):
    class Failing:
        def __init__(self, file):
            self.file = file
            self.n_reads = 0

        def read1(self, n):
            self.n_reads += 1
            if self.n_reads > 1:
                raise OSError(5, "Input/output error")
            return self.file.read1(n)

        def __getattr__(self, name):
            return getattr(self.file, name)

    heard = []
    with open_source(SourceSettings(input=save(make_wav(bytes(100_000))))) as source:
        source._file = Failing(source._file)
        message = (
            "a.wav cannot be read: Input/output error. "
            "Check the disk or the connection, and copy the file again."
        )
        with pytest.raises(AudioError, match=f"^{re.escape(message)}$"):
            heard.extend(source)
    assert sum(map(len, heard)) == 65_536 // 2
