"""Proof 8, what comes over sockets: the status socket, and audio over UDP and TCP."""

import asyncio
import contextlib
import json
import os
import socket
import struct
import threading
import time
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest

from kws.daemon.snapshot import Snapshot
from kws.daemon.status_server import StatusServer
from kws.events import Detection

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(3600)]

IS_LONG = os.environ.get("KWS_FUZZ") == "long"
MOST_S = 10.0
MOST_GROWTH_MB = 64
REQUESTS = [
    b'{"request": "status"}\n',
    b'{"request": "events"}\n',
    b'{"request": "status"',
    b'{"request": ["status"]}\n',
    b"[" * 900 + b"\n",
    b'"\xff\xfe"\n',
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"x" * 5000,
    b"\n" * 300,
    b"\0" * 64 + b"\n",
    b"",
]
AUDIO = [
    np.random.default_rng(2).bytes(2560),
    b"",
    b"\x01",
    b"RIFF\xff\xff\xff\xffWAVEfmt ",
    b"\x00\x80" * 1280,
    b"\xff" * 9001,
]
MARK = struct.pack("<h", 12_345) * 1280


@pytest.fixture(autouse=True)
def _bounded():
    """Check that nothing is left open, and memory has not grown, after thousands of clients."""
    n_files, n_threads = n_open()
    Path("/proc/self/clear_refs").write_text("5")
    before_mb = peak_mb()
    yield
    deadline_s = time.monotonic() + MOST_S
    while n_open() != (n_files, n_threads):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert peak_mb() - before_mb < MOST_GROWTH_MB


@pytest.fixture
def status(tmp_path):
    """A status server in a loop of its own, that publishes an event every millisecond."""
    path, ready = tmp_path / "kws.sock", threading.Event()
    state = SimpleNamespace(path=path, server=None, error=None)

    async def serve():
        state.loop, state.over = asyncio.get_running_loop(), asyncio.Event()
        state.loop.set_exception_handler(lambda _, about: setattr(state, "error", about))
        state.server = StatusServer(path, snapshot)
        await state.server.start()
        ready.set()
        while not state.over.is_set():
            state.server.publish(EVENT)
            await asyncio.sleep(0.001)
        await state.server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(MOST_S)
    yield state
    state.loop.call_soon_threadsafe(state.over.set)
    thread.join(MOST_S)
    assert not thread.is_alive()
    assert state.error is None


def test_any_bytes_are_answered_by_the_status_socket(status):
    for number in range(20_000 if IS_LONG else 1_000):
        answer = ask(status.path, spoil(REQUESTS, Random(number)), Random(number))
        for line in answer.splitlines():
            told = json.loads(line)
            assert {"error", "pid", "event"} & set(told), told
    assert json.loads(ask(status.path, REQUESTS[0], None))["version"] == "fuzz"


def test_clients_that_stay_and_say_nothing_keep_nobody_else_out_for_long(status):
    with contextlib.ExitStack() as stack:
        for _ in range(64):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(MOST_S)
            client.connect(str(status.path))
        deadline_s = time.monotonic() + 2 * MOST_S
        # Whoever comes too much is told so.
        while b"version" not in ask(status.path, REQUESTS[0], None):
            assert time.monotonic() < deadline_s
            time.sleep(0.1)


class Listener:
    """Hears a source in a thread of its own, until it is closed."""

    def __init__(self, source):
        self.source, self.error = source, None
        self.is_marked = threading.Event()
        self._thread = threading.Thread(target=self._hear)
        self._thread.start()

    def _hear(self):
        try:
            for chunk in self.source:
                assert chunk.dtype == np.int16
                assert len(chunk) <= 1280
                if np.count_nonzero(chunk == 12_345) > 100:
                    self.is_marked.set()
        except Exception as error:  # a failure of the test
            self.error = error

    def close(self):
        self.source.close()
        self._thread.join(MOST_S)
        assert not self._thread.is_alive()
        assert self.error is None


@pytest.fixture
def listen():
    """Open a source of kws.sources.network and hear it."""
    network = pytest.importorskip(
        "kws.sources.network", reason="this kws hears no audio over the network"
    )
    started = []

    def start(kind):
        name = kind.removesuffix("Source").lower()
        source = getattr(network, kind)(f"{name}://127.0.0.1:0", chunk_ms=80, stall_s=0.1)
        started.append(Listener(source))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_any_datagrams_leave_a_udp_source_hearing(listen):
    heard = listen("UdpSource")
    to = ("127.0.0.1", heard.source.port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(20_000 if IS_LONG else 1_000):
            sender.sendto(spoil(AUDIO, Random(number)), to)
            if not number % 97:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                    other.sendto(b"a stranger's", to)
        deadline_s = time.monotonic() + MOST_S
        while not heard.is_marked.wait(0.05):
            assert time.monotonic() < deadline_s
            sender.sendto(MARK, to)


def test_any_clients_leave_a_tcp_source_hearing(listen):
    heard = listen("TcpSource")
    to = ("127.0.0.1", heard.source.port)
    for number in range(10_000 if IS_LONG else 500):
        random = Random(number)
        with contextlib.suppress(OSError), socket.create_connection(to, MOST_S) as client:
            for _ in range(random.randrange(4)):
                client.sendall(spoil(AUDIO, random))
            if random.random() < 0.5:  # hang up with a reset
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    deadline_s = time.monotonic() + MOST_S
    while not heard.is_marked.wait(0.2):
        assert time.monotonic() < deadline_s
        with contextlib.suppress(OSError), socket.create_connection(to, MOST_S) as client:
            client.sendall(4 * MARK)
            time.sleep(0.05)


EVENT = Detection(keyword="stop", score=0.9, start_s=0.0, end_s=1.0, model="x")


def snapshot():
    return Snapshot(
        version="fuzz",
        pid=1,
        time_s=0.0,
        uptime_s=1.0,
        cpu_s=0.0,
        rss_mb=1.0,
        sources=[],
        models=[],
    )


def ask(path, request, random):
    """Send a request, hang up as `random` says, and return the answer."""
    answer = b""
    with contextlib.suppress(ConnectionError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(MOST_S)  # a hang ends in TimeoutError, and the test with it
        client.connect(str(path))
        client.sendall(request)
        if random and random.random() < 0.3:
            return b""  # and close at once
        client.shutdown(socket.SHUT_WR)
        while data := client.recv(65_536):
            answer += data
    return answer[: answer.rfind(b"\n") + 1]


def spoil(seeds, random):
    """Return a seed, often with a few bytes changed, and sometimes cut."""
    data = bytearray(random.choice(seeds))
    for _ in range(random.choice([0, 1, 1, 2, 8])):
        if data:
            data[random.randrange(len(data))] = random.randrange(256)
    return bytes(data[: random.randrange(len(data) + 1)] if random.random() < 0.2 else data)


def n_open():
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def peak_mb():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
