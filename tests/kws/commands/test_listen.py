import contextlib
import time

import numpy as np
import pytest

from kws.commands import listen
from kws.sources.silence import CHECK_MUTED
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


class Muted(Silence):
    """A microphone that is muted for two seconds."""

    name = "microphone"
    live = True

    def __iter__(self):
        sound = np.random.default_rng(1).integers(-50, 50, (2, 1280)).astype(np.int16)
        return iter(np.concatenate((np.zeros((25, 1280), np.int16), sound)))


@pytest.mark.parametrize(
    ("source", "limit_s", "n"), [(Muted, 1.0, 2), (Muted, 0, 0), (Silence, 0.5, 0)]
)
def test_digital_silence_of_a_microphone_is_warned_of_once(caplog, source, limit_s, n):
    listen.listen_to(source(), Spotter(), print, silent_s=limit_s)
    warnings = [
        f"microphone: only digital silence for 1 s. {CHECK_MUTED}.",
        "microphone: sound again.",
    ]
    assert caplog.messages == warnings[:n]
