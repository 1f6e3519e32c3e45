import asyncio
import contextlib
import logging
import socket
import wave
from random import Random

import numpy as np
import pytest
from wyoming.info import Describe, Info
from wyoming.ping import Ping

from kws.config import WyomingSettings
from kws.errors import ConfigError, ModelError
from kws.spotter import Spotter
from kws.wyoming.server import WyomingServer, catalog_of

from .conftest import ask, client_of, serving, stream

CHUNK = b'{"type": "audio-chunk", "data": {"rate": 16000, "width": 2, "channels": 1}'
MALFORMED = [
    CHUNK + b', "payload_length": 2147483648}\n',
    CHUNK + b', "payload_length": 99999999999999999999999}\n',
    CHUNK + b', "payload_length": -1}\n',
    CHUNK + b', "payload_length": "1280"}\n',
    b'{"type": "detect", "data_length": 2147483648}\n',
    b'{"type": "detect", "data_length": 3}\n[1]',
    b'{"type": "detect", "data_length": 4}\nnope',
    b'{"type": 5}\n',
    b'{"data": {}}\n',
    b"[" * 60_000 + b"\n",
    b'{"type": "x", "data": {"a": ' + b"[" * 5000 + b"\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\xff\xfe\x00\n",
    b"\x16\x03\x01" + bytes(range(256)) * 4 + b"\n",
    b"x" * 200_000,
    b"\n" * 10,
    b'{"type": "' + b"x" * 65 + b'"}\n',
]


@pytest.mark.parametrize("i", range(len(MALFORMED)))
def test_malformed_bytes_get_an_error_and_disturb_nobody(i, scenario, demo_samples, caplog):
    async def steps(server):
        async with client_of(server) as other:
            listening = asyncio.create_task(stream(other, demo_samples[: 5 * 16_000].tobytes()))
            reader, writer = await _connection(server)
            writer.write(MALFORMED[i])
            answer = await reader.read()
            writer.close()
            return answer, await listening

    answer, events = scenario(steps)
    assert b'"code": "bad-event"' in answer
    assert b"Received: " in answer
    assert [event.data.get("name") for event in events] == ["down"]
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_any_bytes_end_in_an_answer_or_the_end(scenario, caplog):
    whole = [
        b'{"type": "describe"}\n',
        b'{"type": "detect", "data": {"names": ["down"]}}\n',
        CHUNK + b', "payload_length": 320}\n' + bytes(320),
        b'{"type": "audio-start", "data_length": 42}\n{"rate": 16000, "width": 2, "channels": 1}  ',
        b'{"type": "audio-stop"}\n',
        b'{"type": "ping", "data": {"text": 5}}\n',
    ]

    async def steps(server):
        for number in range(150):
            random = Random(number)
            reader, writer = await _connection(server)
            data = bytearray(b"".join(random.choices(whole, k=6)))
            for _ in range(random.randrange(4)):
                data[random.randrange(len(data))] = random.randrange(256)
            writer.write(bytes(data))
            writer.write_eof()
            await reader.read()
            writer.close()
        async with client_of(server) as client:
            return await ask(client, Describe())

    assert scenario(steps).type == "info"
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_clients_do_not_mix(scenario, demo_samples, demo):
    expected = [one.keyword for one in Spotter().listen(demo)]

    async def steps(server):
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(client_of(server)) for _ in range(12)]
            quiet = [np.roll(demo_samples, 16_000 * i).tobytes() for i in range(2)]
            return await asyncio.gather(
                *(stream(one, quiet[i % 2], chunk_ms=20 + i) for i, one in enumerate(clients))
            )

    for events in scenario(steps)[::2]:
        assert [event.data["name"] for event in events] == expected


@pytest.mark.parametrize("flood", ["long chunks", "empty chunks", "nothing known"])
def test_clients_that_send_as_fast_as_they_can_do_not_delay_others(flood, scenario):
    audio = '{"type": "audio-chunk", "data": {"rate": 1000, "width": 1, "channels": 1}'
    sent = {
        "long chunks": f'{audio}, "payload_length": 1048576}}\n'.encode() + bytes(1 << 20),
        "empty chunks": f"{audio}}}\n".encode() * 1000,
        "nothing known": b'{"type": "x"}\n' * 5000,
    }[flood]

    async def pour(server):
        _, writer = await _connection(server)
        writer.write(b'{"type": "detect"}\n')
        try:
            while True:
                writer.write(sent)
                await writer.drain()
        finally:
            writer.transport.abort()

    async def steps(server):
        floods = [asyncio.create_task(pour(server)) for _ in range(3)]
        await asyncio.sleep(0.5)
        loop, waited_s = asyncio.get_running_loop(), []
        async with client_of(server) as client:
            for _ in range(20):
                start_s = loop.time()
                assert (await ask(client, Ping())).type == "pong"
                waited_s.append(loop.time() - start_s)
        for one in floods:
            one.cancel()
        await asyncio.gather(*floods, return_exceptions=True)
        return waited_s

    assert sorted(scenario(steps))[18] < 0.5  # the floods themselves run in this loop too


