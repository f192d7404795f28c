"""Serial lines (RS485, RS232, USB adapters) with pyserial."""

from __future__ import annotations

import errno
import fcntl
import os
import termios
from collections.abc import Callable
from typing import NamedTuple

import serial
from serial.rs485 import RS485Settings

from controller.ports import BusError, PortError, SerialLine
from drivers.reopening import Background, Reopening

READ_MAX = 4096


class LinePlace(NamedTuple):
    """Where a line is: the config section that says so, and its port. rs485: the kernel turns the driver by RTS."""

    section: str
    port: str
    rs485: bool = False


class SerialPort:
    """LinePort. Opened again by its name when it comes back, as USB adapters do.

    Bytes the kernel does not take at once are tried in the next tick and then dropped: nothing is said late.
    """

    def __init__(
        self, place: LinePlace, settings: SerialLine, now: Callable[[], int], *, listen_only: bool = False,
        background: Background | None = None,
    ) -> None:  # fmt: skip
        """Raises PortError."""
        self._place, self._settings, self._listen_only = place, settings, listen_only
        self._rest = b""
        self._stuck = False
        self._device = Reopening(self._open, now, background)

    def receive(self) -> bytes:
        line = self._device.get()
        if line is None:
            return b""
        try:
            if self._rest:
                self._rest = self._rest[_write(line, self._rest) :]
                self._stuck, self._rest = bool(self._rest), b""
            return bytes(line.read(READ_MAX))
        except OSError as error:  # SerialException is one
            self._gone(error)
            return b""

    def send(self, data: bytes) -> None:
        if self._listen_only:
            raise BusError(f"{self._place.port}: listening only, nothing is sent")
        line = self._device.get()
        if line is None:
            raise BusError(f"{self._place.port}: {self._device.why}")
        try:
            self._rest = data[_write(line, data) :]
        except OSError as error:
            self._gone(error)
            raise BusError(f"{self._place.port}: {error}") from None
        if self._stuck:
            self._stuck = False
            raise BusError(f"{self._place.port}: it takes no more data")

    def close(self) -> None:
        self._device.close()

    def _gone(self, error: OSError) -> None:
        self._rest, self._stuck = b"", False
        self._device.lost(str(error))

    def _open(self) -> serial.Serial:
        place = self._place
        try:
            line = serial.Serial(place.port, self._settings.baud, timeout=0, exclusive=True)
            fcntl.ioctl(line.fileno(), termios.TIOCEXCL)  # flock binds only who asks; this keeps out everybody but root
            if place.rs485:
                line.rs485_mode = RS485Settings()
            return line
        except (OSError, ValueError, termios.error) as error:
            code = error.args[0] if isinstance(error, termios.error) else getattr(error, "errno", None)
            said = os.strerror(code) if code else str(error)
            raise PortError(f"[{place.section}] port {place.port}: {said}; {_fix(place, code)}") from None


def _fix(place: LinePlace, code: int | None) -> str:
    if code == errno.EACCES:
        return "add the user to the group dialout"
    if code in (errno.EAGAIN, errno.EBUSY):
        return "stop the program that has it open"
    if code is None and place.rs485:
        return f"this port cannot do it; set {place.section}.rs485 = false"
    return "plug it in, or give the name it has under /dev/serial/by-id"


def _write(line: serial.Serial, data: bytes) -> int:
    """How much the kernel took. pyserial's own write spins for ever on a full buffer when it is not to wait."""
    try:
        return os.write(line.fileno(), data)
    except BlockingIOError:
        return 0
