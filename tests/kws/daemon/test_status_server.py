import asyncio
import contextlib
import json
import socket
import stat
import time
from pathlib import Path

import msgspec
import pytest

from kws.daemon.snapshot import Snapshot, SourceState
from kws.daemon.status_client import ask, find_socket, follow
from kws.daemon.status_server import StatusServer
from kws.errors import ConfigError, KwsError
from kws.events import Detection, StateChange, from_json

from .conftest import census, until

STATE = Snapshot(
    version="1",
    pid=7,
    time_s=100.0,
    uptime_s=50.0,
    cpu_s=5.0,
    rss_mb=40.0,
    sources=[SourceState(name="mic", state="listening", since_s=50.0)],
    models=["m"],
)
REFUSAL = (
    "At most 3 clients may be connected. Received: one more. End a `kws tail`, or try again later."
)
STOP = StateChange(event="stop", time="2026-01-31T12:00:00.000Z")


def heard(i):
    return Detection(keyword="go", score=1.0, start_s=0.0, end_s=float(i), model="m", source="s")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kws.sock"


@pytest.fixture
def serve(path):
    """Run `client(server)` while a server answers; return what it returns."""

    def serve(client, **settings):
        async def run():
            server = StatusServer(path, lambda: STATE, **settings)
            await server.start()
            try:
                async with asyncio.timeout(30):
                    return await client(server)
            finally:
                await server.close()

        return asyncio.run(run())

    return serve


