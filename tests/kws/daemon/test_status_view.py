import io

import msgspec
import pytest
from rich.console import Console

from kws.daemon.snapshot import (
    DetectionCount,
    LogLine,
    MqttState,
    RecordingState,
    Snapshot,
    SourceState,
)
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
        SourceState(
            name="door",
            state="stalled",
            since_s=50.0,
            level_dbfs=-30.0,
            gate_open=False,
            n_reopened=2,
            dropped_s=1.5,
            muted_by=["a hook", "the switch"],
        ),
    ],
    detections=[
        DetectionCount(keyword="go", model="m", source="door", n=1),
        DetectionCount(keyword="stop", model="m", source="door", n=3),
    ],
    hooks={"ok": 4, "timed_out": 1, "failed": 0},
    recording=RecordingState(n_clips=6, n_failed=1),
    mqtt=MqttState(broker="b:1883", connected=False, n_sent=7, n_queued=2, n_dropped=1),
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
        "kws 1.2, process 7, up 1 d 1 h, CPU 1.0 %, memory 40 MB\nmodel a model\n",
        "[red]mic  listening",
        "██░░░ -30",
        "\n[red]mic: 1234 overruns\n",
        "\ndoor: reopened 2 times, 1.5 s dropped\n",
        "\ndoor: muted by a hook, the switch\n",
        "\nhooks: 4 ok, 1 timed out; recording: 6 clips, 1 failed\n",
        "\nMQTT: no connection to b:1883, 7 sent, 2 waiting, 1 dropped\n",
        "[bold]it broke",
        "1 m ago",
    ):
        assert part in text
    assert text.index("stop ") < text.index("go ")
    assert text.count("overruns") == 1
    assert text.count("-30") == 1  # a source that is stalled has no level


@pytest.mark.parametrize("width", [20, 40, 80])
def test_no_line_is_longer_than_the_terminal(width):
    assert max(map(len, shown(width).splitlines())) <= width


BUSY = Snapshot(
    version="0.1.0",
    pid=123_456,
    time_s=1e6,
    uptime_s=33 * 86_400.0,
    cpu_s=2e5,
    rss_mb=123.4,
    models=["computer", "hey_computer", "commands", "front_door", "living_room", "shut_down"],
    sources=[
        SourceState(
            name=f"udp://192.168.100.20:5001{i}",
            state="listening",
            since_s=1e6 - 23 * 3600 - 59 * 60,
            level_dbfs=-100.0,
            gate_open=False,
            audio_s=23 * 3600 + 59 * 60,
            n_reopened=11 * (i == 1),
            dropped_s=98.7 * (i == 1),
            n_overruns=1234 * (i == 1),
        )
        for i in range(4)
    ],
    detections=[
        DetectionCount(
            keyword=f"keyword {i}",
            model=f"model_{i}",
            source=f"udp://192.168.100.20:5001{i % 4}",
            n=1000 + i,
        )
        for i in range(24)
    ],
    hooks={"ok": 40, "timed_out": 1, "failed": 3},
    recording=RecordingState(n_clips=600, n_failed=1),
    last_errors=[
        LogLine(time_s=9e5 + i, level="error", logger="kws", message=f"No audio from mic {i}", n=99)
        for i in range(20)
    ],
)


def test_a_busy_daemon_fits_a_terminal_of_80_by_24():
    lines = shown(80, BUSY).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for source in BUSY.sources:
        assert f"{source.name}  listening  23 h 59 m  ░░░░░ -100  closed  23 h 59 m" in text
    assert "udp://192.168.100.20:50013  model_23  1023" in text
    assert "20190 detections in 20 more rows: see --json" in text
    assert text.rstrip().endswith("No audio from mic 19")


def test_long_names_are_folded_and_none_is_lost():
    name = "arecord -D plughw:CARD=C920,DEV=0 -r 16000 -f S16_LE -c 1 -t raw"
    sources = [SourceState(name=name, state="listening", since_s=0.0, level_dbfs=-30.0)]
    lines = shown(80, msgspec.structs.replace(NOTHING, sources=sources)).splitlines()
    column = "".join(line[: lines[3].index("state")] for line in lines[4:])
    assert name.replace(" ", "") in column.replace(" ", "")
    counts = [DetectionCount(keyword="go", model="m", source=name, n=1)]
    state = msgspec.structs.replace(NOTHING, sources=sources, detections=counts)
    assert "go       arecord -D p…E -c 1 -t raw  m      1" in shown(80, state)


def test_without_utf8_it_is_ascii():
    assert shown(ascii_only=True).isascii()
    assert shown(80, BUSY, ascii_only=True).isascii()


def test_a_daemon_that_heard_nothing_has_no_empty_tables():
    text = shown(state=NOTHING)
    assert "count" not in text
    assert "hooks" not in text
    assert "errors" not in text


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 m"),
        (3725, "1 h 2 m"),
        (86_400 + 5, "1 d"),
        (-1, "0 s"),
    ],
)
def test_a_duration_is_shown_in_its_two_largest_units(seconds, expected):
    assert duration(seconds) == expected
