import io

import pytest
from rich.console import Console

from kws.daemon.snapshot import DetectionCount, LogLine, RecordingState, Snapshot, SourceState
from kws.daemon.status_view import duration, status_tables

STATE = Snapshot(
    version="1.2",
    pid=7,
    time_s=100.0,
    uptime_s=90_061.0,
    cpu_s=900.61,
    rss_mb=40.4,
    models=["a model"],
    sources=[
        SourceState(
            name="[red]mic", state="listening", since_s=50.0, level_dbfs=-30.0, n_overruns=1234
        ),
        SourceState(name="door", state="stalled", since_s=50.0, level_dbfs=-30.0, gate_open=False),
    ],
    detections=[
        DetectionCount(keyword="go", model="m", source="door", n=1),
        DetectionCount(keyword="stop", model="m", source="door", n=3),
    ],
    hooks={"ok": 4, "timed_out": 1, "failed": 0},
    recording=RecordingState(n_clips=6, n_failed=1),
    last_errors=[LogLine(time_s=40.0, level="error", logger="kws", message="[bold]it broke", n=5)],
)

NOTHING = Snapshot(
    version="1", pid=1, time_s=0.0, uptime_s=0.0, cpu_s=0.0, rss_mb=0.0, sources=[], models=[]
)


def shown(width=100, state=STATE, **options):
    console = Console(file=io.StringIO(), width=width)
    console.print(status_tables(state, **options))
    return console.file.getvalue()


def test_all_of_a_snapshot_is_shown():
    text = shown()
    for part in (
        "kws 1.2, process 7, up 1 d 1 h, CPU 1.0 %, memory 40 MB, model a model",
        "[red]mic",
        "██████░░░░░░ -30",
        "[red]mic: audio was lost on its way to the daemon; overruns: 1234",
        "Hooks: 4 ok, 1 timed out",
        "Recording: 6 clips, 1 failed",
        "[bold]it broke",
        "1 min ago",
    ):
        assert part in text
    assert text.index("stop ") < text.index("go ")
    assert text.count("overruns") == 1
    assert text.count("-30") == 1  # a source that is stalled has no level


@pytest.mark.parametrize("width", [20, 40, 80])
def test_no_line_is_longer_than_the_terminal(width):
    assert max(map(len, shown(width).splitlines())) <= width


def test_without_utf8_it_is_ascii():
    assert shown(ascii_only=True).isascii()


def test_a_daemon_that_heard_nothing_has_no_empty_tables():
    text = shown(state=NOTHING)
    assert "Detections" not in text
    assert "Hooks" not in text
    assert "errors" not in text


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3725, "1 h 2 min"),
        (86_400 + 5, "1 d"),
        (-1, "0 s"),
    ],
)
def test_a_duration_is_shown_in_its_two_largest_units(seconds, expected):
    assert duration(seconds) == expected
