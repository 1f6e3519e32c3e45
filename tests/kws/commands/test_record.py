import os
import stat
import wave

import numpy as np
import pytest

from kws.commands.record import (
    TakeCutter,
    check_take,
    level_meter,
    loudest_dbfs,
    record,
    write_take,
)
from kws.config import SourceSettings
from kws.errors import ConfigError, DeviceError
from kws.sources import open_source
from kws.sources.silence import CHECK_MUTED

RATE = 16_000


@pytest.fixture(scope="module")
def speech():
    """A word of the demo, loud and whole."""
    from kws.commands.demo import load_demo

    labels, path = load_demo()
    word = labels.words[0]
    with open_source(SourceSettings(input=str(path))) as source:
        samples = np.concatenate(list(source))
    return samples[round(word.start_s * RATE) : round(word.end_s * RATE)]


@pytest.fixture
def room():
    return np.random.default_rng(1).normal(0, 3, 4 * RATE).astype(np.int16)


def stream_of(words, room):
    return np.concatenate([part for word in words for part in (room[: 2 * RATE], word)] + [room])


def cut(samples, size=1280):
    cutter = TakeCutter()
    found = [t for i in range(0, len(samples), size) for t in cutter.process(samples[i : i + size])]
    return found + cutter.flush()


def test_each_word_is_a_take_with_silence_around_it(speech, room):
    takes = cut(stream_of([speech, speech], room))
    assert [take.problem for take in takes] == ["", ""]
    assert all(len(speech) < len(take.samples) < len(speech) + 1.5 * RATE for take in takes)


def test_takes_do_not_depend_on_chunk_size(speech, room):
    stream = stream_of([speech, speech], room)
    for one, other in zip(cut(stream, 1280), cut(stream, 777), strict=True):
        assert np.array_equal(one.samples, other.samples)


def test_a_word_at_the_very_start_or_end_is_cut_off(speech, room):
    voiced = speech[len(speech) // 3 :]
    assert cut(np.concatenate((voiced, room)))[0].problem.startswith("cut off")
    assert cut(np.concatenate((room, speech[: len(speech) // 2])))[-1].problem.startswith("cut")


def test_talking_on_is_refused_for_its_length(speech, room):
    talk = np.concatenate([speech] * (1 + 4 * RATE // len(speech)))
    assert cut(stream_of([talk], room))[0].problem.startswith("longer than 3 s")


def test_clipped_quiet_and_empty_takes_are_named(speech):
    loud = np.clip(speech.astype(np.int32) * 40, -32768, 32767).astype(np.int16)
    assert check_take(loud).startswith("clipped")
    assert check_take((speech // 1000).astype(np.int16)).startswith("too quiet")
    assert check_take(np.zeros(RATE, np.int16)).startswith("empty")
    assert check_take(np.zeros(0, np.int16)).startswith("empty")
    assert check_take(speech) == ""


def test_level_of_full_scale_is_zero_db():
    assert loudest_dbfs(np.full(RATE, -32768, np.int16)) == pytest.approx(0)
    line = level_meter(np.full(RATE, -32768, np.int16), speaking=True, width=59, ascii_only=True)
    assert [part.text for part in line] == ["#" * 30, "    0 dBFS speech"]


def test_files_are_never_overwritten(tmp_path, speech):
    first = write_take(tmp_path, speech, speaker="me")
    second = write_take(tmp_path, speech, speaker="me")
    first.unlink()
    third = write_take(tmp_path, speech, speaker="me")
    assert [second.name, third.name] == ["me_nohash_1.wav", "me_nohash_2.wav"]
    with wave.open(str(third)) as audio:
        assert (audio.getframerate(), audio.getnframes()) == (RATE, len(speech))


def test_recording_goes_on_where_it_stopped(tmp_path, speech, room):
    recording = tmp_path / "long.wav"
    with wave.open(str(recording), "wb") as audio:
        audio.setparams((1, 2, RATE, 0, "NONE", ""))
        audio.writeframes(stream_of([speech] * 2, room).tobytes())
    said = []
    for n_takes, n_written in ((2, 2), (3, 1), (3, 0)):
        with open_source(SourceSettings(input=str(recording))) as source:
            written = record(source, "stop", tmp_path, n_takes=n_takes, say=said.append)
        assert len(written) == n_written
    assert len(list((tmp_path / "stop").glob("me_nohash_*.wav"))) == 3
    assert any("3 takes of me exist in" in line for line in said)


def test_a_microphone_that_gives_digital_silence_is_refused(tmp_path, monkeypatch):
    class Muted:
        name = "microphone"
        duration_s = None

        def __iter__(self):
            return iter(np.zeros((100, 1280), np.int16))

    with pytest.raises(DeviceError) as refused:
        record(Muted(), "stop", tmp_path, n_takes=1, say=print)
    assert str(refused.value) == (
        "A microphone must give sound. Received: only digital silence for 5 s from microphone. "
        f"{CHECK_MUTED}."
    )


def test_a_word_that_is_no_file_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"Received: '\.\./up'\. Write it without slashes"):
        record(None, "../up", tmp_path, n_takes=1, say=print)


def test_a_take_is_for_its_owner_alone(tmp_path, speech):
    mask = os.umask(0)
    try:
        path = write_take(tmp_path, speech, speaker="me")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