def test_a_name_that_stands_for_two_addresses_is_served_at_both(scenario):
    async def steps(server):
        (address,) = server.addresses
        return [
            (await asyncio.open_connection(host, address.port))[1].close()
            for host in {one[4][0] for one in socket.getaddrinfo("localhost", 1)}
        ]

    assert scenario(steps, uri=["tcp://localhost:0"])


def test_a_client_that_vanishes_within_an_event_leaves_nothing(scenario):
    async def steps(server):
        for _ in range(20):
            _, writer = await _connection(server)
            writer.write(CHUNK + b', "payload_length": 2560}\n' + bytes(100))
            await writer.drain()
            writer.transport.abort()
        while server.n_clients:
            await asyncio.sleep(0.01)

    scenario(steps)


def test_a_client_that_reads_nothing_is_disconnected(scenario, monkeypatch):
    monkeypatch.setattr("kws.wyoming.connection._SEND_S", 0.3)

    async def steps(server):
        _, writer = await _connection(server)
        with pytest.raises(OSError):  # noqa: PT012
            while True:
                writer.write(b'{"type": "describe"}\n' * 1000)
                async with asyncio.timeout(5):
                    await writer.drain()
        writer.transport.abort()
        async with client_of(server) as client:
            return await ask(client, Ping())

    assert scenario(steps).type == "pong"


def test_a_silent_client_is_disconnected_and_told_why(scenario):
    async def steps(server):
        reader, writer = await _connection(server)
        answer = await reader.read()
        writer.close()
        return answer

    answer = scenario(steps, idle_s=1.0)
    assert b'"code": "idle"' in answer
    assert b"A client must send an event every 1 s. Received: none. Connect again." in answer


def test_whoever_is_too_many_is_told_so(scenario):
    async def steps(server):
        async with client_of(server) as first, client_of(server) as second:
            await ask(first, Ping())
            await ask(second, Ping())
            async with client_of(server) as third:
                return await third.read_event(), await third.read_event()

    error, end = scenario(steps, max_clients=2)
    assert (error.data["code"], end) == ("too-many-clients", None)
    assert error.data["text"] == (
        "No more than 2 clients are served at once. Received: one more. Raise --max-clients."
    )


def test_a_client_that_was_silent_makes_room(scenario, monkeypatch):
    monkeypatch.setattr("kws.wyoming.server._SPARED_S", 0.05)

    async def steps(server):
        async with client_of(server) as silent, client_of(server) as busy:
            await ask(silent, Ping())
            await asyncio.sleep(0.1)
            await ask(busy, Ping())
            async with client_of(server) as third:
                assert (await ask(third, Ping())).type == "pong"
            assert (await ask(busy, Ping())).type == "pong"
            return await silent.read_event()

    with contextlib.suppress(ConnectionResetError):
        assert scenario(steps, max_clients=2) is None


def test_unix_sockets_and_ports_are_served_at_once_and_removed(tmp_path, scenario):
    path = tmp_path / "kws.sock"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))

    async def steps(server):
        async with client_of(server, 0) as first, client_of(server, 1) as second:
            return await ask(first, Ping()), await ask(second, Ping())

    uri = ["tcp://127.0.0.1:0", f"unix://{path}"]
    assert [event.type for event in scenario(steps, uri=uri)] == ["pong", "pong"]
    assert not path.exists()


def test_an_address_that_is_taken_is_an_error(scenario, tmp_path):
    path = tmp_path / "kws.sock"

    async def steps(server):
        for address in server.addresses:
            other = WyomingServer(WyomingSettings(uri=[str(address)]), None)
            with pytest.raises(ConfigError, match="must be free and of this machine"):
                await other.start()

    scenario(steps, uri=["tcp://127.0.0.1:0", f"unix://{path}"])
    path.write_text("a file")
    with pytest.raises(ConfigError, match="a file that is no socket"):
        scenario(steps, uri=[f"unix://{path}"])
    assert path.read_text() == "a file"


