"""A Sungrow or GoodWe hybrid at the other end of the BYD CAN cable: frames in, frames out, time by hand.

Built from what inverters were recorded to say (byd-sungrow-discharge-30min.log, goodwe-hello.log of
dalathegreat/Battery-Emulator issue 28) and shares no table with the code it tests. How often it greets, and that it
wants a whole identity before it works, is a guess; so is its belief in byte 6 of 0x1D0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from controller.ports import CanFrame

GREET_MS: Final = 1_000
REPORT_MS: Final = 10_000
GIVES_UP_MS: Final = 30_000
BOOT_MS: Final = 20_000

ABOUT_ITSELF: Final = {
    "SUNGROW": bytes.fromhex("0000010600090400"),
    "GOODWE": bytes.fromhex("0404001700010400"),
}
"""0x191 of an SH10RS and of a GW6000-EH; nobody knows what it says."""

WANTED: Final = frozenset({(0x250, 0), (0x290, 0), (0x2D0, 0), *((0x3D0, part) for part in range(4))})
"""The frames of a whole identity."""


@dataclass
class BydCanInverter:
    """The inverter. wish_w: the power its owner wants from it, > 0 charges the battery.

    reserve_pct: the SoC it keeps for itself and counts as empty (10 in the recording). silent: says nothing more.
    ignores_limits: takes its wish whatever it is told. garbage: adds broken and foreign frames to what it says.
    charge_limit_w, discharge_limit_w: what it may, 0 until it was told. sees_ready: what byte 6 of 0x1D0 last said.
    battery_lost: it heard a battery and hears none any more.
    """

    brand: str = "SUNGROW"
    wish_w: float = 0.0
    reserve_pct: float = 10.0
    silent: bool = False
    ignores_limits: bool = False
    garbage: bool = False
    charge_limit_w: float = 0.0
    discharge_limit_w: float = 0.0
    sees_ready: bool | None = None
    battery_lost: bool = False
    soc_pct: float | None = None
    highest_v: float | None = None
    lowest_v: float | None = None
    link_v: float = 0.0
    _limits_a: tuple[float, float] = (0.0, 0.0)
    _known: set[tuple[int, int]] = field(default_factory=set)
    _heard_ms: int | None = None
    _greets_ms: int = 0
    _reports_ms: int | None = None
    _due: list[tuple[int, CanFrame]] = field(default_factory=list)

    @property
    def works(self) -> bool:
        """It knows its battery and hears it."""
        return not self.battery_lost and self._known >= WANTED

    @property
    def power_w(self) -> float:
        """What it takes from the link now, > 0 charges the battery; nothing without a live link."""
        if self.link_v < 0.5 * (self.lowest_v or 1e9):
            return 0.0
        if self.ignores_limits:
            return self.wish_w
        if not self.works or not self.sees_ready:
            return 0.0
        return min(max(self.wish_w, -self.discharge_limit_w), self.charge_limit_w)

    def step(
        self, now_ms: int, frames: Iterable[CanFrame], link_voltage_v: float = 0.0, current_a: float = 0.0
    ) -> list[CanFrame]:
        """One tick: what the battery said, what is measured at the terminals (> 0 A charges) → what it says."""
        self.link_v = link_voltage_v
        for frame in frames:
            self._hear(frame, now_ms)
        if self._heard_ms is not None and now_ms - self._heard_ms > GIVES_UP_MS:
            self._forget(lost=True)
        self.charge_limit_w, self.discharge_limit_w = (round(a * link_voltage_v, 3) for a in self._limits_a)
        if now_ms >= self._greets_ms and not self.works:
            self._greets_ms = now_ms + GREET_MS
            self._due += [(now_ms, frame) for frame in self._greeting()]
        if self.works and (self._reports_ms is None or now_ms >= self._reports_ms):
            self._reports_ms = (now_ms if self._reports_ms is None else self._reports_ms) + REPORT_MS
            self._due += self._report(now_ms, link_voltage_v, current_a)
        said = [frame for at_ms, frame in self._due if at_ms <= now_ms]
        self._due = [(at_ms, frame) for at_ms, frame in self._due if at_ms > now_ms]
        if self.silent:
            return []
        return [*said, *RUBBISH] if self.garbage and now_ms % 100 == 0 else said

    def reboot(self, now_ms: int) -> None:
        """It forgets everything, and greets again when it is up."""
        self._forget(lost=False)
        self._greets_ms = now_ms + BOOT_MS

    def _forget(self, lost: bool) -> None:
        self.battery_lost = lost
        self._known, self._heard_ms, self._reports_ms, self._due = set(), None, None, []
        self._limits_a, self.sees_ready, self.soc_pct = (0.0, 0.0), None, None
        self.highest_v = self.lowest_v = None

    def _hear(self, frame: CanFrame, now_ms: int) -> None:
        data = frame.data
        if frame.id not in (0x110, 0x150, 0x190, 0x1D0, 0x210, 0x250, 0x290, 0x2D0, 0x3D0) or len(data) != 8:
            return
        self._heard_ms, self.battery_lost = now_ms, False
        if frame.id in (0x250, 0x290, 0x2D0, 0x3D0):
            self._known.add((frame.id, data[0] if frame.id == 0x3D0 else 0))
        elif frame.id == 0x110:
            self.highest_v, self.lowest_v = _u16(data, 0) / 10, _u16(data, 2) / 10
            self._limits_a = _u16(data, 6) / 10, _u16(data, 4) / 10
        elif frame.id == 0x150:
            self.soc_pct = _u16(data, 0) / 100
        elif frame.id == 0x1D0:
            self.sees_ready = data[6] == 3

    def _greeting(self) -> list[CanFrame]:
        name = self.brand.encode().ljust(14, b"\0")
        return [
            CanFrame(0x151, b"\x00" + name[:7]),
            CanFrame(0x191, ABOUT_ITSELF[self.brand]),
            CanFrame(0x151, b"\x01" + name[7:]),
        ]

    def _report(self, now_ms: int, link_v: float, current_a: float) -> list[tuple[int, CanFrame]]:
        """What it measures, 50 ms later the SoC as it understands it, 50 ms later its clock."""
        usable = max(0.0, ((self.soc_pct or 0.0) - self.reserve_pct) / (1 - self.reserve_pct / 100))
        measured = _be(link_v * 10) + _be(-current_a * 10) + _be(288) + b"\x01\x00"
        return [
            (now_ms, CanFrame(0x091, measured)),
            (now_ms + 50, CanFrame(0x0D1, _be(usable * 10) + b"\0\0\0\0\x02\0")),
            (now_ms + 100, CanFrame(0x111, (1_700_000_000 + now_ms // 1000).to_bytes(4, "big") + bytes(4))),
        ]


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def _be(value: float) -> bytes:
    return (round(value) & 0xFFFF).to_bytes(2, "big")


RUBBISH: Final = (
    CanFrame(0x091, b"\xff\xff"),
    CanFrame(0x151, b""),
    CanFrame(0x091, b"\xff" * 8),
    CanFrame(0x4200, b"\x00" * 8, extended=True),
    CanFrame(0x0D1, b"\xff" * 7),
)
"""A torn frame, an empty one, a whole one that cannot be, and what a Sungrow asks of another battery."""
