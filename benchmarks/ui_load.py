"""CPU time of `kws ui` with no page, one page and several, all showing the live scope.

python benchmarks/ui_load.py --seconds 20
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request

from kws.commands.demo import load_demo

_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print a row for each number of pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--pages", type=int, nargs="+", default=[0, 1, 8])
    options = parser.parse_args()
    print(
        "| pages | CPU, share of a core | frames a second | bytes of a frame |\n|---|---|---|---|"
    )
    for n_pages in options.pages:
        print(_measure(n_pages, seconds=options.seconds))


def _measure(n_pages: int, *, seconds: float) -> str:
    """Run kws on the demonstration, paced, with so many pages that read everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "kws.toml").write_text(f'[source]\ninput = "{load_demo()[1]}"\n')
        command = [sys.executable, "-m", "kws", "ui", "--config", "kws.toml", "--port", "8493"]
        environment = {**os.environ, "XDG_RUNTIME_DIR": name}
        with subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                link = process.stdout.readline().split()[1] if process.stdout else ""
                pages = [_Page(link) for _ in range(n_pages)]
                time.sleep(2.0)
                before = _cpu_s(process.pid), [page.n_frames for page in pages]
                bytes_before = [page.n_bytes for page in pages]
                started_s = time.monotonic()
                time.sleep(seconds)
                spent_s = time.monotonic() - started_s
                share = (_cpu_s(process.pid) - before[0]) / spent_s
                frames = [page.n_frames - n for page, n in zip(pages, before[1], strict=True)]
                size = [page.n_bytes - n for page, n in zip(pages, bytes_before, strict=True)]
            finally:
                process.terminate()
    mean = _mean(frames) / spent_s
    return f"| {n_pages} | {share:.2%} | {mean:.1f} | {_mean(size) / max(1.0, _mean(frames)):.0f} |"


class _Page:
    """A client of the live stream that counts frames, in a thread."""

    def __init__(self, link: str) -> None:
        import socket

        self.n_frames = self.n_bytes = 0
        at = urlsplit(link)
        token = at.fragment.removeprefix("token=")
        self._socket = socket.create_connection((at.hostname, at.port))
        connection = WSConnection(ConnectionType.CLIENT)
        request = Request(
            host=at.netloc, target="/api/live", subprotocols=["kws", f"token.{token}"]
        )
        self._socket.sendall(connection.send(request))
        connection.receive_data(self._socket.recv(65_536))
        assert any(isinstance(one, AcceptConnection) for one in connection.events())
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while data := self._socket.recv(65_536):
            self.n_bytes += len(data)
            self.n_frames += data.count(b'"kind":"frame"')


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, user and system, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


if __name__ == "__main__":
    main()
