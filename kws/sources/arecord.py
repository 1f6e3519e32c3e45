"""A microphone through ALSA's `arecord`: a command source with a device list and a bounded queue.

Unlike the pipe of a plain command, which makes the program wait when it is full, a thread reads
arecord at once, and the queue drops the oldest audio: ALSA must not lose the newest.
"""

import contextlib
import shutil
import subprocess
import threading
from pathlib import Path

from kws.errors import DeviceError
from kws.sources.command import CommandSource
from kws.sources.microphone import Device, Microphone, select_device
from kws.sources.pcm import Layout
from kws.sources.source import STALL_S

__all__ = ["ArecordSource", "has_sound_card", "list_devices"]

_FORMAT = ("-q", "-t", "raw", "-f", "S16_LE")
_DEVICES = Path("/dev/snd")
_OTHER_DEVICE = (
    "Close the program that uses the microphone, or choose another with `--device`; `kws devices` "
    "lists them."
)
_NO_SOUND_CARD = (
    "This system has no sound card that records: plug in a microphone, or name a file or a port as "
    "the input."
)
_JOIN_S = 1.0
_LIST_S = 10.0
_STDERR_LINES = 2  # ALSA's own line, and the one of arecord after it
# Plugins that `arecord -L` lists though no microphone is behind them.
_NO_MICROPHONES = frozenset(
    ["null", "jack", "oss", "speex", "lavrate", "samplerate", "speexrate", "upmix", "vdownmix"]
)


class ArecordSource(Microphone):
    """An ALSA capture device; ALSA resamples to the requested rate.

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
        If arecord is missing, or `device` fits several microphones. An error of arecord itself is
        raised by the iteration.
    """

    def __init__(
        self,
        device: str | None,
        *,
        chunk_ms: int,
        stall_s: float = STALL_S,
        layout: Layout | None = None,
    ) -> None:
        program, pcm = _program(), _resolve(device)
        self._layout = layout = layout or Layout()
        name = f"arecord ({pcm or 'default device'})"
        super().__init__(name, chunk_ms=chunk_ms, stall_s=stall_s, channel=layout.channel)
        self._begin(rate_hz=layout.rate_hz, n_channels=layout.n_channels)
        self._has_audio = False
        form = ["-r", str(layout.rate_hz), "-c", str(layout.n_channels)]
        # Its own period is 125 ms: a chunk would wait for it.
        period = f"--period-time={1000 * chunk_ms}"
        self._command = CommandSource(
            [program, *_FORMAT, *form, period, *(["-D", pcm] if pcm else [])],
            chunk_ms=chunk_ms,
            stall_s=None,  # the reader of the queue has the time limit
            environment={"LC_ALL": "C"},  # "overrun" is translated
        )
        self._thread = threading.Thread(target=self._copy, name="arecord-audio", daemon=True)
        self._thread.start()

    @property
    def dropped_chunks(self) -> int:
        """Number of losses, for want of a reader or in ALSA."""
        return self._chunks.n_dropped + self._command.dropped_chunks

    def _stop(self) -> None:
        self._command.close()
        self._thread.join(_JOIN_S)

    def _copy(self) -> None:
        """Queue whole frames, a chunk at a time, until the program ends."""
        frame_bytes = self._layout.frame_bytes
        n_bytes = max(1, self._layout.rate_hz * self._chunk_ms // 1000) * frame_bytes
        rest = b""
        with contextlib.suppress(DeviceError):  # `_ended` gives the reason
            while data := self._command.read1(n_bytes - len(rest)):
                self._has_audio = True
                rest += data
                if len(rest) == n_bytes:
                    self._chunks.put(rest)
                    rest = b""
        if len(rest) >= frame_bytes:
            self._chunks.put(rest[: len(rest) - len(rest) % frame_bytes])
        self._chunks.put(None)

    def _ended(self) -> DeviceError:
        stderr = "; ".join(self._command.stderr_lines(_STDERR_LINES))
        reason = stderr or self._command.exit_reason or "its output was closed"
        what = "ended" if self._has_audio else "gave no audio"
        remedy = _OTHER_DEVICE if has_sound_card() else _NO_SOUND_CARD
        return DeviceError(f"{self.name} {what}: {reason}. {remedy}")


def has_sound_card(folder: Path = _DEVICES) -> bool:
    """Return whether this system has a sound device that records."""
    return any(folder.glob("pcm*c"))


def list_devices() -> list[Device]:
    """Return the capture devices that `arecord -L` lists, without plugins and aliases.

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
            f"`arecord -L` cannot list the microphones: {reason}. Check that the sound system runs."
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
    """Return the ALSA string for a device; a name that is not listed is left to ALSA."""
    if device is None or ":" in device:
        return device
    if device.isdecimal():
        return f"plughw:{device}"
    fitting = select_device(device, list_devices())
    return fitting.id if fitting else device


def _program() -> str:
    program = shutil.which("arecord")
    if program is None:
        raise DeviceError(
            "A microphone needs PyAudio or arecord, and neither is installed. Run "
            "`pip install 'kws[mic]'` or `sudo apt install alsa-utils`."
        )
    return program
