"""A CAN bus that is only heard, beside whoever uses it: for `log capture` and the page's CAN monitor."""

from __future__ import annotations

from typing import Final

import can

from controller.ports import CanFrame, PortError

SHARED: Final = ("socketcan", "udp_multicast", "virtual")
"""The interfaces of python-can that several programs can hear at once; any other adapter is control's alone."""


class CanEar:
    """Hears every frame, also what other programs of this machine send. There is no way to send."""

    def __init__(self, interface: str, channel: str) -> None:
        """Raises PortError."""
        if interface not in SHARED:
            raise PortError(f"{channel}: an adapter of the kind {interface} can be heard by one program only")
        try:
            self._bus = can.Bus(channel, interface, ignore_config=True)
        except (can.CanError, OSError, ValueError, ImportError, NotImplementedError) as error:
            raise PortError(f"{channel}: {error}") from None
        self._channel = channel

    def hear(self, within_s: float) -> tuple[int, CanFrame] | None:
        """The next frame with its stamp, µs of the Unix time; None when none comes in time. Raises PortError."""
        try:
            heard = self._bus.recv(within_s)
        except (can.CanError, OSError, ValueError, IndexError) as error:
            raise PortError(f"{self._channel}: {error}") from None
        if heard is None or heard.is_error_frame or heard.is_remote_frame:
            return None
        stamp_us = round(heard.timestamp * 1e6)
        return stamp_us, CanFrame(heard.arbitration_id, bytes(heard.data), stamp_us // 1000, heard.is_extended_id)

    def close(self) -> None:
        self._bus.shutdown()
