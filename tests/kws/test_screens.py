"""What a person sees of each live display, read back from screens of three sizes."""

import re
import wave

import numpy as np
import pytest
from screen import ABOVE, SIZES, Screen

from kws.commands.demo import load_demo
from kws.commands.record import write_take
from kws.spotter import Spotter

RATE = 16_000
CHUNK = 2 * 1280
SEES = pytest.mark.parametrize(
    "size",
    [SIZES[0], *(pytest.param(size, marks=pytest.mark.slow) for size in SIZES[1:])],
    ids=[f"{columns}x{lines}" for columns, lines in SIZES],
)
METER = re.compile(r"level|gate|detected|[a-z]+ +[█░│]+")


@pytest.fixture(scope="module")
def demo():
    """The first twenty seconds of the demonstration, which hold some detections."""
    with wave.open(str(load_demo()[1])) as file:
        return file.readframes(20 * RATE)


@pytest.fixture(scope="module")
def words(demo):
    """What is detected in it."""
    found = [detection.keyword for detection in Spotter(threshold=0.5).listen(demo)]
    assert len(found) >= 3
    return found


@pytest.fixture(scope="module")
def long_name(tmp_path_factory, demo):
    """The same in a file whose path is wider than a terminal."""
    folder = tmp_path_factory.mktemp("a-folder-with-a-name-" + 5 * "that-does-not-end-")
    return write_take(folder, np.frombuffer(demo, "<i2"), speaker="somebody")


def chunks(audio):
    return [audio[at : at + CHUNK] for at in range(0, len(audio), CHUNK)]


def shown_at_end(screen, *inputs, **options):
    seen = list(screen.run(*inputs, **options))
    assert screen.code == 0, seen[-1]
    assert screen.is_cursor_shown
    return seen, seen[-1]


def detections(rows):
    return [row.split()[-2:] for row in rows if re.fullmatch(r"[ \d.-]+ s  \w+ +0\.\d\d", row)]


@SEES
def test_the_meter_stands_below_the_detections_and_erases_none(size, demo, words):
    screen = Screen(
        ["listen", "--input", "-", "--threshold", "0.5"], columns=size[0], lines=size[1]
    )
    seen, end = shown_at_end(screen, chunks(demo), pause_s=0.01)
    with_meter = [rows for rows in seen if any(row.startswith("gate") for row in rows)]
    assert with_meter
    for rows in seen:
        assert rows[:2] == ABOVE
        first = next((i for i, row in enumerate(rows) if METER.match(row)), len(rows))
        assert all(METER.match(row) for row in rows[first:]) or "audio" in rows[-1]
    assert [word for word, _ in detections(end)] == words
    assert not any(METER.match(row) for row in end)
    assert f"{len(words)} detections" in "".join(end[-2:])


@SEES
def test_detections_of_a_file_stand_above_its_progress(size, long_name, words):
    screen = Screen(
        ["listen", str(long_name), "--threshold", "0.5"], columns=size[0], lines=size[1]
    )
    seen, end = shown_at_end(screen)
    assert all(rows[:2] == ABOVE for rows in seen)
    assert [word for word, _ in detections(end)] == words
    assert not any("left" in row for row in end)
    assert len(end) - len(words) in {3, 4}  # the lines above and the summary: nothing else


@SEES
def test_the_levels_of_recording_are_one_line(size, tmp_path, demo):
    screen = Screen(
        ["record", "stop", "--out", str(tmp_path), "--input", "-", "--takes", "2"],
        columns=size[0],
        lines=size[1],
    )
    audio = demo[2 * RATE * 2 :]
    seen, end = shown_at_end(screen, chunks(audio), pause_s=0.005)
    assert any("dBFS" in rows[-1] and "█" in rows[-1] for rows in seen)
    for rows in seen:
        assert rows[:2] == ABOVE
        assert sum("█" in row or "░" in row for row in rows) <= 1
    assert any(row.startswith("Take 2 of 2") or "Not kept" in row for row in end)
    assert not any("░" in row for row in end)


@SEES
def test_a_calibration_shows_its_progress(size, long_name):
    screen = Screen(
        ["calibrate", "commands", "-", "--minutes", "0.3"], columns=size[0], lines=size[1]
    )
    noise = np.random.default_rng(1).normal(0, 300, 20 * RATE).astype("<i2").tobytes()
    seen, end = shown_at_end(screen, chunks(noise), pause_s=0.005)
    assert any("left" in rows[-1] for rows in seen)
    assert all(rows[:2] == ABOVE for rows in seen)
    assert not any("left" in row.split() and "%" in row for row in end)
    assert "[decision.thresholds]" in end


def test_a_terminal_that_becomes_narrower_keeps_the_lines_above():
    from kws.live_lines import LiveLines, Part

    class Terminal:
        encoding = "utf-8"

        def __init__(self):
            self.text = ""

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    terminal = Terminal()
    live = LiveLines(terminal)
    live.draw([[Part("x" * 79)], [Part("y" * 30)]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "40")
        terminal.text = ""
        live.clear()
    assert terminal.text == "\r\x1b[2A\x1b[J\x1b[?25h"


def test_names_of_two_cells_a_letter_and_long_ones_fit():
    from rich.cells import cell_len

    from kws.terminal import progress_line

    for width in (20, 30, 59, 79):
        for name in ("/a/b/" + "x" * 200, "録音" * 50, "short.wav"):
            line = "".join(part.text for part in progress_line(name, 0.5, 61.0, width))
            assert cell_len(line) <= max(width, 24)
            assert "50 %  1:01 left" in line
