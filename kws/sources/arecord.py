"""A microphone through ALSA's own `arecord`, which needs nothing but the program."""

import contextlib
import os
import shutil
import subprocess
import threading
from collections import deque
from typing import IO, cast

from kws.errors import DeviceError
from kws.sources.microphone import (
    STALL_S,
    Device,
    Microphone,
    ambiguous,
    group_of_recorder,
    matching,
)
from kws.sources.pcm import Layout

__all__ = ["ArecordSource", "list_devices"]

_FORMAT = ("-q", "-t", "raw", "-f", "S16_LE")
_END_S = 1.0
_LIST_S = 10.0
# Plugins that `arecord -L` lists though no microphone is behind them.
_NO_MICROPHONES = frozenset(
    ["null", "jack", "oss", "speex", "lavrate", "samplerate", "speexrate", "upmix", "vdownmix"]
)


class ArecordSource(Microphone):
    """An ALSA capture device; ALSA resamples to what it is asked for.

    Parameters
    ----------
    device : str or None
        An ALSA string, a card's number, or part of a name from `kws devices`; None leaves the
        choice to ALSA.
    chunk_ms : int
        Length of a chunk.
    stall_s : float
        Without audio for so long, iteration raises DeviceError.
    layout : Layout or None
        What ALSA is asked for; None is 16 kHz mono.

    Raises
    ------
    DeviceError
        If arecord is missing, or `device` fits several microphones. What arecord itself finds
        wrong is raised by the iteration.
    """

    def __init__(
        self,
        device: str | None,
        *,
        chunk_ms: int,
        stall_s: float = STALL_S,
        layout: Layout | None = None,
    ) -> None:
        pcm = _resolve(device)
        self._layout = layout = layout or Layout()
        name = f"arecord ({pcm or 'default device'})"
        super().__init__(name, chunk_ms=chunk_ms, stall_s=stall_s, channel=layout.channel)
        self._heard = False
        form = ["-r", str(layout.rate_hz), "-c", str(layout.n_channels)]
        self._said: deque[str] = deque(maxlen=2)  # ALSA's last word and arecord's own
        # Its own period is 125 ms: a chunk would wait for it.
        period = f"--period-time={1000 * chunk_ms}"
        self._process = _start([*_FORMAT, *form, period, *(["-D", pcm] if pcm else [])])
        self._out = cast(IO[bytes], self._process.stdout)
        self._err = cast(IO[bytes], self._process.stderr)
        self._threads = [
            threading.Thread(target=self._copy_audio, name="arecord-audio", daemon=True),
            threading.Thread(target=self._copy_messages, name="arecord-messages", daemon=True),
        ]
        self._begin(rate_hz=layout.rate_hz, n_channels=layout.n_channels)
        for thread in self._threads:
            thread.start()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in its driver
                self._process.wait(_END_S)
        # A pipe is closed only when no thread reads it any more.
        for thread, pipe in zip(self._threads, (self._out, self._err), strict=True):
            thread.join(_END_S)
            if not thread.is_alive():
                pipe.close()

    def _copy_audio(self) -> None:
        frame_bytes = self._layout.frame_bytes
        n_bytes = max(1, self._layout.rate_hz * self._chunk_ms // 1000) * frame_bytes
        while data := self._out.read(n_bytes):
            self._heard = True
            self._chunks.put(data[: len(data) - len(data) % frame_bytes])
        self._chunks.put(None)

    def _copy_messages(self) -> None:
        for line in self._err:
            text = line.decode(errors="replace").strip()
            if text.startswith("overrun!!!"):
                self._chunks.count_loss()
            elif text:
                self._said.append(text)

    def _ended(self) -> DeviceError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self._threads[1].join(_END_S)
        reason = "; ".join(self._said) or f"exit status {self._process.returncode}"
        rule, what = "stay open", f"the end of {self.name}"
        if not self._heard:
            rule, what = "be there and free", f"no audio from {self.name}"
        return DeviceError(
            f"A microphone must {rule}. Received: {what}: {reason}. Close the program that uses "
            f"it, or choose another with `--device`; `kws devices` lists them."
        )


def list_devices() -> list[Device]:
    """Return the capture devices that `arecord -L` names, without plugins and aliases.

    Raises
    ------
    DeviceError
        If arecord is missing, fails, or does not answer.
    """
    try:
        listing = subprocess.run(
            [_program(), "-L"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LIST_S,
            check=True,
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(error).rstrip(".")
        raise DeviceError(
            f"`arecord -L` must list the microphones. Received: {reason}. Check that the "
            f"sound system runs."
        ) from error
    return _parse_listing(listing)


def _parse_listing(listing: str) -> list[Device]:
    """Read names at the margin, each followed by indented lines of description."""
    described: dict[str, list[str]] = {}
    for line in listing.splitlines():
        if line[:1].isspace():
            for lines in list(described.values())[-1:]:
                lines.append(line.strip())
        elif line:
            described[line.strip()] = []
    return [
        Device(id=pcm, name=", ".join(lines) or pcm, default=pcm == "default", source="alsa")
        for pcm, lines in described.items()
        if pcm not in _NO_MICROPHONES and (":" not in pcm or pcm.startswith("plughw:"))
    ]


def _resolve(device: str | None) -> str | None:
    """Return the ALSA string for what the user named; ALSA judges what we do not know."""
    if device is None or ":" in device:
        return device
    if device.isdecimal():
        return f"plughw:{device}"
    fits = matching(device, list_devices())
    if len(fits) > 1:
        raise ambiguous(device, fits)
    return fits[0].id if fits else device


def _start(arguments: list[str]) -> subprocess.Popen[bytes]:
    program = _program()
    try:
        return subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=group_of_recorder(),
            env={**os.environ, "LC_ALL": "C"},  # it says "overrun" in many languages
        )
    except OSError as error:
        raise DeviceError(
            f"arecord must be able to run. Received: {error.strerror} from {program}. "
            f"Run `sudo apt install --reinstall alsa-utils`."
        ) from error


def _program() -> str:
    program = shutil.which("arecord")
    if program is None:
        raise DeviceError(
            "A microphone needs PyAudio or arecord. Received: neither. Run "
            "`pip install 'kws[mic]'` or `sudo apt install alsa-utils`."
        )
    return program
