"""A server that nothing in a browser delays: pages that do not read, too many, at a taken port."""

import asyncio
import base64
import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
import threading
import time
from importlib import resources

import numpy as np
import pytest

from kws.detector import Posteriors
from kws.errors import ConfigError

from .conftest import TOKEN, ask

BLOCK = np.full(1280, 3000, "<i2").tobytes()


def connect(port, path="/api/live", *, token=TOKEN, buffer=None):
    """Return a socket after the handshake of a WebSocket, and the status of the answer."""
    client = socket.socket()
    if buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.settimeout(20)
    client.connect(("127.0.0.1", port))
    key = base64.b64encode(os.urandom(16)).decode()
    client.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n"
        f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: kws, token.{token}\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1)
    return client, int(head.split()[1])


def read(client, n=65_536):
    """Return what the server has sent, at least something."""
    client.settimeout(10)
    return client.recv(n)


async def feed_audio(page, *, seconds, n_keywords=10):
    """Put blocks in real time; return the longest time that one took."""
    longest_s = 0.0
    started_s = time.monotonic()
    for n in range(int(seconds / 0.08)):
        start = n * 1280
        before_s = time.perf_counter()
        page.feed.put(
            "mic",
            BLOCK,
            start_sample=start,
            gate_open=True,
            posteriors=[Posteriors("m", start / 16_000, [0.5] * n_keywords) for _ in range(4)],
        )
        longest_s = max(longest_s, time.perf_counter() - before_s)
        await asyncio.sleep(max(0.0, started_s + (n + 1) * 0.08 - time.monotonic()))
    return longest_s


def test_a_port_in_use_is_an_error_that_names_it(serve):
    async def run():
        async with serve() as page, serve(port=page.port):
            pass

    with pytest.raises(ConfigError, match=r"The page needs a free port.*Received: port \d+ at 127"):
        asyncio.run(run())


def test_a_page_gets_twenty_frames_a_second(serve):
    async def run():
        async with serve() as page:
            client, status = await asyncio.to_thread(connect, page.port)
            await feed_audio(page, seconds=2.0)
            content = await asyncio.to_thread(read, client, 1 << 20)
            client.close()
            return status, content.count(b'"kind":"frame"')

    status, n_frames = asyncio.run(run())
    assert status == 101
    assert 32 <= n_frames <= 44


def test_a_browser_that_never_reads_delays_nobody_and_is_disconnected(serve, monkeypatch):
    monkeypatch.setattr("kws.ui.live_pages._SEND_S", 0.5)

    async def run():
        async with serve() as page:
            deaf, _ = await asyncio.to_thread(connect, page.port, buffer=4096)
            other, _ = await asyncio.to_thread(connect, page.port)
            counting = asyncio.create_task(asyncio.to_thread(count_frames, other))
            longest_s = 0.0
            for _ in range(20):
                page.feed._events.extend([big()] * 20)  # more than kernel buffers hold
                longest_s = max(longest_s, await feed_audio(page, seconds=0.1))
            n_open = await settles(lambda: len(page.server.pages), 1)
            other.shutdown(socket.SHUT_RDWR)
            n_frames = await counting
            other.close()
            deaf.close()
            return longest_s, n_frames, n_open

    longest_s, n_frames, n_open = asyncio.run(run())
    assert longest_s < 0.05
    assert n_frames >= 20
    assert n_open == 1


def count_frames(client):
    """Count the frames that come until the socket is shut down."""
    n, rest = 0, b""
    while data := client.recv(1 << 20):
        n += (rest + data).count(b'"kind":"frame"')
        rest = data[-10:]
    return n


async def settles(value, wanted):
    """Wait until a value is as wanted, ten seconds at most; return it."""
    for _ in range(200):
        if value() == wanted:
            break
        await asyncio.sleep(0.05)
    return value()


def big():
    """Return an event of 30 kB."""
    from kws.events import StateChange
    from kws.ui.feed import ShownEvent

    change = StateChange(event="error", time="", detail="x" * 30_000)
    return ShownEvent("", change)


