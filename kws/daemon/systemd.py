"""Notifications to systemd by datagrams (sd_notify(3)); none where systemd does not run kws."""

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

__all__ = ["SystemdNotifier"]


class SystemdNotifier:
    """Notify the service manager, if there is one.

    Its variables are removed from the environment, so that no hook can notify it for the daemon.

    Parameters
    ----------
    environment : mutable mapping of str to str
        Has NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.

    Attributes
    ----------
    watchdog_interval_s : float or None
        Interval for `ping_watchdog`, a third of the watchdog's limit; None without a watchdog.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        limit_us = environment.pop("WATCHDOG_USEC", "")
        for_pid = environment.pop("WATCHDOG_PID", "")
        is_ours = address and for_pid in {"", str(os.getpid())}
        is_set = is_ours and limit_us.isascii() and limit_us.isdigit() and int(limit_us) > 0
        self.watchdog_interval_s = int(limit_us) / 1e6 / 3 if is_set else None
        self._last_ping_s = -1e9
        self._status = ""
        self._socket: socket.socket | None = None
        self._address = "\0" + address[1:] if address.startswith("@") else address
        if address.startswith(("/", "@")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def ready(self) -> None:
        """Report that the daemon has started, or that a reload has ended."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Report that a reload has begun; `ready` reports its end."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def stopping(self) -> None:
        """Report that the daemon is about to end."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Report the status as one line, unless it is the same as before."""
        if text != self._status:
            self._status = text
            self._send("STATUS=" + " ".join(text.split()))

    def ping_watchdog(self) -> None:
        """Report to the watchdog that audio is being processed, once in each interval."""
        now_s = time.monotonic()
        if (
            self.watchdog_interval_s is not None
            and now_s - self._last_ping_s >= self.watchdog_interval_s
        ):
            self._last_ping_s = now_s
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket."""
        if self._socket:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        """Send a datagram; a manager that has ended or is busy must not stop the audio."""
        if self._socket:
            with contextlib.suppress(OSError):
                self._socket.sendto(text.encode(errors="replace"), self._address)
