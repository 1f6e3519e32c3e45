import logging
import threading
import time

import pytest

from kws.daemon import sink_queue as sink_queue_module
from kws.daemon.sink_queue import SinkQueue
from kws.events import Detection


def event(i):
    return Detection(keyword="go", score=1.0, start_s=0.0, end_s=float(i), model="m", source="s")


class Taking:
    """A sink that keeps what it is sent."""

    def __init__(self):
        self.events, self.closed = [], False

    def send(self, one):
        self.events.append(one)

    def close(self):
        self.closed = True


class Hanging(Taking):
    """A sink that hangs until it is let go."""

    def __init__(self):
        super().__init__()
        self.go_on = threading.Event()

    def send(self, one):
        self.go_on.wait(60)
        super().send(one)


class Failing(Taking):
    """A sink that fails on every second event, and on its close."""

    def send(self, one):
        if one.end_s % 2:
            raise OSError(28, "No space left on device")
        super().send(one)

    def close(self):
        raise ValueError("twice")


def test_every_event_is_sent_once_and_in_order_before_the_close():
    sink = Taking()
    sink_queue = SinkQueue("a sink", sink)
    sent = [event(i) for i in range(500)]
    for one in sent:
        sink_queue.put(one)
    sink_queue.begin_close()
    assert sink_queue.join(30)
    assert (sink.events, sink.closed) == (sent, True)
    assert (sink_queue.n_sent, sink_queue.n_failed, sink_queue.n_dropped) == (500, 0, 0)


def test_a_sink_that_fails_is_logged_sparingly_and_counted(log):
    sink = Failing()
    sink_queue = SinkQueue("a sink", sink)
    for i in range(100):
        sink_queue.put(event(i))
    sink_queue.begin_close()
    assert sink_queue.join(30)
    assert len(sink.events) == 50
    assert (sink_queue.n_sent, sink_queue.n_failed) == (50, 51)
    assert log.messages == [
        f"a sink failed on an event: OSError: [Errno 28] No space left on device; {n} so far."
        for n in range(1, 11)
    ]


def test_a_sink_that_hangs_delays_nobody_and_what_is_too_much_is_counted(log):
    sink = Hanging()
    sink_queue = SinkQueue("a sink", sink, max_queued=10)
    started_s = time.monotonic()
    for i in range(1000):
        sink_queue.put(event(i))
    took_s = time.monotonic() - started_s
    sink_queue.begin_close()
    assert not sink_queue.join(0)
    (thread,) = [one for one in threading.enumerate() if one.name == "kws-a sink"]
    assert thread.daemon  # the process can end
    assert took_s < 10
    assert 989 <= sink_queue.n_dropped <= 990  # its thread may have taken one before
    assert log.messages == [
        f"a sink: an event was dropped, as 10 wait already; {n} so far." for n in range(1, 11)
    ]
    sink.go_on.set()
    assert sink_queue.join(30)
    heard_s = [one.end_s for one in sink.events]
    assert heard_s == sorted(set(heard_s))
    assert sink_queue.n_sent + sink_queue.n_dropped == 1000
    assert sink.closed


def test_a_sink_that_is_slow_is_told_of(caplog, monkeypatch):
    monkeypatch.setattr(sink_queue_module, "_SLOW_S", 0.0)
    sink = Hanging()
    sink_queue = SinkQueue("a sink", sink)
    sink_queue.put(event(0))
    deadline_s = time.monotonic() + 30
    with caplog.at_level(logging.WARNING):
        while not caplog.records and time.monotonic() < deadline_s:
            sink_queue.put(event(1))
            time.sleep(0.01)
    assert caplog.records[0].message.startswith("a sink has been busy with an event for 0 s; ")
    sink.go_on.set()
    while sink_queue.n_sent < sum(1 for _ in caplog.records) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    time.sleep(0.1)  # for the last event
    caplog.clear()
    sink_queue.put(event(2))
    assert caplog.records == []
    sink_queue.begin_close()
    assert sink_queue.join(30)


@pytest.mark.parametrize("n_events", [0, 10])
def test_closing_a_full_or_an_empty_queue_works(n_events):
    sink = Hanging()
    sink_queue = SinkQueue("a sink", sink, max_queued=5)
    for i in range(n_events):
        sink_queue.put(event(i))
    sink_queue.begin_close()
    sink_queue.begin_close()
    sink.go_on.set()
    assert sink_queue.join(30)
    assert sink.closed
