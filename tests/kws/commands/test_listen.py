import contextlib
import time

import numpy as np

from kws.commands import listen
from kws.sources.source import Source
from kws.spotter import Spotter


class Silence(Source):
    """A second of silence, in chunks of 80 ms."""

    name = "silence"

    def __iter__(self):
        return iter(np.zeros((13, 1280), np.int16))

    def close(self):
        pass


def test_the_cpu_of_a_display_is_not_in_that_of_the_detection(monkeypatch):
    def burn(chunk):
        until_s = time.thread_time() + 0.03
        while time.thread_time() < until_s:
            pass

    @contextlib.contextmanager
    def display(source, spotter, *, metered):
        yield burn, print

    monkeypatch.setattr(listen, "_display", display)
    end, failure = listen.listen_to(Silence(), Spotter(), print)
    assert failure is None
    assert end.audio_s == 1.04
    assert end.cpu_s < 0.1 < 13 * 0.03
