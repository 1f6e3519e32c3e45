"""Measure the Wyoming service under clients that stream in real time.

python benchmarks/wyoming_load.py --clients 100 --seconds 60

Starts `kws wyoming` on loopback, and clients in this process that stream the bundled recording,
each from another place in it. A chunk is sent when a microphone would have filled it. Printed are
the CPU and memory of the service for each client, the time from a word's end to the arrival of its
detection (most of it the model's own delay), the part of it from the sending of the chunk that
completes the word, and what was lost: chunks that were not processed, and differences from the
detections of a spotter on the same audio.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kws.commands.demo import load_demo
from kws.events import Detection
from kws.matching import LabelledRecording
from kws.spotter import Spotter

__all__ = ["Service", "measure", "serving"]

RATE_HZ = 16_000
CHUNK_MS = 80
CHUNK_SAMPLES = RATE_HZ * CHUNK_MS // 1000
N_PLACES = 10
AUDIO = {"rate": RATE_HZ, "width": 2, "channels": 1}


class Service:
    """`kws wyoming` in a process of its own, seen from outside."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def cpu_s(self) -> float:
        """Return the CPU time taken so far."""
        fields = self._read("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Return the resident memory."""
        return int(self._read("statm").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def n_files(self) -> int:
        """Return the open file descriptors."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def n_threads(self) -> int:
        """Return the threads."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/task").iterdir())

    def _read(self, name: str) -> str:
        return Path(f"/proc/{self.process.pid}/{name}").read_text(encoding="ascii")


@contextlib.contextmanager
def serving(*options: str, log: Path) -> Iterator[Service]:
    """Start the service on a free port; its log goes to a file."""
    command = [sys.executable, "-m", "kws", "-v", "wyoming", "--uri", "tcp://127.0.0.1:0", *options]
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            command, stderr=file, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        ) as process,
    ):
        try:
            while not (port := re.search(r"tcp://127.0.0.1:(\d+)", log.read_text("utf-8"))):
                if process.poll() is not None:
                    raise RuntimeError(log.read_text("utf-8"))
                os.sched_yield()
            yield Service(process, int(port[1]))
        finally:
            process.terminate()


class Arrival(NamedTuple):
    """A detection at a client."""

    name: str
    end_s: float
    after_word_s: float | None
    after_chunk_s: float


def measure(n_clients: int, seconds: float, *, log: Path) -> dict[str, Any]:
    """Run the clients; return what is printed, by name."""
    n_chunks = int(seconds * 1000 / CHUNK_MS)
    places = _places(n_chunks)
    options = ("--model", "commands", "--max-clients", str(n_clients))
    with serving(*options, log=log) as service:
        idle_mb, figures = service.memory_mb(), {}
        arrivals = asyncio.run(_run(service, places, n_clients, figures))
    found = [(one.name, one.end_s) for client in arrivals for one in client]
    expected = [one for i in range(n_clients) for one in places[i % len(places)].expected]
    processed = re.findall(r"Client \d+: ([\d.]+) s of audio", log.read_text("utf-8"))
    words = np.array(
        [one.after_word_s for client in arrivals for one in client if one.after_word_s is not None]
    )
    chunks = np.array([one.after_chunk_s for client in arrivals for one in client])
    return {
        "clients": n_clients,
        "seconds": seconds,
        "cpu_share": figures["cpu_s"] / figures["wall_s"],
        "cpu_ms_per_client_s": 1000 * figures["cpu_s"] / (n_clients * seconds),
        "memory_mb": figures["memory_mb"],
        "memory_mb_per_client": (figures["memory_mb"] - idle_mb) / n_clients,
        "detections": len(found),
        "wrong_detections": len(set(found) ^ set(expected)) + abs(len(found) - len(expected)),
        "dropped_chunks": n_clients * n_chunks
        - round(sum(map(float, processed)) * 1000 / CHUNK_MS),
        "word_to_detection_p50_ms": 1000 * float(np.percentile(words, 50)),
        "word_to_detection_p95_ms": 1000 * float(np.percentile(words, 95)),
        "chunk_to_detection_p50_ms": 1000 * float(np.percentile(chunks, 50)),
        "chunk_to_detection_p95_ms": 1000 * float(np.percentile(chunks, 95)),
        "open_ms_per_client": 1000 * figures["open_s"] / n_clients,
        "latest_chunk_ms": 1000 * figures["latest_s"],
    }


class _Place(NamedTuple):
    """A place in the recording to start at: its chunks, and what they give."""

    chunks: list[bytes]
    expected: dict[tuple[str, float], "_Known"]


class _Known(NamedTuple):
    """What is known of a detection before: the chunk that completes it, and its word's end."""

    chunk: int
    word_end_s: float | None


