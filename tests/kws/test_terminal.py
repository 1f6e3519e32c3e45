import contextlib
import io
import logging
import math
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import wave
from types import SimpleNamespace

import numpy as np
import pytest

from kws.events import Detection
from kws.live_lines import LiveLines
from kws.logs import configure
from kws.spotter import Spotter
from kws.terminal import Meter, bar, level_share, live_meter

LOUD = np.tile(np.array([-8000, 8000], np.int16), 640)
SPOTTER = SimpleNamespace(
    gate_open=True,
    posteriors={"go": 0.25, "stop": 0.9, "no": 0.1, "a very long keyword": 0.5},
    thresholds={"go": 0.6, "stop": 0.5, "no": 0.6, "a very long keyword": 0.7},
)

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
RISES = np.random.default_rng(2).uniform(0, 1, (1100, 10)).tolist()


@pytest.mark.parametrize(("share", "n_full"), [(-1.0, 0), (0.0, 0), (0.5, 6), (1.0, 12), (2.0, 12)])
def test_a_bar_goes_from_empty_to_full(share, n_full):
    assert bar(share, cells=12) == "█" * n_full + "░" * (12 - n_full)
    assert bar(share, cells=12, ascii_only=True) == "#" * n_full + "." * (12 - n_full)


@pytest.mark.parametrize(("mark", "at"), [(-1.0, 0), (0.0, 0), (0.5, 2), (0.99, 3), (1.0, 3)])
def test_a_mark_lies_on_the_bar(mark, at):
    assert bar(0.0, cells=4, mark=mark).index("│") == at
    assert len(bar(1.0, cells=4, mark=mark)) == 4


@pytest.mark.parametrize(
    ("level", "share"), [(-math.inf, 0.0), (-100.0, 0.0), (-60.0, 0.0), (-30.0, 0.5), (0.0, 1.0)]
)
def test_a_level_is_shown_from_minus_60_dbfs_to_0(level, share):
    assert level_share(level) == share


def detection(keyword="stop"):
    return Detection(keyword=keyword, score=0.93, start_s=1.0, end_s=1.5, model="m")


@pytest.fixture
def clock():
    return SimpleNamespace(now_s=0.0)


@pytest.fixture
def meter(clock):
    meter = Meter(lambda: clock.now_s)
    meter.update(LOUD, SPOTTER)
    return meter


def lines(meter, width=60, **options):
    return ["".join(part.text for part in line) for line in meter.lines(width, **options)]


def test_level_gate_posteriors_and_detections_are_shown(meter):
    meter.add_detection(detection())
    assert lines(meter, 50, ascii_only=True) == [
        "level     ####################|.....  -12 dBFS",
        "gate      open",
        "stop      #############|##########.. 0.93 /0.50",
        "a very lo #############.....|....... 0.50 /0.70",
        "go        ######.........|.......... 0.25 /0.60",
        "detected  stop 0.93",
    ]