@pytest.mark.parametrize(
    "uri", ["tcp://127.0.0.1", "udp://127.0.0.1:1", "unix://", "tcp://h:x", ""]
)
def test_an_address_that_is_none_is_an_error(uri, scenario):
    with pytest.raises(ConfigError, match="An address must be tcp://HOST:PORT or unix:///PATH"):
        scenario(None, uri=[uri])


def test_models_in_folders_are_found_while_the_service_runs(
    scenario, tmp_path, make_model, caplog, monkeypatch
):
    monkeypatch.setattr("kws.wyoming.catalog._REFRESH_S", 0.0)
    added = tmp_path / "noise_v2.tflite"
    (tmp_path / "damaged_v0.1.tflite").write_bytes(b"no model")

    async def steps(server):
        async with client_of(server) as client:
            before = Info.from_event(await ask(client, Describe()))
            (tmp_path / "noise_v2.tflite").write_bytes(
                make_model(labels=("_silence_", "lumos", "nox"))
            )
            found = await stream(client, bytes(3200), names=["lumos"])
            both = await stream(client, bytes(3200), names=["Noise"])
            after = Info.from_event(await ask(client, Describe()))
            added.unlink()
            gone = Info.from_event(await ask(client, Describe()))
            return before, found, both, after, gone

    before, found, both, after, gone = scenario(steps, custom_model_dir=[str(tmp_path)])
    assert [event.type for event in (*found, *both)] == ["not-detected"] * 2
    names = [[one.name for one in info.wake[0].models][10:] for info in (before, after, gone)]
    assert names == [[], ["lumos", "nox"], []]
    (refused,) = caplog.messages
    assert refused.startswith(f"{tmp_path / 'damaged_v0.1.tflite'} is not served: ")


def test_a_service_without_any_model_yet_says_so(scenario, tmp_path):
    async def steps(server):
        async with client_of(server) as client:
            return await stream(client, bytes(3200))

    error, *_ = scenario(steps, models=[], custom_model_dir=[str(tmp_path)])
    assert (error.type, error.data["code"]) == ("error", "unusable")


def test_what_cannot_be_served_is_an_error_before_there_is_a_client(tmp_path):
    with pytest.raises(ConfigError, match="A custom model directory must be a folder"):
        catalog_of(WyomingSettings(custom_model_dir=[str(tmp_path / "none")]))
    with pytest.raises(ModelError, match="must be a bundled model's name or a file"):
        catalog_of(WyomingSettings(models=["nabu"]))
    with pytest.raises(ModelError, match="The service needs a model"):
        catalog_of(WyomingSettings())


def test_threshold_and_refractory_time_hold_for_all_models(scenario, demo_samples, demo):
    async def steps(server):
        async with client_of(server) as client:
            return await stream(client, demo_samples.tobytes())

    expected = [one.keyword for one in Spotter(threshold=0.3).listen(demo)]
    assert len(expected) > 6
    assert [event.data["name"] for event in scenario(steps, threshold=0.3)] == expected
    # Less than a minute of refractory time in a minute of audio.
    assert len(scenario(steps, threshold=0.3, refractory_s=50.0)) < len(expected)


def test_recordings_hold_what_was_sent(scenario, demo_samples, tmp_path):
    async def steps(server):
        async with client_of(server) as client:
            await stream(client, demo_samples.tobytes())
        async with client_of(server) as client:
            await stream(client, demo_samples[:16_000].tobytes(), start=True, stop=False)

    scenario(steps, debug_recording_dir=str(tmp_path / "clips"))
    clips = sorted((tmp_path / "clips").glob("*.wav"))
    assert [path.stem.partition("_")[2] for path in clips] == ["client1", "client1", "client2"]
    assert clips[0].stat().st_mode & 0o77 == 0
    recorded = [_samples(path) for path in clips]
    assert np.array_equal(np.concatenate(recorded[:2]), demo_samples)
    assert np.array_equal(recorded[2], demo_samples[:16_000])


def test_the_end_of_the_service_disconnects_clients(demo_samples):
    async def run():
        async with serving() as server:
            reader, writer = await _connection(server)
            writer.write(b'{"type": "ping"}\n')
            await reader.readuntil(b"\n")
        assert await asyncio.wait_for(reader.read(), 5) is not None
        writer.close()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", writer.get_extra_info("peername")[1])

    asyncio.run(run())


async def _connection(server):
    address = server.addresses[0]
    return await asyncio.open_connection(address.host, address.port)


def _samples(path):
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")
