import asyncio
import contextlib
import socket
import sys
import threading
import time

import pytest

from kws.daemon.metrics_server import MetricsServer
from kws.daemon.snapshot import Snapshot
from kws.errors import ConfigError

STATE = Snapshot(
    version="1.2",
    pid=7,
    time_s=100.0,
    uptime_s=50.0,
    cpu_s=5.0,
    rss_mb=40.0,
    models=["a"],
    sources=[],
    hooks={"ok": 4},
)
HOST = b"Host: 127.0.0.1:9109\r\n"


def serve(client, *arguments):
    """Run a client in a thread while a server answers; return its result."""

    async def run():
        server = MetricsServer(0, lambda: STATE)
        await server.start()
        try:
            return await asyncio.to_thread(client, server.port, *arguments)
        finally:
            await server.close()

    return asyncio.run(run())


def fetch(port, data, *, shut=False):
    """Return the answer of a server to bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(data)
        if shut:
            client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65_536), b"")).decode()


def status_of(answer):
    return int(answer.split()[1])


def exposition():
    """Return the text for the state."""
    _, _, body = serve(fetch, b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n").partition("\r\n\r\n")
    return body


def test_a_scraper_gets_the_metrics():
    request = b"GET /metrics?x=1 HTTP/1.1\r\nHost: localhost:9109\r\n\r\n"
    head, _, body = serve(fetch, request).partition("\r\n\r\n")
    assert head.startswith("HTTP/1.0 200 OK\r\n")
    assert "Content-Type: text/plain; version=0.0.4" in head
    assert f"Content-Length: {len(body.encode())}\r\n" in head + "\r\n"
    assert body == exposition()


def test_prometheus_gets_the_format_it_prefers():
    accept = b"Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n"
    answer = serve(fetch, b"GET /metrics HTTP/1.1\r\n" + HOST + accept + b"\r\n")
    assert "Content-Type: application/openmetrics-text" in answer
    assert 'kws_hook_runs_total{outcome="ok"} 4.0\n' in answer
    assert answer.endswith("# EOF\n")


def test_a_head_request_gets_no_body():
    answer = serve(fetch, b"HEAD /metrics HTTP/1.1\r\n" + HOST + b"\r\n")
    assert answer.startswith("HTTP/1.0 200 OK\r\n")
    assert answer.endswith("\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", 404),
        (b"GET /favicon.ico HTTP/1.1\r\n" + HOST + b"\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n" + HOST + b"\r\n", 405),
        (b"OPTIONS /metrics HTTP/1.1\r\n" + HOST + b"\r\n", 405),
        (b"GET /metrics HTTP/1.1\r\nx: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 70_000 + b"\r\n\r\n", 414),
    ],
)
def test_any_other_request_is_refused(request_, status):
    assert status_of(serve(fetch, request_)) == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:9109", 200),
        ("localhost", 200),
        ("LocalHost:80", 200),
        ("[::1]", 200),
        ("[::1]:9109", 200),
        ("rebound.example", 403),
        ("rebound.example:9109", 403),
        ("localhost.example", 403),
        ("127.0.0.1.example", 403),
        ("example@127.0.0.1", 403),
        ("127.0.0.1:", 403),
        ("", 403),
        ("127.0.0.1\r\nHost: rebound.example", 403),
    ],
)
def test_only_a_host_of_the_loopback_is_answered(host, status):
    """A page of `rebound.example` whose name has come to mean 127.0.0.1 (DNS rebinding) is not."""
    request = f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    assert status_of(serve(fetch, request)) == status


def test_a_request_without_a_host_is_refused():
    assert status_of(serve(fetch, b"GET /metrics HTTP/1.0\r\n\r\n")) == 403


@pytest.mark.parametrize("data", [b"", b"GET /metr", b"\x00\xff\r\n\r\n"])
def test_half_a_request_gets_no_metrics_and_leaves_no_thread(data, capfd):
    before = threading.active_count()
    assert "kws_" not in serve(lambda port: fetch(port, data, shut=True))
    wait_until(lambda: threading.active_count() <= before)
    assert capfd.readouterr().err == ""


def test_a_client_that_says_nothing_is_disconnected(monkeypatch):
    monkeypatch.setattr("kws.daemon.metrics_server._REQUEST_S", 0.05)
    assert serve(fetch, b"") == ""
    assert serve(fetch, b"GET /metrics HTTP/1.1\r\n") == ""


def test_silent_clients_harm_nobody(monkeypatch):
    """Their number and time are limited, and meanwhile the loop goes on."""
    monkeypatch.setattr("kws.daemon.metrics_server._REQUEST_S", 0.5)
    request = b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n"

    def client(port):
        with contextlib.ExitStack() as stack:
            for _ in range(12):
                silent = socket.create_connection(("127.0.0.1", port), timeout=30)
                stack.enter_context(silent)
            refused = fetch(port, request)
            deadline_s = time.monotonic() + 30
            while not (answer := fetch(port, request)).startswith("HTTP/1.0 200"):
                assert time.monotonic() < deadline_s
                time.sleep(0.02)
        return refused, answer

    async def run():
        server = MetricsServer(0, lambda: STATE)
        await server.start()
        scrape = asyncio.create_task(asyncio.to_thread(client, server.port))
        longest_s, last_s = 0.0, time.monotonic()
        while not scrape.done():
            await asyncio.sleep(0.001)
            longest_s, last_s = max(longest_s, time.monotonic() - last_s), time.monotonic()
        await server.close()
        return await scrape, longest_s

    (refused, answer), longest_s = asyncio.run(run())
    assert refused.startswith("HTTP/1.0 503 ")
    assert "kws_uptime_seconds 50.0" in answer
    assert longest_s < 0.3  # no wait of the loop for a client, of which each lasts 0.5 s


def test_a_loop_that_is_blocked_is_a_503_after_a_while(monkeypatch, capfd):
    monkeypatch.setattr("kws.daemon.metrics_server._REQUEST_S", 0.2)

    async def run():
        server = MetricsServer(0, lambda: STATE)
        await server.start()
        request = b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
            client.sendall(request)
            before = threading.active_count()
            while threading.active_count() == before:  # until it is served
                await asyncio.sleep(0)
            answer = client.recv(65_536)  # blocks the loop
        await server.close()
        return answer

    assert asyncio.run(run()).startswith(b"HTTP/1.0 503 ")
    assert capfd.readouterr().err == ""


def test_closing_ends_all_connections_and_frees_the_port():
    async def run():
        before = threading.active_count()
        server = MetricsServer(0, lambda: STATE)
        await server.start()
        port = server.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while threading.active_count() == before:  # until it is served
            await asyncio.sleep(0.001)
        started_s = time.monotonic()
        await server.close()
        await server.close()
        assert await reader.read() == b""
        assert time.monotonic() - started_s < 2
        writer.close()
        again = MetricsServer(port, lambda: STATE)
        await again.start()
        await again.close()

    asyncio.run(run())


def test_it_answers_on_the_loopback_alone():
    async def run():
        server = MetricsServer(0, lambda: STATE)
        await server.start()
        address = server._server.socket.getsockname()[0]
        await server.close()
        return address

    assert asyncio.run(run()) == "127.0.0.1"


def wait_until(happened):
    deadline_s = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_port_that_is_taken_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"must be free. Received: {port} \(.+\). Choose"):
            asyncio.run(MetricsServer(port, lambda: STATE).start())


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=r"Run `pip install 'kws\[metrics\]'`, or remove the key"):
        MetricsServer(9100, lambda: STATE)


@pytest.mark.parametrize(("n_silent", "status"), [(7, 200), (8, 503)])
def test_8_clients_are_served_at_once(n_silent, status):
    request = b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n"

    def client(port):
        with contextlib.ExitStack() as stack:
            for _ in range(n_silent):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            time.sleep(0.2)
            return fetch(port, request)

    assert status_of(serve(client)) == status
