from datetime import UTC, datetime

import numpy as np
import pytest

from kws.events import Detection, Peak
from kws.sinks.clip_buffer import AudioBuffer, PendingClip

RAMP = np.arange(1_000, dtype="<i2")
TIME = datetime(2026, 1, 2, tzinfo=UTC)
STOP = Detection(keyword="stop", score=0.9, start_s=0.1, end_s=0.2, model="m", source="s")


def filled(buffer, *, start=0, step=40):
    for at in range(start, len(RAMP), step):
        buffer.append(RAMP[at : at + step].tobytes())
        buffer.trim()
    return buffer


def cut(buffer, first, last):
    clip = buffer.cut(PendingClip(STOP, TIME, first, last))
    return clip.start_sample, np.frombuffer(clip.audio, "<i2").tolist()


def test_the_last_audio_is_kept_and_its_samples_keep_their_numbers():
    buffer = filled(AudioBuffer(100))
    assert buffer.end_sample == 1_000
    assert cut(buffer, 950, 990) == (950, list(range(950, 990)))
    assert cut(buffer, 0, 905) == (900, list(range(900, 905)))
    assert cut(buffer, 990, 2_000) == (990, list(range(990, 1_000)))


@pytest.mark.parametrize(("first", "last"), [(0, 100), (500, 400)])
def test_a_part_that_is_gone_is_empty(first, last):
    assert cut(filled(AudioBuffer(100)), first, last)[1] == []


def test_after_a_gap_samples_are_numbered_from_the_given_one():
    buffer = filled(AudioBuffer(100))
    buffer.restart(5_000)
    assert buffer.end_sample == 5_000
    buffer.append(RAMP[:10].tobytes())
    assert cut(buffer, 5_002, 5_004) == (5_002, [2, 3])
    assert cut(buffer, 950, 990)[1] == []


def test_a_peak_goes_to_the_clip_of_its_own_detection():
    buffer = AudioBuffer(100)
    other = Detection(keyword="go", score=0.9, start_s=0.1, end_s=0.2, model="m", source="s")
    buffer.pending = [PendingClip(one, TIME, 0, 10) for one in (other, STOP)]
    buffer.add_peak(Peak(**STOP.fields(), peak=0.97))
    assert [one.peak for one in buffer.pending] == [None, 0.97]
