"""Tells systemd how we are (sd_notify(3)): ready, alive, stopping, and a line for `systemctl status`."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress

FEEDS_A_PERIOD = 4
US_PER_MS = 1000


class Systemd:
    """Speaks over $NOTIFY_SOCKET; does nothing where there is none. Never waits, never raises.

    watchdog_ms: how long systemd waits for a sign of life, None when it does not.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        period_us = environ.get("WATCHDOG_USEC", "")
        self.watchdog_ms = int(period_us) // US_PER_MS if period_us.isdigit() and int(period_us) else None
        self._fed_ms: int | None = None
        self._said = ""

    def ready(self) -> None:
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self, now_ms: int) -> None:
        """Feed the watchdog, four times in its period. Called after a tick that went through, and then only."""
        if self.watchdog_ms is None or not self._address:
            return
        if self._fed_ms is None or now_ms - self._fed_ms >= self.watchdog_ms // FEEDS_A_PERIOD:
            self._fed_ms = now_ms
            self._send("WATCHDOG=1")

    def says(self, text: str) -> None:
        """The line `systemctl status` shows."""
        if text != self._said:
            self._said = text
            self._send(f"STATUS={text}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with suppress(OSError):
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
            self._socket.sendto(message.encode(), self._address)
