"""Proof 4: a day of audio through the daemon's own loop, as fast as it goes.

`KWS_SOAK_HOURS=1` makes it shorter.
"""

import contextlib
import os
import statistics
import time

import numpy as np
import pytest

pytestmark = [pytest.mark.system, pytest.mark.slow]

RATE_HZ = 16_000
WORD_END_S = 1.2
HOURS = float(os.environ.get("KWS_SOAK_HOURS", "24"))
EVERY_S = 43.2  # 2,000 words a day

# The daemon, but for what records: that is a script which knows no real time.
SERVICE = """
import asyncio, os, sys
from pathlib import Path
from kws.daemon.service import Daemon
from kws.sinks.jsonl import JsonLines
printer = JsonLines(os.fdopen(os.dup(1), "w"))
capture = [sys.executable, "-c", *sys.argv[2:]]
sys.exit(asyncio.run(Daemon(Path(sys.argv[1]), printer=printer, capture_command=capture).run()))
"""
RECORDER = """
import sys
import numpy as np
sys.stdin.readline()
print('{"report": "opened", "name": "a day"}', file=sys.stderr, flush=True)
words = np.fromfile(sys.argv[1], "<i2").reshape(-1, 32000)
n_words, period = int(sys.argv[2]), int(sys.argv[3])
noise = np.random.default_rng(4).normal(0, 8, period - 32000).astype("<i2").tobytes()
for i in range(n_words):
    sys.stdout.buffer.write(words[i % len(words)].tobytes() + noise)
"""
CONFIG = """
[decision]
threshold = 0.5
[source]
name = "day"
input = "day.wav"
[[hooks]]
keyword = "*"
command = ["/bin/sh", "-c", "echo $KWS_END_S $KWS_KEYWORD >> {notes}"]
max_running = 1
max_queued = 1000
"""


@pytest.mark.timeout(1800)
def test_a_day_of_audio_leaves_the_daemon_as_it_was_after_an_hour(
    run_service, drill, tmp_path, capsys
):
    n_words, notes = round(HOURS * 3600 / EVERY_S), tmp_path / "notes"
    words = tmp_path / "words.raw"
    np.concatenate([piece for _, piece in drill]).astype("<i2").tofile(words)
    started_s = time.monotonic()
    heard = run_service(
        SERVICE, CONFIG.format(notes=notes), RECORDER, words, n_words, int(EVERY_S * RATE_HZ)
    )
    seen = []  # hours of audio, resident kB, descriptors, threads
    while heard.process.poll() is None:
        if found := heard.of("detection"):
            with contextlib.suppress(OSError, IndexError):  # a thread or all of it has ended
                n_files, n_threads, _ = heard.n_open()
                hour = found[-1][1]["end_s"] / 3600
                seen.append((hour, heard.rss_kb(), n_files, n_threads))
        time.sleep(0.05)
    assert heard.end()[0] == 0, heard.log[-5:]

    told = [event for _, event in heard.of("detection")]
    assert [one["keyword"] for one in told] == [drill[i % len(drill)][0] for i in range(n_words)]
    for i, one in enumerate(told):
        assert abs(one["end_s"] - (i * EVERY_S + WORD_END_S)) < 0.3
    # With one at a time the hooks keep the order too.
    assert notes.read_text().split() == [
        word for one in told for word in (str(one["end_s"]), one["keyword"])
    ]
    first = [one for one in seen if 1.0 <= one[0] < 1.5] or seen[:1]
    last = [one for one in seen if one[0] > HOURS - 0.5]
    usual = [
        [statistics.median(column) for column in zip(*part, strict=True)] for part in (first, last)
    ]
    (_, rss_kb, *open_then), (_, last_rss_kb, *open_now) = usual
    with capsys.disabled():
        print(
            f"\n{HOURS:g} h in {time.monotonic() - started_s:.0f} s, {n_words} events; "
            f"{rss_kb:.0f} kB after an hour, {last_rss_kb:.0f} kB at the end; "
            f"descriptors and threads {open_then}, {open_now}; at most "
            f"{max(one[2] for one in seen)}, {max(one[3] for one in seen)}"
        )
    assert last_rss_kb <= 1.02 * rss_kb
    for then, now in zip(open_then, open_now, strict=True):
        assert abs(now - then) <= 3  # a hook on its way has a thread and two pipes
    assert max(one[2] for one in seen) < 40
    assert max(one[3] for one in seen) < 12
