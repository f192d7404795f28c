"""Batteries that only measure, as the far end of the cable: a Batrium WatchMon on CAN, a Juntek VAT and a Juntek KG-F.

They share no table with the code they test: frames and lines are put together here, from the protocol notes
(`protocols/batteries/batrium.md`, section 1, and `juntek-vat4300.md`, sections 1 and 2). What they measure is set by
hand. No clock, no chance.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from controller.ports import CanFrame


@dataclass
class WatchMon:
    """A Batrium that broadcasts everything each `period_ms`. current_a > 0 is charging.

    targets: of charging and of discharging. flags: battery OK, charge on, discharge on.
    """

    base: int = 0x500
    extended: bool = False
    period_ms: int = 500
    silent: bool = False
    pack_v: float = 360.0
    current_a: float = 0.0
    cells_v: tuple[float, float] = (3.74, 3.76)
    temps_c: tuple[int, int] = (20, 22)
    soc_pct: float = 50.0
    soh_pct: float = 95.0
    capacity_ah: float = 100.0
    targets_v: tuple[float, float] = (395.0, 300.0)
    targets_a: tuple[float, float] = (25.0, 100.0)
    flags: tuple[int, int, int] = (1, 1, 1)

    def frames(self, now_ms: int) -> list[CanFrame]:
        """What it sends in this tick."""
        if self.silent or now_ms % self.period_ms:
            return []
        pairs = enumerate(self.payloads())
        return [CanFrame(self.base + offset, data, now_ms, self.extended) for offset, data in pairs]

    def payloads(self) -> tuple[bytes, ...]:
        """The frames from the base address on."""
        (low_v, high_v), (cold_c, warm_c) = self.cells_v, self.temps_c
        (up_v, down_v), (up_a, down_a) = self.targets_v, self.targets_a
        cells = [round(1000 * volts) for volts in (low_v, high_v, (low_v + high_v) / 2)]
        shunt = [round(10 * self.pack_v), round(10 * self.current_a), round(self.pack_v * self.current_a / 10)]
        percents = [round(100 * self.soc_pct), round(100 * self.soh_pct)]
        ampere_hours = [round(max(0.0, self.capacity_ah * self.soc_pct / 10)), round(10 * self.capacity_ah)]
        return (
            struct.pack("<HHI", 410, 219, 123456),
            struct.pack("<HHHBB", *cells, 17, 4),
            bytes((cold_c + 40, warm_c + 40, (cold_c + warm_c) // 2 + 40, 3, 14)),
            bytes(3),
            struct.pack("<hhh", *shunt),
            struct.pack("<hHHH", *percents, *ampere_hours),
            struct.pack("<HHHH", *(round(10 * value) for value in (up_v, up_a, down_v, down_a))),
            bytes((*self.flags, 0, 0, 0)),
        )


@dataclass
class VatShunt:
    """A VAT box that answers polls of its address. current_a > 0 is charging. asleep: it waits for the wake poll."""

    address: int = 1
    silent: bool = False
    asleep: bool = False
    pack_v: float = 360.0
    current_a: float = 0.0
    used_ah: float = 50.0
    uptime_s: int = 3600
    temp_c: int = 24
    output: int = 0
    inbox: bytes = b""

    def hear(self, polls: bytes) -> bytes:
        """Its answers to what came over the line."""
        self.inbox += polls
        said = b""
        while len(self.inbox) >= 5:
            poll, self.inbox = self.inbox[:5], self.inbox[5:]
            if poll[:2] != b"\xaa\x04" or poll[3] != self.address or poll[4] != sum(poll[:4]) % 256 or self.silent:
                continue
            if poll[2] == 0xFF:
                self.asleep = False
            elif poll[2] == 1 and not self.asleep:
                said += self.answer()
        return said

    def answer(self) -> bytes:
        """The 29 bytes of measured data; its own current is positive while discharging."""
        volts, amps = round(100 * self.pack_v), round(-10 * self.current_a)
        watts, used = abs(volts * amps), round(1000 * self.used_ah)
        body = b"\xaa\x1c\x01" + struct.pack(
            ">BHhIIIIBbH", self.address, volts, amps, watts, used, round(used * self.pack_v), self.uptime_s,
            self.output, self.temp_c, 0,
        )  # fmt: skip
        return body + bytes((sum(body) % 256,))

    def pass_ms(self, ms: int) -> None:
        """Time passes: it counts."""
        self.used_ah -= self.current_a * ms / 3_600_000


@dataclass
class KgShunt:
    """A KG-F that answers `:R50=`. current_a > 0 is charging; on the wire the sign is a field of its own."""

    address: int = 1
    silent: bool = False
    pack_v: float = 360.0
    current_a: float = 0.0
    left_ah: float = 50.0
    temp_c: int = 24
    output: int = 0
    inbox: bytes = b""

    def hear(self, polls: bytes) -> bytes:
        """Its answers to what came over the line."""
        *lines, self.inbox = (self.inbox + polls).split(b"\r\n")
        asked = b":R50=%d,2,1," % self.address
        return b"".join(self.answer() for line in lines if line == asked and not self.silent)

    def answer(self) -> bytes:
        amps = round(100 * abs(self.current_a))
        numbers = (
            round(100 * self.pack_v), amps, round(1000 * self.left_ah), 289634, 1427701, 88851, self.temp_c + 100, 0,
            self.output, int(self.current_a > 0), 3, 4277,
        )  # fmt: skip
        fields = ",".join(map(str, (self.address, 1 + sum(numbers) % 255, *numbers)))
        return f":r50={fields},\r\n".encode()

    def pass_ms(self, ms: int) -> None:
        """Time passes: it counts."""
        self.left_ah += self.current_a * ms / 3_600_000
