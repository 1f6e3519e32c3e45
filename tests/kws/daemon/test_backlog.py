import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kws.daemon.backlog import Backlog, Piece


def taken(backlog):
    pieces = []
    while (piece := backlog.take()) is not None:
        pieces.append(piece)
    return pieces


def test_pieces_come_out_as_they_went_in():
    backlog = Backlog(1.0)
    assert backlog.take() is None
    backlog.append(b"aabb")
    backlog.append(b"cc")
    assert backlog.waiting_s == 3 / 16_000
    assert taken(backlog) == [Piece(0, b"aabb", False), Piece(2, b"cc", False)]
    assert (backlog.waiting_s, backlog.is_empty) == (0, True)


def test_a_gap_is_told_in_its_place():
    backlog = Backlog(1.0)
    backlog.append(b"aab")  # half a sample that nothing will complete
    backlog.gap()
    backlog.append(b"cc")
    assert taken(backlog) == [
        Piece(0, b"aa", False),
        Piece(1, b"", True),
        Piece(1, b"cc", False),
    ]


def test_when_it_is_full_the_older_half_goes_and_leaves_a_gap():
    backlog = Backlog(1.0)
    quarter = bytes(2 * 3_900)
    assert [backlog.append(quarter) for _ in range(6)] == [0, 0, 0, 0, 3 * 3_900, 0]
    assert (backlog.n_received, backlog.n_dropped) == (6 * 3_900, 3 * 3_900)
    assert [(piece.start_sample, piece.is_after_gap) for piece in taken(backlog)] == [
        (3 * 3_900, True),
        (4 * 3_900, False),
        (5 * 3_900, False),
    ]
    backlog.append(b"aa")
    assert taken(backlog) == [Piece(6 * 3_900, b"aa", False)]


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
    pieces = taken(backlog)
    assert b"".join(piece.audio for piece in pieces) == audio
    for piece in pieces:
        first = np.frombuffer(piece.audio, "<i2")[0]
        assert piece.start_sample == first