def test_the_peak_of_the_level_is_held_for_a_while(meter, clock):
    def peak():
        return lines(meter)[0].index("│")

    at_loud = peak()
    clock.now_s = 1.4
    meter.update(LOUD // 100, SPOTTER)
    assert peak() == at_loud
    clock.now_s = 1.6
    meter.update(LOUD // 100, SPOTTER)
    assert peak() < at_loud


def test_a_detection_is_shown_for_ten_seconds(meter, clock):
    meter.add_detection(detection())
    clock.now_s = 9.9
    assert lines(meter)[-1] == "detected  stop 0.93"
    clock.now_s = 10.0
    assert lines(meter)[-1].strip() == "detected"


def test_a_keywords_bar_holds_its_peak_for_two_seconds(meter, clock):
    quiet = SimpleNamespace(
        gate_open=False, posteriors=dict.fromkeys(SPOTTER.posteriors, 0.0), thresholds={}
    )

    def shown():
        return re.findall(r"0\.\d\d(?= )", "\n".join(lines(meter, ascii_only=True)))

    for clock.now_s in (0.1, 1.0, 2.0):
        meter.update(LOUD, quiet)
        assert shown() == ["0.90", "0.50", "0.25"]
    clock.now_s = 2.1
    meter.update(LOUD, quiet)
    assert shown() == ["0.00", "0.00", "0.00"]


def test_a_score_between_two_chunks_is_held_too(meter):
    meter.add_detection(detection())
    assert "0.93 /0.50" in lines(meter)[2]


def test_without_utf8_it_is_ascii(meter):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    screen = LiveLines(stream)
    assert screen.ascii_only
    screen.draw(meter.lines(40, ascii_only=screen.ascii_only))


def test_a_meter_costs_less_than_half_of_what_it_takes_to_listen(monkeypatch):
    """Ten times a second is drawn, and every frame is another one."""
    spotter = Spotter("commands-small", gate=False)
    levels = 30 * 10 ** (np.arange(1000) % 50 / 20)  # another one in each frame
    chunks = np.repeat(levels[:, None], 1600, axis=1).astype(np.int16)
    monkeypatch.setattr(LiveLines, "is_due", True)
    monkeypatch.setattr(Spotter, "posteriors", property(lambda _: next(posteriors)))
    posteriors = iter([dict(zip(KEYWORDS, row, strict=True)) for row in RISES])
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", stream)
    with live_meter() as (update, _):
        for chunk in chunks[:100]:
            update(chunk, spotter)
        shown_s, heard_s = [], []
        for tenth in np.split(chunks, 10):  # other programs disturb some of them
            started_s = time.thread_time()
            for chunk in tenth:
                update(chunk, spotter)
            listens_s = time.thread_time()
            for chunk in tenth:
                spotter.process(chunk)
            shown_s.append(listens_s - started_s)
            heard_s.append(time.thread_time() - listens_s)
    stream.seek(0)
    assert stream.read().count("level") == 1100
    assert float(np.median(shown_s)) <= 0.5 * float(np.median(heard_s))


def test_logs_appear_above_the_meter_and_the_terminal_is_left_clean(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        configure()
        with pytest.raises(OSError, match="it broke"):
            _fail_below_a_meter()
        assert sys.stderr is stream
    written = read_to_end(leader).decode()
    os.close(leader)
    root.handlers[:] = handlers
    root.setLevel(level)
    assert "WARNING: in the way\r\n" in written
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") > 0
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def _fail_below_a_meter():
    with live_meter() as (update, make_way):
        update(LOUD, SPOTTER)
        logging.getLogger("kws").warning("in the way")
        make_way(detection())
        raise OSError("it broke")


def read_to_end(leader):
    """Read all that was written to a terminal that nobody holds open any more."""
    written = b""
    with contextlib.suppress(OSError):  # Linux says so of the end
        while part := os.read(leader, 65_536):
            written += part
    return written


class Terminal:
    """`kws listen --input -` in a terminal of its own, given silence for ever."""

    def __init__(self, model, *options, columns=80, **environment):
        leader, follower = pty.openpty()
        self._leader = leader
        known = {"TERM": "xterm", "COLUMNS": str(columns), "LANG": "C.UTF-8"}
        command = (sys.executable, "-m", "kws", "listen", "--no-vad", "--model", str(model))
        self._process = subprocess.Popen(
            [*command, "--input", "-", *options],
            stdin=subprocess.PIPE,
            stdout=follower,
            stderr=follower,
            env={**os.environ, **known, **environment},
        )
        os.close(follower)

    def run(self, audio, *, end, limit_s=60):
        """Give audio, wait until something is written, interrupt; return all and the exit code."""
        written = b""
        self._process.stdin.write(audio)
        self._process.stdin.flush()
        deadline_s = time.monotonic() + limit_s
        while end not in written and time.monotonic() < deadline_s:
            if select.select([self._leader], [], [], 0.1)[0]:
                written += os.read(self._leader, 65_536)
        self._process.send_signal(signal.SIGINT)
        written += read_to_end(self._leader)
        code = self._process.wait(30)
        self._process.stdin.close()
        os.close(self._leader)
        return written.decode(), code


@pytest.fixture
def audio(recording):
    with wave.open(str(recording)) as file:
        return file.readframes(file.getnframes())


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 80])
def test_in_a_terminal_the_meter_is_shown_and_ctrl_c_leaves_it_clean(model, audio, columns):
    shown, code = Terminal(model, columns=columns).run(audio, end=b"1.81 s")
    assert code == 130
    assert "gate" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "0.53\r\n" in plain
    assert (
        max(len(line.split("\r")[-1]) for line in plain.rstrip("\r\n").split("\n")[1:]) <= columns
    )
    assert "Traceback" not in shown


@pytest.mark.slow
@pytest.mark.parametrize("how", [("--json", "xterm"), ("--no-vad", "dumb")])
def test_with_json_or_in_a_dumb_terminal_lines_are_plain(model, audio, how):
    option, term = how
    shown, code = Terminal(model, option, TERM=term).run(audio, end=b"1.8")
    assert code == 130
    assert "\x1b" not in shown
    assert "gate" not in shown


@pytest.mark.slow
def test_without_colour_the_meter_has_none(model, audio):
    shown, _ = Terminal(model, NO_COLOR="1").run(audio, end=b"detected")
    assert "gate" in shown
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown)
