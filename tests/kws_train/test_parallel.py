"""One function over many items: the same results from threads, processes and a cluster."""

import os
import re
import signal
import sys
import time

import pytest

from kws.errors import ConfigError, FormatError, KwsError
from kws_train.parallel import Failure, map_corpus


def square_of(wait_s=0.0):
    """Return a function that is pickled as it is: workers cannot import tests."""
    bad = FormatError

    def square(item):
        time.sleep(wait_s)
        if item % 7 == 3:
            raise bad(f"not {item}")
        return item * item

    return square


def expected(n):
    return [Failure(i, f"not {i}") if i % 7 == 3 else i * i for i in range(n)]


@pytest.mark.parametrize(("backend", "n_jobs"), [("threading", 4), ("threading", 1), ("loky", 1)])
def test_results_come_in_order_and_failures_keep_their_place(backend, n_jobs):
    done = list(map_corpus(square_of(), range(30), n_jobs=n_jobs, backend=backend))
    assert done == expected(30)


def test_results_come_as_they_are_ready():
    seen = []

    def note(item):
        seen.append(item)
        return item

    work = map_corpus(note, range(5), n_jobs=1)
    assert next(work) == 0
    assert len(seen) < 5
    assert list(work) == [1, 2, 3, 4]


def test_a_mistake_in_the_function_is_no_failure_of_an_item():
    def mistaken(item):
        raise TypeError("mistaken")

    with pytest.raises(TypeError, match=r"^mistaken$"):
        list(map_corpus(mistaken, range(3)))


@pytest.mark.slow
def test_processes_give_the_same_and_one_killed_is_said():
    assert list(map_corpus(square_of(), range(30), n_jobs=2)) == expected(30)
    die, kill = signal.SIGKILL, os.kill

    def fatal(item):
        if item == 5:
            kill(os.getpid(), die)
        return item

    message = "A worker process was killed, usually because memory ran out. Give fewer --jobs."
    with pytest.raises(KwsError, match=f"^{re.escape(message)}$"):
        list(map_corpus(fatal, range(30), n_jobs=2))


@pytest.mark.slow
def test_a_worker_of_a_cluster_that_is_killed_midway_changes_no_result():
    distributed = pytest.importorskip("distributed", reason="needs dask[distributed]")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(2)
        pids = client.run(os.getpid)
        assert len(set(pids.values())) == 2
        done = []
        for result in map_corpus(
            square_of(0.02), range(80), backend="dask", scheduler=cluster.scheduler_address
        ):
            done.append(result)
            if len(done) == 20:
                os.kill(next(iter(pids.values())), signal.SIGKILL)
        assert done == expected(80)
        client.wait_for_workers(2)
        assert set(client.run(os.getpid).values()) != set(pids.values()), "one was killed"


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_said(monkeypatch):
    pytest.importorskip("distributed", reason="needs dask[distributed]")
    monkeypatch.setattr("kws_train.parallel._CONNECT_S", 0.5)
    address = "tcp://127.0.0.1:9"
    with pytest.raises(ConfigError) as error:
        list(map_corpus(square_of(), range(3), backend="dask", scheduler=address))
    assert str(error.value).startswith(
        f"--scheduler must be the address of a running Dask scheduler. Received: {address} ("
    )


def test_without_dask_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError) as error:
        list(map_corpus(square_of(), range(3), backend="dask"))
    assert re.fullmatch(
        r"Work on a cluster needs the library distributed\. Received: .+\. "
        r"Run `pip install 'dask\[distributed\]'`\.",
        str(error.value),
    )