def answer_to(path, data):
    """Send bytes; return all that comes until the server hangs up."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        received = b""
        with contextlib.suppress(ConnectionError):  # it need not read all that was sent
            client.sendall(data)
        with contextlib.suppress(ConnectionError):
            while part := client.recv(65_536):
                received += part
        return received


async def request(path, data):
    return await asyncio.to_thread(answer_to, path, data)


async def following(path):
    reader, writer = await asyncio.open_unix_connection(path, limit=2**20)
    writer.write(b'{"request": "events"}\n')
    return reader, writer


def test_a_client_gets_the_state(path, serve):
    assert serve(lambda _: asyncio.to_thread(ask, path)) == STATE


def test_a_client_gets_every_event_in_order_until_the_daemon_stops(path, serve):
    sent = [heard(i) for i in range(500)]

    async def client(server):
        listening = asyncio.create_task(asyncio.to_thread(lambda: list(follow(path))))
        await until(lambda: server._subscribers)
        for event in (*sent, STOP):
            server.publish(event)
        await server.close()
        return await listening

    assert serve(client) == [*sent, STOP]


def test_a_daemon_that_goes_without_a_word_is_an_error(path, serve):
    async def client(server):
        listening = asyncio.create_task(asyncio.to_thread(lambda: list(follow(path))))
        await until(lambda: server._subscribers)
        await server.close()
        await listening

    with pytest.raises(KwsError) as failure:
        serve(client)
    assert str(failure.value) == (
        f"The daemon closed the connection ({path}). It was killed or crashed; see its log."
    )


def test_the_socket_is_for_its_user_alone_and_is_removed_at_the_end(tmp_path):
    path = tmp_path / "made" / "kws.sock"

    async def run():
        server = StatusServer(path, lambda: STATE)
        await server.start()
        modes = stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)
        await server.close()
        return modes

    assert asyncio.run(run()) == (0o600, 0o700)
    assert not path.exists()


def test_the_socket_of_a_dead_daemon_is_replaced(path, serve):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert serve(lambda _: asyncio.to_thread(ask, path)) == STATE


def test_the_socket_of_a_living_daemon_is_refused_and_left_alone(path, serve):
    async def client(server):
        with pytest.raises(ConfigError) as failure:
            await StatusServer(path, lambda: STATE).start()
        return str(failure.value), await asyncio.to_thread(ask, path)

    message, state = serve(client)
    assert message == (
        f"Each daemon must have a socket of its own. Received: {path}, on which another listens. "
        f"`kws status --socket {path}` shows it; end it, or set `[daemon] socket`."
    )
    assert state == STATE


@pytest.mark.parametrize(
    "data",
    [
        b"\n",
        b"hello\n",
        b'{"request": "reboot"}\n',
        b'{"request": "status", "more": 1}\n',
        b"[" * 900 + b"\n",
        b"\xff\x00\n",
        b"x" * 100_000,
    ],
)
def test_a_request_that_is_none_gets_an_error(path, serve, data):
    answer = serve(lambda _: request(path, data))
    assert json.loads(answer) == {
        "error": 'A request must be one line of JSON such as {"request": "status"}, sent at once.'
    }


def test_who_sends_nothing_is_sent_away(path, serve, monkeypatch):
    monkeypatch.setattr("kws.daemon.status_server._REQUEST_S", 0.05)
    assert b"A request must be" in serve(lambda _: request(path, b""))


def test_no_more_clients_are_served_than_there_may_be_and_places_come_free(path, serve):
    async def client(server):
        held = [await following(path) for _ in range(3)]
        await until(lambda: len(server._subscribers) == 3)
        refused = await request(path, b'{"request": "status"}\n')
        with pytest.raises(KwsError) as told:
            await asyncio.to_thread(ask, path)
        with pytest.raises(KwsError) as told_too:
            await asyncio.to_thread(next, follow(path))
        assert (
            str(told.value) == str(told_too.value) == f"The daemon refused the request. {REFUSAL}"
        )
        for _, writer in held:
            writer.close()
        await until(lambda: not server._connections)
        return refused, await asyncio.to_thread(ask, path)

    refused, state = serve(client, max_clients=3)
    assert json.loads(refused) == {"error": REFUSAL}
    assert state == STATE


def test_who_is_one_too_many_is_told_so_and_never_cut_off(path, serve):
    """A reset goes before what was said to a client that has sent its request too late."""

    def late_request():
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(path))
            time.sleep(0.2)
            client.sendall(b'{"request": "status"}\n')
            received = b""
            while part := client.recv(65_536):
                received += part
            return received

    async def client(server):
        held = [await following(path) for _ in range(3)]
        await until(lambda: len(server._subscribers) == 3)
        refused = await asyncio.gather(*(asyncio.to_thread(late_request) for _ in range(8)))
        for _, writer in held:
            writer.close()
        return refused

    assert list(map(json.loads, serve(client, max_clients=3))) == 8 * [{"error": REFUSAL}]


def test_those_who_are_too_many_and_stay_are_sent_away(path, serve, monkeypatch):
    monkeypatch.setattr("kws.daemon.status_server._REFUSAL_S", 0.05)
    assert json.loads(serve(lambda _: request(path, b""), max_clients=0))["error"]


def test_a_client_that_does_not_read_delays_nobody_and_is_told_what_it_missed(path, serve):
    n = 20_000

    async def client(server):
        slow, writer = await following(path)
        writer.transport.pause_reading()
        await until(lambda: server._subscribers)
        subscriber = next(iter(server._subscribers))
        started_s = time.monotonic()
        for i in range(n):
            server.publish(heard(i))
            if i % 100 == 0:
                await asyncio.sleep(0)
        took_s = time.monotonic() - started_s
        most_waiting = len(subscriber._lines)
        writer.transport.resume_reading()
        server.publish(STOP)
        lines = []
        while not lines or from_json(lines[-1]) != STOP:
            lines.append(await slow.readline())
        writer.close()
        return took_s, most_waiting, [from_json(line) for line in lines]

    took_s, most_waiting, events = serve(client, max_queued=50)
    assert took_s < 10
    assert most_waiting <= 50
    ends = [event.end_s for event in events if isinstance(event, Detection)]
    told = [event.detail for event in events if isinstance(event, StateChange)][:-1]
    assert ends == sorted(set(ends))
    assert ends[-1] == n - 1
    assert n - len(ends) == sum(int(detail.split()[0]) for detail in told) > 0
    assert told[0].endswith("events were dropped here, as the client reads too slowly.")


def test_the_end_does_not_wait_for_a_client_that_does_not_read(path):
    async def run():
        server = StatusServer(path, lambda: STATE)
        await server.start()
        _, writer = await following(path)
        writer.transport.pause_reading()
        await until(lambda: server._subscribers)
        for i in range(20_000):
            server.publish(heard(i))
            if i % 100 == 0:
                await asyncio.sleep(0)
        started_s = time.monotonic()
        await server.close()
        writer.close()
        return time.monotonic() - started_s

    assert asyncio.run(run()) < 5


def test_nothing_stays_open_after_many_clients(path, serve):
    async def client(server):
        before = census()[0]
        for _ in range(100):
            await request(path, b'{"request": "status"}\n')
            _, writer = await following(path)
            writer.close()
        await until(lambda: not server._connections)
        await asyncio.sleep(0.05)
        return before, census()[0]

    before, after = serve(client)
    assert after == before


def test_without_a_daemon_the_path_and_the_remedy_are_told(path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    with pytest.raises(ConfigError) as failure:
        ask(path)
    assert str(failure.value) == (
        f"No kws daemon is running (no socket at {path}). Start one with `kws daemon --config "
        f"kws.toml`, or give its socket with --socket."
    )


def test_a_daemon_that_hangs_is_told(path, monkeypatch):
    monkeypatch.setattr("kws.daemon.status_client._ANSWER_S", 0.05)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(KwsError, match=r"did not answer within 0\.05 s"):
            ask(path)


def test_permission_denied_is_told(path, monkeypatch):
    class Closed(socket.socket):
        def connect(self, _):
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Closed)
    with pytest.raises(ConfigError) as failure:
        ask(path)
    assert str(failure.value) == (
        f"Only the user it runs as, and root, may connect to a daemon. Received: permission "
        f"denied for {path}. Run this as that user, or with sudo."
    )


def test_a_socket_in_a_folder_that_is_closed_is_taken_for_a_daemons(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("kws.daemon.status_client._SYSTEM_SOCKET", tmp_path / "closed" / "kws.sock")
    exists = Path.exists

    def closed(self):
        if self.parent.name == "closed":
            raise PermissionError(13, "Permission denied")
        return exists(self)

    monkeypatch.setattr(Path, "exists", closed)
    assert find_socket() == tmp_path / "closed" / "kws.sock"


def test_another_program_behind_the_socket_is_told(path):
    async def run():
        async def talk(_, writer):
            writer.write(b'{"hello": 1}\n')
            writer.close()

        async with await asyncio.start_unix_server(talk, path):
            await asyncio.to_thread(ask, path)

    with pytest.raises(KwsError, match="is not from a daemon of this version"):
        asyncio.run(run())


def test_a_snapshot_survives_json():
    assert msgspec.json.decode(msgspec.json.encode(STATE), type=Snapshot) == STATE


@pytest.mark.parametrize(("n_bytes", "is_answered"), [(1_000, True), (1_100, False)])
def test_a_request_has_1024_bytes(path, serve, n_bytes, is_answered):
    line = b'{"request": "status"}'
    line += b" " * (n_bytes - len(line) - 1) + b"\n"
    answer = serve(lambda _: request(path, line))
    assert (b'"pid":7' in answer) == is_answered
    assert (b"A request must be one line of JSON" in answer) != is_answered


def test_16_clients_are_served_and_the_17th_is_refused(path, serve):
    async def client(server):
        clients = [await following(path) for _ in range(16)]
        await until(lambda: len(server._subscribers) == 16)
        answer = await request(path, b'{"request": "status"}\n')
        for _, writer in clients:
            writer.close()
        return answer

    assert b"At most 16 clients may be connected." in serve(client)
