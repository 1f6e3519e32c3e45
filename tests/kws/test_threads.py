import asyncio
import threading

import pytest

from kws.errors import ConfigError
from kws.threads import in_thread


def test_the_loop_goes_on_while_a_thread_works():
    async def run():
        go_on = threading.Event()
        work = asyncio.create_task(in_thread(lambda: go_on.wait(30)))
        await asyncio.sleep(0)
        go_on.set()
        return await work

    assert asyncio.run(run()) is True


def test_what_the_work_raises_is_raised():
    def work():
        raise ConfigError("No.")

    with pytest.raises(ConfigError, match=r"^No\.$"):
        asyncio.run(in_thread(work))


def test_work_that_hangs_keeps_nobody_from_ending():
    go_on = threading.Event()

    async def run():
        work = asyncio.create_task(in_thread(lambda: go_on.wait(30)))
        await asyncio.sleep(0.05)
        work.cancel()
        await asyncio.wait([work])

    asyncio.run(run())
    (thread,) = [one for one in threading.enumerate() if one.name == "kws-worker"]
    assert thread.daemon
    go_on.set()
    thread.join(30)
