"""Work done beforehand in another process: the same results, and no process that stays behind."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kws.errors import FormatError, KwsError
from kws.train.ahead import Ahead

KEEPS_WORKING = """
import multiprocessing, time
from kws.train.ahead import Ahead
with Ahead(lambda number: number):
    print(multiprocessing.active_children()[0].pid, flush=True)
    time.sleep(60)
"""


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(condition, *, within_s=10.0):
    end = time.monotonic() + within_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_results_are_those_of_the_function_in_any_order():
    with Ahead(lambda number: number * number, n_ahead=3) as squares:
        assert [squares[i] for i in (0, 1, 2, 3, 0, 1, 40, 41, 5)] == [
            i * i for i in (0, 1, 2, 3, 0, 1, 40, 41, 5)
        ]


def test_the_next_few_are_worked_out_before_they_are_asked_for(tmp_path):
    def work(number):
        (tmp_path / str(number)).touch()
        return os.getpid()

    with Ahead(work, n_ahead=4) as done:
        assert done[10] != os.getpid()
        assert until(lambda: len(list(tmp_path.iterdir())) == 4)
        time.sleep(0.1)
        assert {path.name for path in tmp_path.iterdir()} == {"10", "11", "12", "13"}


def test_what_the_work_remembers_stays_where_it_is_done():
    seen = []

    def count(number):
        seen.append(number)
        return len(seen)

    with Ahead(count, n_ahead=1) as counts:
        assert [counts[0], counts[1]] == [1, 2]
    assert seen == []


def test_what_is_raised_there_is_raised_here_and_the_others_go_on():
    def refuse(number):
        if number == 1:
            raise FormatError("not one")
        return number

    with Ahead(refuse) as numbers:
        assert numbers[0] == 0
        with pytest.raises(FormatError, match=r"^not one$"):
            numbers[1]
        assert numbers[2] == 2


def test_a_process_that_was_killed_is_told_of():
    message = "The process that makes scenes must live as long as the training. Received: it was"
    with Ahead(lambda number: number) as numbers:
        assert numbers[0] == 0
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(KwsError, match=f"^{re.escape(message)}"):
            [numbers[i] for i in range(1, 100)]


def test_the_process_ends_with_the_block():
    with Ahead(lambda number: number) as numbers:
        assert numbers[0] == 0
        (child,) = multiprocessing.active_children()
        assert is_running(child.pid)
    assert not is_running(child.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_ends_when_its_parent_is_killed():
    with subprocess.Popen(
        [sys.executable, "-c", KEEPS_WORKING], stdout=subprocess.PIPE, text=True
    ) as parent:
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    assert until(lambda: not is_running(pid))
