import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kws.daemon.backlog import AudioBlock, Backlog


def taken(backlog):
    blocks = []
    while (block := backlog.take()) is not None:
        blocks.append(block)
    return blocks


def test_pieces_come_out_as_they_went_in():
    backlog = Backlog(1.0)
    assert backlog.take() is None
    backlog.append(b"aabb")
    backlog.append(b"cc")
    assert backlog.waiting_s == 3 / 16_000
    assert taken(backlog) == [AudioBlock(0, b"aabb", False), AudioBlock(2, b"cc", False)]
    assert (backlog.waiting_s, backlog.is_empty) == (0, True)


def test_a_gap_is_told_in_its_place():
    backlog = Backlog(1.0)
    backlog.append(b"aab")  # half a sample that nothing will complete
    backlog.mark_gap()
    backlog.append(b"cc")
    assert taken(backlog) == [
        AudioBlock(0, b"aa", False),
        AudioBlock(1, b"", True),
        AudioBlock(1, b"cc", False),
    ]


def test_when_it_is_full_the_older_half_goes_and_leaves_a_gap():
    backlog = Backlog(1.0)
    quarter = bytes(2 * 3_900)
    assert [backlog.append(quarter) for _ in range(6)] == [0, 0, 0, 0, 3 * 3_900, 0]
    assert (backlog.n_received, backlog.n_dropped) == (6 * 3_900, 3 * 3_900)
    assert [(block.start_sample, block.is_after_gap) for block in taken(backlog)] == [
        (3 * 3_900, True),
        (4 * 3_900, False),
        (5 * 3_900, False),
    ]
    backlog.append(b"aa")
    assert taken(backlog) == [AudioBlock(6 * 3_900, b"aa", False)]


def test_a_file_is_never_dropped():
    backlog = Backlog(1.0, drops=False)
    for _ in range(4):
        backlog.append(bytes(16_000))
    assert (backlog.n_dropped, backlog.is_full, len(taken(backlog))) == (0, True, 4)


def test_a_flood_of_tiny_pieces_is_bounded_too():
    backlog = Backlog(1.0)
    for _ in range(10_000):
        backlog.append(b"aa")
    assert len(taken(backlog)) < 16_000 / 64


@given(cuts=st.lists(st.integers(0, 400), max_size=30), drop_at=st.integers(0, 30))
def test_samples_are_whole_and_every_one_is_accounted_for(cuts, drop_at):
    audio = np.arange(200, dtype="<i2").tobytes()
    edges = sorted({0, *cuts, len(audio)})
    backlog = Backlog(1.0)
    for start, end in itertools.pairwise(edges):
        backlog.append(audio[start:end])
    blocks = taken(backlog)
    assert b"".join(block.audio for block in blocks) == audio
    for block in blocks:
        first = np.frombuffer(block.audio, "<i2")[0]
        assert block.start_sample == first
