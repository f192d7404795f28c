"""A replay made audible: its frames on a virtual CAN bus, at the times they were recorded.

    controller sim --replay LOG --bus vcan0         # and in another terminal: candump vcan0, SavvyCAN, cangaroo, …

Only ever a virtual bus. A recording holds what another controller said; on a real bus, a real pack would obey it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import can

from controller.ports import BusError, CanFrame

NETWORK = Path("/sys/class/net")


class VirtualBus:
    """An open virtual CAN bus. Use it with `with`; it is closed at the end.

    channel: `vcan0` and the like; with interface="virtual" (python-can's own, inside this process) any name.
    Raises BusError: a real bus, no such bus, no CAN in this kernel.
    """

    def __init__(self, channel: str, interface: str = "socketcan") -> None:
        self.channel = channel
        if interface == "socketcan" and not _is_virtual(channel):
            raise BusError(f"{channel} is not a virtual bus (vcan…): a recording is never played to a real pack")
        try:
            self._bus = can.Bus(channel=channel, interface=interface)
        except (can.CanError, OSError, ValueError) as error:
            raise BusError(
                f"cannot open CAN bus {channel}: {error}; to make one:"
                f" sudo modprobe vcan; sudo ip link add dev {channel} type vcan; sudo ip link set {channel} up"
            ) from None

    def send(self, frames: Iterable[CanFrame]) -> None:
        """Send each as a classic data frame, now. Raises BusError."""
        for frame in frames:
            message = can.Message(arbitration_id=frame.id, is_extended_id=frame.extended, data=frame.data, check=True)
            try:
                self._bus.send(message)
            except (can.CanError, OSError) as error:
                raise BusError(f"cannot send on CAN bus {self.channel}: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bus.shutdown()


def play(
    frames: Iterable[tuple[int, CanFrame]],
    bus: VirtualBus,
    now_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Send (stamp in µs since the first, frame) each at its time, late ones at once; how many. Raises BusError."""
    begin_s, count = now_s(), 0
    for stamp_us, frame in frames:
        wait_s = begin_s + stamp_us / 1e6 - now_s()
        if wait_s > 0:
            sleep(wait_s)
        bus.send((frame,))
        count += 1
    return count


def _is_virtual(channel: str) -> bool:
    """Named like a virtual bus, and no hardware behind it where the kernel knows it."""
    named = channel.startswith(("vcan", "vxcan"))
    return named and not (NETWORK / channel / "device").exists()
