"""Scores as tables in a terminal of 100 columns."""

import math

from kws_train.evaluate.clips import ClipScores, Reliability
from kws_train.evaluate.det import OperatingPoint
from kws_train.evaluate.groups import GroupScores
from kws_train.evaluate.stream import ConditionScores, StreamScores
from kws_train.evaluate.tables import clip_table, stream_table


def point(budget=0.5, **changes):
    known = {
        "fa_per_hour": 123.45,
        "fa_low": 100.12,
        "fa_high": 150.34,
        "threshold": 0.999,
        "miss_rate": 1.0,
        "miss_low": 0.987,
        "miss_high": 1.0,
    }
    return OperatingPoint(budget=budget, **known | changes)


def groups(value):
    return [
        GroupScores(
            by="keyword",
            value=value,
            threshold=threshold,
            miss_rate=1.0,
            miss_low=0.987,
            miss_high=1.0,
            fa_per_hour=123.45,
            fa_low=100.12,
            fa_high=150.34,
        )
        for threshold in (0.5, 0.873)
    ]


SCORES = StreamScores(
    hours=123.4,
    n_words=12_345,
    keywords=["stop"],
    points=[point(), point(None)],
    gated_points=[point()],
    speech_points=[point(speech_fa_per_hour=12.3, speech_fa_low=1.0, speech_fa_high=100.0)],
    calibrated=[point(threshold=math.nan)],
    miss_rate_per_keyword={"stop": 1.0},
    latency_ms={"p50": 1234.0, "p95": 12_345.0},
    gate_kept=1.0,
    n_false_on_words=123_456,
    conditions=[
        ConditionScores(
            name="-10 dB", hours=1.0, n_words=9, points=[point()], gated_points=[], speech_points=[]
        )
    ],
    groups=[
        *groups("turn the lights in the living room on"),
        *groups("stop"),
        GroupScores(by="sex of the background", value="female", threshold=0.5),
    ],
)


def test_a_stream_fits_100_columns():
    lines = stream_table(SCORES).splitlines()
    assert max(map(len, lines)) <= 100


def test_a_group_has_a_table_for_each_threshold():
    lines = stream_table(SCORES).splitlines()
    titles = [line for line in lines if line.startswith("by ")]
    assert [title.split("  ")[0] for title in titles] == [
        "by keyword, at 0.500",
        "by keyword, at 0.873",
        "by sex of the background, at 0.500",
    ]
    row = lines[lines.index(titles[1]) + 2]
    assert row.split() == ["stop", "100.0%", "[98.7%,", "100.0%]", "123.45", "[100.12,", "150.34]"]
    assert lines[lines.index(titles[2]) + 1].split() == ["female", "-", "-"]


def test_a_budget_that_no_threshold_keeps_is_marked():
    marked = [line for line in stream_table(SCORES).splitlines() if line.endswith("  not reached")]
    assert len(marked) == 3
    assert all(line.split()[0] == "0.5" for line in marked)


def test_confusions_of_many_labels_are_wrapped():
    labels = [f"label {i}" for i in range(30)]
    scores = ClipScores(
        accuracy=0.5,
        n=30,
        labels=labels,
        confusion=[[100] * 30 for _ in labels],
        model_bytes=1,
        recall=dict.fromkeys(labels, 1 / 30),
        unreadable=[],
        reliability=Reliability(expected_error=0.1, bins=[]),
    )
    lines = clip_table(scores).splitlines()
    assert max(map(len, lines)) <= 100
    first = lines[1]
    assert first.startswith("     label 0    3.33%   3000   label 9 100, ")
    assert lines[2].startswith(" " * 31 + "label ")
