"""Work done beforehand in another process: the same results, and no process that stays behind."""

import itertools
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import forked_children

from kws.errors import FormatError, KwsError
from kws_train.fit.prefetch import prefetch

KEEPS_WORKING = """
import multiprocessing, time
from kws_train.fit.prefetch import prefetch
with prefetch(lambda number: number, [0]):
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


def test_results_are_those_of_the_function_in_order():
    numbers = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    with prefetch(lambda number: number * number, numbers, n_ahead=3) as squares:
        assert list(squares) == [number * number for number in numbers]


def test_the_next_few_are_worked_out_before_they_are_asked_for(tmp_path):
    def work(number):
        (tmp_path / str(number)).touch()
        return os.getpid()

    with prefetch(work, itertools.count(10), n_ahead=3) as done:
        assert next(done) != os.getpid()
        assert until(lambda: len(list(tmp_path.iterdir())) == 4)
        time.sleep(0.1)
        assert {path.name for path in tmp_path.iterdir()} == {"10", "11", "12", "13"}


def test_what_the_work_remembers_stays_where_it_is_done():
    seen = []

    def count(number):
        seen.append(number)
        return len(seen)

    with prefetch(count, range(3)) as counts:
        assert list(counts) == [1, 2, 3]
    assert seen == []


def test_what_is_raised_there_is_raised_here_whatever_was_made_of_it():
    def refuse(number):
        if number == 2:
            raise FormatError("not two")
        return number

    def use():
        with prefetch(refuse, itertools.count()) as numbers:
            assert [next(numbers), next(numbers)] == [0, 1]
            try:
                next(numbers)
            except FormatError as error:
                raise RuntimeError("as frameworks do") from error

    with pytest.raises(FormatError, match=r"^not two$"):
        use()


def test_what_else_is_raised_in_the_block_is_left_as_it_is():
    def use():
        with prefetch(lambda number: number, itertools.count()) as numbers:
            next(numbers)
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match=r"^something else$"):
        use()


def test_a_process_that_was_killed_is_told_of():
    message = (
        "The process that prepares batches was killed, probably because memory ran out. Free "
        "memory, or use fewer clips or less speech; the same command resumes after the last "
        "completed epoch."
    )

    def use():
        with prefetch(lambda number: number, itertools.count()) as numbers:
            assert next(numbers) == 0
            for child in forked_children():
                child.kill()
            list(itertools.islice(numbers, 100))

    with pytest.raises(KwsError, match=f"^{re.escape(message)}$"):
        use()


def test_the_process_ends_with_the_block():
    with prefetch(lambda number: number, itertools.count()) as numbers:
        assert next(numbers) == 0
        (child,) = forked_children()
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
