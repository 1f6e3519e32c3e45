import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kws.config import SourceSettings
from kws.errors import ConfigError, DeviceError
from kws.sources import open_source
from kws.sources.network import TcpSource, UdpSource
from kws.sources.pcm import Layout

RAMP = np.arange(-3_200, 3_200, dtype=np.int16)


class Hearing:
    """Iterates a source in a thread, as its reader would."""

    def __init__(self, source):
        self.source = source
        self.chunks = []
        self.thread = threading.Thread(target=self._hear)
        self.thread.start()

    def _hear(self):
        for chunk in self.source:
            self.chunks.append(chunk)

    @property
    def samples(self):
        return np.concatenate([np.zeros(0, np.int16), *self.chunks])

    def until(self, n):
        deadline_s = time.monotonic() + 30
        while len(self.samples) < n:
            assert time.monotonic() < deadline_s, len(self.samples)
            time.sleep(0.01)
        return self.samples


@contextlib.contextmanager
def heard(source) -> Iterator[Hearing]:
    hearing = Hearing(source)
    try:
        yield hearing
    finally:
        source.close()
        hearing.thread.join(10)
        assert not hearing.thread.is_alive()


def udp_to(source):
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(("127.0.0.1", source.port))
    return sender


def tcp_to(source):
    return socket.create_connection(("127.0.0.1", source.port), timeout=10)


def wait_until(happened):
    deadline_s = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_datagrams_are_heard_in_chunks():
    source = open_source(SourceSettings(input="udp://127.0.0.1:0", chunk_ms=100))
    assert isinstance(source, UdpSource)
    assert (source.name, source.live) == (f"udp://127.0.0.1:{source.port}", True)
    with heard(source) as hearing, udp_to(source) as sender:
        for part in np.split(RAMP, 10):
            sender.send(part.tobytes())
        np.testing.assert_array_equal(hearing.until(6_400), RAMP)
    assert {len(chunk) for chunk in hearing.chunks} == {1_600}


def test_odd_tiny_empty_and_huge_datagrams_never_shift_the_samples():
    source = UdpSource("udp://127.0.0.1:0", chunk_ms=10)
    huge = np.arange(32_750, dtype=np.int16)
    with heard(source) as hearing, udp_to(source) as sender:
        for data in (b"", b"x", RAMP[:1].tobytes(), RAMP[1:160].tobytes() + b"x", huge.tobytes()):
            sender.send(data)
        sender.send(np.zeros(320, np.int16).tobytes())
        samples = hearing.until(160 + 32_750)
    np.testing.assert_array_equal(samples[:160], RAMP[:160])
    np.testing.assert_array_equal(samples[160:32_910], huge)
    assert source.dropped_chunks == 2


def test_a_second_sender_is_refused_until_the_first_is_silent(caplog):
    source = UdpSource("udp://127.0.0.1:0", chunk_ms=10, stall_s=0.5)
    ones, twos = (np.full(160, value, np.int16).tobytes() for value in (1, 2))
    with heard(source) as hearing, udp_to(source) as first, udp_to(source) as second:
        first.send(ones)
        hearing.until(160)
        for _ in range(3):
            second.send(twos)
        first.send(ones)
        assert set(hearing.until(320)) == {1}
        assert [r for r in caplog.messages if "refused" in r] == [
            f"{source.name}: refused 127.0.0.1:{second.getsockname()[1]}, as another sender is "
            f"active."
        ]
        time.sleep(0.7)
        second.send(twos)
        assert set(hearing.until(480)[320:]) == {2}


@pytest.mark.parametrize("sign", [b"", b"x"])
def test_a_datagram_without_audio_neither_makes_nor_keeps_a_sender(sign):
    source = UdpSource("udp://127.0.0.1:0", chunk_ms=10, stall_s=0.5)
    ones, twos = (np.full(160, value, np.int16).tobytes() for value in (1, 2))
    with heard(source) as hearing, udp_to(source) as first, udp_to(source) as second:
        first.send(sign)
        second.send(twos)  # not refused: nobody has sent audio yet
        hearing.until(160)
        for _ in range(7):
            second.send(sign)
            time.sleep(0.1)
        first.send(ones)
        assert set(hearing.until(320)) == {1, 2}


def test_a_client_that_never_completes_a_sample_gives_way():
    source = TcpSource("tcp://127.0.0.1:0", chunk_ms=10, stall_s=0.4)
    source._layout = Layout(n_channels=2)
    with heard(source) as hearing, tcp_to(source) as first:
        for _ in range(3):
            first.sendall(b"x")
            time.sleep(0.2)
        with tcp_to(source) as second:
            second.sendall(np.repeat(RAMP[:160], 2).tobytes())
            np.testing.assert_array_equal(hearing.until(160), RAMP[:160])


def test_what_the_kernel_drops_is_counted():
    source = UdpSource("udp://127.0.0.1:0", chunk_ms=10)
    with udp_to(source) as sender:
        n_sent = 0
        for _ in range(4_000):
            sender.send(bytes(1_280))
            n_sent += 1
        with heard(source) as hearing:
            deadline_s = time.monotonic() + 30
            while source.dropped_chunks + len(hearing.samples) // 640 < n_sent:
                sender.send(bytes(1_280))  # the count comes with the next
                n_sent += 1
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
    assert source.dropped_chunks > 100


def test_one_client_after_another_is_heard():
    source = TcpSource("tcp://127.0.0.1:0", chunk_ms=10)
    with heard(source) as hearing:
        for i in range(3):
            with tcp_to(source) as client:
                client.sendall(RAMP.tobytes())
            np.testing.assert_array_equal(hearing.until(6_400 * (i + 1))[6_400 * i :], RAMP)


