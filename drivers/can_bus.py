"""CAN buses: SocketCAN, and through python-can every adapter it knows."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, cast

import can

from controller.model.events import Event, Notice, Severity
from controller.ports import BusError, CanFrame, EventPort, PortError
from drivers.reopening import Background, Reopening, Worker

DRAIN_MAX = 2000
TELL_MS = 1000
PENDING_MAX, STALE_MS, SEND_S = 64, 50, 1.0

FRAME = struct.Struct("=IB3x8s")
EXTENDED, REMOTE, ERROR = 0x8000_0000, 0x4000_0000, 0x2000_0000
BUS_OFF, RESTARTED, CONTROLLER, OVERFLOWN = 0x40, 0x100, 0x04, 0x01
"""Kernel: struct can_frame, flags of can_id, and of error frames (linux/can.h, linux/can/error.h)."""

SO_MEMINFO, MEMINFO_BYTES, DROPS_AT = 55, 36, 32
"""Kernel: the counters of a socket; the last of nine is how many frames did not fit (linux/sock_diag.h)."""

BROKEN = (can.CanError, OSError, ValueError, IndexError)
"""What adapters of python-can raise when they are gone, or when what they sent cannot be read."""


class CanPlace(NamedTuple):
    """Where a bus is: the config section that says so, and python-can's words for it.

    bitrate, tty_baud: for adapters that python-can sets up; SocketCAN is set up by `ip link`.
    """

    section: str
    interface: str
    channel: str
    bitrate: int
    tty_baud: int = 115_200


class CanBus:
    """CanPort. rx: the ids of interest, 29-bit ones with 0x8000_0000 added, none for all; the kernel filters SocketCAN.

    A frame is stamped as having come just after the last look at the bus: that is the oldest it can be. So nothing
    looks younger than it is, after a stall least of all, and no clock change touches it.
    What the kernel does not take is tried once more in the next tick, of each id the newest, and then dropped. What it
    has taken cannot be had back: while nobody acknowledges, its queue (`txqueuelen`, 10) and the chip's (3) keep what
    was sent first, and when somebody does again, these old frames go out before the newest.
    received: frames; lost: came and not seen; unsent: dropped.
    """

    def __init__(
        self, place: CanPlace, rx: Collection[int], now: Callable[[], int], events: EventPort, *,
        listen_only: bool = False, opener: Callable[..., can.BusABC] = can.Bus,
        background: Background | None = None, sending: Background | None = None,
    ) -> None:  # fmt: skip
        """Raises PortError."""
        self._place, self._rx, self._now, self._events = place, frozenset(rx), now, events
        self._listen_only, self._opener = listen_only, opener
        self._waiting: dict[tuple[int, bool], CanFrame] = {}
        self._bus_off = self._choked = False
        self._untold, self._told_ms = 0, -TELL_MS
        self._since_ms = now()
        self.received = self.lost = self.unsent = 0
        self._sending = sending or (Worker() if place.interface != "socketcan" else None)
        self._device = Reopening(self._open, now, background)

    # --- receiving ---

    def receive(self) -> Sequence[CanFrame]:
        now_ms = self._now()
        at_ms = min(self._since_ms + 1, now_ms)
        frames: list[CanFrame] = []
        if (bus := self._device.get()) is not None:
            try:
                self._try_again(bus)
                if self._drain(bus, at_ms, frames):
                    self._since_ms = now_ms
                self._missed(bus.dropped())
            except BROKEN as error:
                self._gone(error)
        else:
            self._since_ms = now_ms
        self.received += len(frames)
        return frames

    def _drain(self, bus: _Socket | _Adapter, at_ms: int, frames: list[CanFrame]) -> bool:
        """Take in everything that is there; False when there is still more."""
        rx = self._rx
        for _ in range(DRAIN_MAX):
            raw = bus.receive()
            if raw is None:
                return True
            can_id, data = raw
            if can_id & ERROR:
                self._heard_error(can_id, data)
            elif not can_id & REMOTE:
                self._bus_off = False
                if not rx or can_id in rx:
                    frames.append(CanFrame(can_id & ~EXTENDED, data, at_ms, bool(can_id & EXTENDED)))
        return False

    def _heard_error(self, can_id: int, data: bytes) -> None:
        if can_id & BUS_OFF and not self._bus_off:
            self._bus_off = True
            self._tell(Event.BUS_FAILED, "bus off")
        if can_id & RESTARTED:
            self._bus_off = False
        if can_id & CONTROLLER and data[1] & OVERFLOWN:
            self._missed(1)

    def _missed(self, frames: int) -> None:
        self.lost += frames
        self._untold += frames
        if self._untold and self._now() - self._told_ms >= TELL_MS:
            self._told_ms = self._now()
            self._tell(Event.FRAMES_LOST, f"{self._untold}, {self.lost} so far")
            self._untold = 0

    # --- sending ---

    def send(self, frames: Sequence[CanFrame]) -> None:
        if self._listen_only:
            raise BusError(f"{self._place.channel}: listening only, nothing is sent")
        bus = self._device.get()
        if bus is None:
            raise BusError(f"{self._place.channel}: {self._device.why}")
        try:
            for frame in frames:
                self._put(bus, frame)
        except BROKEN as error:
            self._gone(error)
            raise BusError(f"{self._place.channel}: {error}") from None
        if self._bus_off:
            raise BusError(f"{self._place.channel}: bus off")
        if self._choked:
            self._choked = False
            raise BusError(f"{self._place.channel}: the transmit queue is full; does nobody acknowledge?")

    def _put(self, bus: _Socket | _Adapter, frame: CanFrame) -> None:
        """Hand it to the kernel, in order; what it does not take waits, of each id the newest."""
        key = frame.id, frame.extended
        waited = self._waiting.pop(key, None)
        if waited or self._waiting or not bus.send(frame):
            self._waiting[key] = frame

    def _try_again(self, bus: _Socket | _Adapter) -> None:
        waiting, self._waiting = self._waiting, {}
        for sent, frame in enumerate(waiting.values()):
            if not bus.send(frame):
                self.unsent += len(waiting) - sent
                self._choked = True
                return

    # --- coming and going ---

    def close(self) -> None:
        self._device.close()

    def _gone(self, error: Exception) -> None:
        self._bus_off = self._choked = False
        self._device.lost(str(error) or type(error).__name__)
        self._tell(Event.BUS_FAILED, str(error))

    def _tell(self, event: Event, what: str) -> None:
        notice = Notice(event, Severity.WARNING, f"{self._place.channel}: {what}")
        self._events.write((notice,), self._now())

    def _open(self) -> _Socket | _Adapter:
        place = self._place
        more: dict[str, Any] = {"bitrate": place.bitrate}
        if place.interface == "socketcan":
            more = {"can_filters": [_filter(can_id) for can_id in sorted(self._rx)] or None}
        elif place.interface == "slcan":
            more |= {"tty_baudrate": place.tty_baud, "timeout": 0, "listen_only": self._listen_only}
        try:
            bus = self._opener(place.channel, place.interface, ignore_config=True, **more)
        except (*BROKEN, NotImplementedError, ImportError, TypeError) as error:
            raise PortError(f"[{place.section}] channel {place.channel}: {error}; {_fix(place, error)}") from None
        return _Adapter(bus, self._now, self._sending) if self._sending else _Socket(bus)


def _filter(can_id: int) -> dict[str, int | bool]:
    extended = bool(can_id & EXTENDED)
    return {"can_id": can_id & ~EXTENDED, "can_mask": 0x1FFF_FFFF if extended else 0x7FF, "extended": extended}


def _fix(place: CanPlace, error: Exception) -> str:
    if place.interface not in can.VALID_INTERFACES:
        return f"{place.section}.interface is one of {', '.join(sorted(can.VALID_INTERFACES))}"
    if place.interface != "socketcan":
        return f"is the adapter plugged in, its driver installed, and {place.section}.channel its name?"
    if isinstance(error, OSError) and error.errno == errno.EAFNOSUPPORT:
        return "this kernel has no CAN; `sudo modprobe can_raw`"
    return f"`ip link` lists what there is; `sudo ip link set {place.channel} up type can bitrate {place.bitrate}`"


class _Socket:
    """SocketCAN, opened and filtered by python-can, read and written here: no message objects, no waiting."""

    def __init__(self, bus: can.BusABC) -> None:
        self._bus, self._drops = bus, 0
        self._socket = cast(socket.socket, bus.socket)  # type: ignore[attr-defined]

    def receive(self) -> tuple[int, bytes] | None:
        """can_id with its flags, and the data; None when nothing is left. Raises OSError."""
        try:
            raw = self._socket.recv(FRAME.size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        can_id, length, data = FRAME.unpack(raw)
        return can_id, data[:length]

    def send(self, frame: CanFrame) -> bool:
        """False when the queue is full. Raises OSError."""
        can_id = frame.id | EXTENDED if frame.extended else frame.id
        try:
            self._socket.send(FRAME.pack(can_id, len(frame.data), frame.data), socket.MSG_DONTWAIT)
        except OSError as error:
            if error.errno not in (errno.ENOBUFS, errno.EAGAIN):
                raise
            return False
        return True

    def dropped(self) -> int:
        """How many frames found the receive queue full since the last call."""
        counters = self._socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, MEMINFO_BYTES)
        before, self._drops = self._drops, int.from_bytes(counters[DROPS_AT:MEMINFO_BYTES], "little")
        return self._drops - before

    def close(self) -> None:
        self._bus.shutdown()


class _Adapter:
    """Any other interface of python-can, filtered here: its own filters end a drain at the first foreign frame.

    Some wait for their adapter while sending, and without end (slcan does), so that happens beside the tick. What has
    waited there for more than STALE_MS is dropped.
    """

    def __init__(self, bus: can.BusABC, now: Callable[[], int], sending: Background) -> None:
        self._bus, self._now, self._sending = bus, now, sending
        self._handed = self._done = 0
        self._why: str | None = None

    def receive(self) -> tuple[int, bytes] | None:
        """As _Socket. Raises BROKEN."""
        if self._why is not None:
            raise can.CanOperationError(self._why)
        message = self._bus.recv(0)
        if message is None:
            return None
        flags = (
            EXTENDED * message.is_extended_id
            | REMOTE * (message.is_remote_frame or message.is_fd)
            | ERROR * message.is_error_frame
        )
        return message.arbitration_id | flags, bytes(message.data)

    def send(self, frame: CanFrame) -> bool:
        """False when too many are waiting already."""
        if self._handed - self._done >= PENDING_MAX:
            return False
        self._handed += 1
        self._sending(partial(self._say, frame, self._now()))
        return True

    def _say(self, frame: CanFrame, at_ms: int) -> None:
        try:
            if self._why is None and self._now() - at_ms <= STALE_MS:
                message = can.Message(
                    arbitration_id=frame.id, is_extended_id=frame.extended, data=frame.data, check=True
                )
                self._bus.send(message, timeout=SEND_S)
        except Exception as error:  # noqa: BLE001 - told to the tick, which opens the adapter anew
            self._why = str(error)
        self._done += 1

    def dropped(self) -> int:
        return 0

    def close(self) -> None:
        with suppress(*BROKEN):
            self._bus.shutdown()
