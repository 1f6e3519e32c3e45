"""Proof 7: recording activations on a disk that is full, and on one that is read-only."""

import os
import subprocess
import time
import wave

import numpy as np
import pytest

pytestmark = [pytest.mark.system, pytest.mark.slow]

pytest.importorskip("kws.sinks.clip_recorder", reason="this kws records no activations")

SERVICE = """
import asyncio, logging, os, sys
from pathlib import Path
from kws.daemon.service import Daemon
from kws.sinks.jsonl import JsonLines
logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")

printer = JsonLines(os.fdopen(os.dup(1), "w"))
capture = [sys.executable, "-c", *sys.argv[2:]]
sys.exit(asyncio.run(Daemon(Path(sys.argv[1]), printer=printer, capture_command=capture).run()))
"""
# Words without end, four times as fast as they were said.
RECORDER = """
import sys, time
import numpy as np
sys.stdin.readline()
print('{"report": "opened", "name": "words"}', file=sys.stderr, flush=True)
words = np.fromfile(sys.argv[1], "<i2")
while True:
    for part in words.reshape(-1, 1600):
        sys.stdout.buffer.write(part.tobytes())
        sys.stdout.buffer.flush()
        time.sleep(0.025)
"""
CONFIG = """
[decision]
threshold = 0.5
[recording]
folder = "{folder}"
pre_roll_s = 1.0
post_roll_s = 0.2
"""
N_WORDS = 6


@pytest.fixture
def disk(tmp_path):
    """A disk of four million bytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs to be root and allowed to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.timeout(300)
def test_detection_goes_on_while_nothing_can_be_recorded(
    run_service, drill, disk, tmp_path, wait_for
):
    words, folder = tmp_path / "words.raw", disk / "clips"
    np.concatenate([piece for _, piece in drill]).astype("<i2").tofile(words)
    heard = run_service(SERVICE, CONFIG.format(folder=folder), RECORDER, words)

    def clips():
        return set(folder.glob("**/*.wav"))

    def more(count, n=N_WORDS):
        n_before = len(count())
        wait_for(lambda: len(count()) >= n_before + n, limit_s=60, what=f"{n} more")

    def complaints():
        return [
            line
            for line in heard.log
            if line.startswith(("WARNING", "ERROR")) and "Recording is on" not in line
        ]

    more(clips, 3)
    for path in clips():
        assert path.stat().st_mode & 0o777 == 0o600

    for cause, mend in (fill(disk), make_read_only(disk)):
        n_said, found = len(complaints()), lambda: heard.of("detection")
        cause()
        time.sleep(1.0)  # what was on its way
        stopped = clips()
        more(found)
        assert clips() <= stopped
        assert len(complaints()) == n_said + 1, complaints()
        mend()
        more(clips, 3)
        assert len(complaints()) == n_said + 2, complaints()
        assert "works again" in complaints()[-1]
    status, took_s = heard.end()
    assert status == 0
    assert took_s < 5
    assert not [line for line in heard.log if "Traceback" in line]
    for path in clips():
        assert path.with_suffix(".json").exists()
        with wave.open(str(path)) as file:
            assert file.getnframes() / file.getframerate() > 1.0


def fill(disk):
    """Return what fills a disk to its last byte, and what frees it again."""
    filler = disk / "filler"

    def cause():
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError:
                pass

    return cause, filler.unlink


def make_read_only(disk):
    """Return what makes a disk read-only, and what makes it writable again."""

    def remount(mode):
        subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)

    return lambda: remount("ro"), lambda: remount("rw")
