import wave

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws.audio import Converter
from kws.commands.demo import load_demo
from kws.config import SourceSettings
from kws.sources import open_source
from kws.spotter import Spotter

RATE = 16_000


def noise(seconds, *, rms=1000.0, seed=1):
    return np.random.default_rng(seed).normal(0, rms, int(seconds * RATE)).astype(np.float32)


def converted(channels, *, channel=None, n=777):
    frames = np.stack(channels, axis=1)
    blocks = [frames[at : at + n] for at in range(0, len(frames), n)]
    return np.concatenate(list(Converter(RATE, name="it", channel=channel).stream(blocks)))


def warnings(channels, caplog, **options):
    caplog.clear()
    converted(channels, **options)
    return caplog.messages


REMEDY = 'Set `channel = {0}`, or `channel = "loudest"`, in [source].'


def test_channels_that_cancel_are_told_once(caplog):
    left = noise(3)
    assert warnings([left, -left], caplog) == [
        "it: the mean of its channels is 99 dB below channel 0: channels cancel one another, "
        "or are mute. " + REMEDY.format(0)
    ]


def test_a_mute_channel_among_two_costs_little_and_is_not_told(caplog):
    assert warnings([0 * noise(3), noise(3)], caplog) == []
    assert warnings([noise(3), noise(3, seed=2)], caplog) == []


def test_seven_mute_channels_of_eight_are_told(caplog):
    mute = [0 * noise(3)] * 5
    (told,) = warnings([*mute, noise(3), *mute[:2]], caplog)
    assert "the mean of its channels is 18 dB below channel 5" in told
    assert told.endswith(REMEDY.format(5))


def test_a_mute_channel_that_is_chosen_is_told(caplog):
    (told,) = warnings([0 * noise(3), noise(3)], caplog, channel=0)
    assert "it: channel 0 is 99 dB below channel 1" in told
    assert warnings([0 * noise(3), noise(3)], caplog, channel=1) == []
    assert warnings([0 * noise(3), noise(3)], caplog, channel="loudest") == []


def test_what_is_quiet_or_short_proves_nothing(caplog):
    quiet = noise(3, rms=10.0)
    assert warnings([quiet, -quiet], caplog) == []
    short = noise(0.15)
    assert warnings([short, -short], caplog) == []
    word = np.concatenate((np.zeros(RATE, np.float32), noise(0.4), np.zeros(RATE, np.float32)))
    assert len(warnings([word, -word], caplog)) == 1


def test_the_loudest_channel_is_used_from_a_tenth_of_a_second_on():
    loud = noise(2)
    heard = converted([0 * loud, loud, loud / 10], channel="loudest")
    assert not heard[:1600].any()
    np.testing.assert_array_equal(heard[1600:], np.rint(loud[1600:]))


def test_the_loudest_is_changed_for_one_that_is_much_louder_only():
    first = np.concatenate((noise(3), 0 * noise(3)))
    second = np.concatenate((noise(3, rms=1500.0, seed=2), noise(3, rms=1500.0, seed=3)))
    heard = converted([first, second], channel="loudest")
    np.testing.assert_array_equal(heard[: 3 * RATE], np.rint(first[: 3 * RATE]))
    np.testing.assert_array_equal(heard[5 * RATE :], np.rint(second[5 * RATE :]))


@given(st.integers(1, 5_000))
def test_the_loudest_channel_does_not_depend_on_blocks(n):
    first = np.concatenate((noise(1), 0 * noise(1)))
    second = np.concatenate((0 * noise(1), noise(1, seed=2)))
    whole = converted([first, second], channel="loudest", n=10**6)
    np.testing.assert_array_equal(converted([first, second], channel="loudest", n=n), whole)


@pytest.mark.parametrize(
    ("channel", "keywords"), [(None, []), (0, ["down"]), ("loudest", ["down"])]
)
def test_a_word_on_channels_that_cancel_is_detected_on_one(tmp_path, channel, keywords, caplog):
    with wave.open(str(load_demo()[1])) as file:
        left = np.frombuffer(file.readframes(5 * RATE), "<i2")
    path = tmp_path / "inverted.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, RATE, 0, "NONE", ""))
        file.writeframes(np.stack([left, -left], axis=1).tobytes())
    settings = SourceSettings(input=str(path), channel=channel)
    assert [one.keyword for one in Spotter().listen(settings)] == keywords
    assert len(caplog.messages) == (channel is None)


def test_a_source_takes_the_loudest_of_the_channels_it_has(tmp_path):
    stereo = np.stack([np.zeros(RATE), noise(1)], axis=1).astype("<i2")
    path = tmp_path / "stereo.raw"
    path.write_bytes(stereo.tobytes())
    settings = SourceSettings(command=["cat", str(path)], n_channels=2, channel="loudest")
    with open_source(settings) as source:
        heard = np.concatenate(list(source))
    np.testing.assert_array_equal(heard[1600:], stereo[1600:, 1])
