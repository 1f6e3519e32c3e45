"""Events on their way to hooks and another sink, through a reload and at the end."""

import asyncio
import threading
import time

from kws.config import HookSettings
from kws.daemon.delivery import Delivery
from kws.events import Detection
from kws.sinks.hooks import Hooks

from .conftest import until

STOP = Detection(keyword="stop", score=1.0, start_s=0.0, end_s=1.0, model="m", source="s")


class Printer:
    """A sink that keeps events, and waits before it takes the first."""

    def __init__(self):
        self.events, self.go_on = [], threading.Event()

    def send(self, event):
        self.go_on.wait(60)
        self.events.append(event)

    def close(self):
        self.events.append("closed")


def hooks(command, **settings):
    hook = HookSettings(keyword="*", command=command, shell=True, **settings)
    return Hooks([hook], keywords=["stop"])


def test_hooks_are_waited_for_and_events_delivered_before_the_close(tmp_path):
    printer = Printer()
    printer.go_on.set()
    kept_alive = []

    async def run():
        delivery = Delivery(hooks(f"sleep 1; touch {tmp_path}/ran"), printer=printer)
        delivery.send(STOP)
        await delivery.close(is_urgent=lambda: False, keep_alive=lambda: kept_alive.append(1))

    asyncio.run(run())
    assert printer.events == [STOP, "closed"]
    assert (tmp_path / "ran").exists()
    assert len(kept_alive) > 10


def test_an_urgent_close_kills_hooks_and_leaves_a_sink_that_hangs(tmp_path, caplog):
    printer = Printer()
    opened = hooks("sleep 60")

    async def run():
        delivery = Delivery(opened, printer=printer)
        delivery.send(STOP)
        await until(lambda: opened.counts.started)
        started_s = time.monotonic()
        await delivery.close(is_urgent=lambda: True)
        return time.monotonic() - started_s

    assert asyncio.run(run()) < 3  # 1.5, and what a loaded machine adds
    assert "standard output did not end in time; events may be lost." in caplog.messages
    assert opened.counts.failed == 1
    printer.go_on.set()


def test_old_hooks_end_their_runs_and_mute_while_new_ones_get_the_events(tmp_path):
    old = hooks(f"until [ -e {tmp_path}/end ]; do sleep 0.02; done", mute=True)
    new = hooks("true")

    async def run():
        delivery = Delivery(old)
        delivery.send(STOP)
        await until(lambda: delivery.is_muting)
        delivery.replace_hooks(new)
        delivery.send(STOP)
        await until(lambda: new.counts.ok)
        assert delivery.is_muting
        (tmp_path / "end").touch()
        await until(lambda: not delivery.is_muting)
        await delivery.close(is_urgent=lambda: False)

    asyncio.run(run())
    assert (old.counts.started, old.counts.ok, new.counts.started) == (1, 1, 1)
