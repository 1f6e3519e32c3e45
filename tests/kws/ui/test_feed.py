"""What is handed from the audio's thread to the pages: in time, bounded, and nothing unwatched."""

import numpy as np
import pytest

from kws.detector import Posteriors
from kws.events import Detection, End, Peak
from kws.ui.feed import LEVEL_S, LiveFeed, levels_dbfs

BLOCK = 1280  # 80 ms
FIELDS = {"keyword": "yes", "score": 0.9, "start_s": None, "end_s": 1.0, "model": "m"}


def put(feed, n, *, source="mic"):
    """Put the n-th block, with two posteriors."""
    start = n * BLOCK
    feed.put(
        source,
        np.full(BLOCK, 3277, "<i2").tobytes(),
        start_sample=start,
        gate_open=True,
        posteriors=[Posteriors("m", start / 16_000 + at, [at]) for at in (0.02, 0.06)],
    )


def test_levels_are_those_of_20_ms():
    loud = np.full(320, 32_767, np.int16)
    quiet = np.full(320, 3277, np.int16)
    silent = np.zeros(320, np.int16)
    assert levels_dbfs(np.concatenate((loud, quiet, silent, loud[:100]))) == [0.0, -20.0, -90.0]


def test_frames_follow_the_clock_though_blocks_come_unevenly():
    feed = LiveFeed()
    lengths, times, scores, n = [], [], [], 0
    for tick in range(80):  # 4 s of 50 ms; blocks of 80 ms
        while n * 0.08 <= tick * 0.05:
            put(feed, n)
            n += 1
        for frame in feed.take(0.05)[0]:
            lengths.append(len(frame.levels))
            times += [frame.start_s + i * LEVEL_S for i in range(len(frame.levels))]
            scores += [one.end_s for one in frame.posteriors]
    assert len(lengths) >= 78
    assert max(lengths[1:]) <= 4
    assert np.diff(times) == pytest.approx(LEVEL_S)
    assert scores == sorted(scores)
    assert times[-1] == pytest.approx(4.0, abs=0.2)


def test_what_no_page_takes_is_bounded():
    feed = LiveFeed()
    for n in range(10_000):
        put(feed, n)
        feed.send(Peak(**FIELDS, peak=0.9))
        feed.send(Detection(**FIELDS))
    queued = feed._sources["mic"]
    assert len(queued.levels) <= 250
    assert len(queued.posteriors) <= 500
    assert feed.take(0.05)[1] == []  # nobody watched
    assert len(feed.recent()) == 50


def test_after_a_wait_the_newest_audio_is_shown():
    feed = LiveFeed()
    for n in range(100):
        put(feed, n)
    feed.take(0.05)
    for n in range(100, 200):
        put(feed, n)
    (frame,), _ = feed.take(0.05)
    assert frame.start_s + len(frame.levels) * LEVEL_S == pytest.approx(16.0, abs=0.2)


def test_a_source_that_begins_anew_begins_anew_on_the_page():
    feed = LiveFeed()
    put(feed, 1000)
    put(feed, 0)
    (frame,), _ = [feed.take(0.05), feed.take(0.1)][1]
    assert frame.start_s < 0.1


def test_events_go_to_pages_that_are_open_and_the_last_ones_to_later_pages():
    feed = LiveFeed()
    feed.send(Detection(**FIELDS))
    feed.is_watched = True
    feed.send(Peak(**FIELDS, peak=0.95))
    feed.send(End(audio_s=1.0, detections=1, cpu_s=0.1))
    assert [type(one.event) for one in feed.take(0.05)[1]] == [Peak]
    assert [type(one.event) for one in feed.recent()] == [Detection]


def test_a_tap_gets_the_audio_of_its_source_and_keeps_five_seconds():
    feed = LiveFeed()
    tap = feed.tap("mic")
    feed.put_audio("mic", b"ab")
    feed.put_audio("other", b"xx")
    assert tap.take() == b"ab"
    assert tap.take() == b""
    for _ in range(100):
        feed.put_audio("mic", bytes(3200))
    assert len(tap.take()) == 160_000
    feed.untap(tap)
    feed.put_audio("mic", b"ab")
    assert tap.take() == b""
