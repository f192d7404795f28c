"""What every LinkPort does: a Modbus meter and the twin. And a meter that misbehaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from controller.ports import BusError, LinkPort
from drivers.memory import HandClock, MemoryLink
from drivers.modbus_link import OLD_MS, Meter, ModbusLink
from drivers.modbus_master import ANSWER_MS, LATE_MS
from tests.drivers.board import checksum

METER = Meter(unit=1, register=0x0000, input=True, volts_per_count=0.01, update_ms=30)


class MeterLine:
    """A meter with one register. Answers after `delay_ms`; None: never."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.counts = 0
        self.delay_ms: int | None = 20
        self.asked: list[bytes] = []
        self.pulled = False
        self.refuses = False

    def receive(self) -> bytes:
        if not self.asked or self.delay_ms is None or self.clock.ms - self.at_ms < self.delay_ms:
            return b""
        data = self.asked.pop()
        answer = data[:2] + b"\2" + self.counts.to_bytes(2, "big")
        if self.refuses:
            answer = bytes([data[0], data[1] | 0x80, 2])
        return answer + checksum(answer)

    def send(self, data: bytes) -> None:
        if self.pulled:
            raise BusError("/dev/ttyUSB1: it is gone")
        assert data[:-2] == bytes.fromhex("010400000001")
        assert data[-2:] == checksum(data[:-2])
        self.asked, self.at_ms = [data], self.clock.ms


class Rig(NamedTuple):
    port: LinkPort
    clock: HandClock
    line: MeterLine | None
    measure: Callable[[float], None]

    def run(self, ms: int) -> tuple[float, int] | None:
        for _ in range(ms // 10):
            self.clock.ms += 10
            self.port.link()
        return self.port.link()


def memory() -> Rig:
    port, clock = MemoryLink(), HandClock(1000)

    def measure(volts: float) -> None:
        port.newest = (volts, clock.ms)

    return Rig(port, clock, None, measure)


def modbus() -> Rig:
    clock = HandClock(1000)
    line = MeterLine(clock)
    port = ModbusLink(line, METER, clock.now_ms)

    def measure(volts: float) -> None:
        line.counts = round(volts * 100)
        for _ in range(10):
            clock.ms += 10
            port.link()

    return Rig(port, clock, line, measure)


@pytest.mark.parametrize("rig", [memory(), modbus()], ids=["twin", "modbus"])
def test_nothing_is_known_before_the_first_sample_and_then_the_newest(rig: Rig):
    assert rig.port.link() is None
    for volts in (0.0, 359.97):
        since_ms = rig.clock.ms
        rig.measure(volts)
        newest = rig.port.link()
        assert newest is not None
        assert newest[0] == pytest.approx(volts)
        assert since_ms - METER.update_ms <= newest[1] <= rig.clock.ms


def test_a_sample_is_as_old_as_the_meter_may_be_when_it_was_asked():
    rig = modbus()
    rig.port.link()
    assert rig.run(20) == (0.0, 1000 - METER.update_ms)


def test_a_meter_that_falls_silent_leaves_its_last_sample_to_grow_old_and_then_nothing():
    rig = modbus()
    assert rig.line
    rig.port.link()
    assert rig.run(20) is not None
    rig.line.delay_ms = None
    assert rig.run(OLD_MS - 20) == (0.0, 1000 - METER.update_ms)
    assert rig.run(10) is None
    rig.line.delay_ms = 20
    assert rig.run(200)[1] > rig.clock.ms - ANSWER_MS  # type: ignore[index]


def test_an_answer_after_one_that_did_not_come_may_be_that_one():
    rig = modbus()
    assert rig.line
    rig.line.delay_ms = None
    rig.port.link()
    rig.run(ANSWER_MS)
    rig.line.delay_ms = 20
    assert rig.run(20) == (0.0, 1000 - METER.update_ms)


def test_after_that_the_line_is_left_alone_until_nothing_late_can_be_taken_for_the_next_answer():
    rig = modbus()
    assert rig.line
    rig.line.delay_ms = None
    rig.port.link()
    rig.run(ANSWER_MS)
    rig.line.delay_ms = 20
    rig.run(LATE_MS - 10)
    assert rig.line.at_ms == 1000 + ANSWER_MS
    assert rig.run(30) == (0.0, 1000 + ANSWER_MS + LATE_MS - METER.update_ms)


def test_a_refusal_is_no_sample():
    rig = modbus()
    assert rig.line
    rig.line.refuses = True
    assert rig.run(500) is None


def test_an_adapter_that_is_pulled_out_raises_nothing():
    rig = modbus()
    assert rig.line
    rig.line.pulled = True
    assert rig.run(500) is None
