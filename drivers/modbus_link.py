"""A voltage meter on the link that speaks Modbus RTU: one register of 16 bits, where and how scaled says its manual."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from controller.ports import LinePort, PortError
from drivers.modbus_master import ModbusMaster

READ_HOLDING, READ_INPUT = 3, 4
OLD_MS = 1000


class Meter(NamedTuple):
    """register: its address on the wire (documents often count one higher). input: read by function 4, not 3.

    update_ms: how old the value in the register can be when it is read (manual).
    """

    unit: int
    register: int
    input: bool
    volts_per_count: float
    update_ms: int


class ModbusLink:
    """LinkPort. A sample is stamped with the oldest time it can be from: when it was asked for, less update_ms.

    None when the newest one was asked for more than OLD_MS ago.
    """

    def __init__(self, line: LinePort, meter: Meter, now: Callable[[], int]) -> None:
        self._master, self._meter, self._now = ModbusMaster(line, meter.unit, now), meter, now
        self._newest: tuple[float, int] | None = None

    def link(self) -> tuple[float, int] | None:
        meter = self._meter
        answer = self._master.answer()
        if answer is not None and answer.pdu[0] in (READ_HOLDING, READ_INPUT):
            volts = int.from_bytes(answer.pdu[2:4], "big") * meter.volts_per_count
            self._newest = volts, answer.asked_ms - meter.update_ms
        if self._newest and self._now() - self._newest[1] > meter.update_ms + OLD_MS:
            self._newest = None
        if not self._master.busy:
            question = (
                bytes([READ_INPUT if meter.input else READ_HOLDING]) + meter.register.to_bytes(2, "big") + b"\0\1"
            )
            with suppress(PortError):  # a sample that does not come grows old
                self._master.ask(question, 4)
        return self._newest
