import asyncio
import socket
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kws.daemon.metrics import MetricsServer, render
from kws.daemon.snapshot import DetectionCount, RecordingState, Snapshot, SourceState
from kws.errors import ConfigError

STATE = Snapshot(
    version="1.2",
    pid=7,
    time_s=100.0,
    uptime_s=50.0,
    cpu_s=5.0,
    rss_mb=40.0,
    models=["a", "b"],
    sources=[
        SourceState(
            name='the "mic"\n',
            state="listening",
            since_s=50.0,
            level_dbfs=-20.5,
            gate_open=True,
            audio_s=30.0,
            dropped_s=1.5,
            n_overruns=7,
            n_reopened=2,
        ),
        SourceState(name="b", state="stalled", since_s=50.0),
    ],
    detections=[DetectionCount(keyword="go", model="a", source="b", n=3)],
    hooks={"ok": 4, "timed_out": 1},
    recording=RecordingState(n_clips=6, n_failed=1),
)


def samples(text):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def fetch(data, *, then=None, **settings):
    """Return what a server answers to bytes."""

    async def run():
        server = MetricsServer(0, lambda: STATE, **settings)
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(data)
        if then == "hang up":
            writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        await server.close()
        return answer.decode()

    return asyncio.run(run())


def test_every_figure_of_a_snapshot_is_a_metric():
    assert samples(render(STATE).decode()) == {
        ("kws_build_info", "a,b", "1.2"): 1.0,
        ("kws_uptime_seconds",): 50.0,
        ("process_cpu_seconds_total",): 5.0,
        ("process_resident_memory_bytes",): 40e6,
        ("kws_detections_total", "go", "a", "b"): 3.0,
        ("kws_hook_runs_total", "ok"): 4.0,
        ("kws_hook_runs_total", "timed_out"): 1.0,
        ("kws_clips_total", "ok"): 6.0,
        ("kws_clips_total", "failed"): 1.0,
        ("kws_audio_seconds_total", 'the "mic"\n'): 30.0,
        ("kws_audio_seconds_total", "b"): 0.0,
        ("kws_audio_dropped_seconds_total", 'the "mic"\n'): 1.5,
        ("kws_audio_dropped_seconds_total", "b"): 0.0,
        ("kws_audio_overruns_total", 'the "mic"\n'): 7.0,
        ("kws_audio_overruns_total", "b"): 0.0,
        ("kws_source_reopened_total", 'the "mic"\n'): 2.0,
        ("kws_source_reopened_total", "b"): 0.0,
        ("kws_source_up", 'the "mic"\n'): 1.0,
        ("kws_source_up", "b"): 0.0,
        ("kws_level_dbfs", 'the "mic"\n'): -20.5,
        ("kws_gate_open", 'the "mic"\n'): 1.0,
    }


def test_a_scraper_gets_the_metrics():
    answer = fetch(b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4")
    assert f"Content-Length: {len(body.encode())}\r\n" in head + "\r\n"
    assert body.encode() == render(STATE)


def test_a_head_request_gets_no_body():
    assert fetch(b"HEAD /metrics HTTP/1.1\r\n\r\n").endswith("Connection: close\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"\x00\xff\r\n\r\n", "405"),
        (b"GET /metrics HTTP/1.1\r\n" + b"x" * 9000 + b"\r\n\r\n", "431"),
    ],
)
def test_any_other_request_is_refused(request_, status):
    assert fetch(request_).startswith(f"HTTP/1.1 {status} ")


def test_half_a_request_is_refused():
    assert fetch(b"GET /metr", then="hang up").startswith("HTTP/1.1 400 ")


def test_who_says_nothing_is_sent_away(monkeypatch):
    monkeypatch.setattr("kws.daemon.metrics._REQUEST_S", 0.05)
    assert fetch(b"") == ""


def test_it_answers_on_the_loopback_alone():
    async def run():
        server = MetricsServer(0, lambda: STATE)
        await server.start()
        names = [one.getsockname()[0] for one in server._server.sockets]
        await server.close()
        return names

    assert asyncio.run(run()) == ["127.0.0.1"]


def test_a_port_that_is_taken_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"must be free. Received: {port} \(.+\). Choose"):
            asyncio.run(MetricsServer(port, lambda: STATE).start())


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=r"Run `pip install 'kws\[metrics\]'`, or remove the key"):
        MetricsServer(9100, lambda: STATE)