def test_a_client_that_sends_no_pcm_is_disconnected_and_named(caplog):
    source = TcpSource("tcp://127.0.0.1:0", chunk_ms=10)
    with heard(source) as hearing:
        with tcp_to(source) as client:
            client.sendall(b"fLaC" + bytes(1000))
            with contextlib.suppress(ConnectionError):
                assert client.recv(1) == b""
        with tcp_to(source) as client:
            client.sendall(RAMP.tobytes())
            np.testing.assert_array_equal(hearing.until(6_400), RAMP)
    assert (
        f"{source.name}: a sender must send raw 16000 Hz mono s16le. Received: FLAC. It was "
        "disconnected; let it send `ffmpeg … -f s16le -ar 16000 -ac 1 tcp://HOST:PORT`."
    ) in caplog.messages


def test_floats_are_received_by_datagram():
    settings = SourceSettings(input="udp://127.0.0.1:0", chunk_ms=10, sample_format="f32le")
    source = open_source(settings)
    with heard(source) as hearing, udp_to(source) as sender:
        sender.send((RAMP[:160] / np.float32(32_768)).astype("<f4").tobytes() + b"xyz")
        np.testing.assert_array_equal(hearing.until(160), RAMP[:160])
    assert source.dropped_chunks == 1


def test_a_client_that_leaves_within_a_sample_does_not_shift_the_next():
    source = TcpSource("tcp://127.0.0.1:0", chunk_ms=10, layout=Layout(n_channels=2, channel=1))
    stereo = np.stack([0 * RAMP, RAMP], axis=1).tobytes()
    with heard(source) as hearing:
        with tcp_to(source) as client:
            client.sendall(stereo[: 4 * 160 + 3])
        hearing.until(160)
        wait_until(lambda: source._client is None and source._rest == b"" and source.dropped_chunks)
        with tcp_to(source) as client:
            client.sendall(stereo)
            samples = hearing.until(160 + 6_400)
    np.testing.assert_array_equal(samples, np.concatenate((RAMP[:160], RAMP)))
    assert source.dropped_chunks == 1


@pytest.mark.parametrize("step", [1, 3, 777])
def test_samples_do_not_depend_on_how_the_bytes_arrive(step):
    source = TcpSource("tcp://127.0.0.1:0", chunk_ms=10)
    data = RAMP[:960].tobytes()
    with heard(source) as hearing, tcp_to(source) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(data), step):
            client.sendall(data[start : start + step])
        np.testing.assert_array_equal(hearing.until(960), RAMP[:960])


def test_a_second_client_is_refused_while_one_is_heard():
    source = TcpSource("tcp://127.0.0.1:0", chunk_ms=10, stall_s=60)
    with heard(source) as hearing, tcp_to(source) as first:
        first.sendall(RAMP[:160].tobytes())
        hearing.until(160)
        with contextlib.suppress(ConnectionError), tcp_to(source) as second:
            assert second.recv(1) == b""
        first.sendall(RAMP[160:320].tobytes())
        np.testing.assert_array_equal(hearing.until(320), RAMP[:320])


def test_a_client_that_fell_silent_gives_way():
    source = TcpSource("tcp://127.0.0.1:0", chunk_ms=10, stall_s=0.3)
    with heard(source) as hearing, tcp_to(source) as first:
        first.sendall(RAMP[:160].tobytes() + b"x")
        hearing.until(160)
        time.sleep(0.5)
        with tcp_to(source) as second:
            second.sendall(RAMP[160:320].tobytes())
            np.testing.assert_array_equal(hearing.until(320), RAMP[:320])


def test_a_sender_that_is_not_heard_has_to_wait_and_memory_is_bounded():
    source = TcpSource("tcp://127.0.0.1:0", chunk_ms=80)
    with tcp_to(source) as client:
        client.settimeout(0.3)
        n_sent = 0
        with contextlib.suppress(TimeoutError):
            while n_sent < 100_000_000:
                n_sent += client.send(bytes(65_536))
        assert n_sent < 30_000_000
    source.close()


def test_closing_ends_a_wait_and_leaves_nothing_open():
    before = len(list(Path("/proc/self/fd").iterdir()))
    for opens, scheme in ((UdpSource, "udp"), (TcpSource, "tcp")):
        source = opens(f"{scheme}://127.0.0.1:0", chunk_ms=80)
        with heard(source) as hearing:
            time.sleep(0.05)
        source.close()
        assert len(hearing.samples) == 0
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    "address",
    ["udp://", "tcp://localhost", "udp://:5", "tcp://a:b", "udp://h:65536", "tcp://a b:1"],
)
def test_what_is_no_address_is_refused(address):
    message = (
        f"An address to listen on must be `udp://HOST:PORT` or `tcp://HOST:PORT`, its port up to "
        f"65535. Received: {address}. Write for example `udp://127.0.0.1:10700`."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        open_source(SourceSettings(input=address))


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_a_port_that_is_taken_is_an_error(scheme):
    with open_source(SourceSettings(input=f"{scheme}://127.0.0.1:0")) as first:
        address = f"{scheme}://127.0.0.1:{first.port}"
        message = (
            f"Cannot listen on {address}: Address already in use. Choose an address of this "
            f"machine and a free port, or end the program that holds it."
        )
        with pytest.raises(DeviceError, match=f"^{re.escape(message)}$"):
            open_source(SourceSettings(input=address))
