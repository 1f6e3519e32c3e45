"""What systemd is told, by its protocol of datagrams (sd_notify(3)); nothing where it is not."""

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

__all__ = ["Notifier"]


class Notifier:
    """Talk to the service manager, if there is one.

    Its variables are taken out of the environment, so that no hook talks to it in our name.

    Parameters
    ----------
    environment : mutable mapping of str to str
        Where NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID stand.

    Attributes
    ----------
    ping_every_s : float or None
        How often to call `ping`: three times in the watchdog's limit. None: there is no watchdog.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        limit_us = environment.pop("WATCHDOG_USEC", "")
        for_pid = environment.pop("WATCHDOG_PID", "")
        is_ours = address and for_pid in {"", str(os.getpid())}
        is_set = is_ours and limit_us.isascii() and limit_us.isdigit() and int(limit_us) > 0
        self.ping_every_s = int(limit_us) / 1e6 / 3 if is_set else None
        self._last_ping_s = -1e9
        self._status = ""
        self._socket: socket.socket | None = None
        self._address = "\0" + address[1:] if address.startswith("@") else address
        if address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def ready(self) -> None:
        """Say that the daemon has started, or that a reload is over."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Say that the configuration is being read anew; `ready` ends that."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def stopping(self) -> None:
        """Say that the daemon is about to end."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Say in a line what the daemon does; what was said last is not said again."""
        if text != self._status:
            self._status = text
            self._send("STATUS=" + " ".join(text.split()))

    def ping(self) -> None:
        """Tell the watchdog that audio is being processed, if it is time to."""
        now_s = time.monotonic()
        if self.ping_every_s is not None and now_s - self._last_ping_s >= self.ping_every_s:
            self._last_ping_s = now_s
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        """Send a datagram; a manager that is gone or busy must not stop the audio."""
        if self._socket:
            with contextlib.suppress(OSError):
                self._socket.sendto(text.encode(errors="replace"), self._address)