def test_of_200_open_pages_those_beyond_the_limit_are_told_and_the_audio_goes_on(serve):
    async def run():
        async with serve(max_pages=32) as page:
            opened = [await asyncio.to_thread(connect, page.port) for _ in range(200)]
            longest_s = await feed_audio(page, seconds=1.0)
            refusals = [await asyncio.to_thread(read, one) for one, _ in opened[32:]]
            told = sum(b"At most 32 pages may be open." in one for one in refusals)
            status = (await asyncio.to_thread(ask, page.port, "/api/state"))[0]
            n_open = len(page.server.pages)
            for one, _ in opened:
                one.close()
            assert await settles(lambda: page.feed.is_watched, False) is False
            again, _ = await asyncio.to_thread(connect, page.port)
            first = await asyncio.to_thread(read, again)
            again.close()
            return longest_s, told, status, n_open, first

    longest_s, told, status, n_open, first = asyncio.run(run())
    assert longest_s < 0.05
    assert told == 168
    assert status == 200
    assert n_open == 32
    assert b'"kind":"recent"' in first


def test_nothing_is_collected_while_no_page_is_open(serve):
    async def run():
        async with serve() as page:
            states = [page.feed.is_watched]
            client, _ = await asyncio.to_thread(connect, page.port)
            states.append(await settles(lambda: page.feed.is_watched, True))
            client.close()
            states.append(await settles(lambda: page.feed.is_watched, False))
            return states

    assert asyncio.run(run()) == [False, True, False]


def test_a_wrong_token_gets_no_stream(serve):
    async def run():
        async with serve() as page:
            client, status = await asyncio.to_thread(connect, page.port, token="wrong")
            client.close()
            return status, page.feed.is_watched

    assert asyncio.run(run()) == (403, False)


def test_a_host_that_does_not_answer_is_an_error_not_a_wait(serve, monkeypatch):
    monkeypatch.setattr("kws.ui.host._ANSWER_S", 0.2)

    async def run():
        async with serve() as page:
            asking = asyncio.to_thread(ask, page.port, "/api/state")
            task = asyncio.create_task(asking)
            await asyncio.sleep(0.05)
            time.sleep(0.6)  # the loop of the audio is blocked
            return await task

    status, _, content = asyncio.run(run())
    assert status in {200, 503}
    if status == 503:
        assert re.search("kws is too busy", content.decode())


def test_the_end_closes_open_pages_within_two_seconds(serve):
    async def run():
        async with serve() as page:
            client, _ = await asyncio.to_thread(connect, page.port)
            started_s = time.monotonic()
            await page.server.close()
            spent_s = time.monotonic() - started_s
            client.close()
            return spent_s

    assert asyncio.run(run()) < 2.0


def test_the_page_is_small_and_loads_nothing_from_elsewhere():
    files = list(resources.files("kws.ui").joinpath("static").iterdir())
    assert sum(len(one.read_bytes()) for one in files) <= 200_000
    for one in files:
        text = one.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"(^|\s)//.*", "", text, flags=re.MULTILINE), one.name
        assert not re.search(r"\b(eval\(|innerHTML|insertAdjacentHTML|document\.write)", text)


def test_sigterm_does_not_wait_for_an_enrolment(tmp_path):
    """An enrolment takes a minute on a small board."""
    (tmp_path / "kws.toml").write_text(f'[source]\ncommand = "sleep 60"\n[ui]\ntoken = "{TOKEN}"\n')
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    code = (
        "import time\nfrom pathlib import Path\n"
        "from kws.cli import main\nfrom kws.ui import takes\n"
        "def enrol(folders, request):\n    Path('begun').touch()\n    time.sleep(60)\n"
        f"takes._enrol = enrol\nmain(['ui', '--config', 'kws.toml', '--port', '{port}'])"
    )
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout.readline().startswith(b"Open ")
            body = b'{"word": "hey"}'
            threading.Thread(target=post, args=(port, "/api/enroll", body), daemon=True).start()
            deadline_s = time.monotonic() + 30
            while not (tmp_path / "begun").exists():
                assert time.monotonic() < deadline_s
                time.sleep(0.02)
            started_s = time.monotonic()
            process.terminate()
            assert process.wait(30) == 0
            assert time.monotonic() - started_s < 5
        finally:
            process.kill()


def post(port, path, body):
    """Send a request whose answer nobody waits for."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        origin = f"http://127.0.0.1:{port}"
        ask(port, path, method="POST", body=body, origin=origin, content_type="application/json")