def _places(n_chunks: int) -> list[_Place]:
    labels, path = load_demo()
    with wave.open(str(path)) as file:
        recording = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    places = []
    for i in range(N_PLACES):
        n_before = i * len(recording) // N_PLACES
        samples = np.resize(np.roll(recording, -n_before), n_chunks * CHUNK_SAMPLES)
        spotter, expected = Spotter("commands"), {}
        pieces = np.split(samples, n_chunks)
        for k, detections in enumerate([*map(spotter.process, pieces), spotter.flush()]):
            for one in detections:
                end_s = _word_end_s(labels, one, before_s=n_before / RATE_HZ)
                expected[one.keyword, one.end_s] = _Known(k, end_s)
        header = {"type": "audio-chunk", "payload_length": 2 * CHUNK_SAMPLES}
        chunks = []
        for k, piece in enumerate(pieces):
            timed = header | {"data": AUDIO | {"timestamp": k * CHUNK_MS}}
            chunks.append(json.dumps(timed).encode() + b"\n" + piece.tobytes())
        places.append(_Place(chunks, expected))
    return places


def _word_end_s(
    labels: LabelledRecording, detection: Detection, *, before_s: float
) -> float | None:
    """Return the end of the labelled word that a detection belongs to; None for a false alarm."""
    at_s = (detection.end_s + before_s) % labels.duration_s
    for word in labels.words:
        if word.word == detection.keyword and word.start_s < at_s < word.end_s + 0.5:
            return detection.end_s + word.end_s - at_s
    return None


async def _run(
    service: Service, places: list[_Place], n_clients: int, figures: dict[str, float]
) -> list[list[Arrival]]:
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    opened = await asyncio.gather(
        *(_Client.open(service.port, places[i % len(places)]) for i in range(n_clients))
    )
    figures["open_s"] = loop.time() - begun_s
    cpu_s, start_s = service.cpu_s(), loop.time() + 0.1
    spread_s = CHUNK_MS / 1000 / n_clients
    await asyncio.gather(*(one.stream(start_s + i * spread_s) for i, one in enumerate(opened)))
    figures["cpu_s"], figures["wall_s"] = service.cpu_s() - cpu_s, loop.time() - start_s
    figures["memory_mb"] = service.memory_mb()
    figures["latest_s"] = max(one.latest_s for one in opened)
    return [await one.end() for one in opened]


class _Client:
    """A satellite: sends chunks when they are due, and notes when detections arrive."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: _Place
    ) -> None:
        self._reader, self._writer, self._place = reader, writer, place
        self._loop = asyncio.get_running_loop()
        self._start_s = 0.0
        self._sent_s: list[float] = []
        self.latest_s = 0.0
        self._arrivals: list[Arrival] = []
        self._is_open = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, port: int, place: _Place) -> "_Client":
        client = cls(*await asyncio.open_connection("127.0.0.1", port), place)
        client._write("audio-start", AUDIO)
        client._write("ping")
        await asyncio.wait_for(client._is_open.wait(), 60)
        return client

    async def stream(self, start_s: float) -> None:
        self._start_s = start_s
        for k, chunk in enumerate(self._place.chunks):
            due_s = start_s + (k + 1) * CHUNK_MS / 1000
            await asyncio.sleep(max(0.0, due_s - self._loop.time()))
            self._writer.write(chunk)
            self._sent_s.append(self._loop.time())
            await self._writer.drain()
            self.latest_s = max(self.latest_s, self._loop.time() - due_s)

    async def end(self) -> list[Arrival]:
        self._sent_s.append(self._loop.time())
        self._write("audio-stop")
        self._write("ping", {"text": "end"})
        await asyncio.wait_for(self._reading, 60)
        self._writer.close()
        await self._writer.wait_closed()
        return self._arrivals

    async def _read(self) -> None:
        while line := await self._reader.readline():
            header = json.loads(line)
            n_bytes = header.get("data_length") or 0
            data = json.loads(await self._reader.readexactly(n_bytes)) if n_bytes else {}
            now_s = self._loop.time()
            if header["type"] == "pong" and data.get("text") == "end":
                return
            self._is_open.set()
            if header["type"] == "detection":
                end_s = data["timestamp"] / 1000
                known = self._place.expected.get((data["name"], end_s), _Known(0, None))
                after_word_s = None
                if known.word_end_s is not None:
                    after_word_s = now_s - self._start_s - known.word_end_s
                after_chunk_s = now_s - self._sent_s[min(known.chunk, len(self._sent_s) - 1)]
                self._arrivals.append(Arrival(data["name"], end_s, after_word_s, after_chunk_s))

    def _write(self, kind: str, data: dict[str, Any] | None = None) -> None:
        self._writer.write(json.dumps({"type": kind, "data": data or {}}).encode() + b"\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--log", type=Path, default=Path("wyoming_load.log"))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    measured = measure(arguments.clients, arguments.seconds, log=arguments.log)
    if arguments.json:
        print(json.dumps(measured))
        return
    for name, value in measured.items():
        print(
            f"{name:<28} {value:>10.3f}" if isinstance(value, float) else f"{name:<28} {value:>10}"
        )


if __name__ == "__main__":
    main()
