"""The least a BMS can say, as a protocol and as the pack that speaks it: for simulating `own` and `none` cheaply.

No pack on earth speaks it and no registry names it: under test is the core behind it, not these bits. Every frame is
8 bytes and ends in the sum of the others; big endian:

    100  every 10 ms   pack voltage 0.1 V u16, current 0.1 A s16 (positive charges), SoC 0.01 % u16, counter u8
    101  every 50 ms   0, lowest and highest cell in mV u16, three of padding    (by turns)
         "             1, coldest and hottest in 0.5 °C + 40, 12 V supply in 0.1 V u8, four of padding
    102  every 100 ms  charge and discharge power in 10 W u16, energy in 10 Wh u16, complaints u8
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from controller.batteries.base import BatteryProtocol
from controller.model.battery import NO_REPORT, BatterySnapshot, Feed, PackReport
from controller.model.reading import Freshness
from controller.model.settings import NO_OPTIONS, OptionValue
from controller.ports import CanFrame
from statecharts.supervisor import Contactor

FAST, SLOW, MORE = 0x100, 0x101, 0x102
FULL_WH = 60_000.0
COMPLAINTS = ("fault", "open_now", "open_asked", "refuses", "no_charge", "no_discharge", "warns", "welded")


def sealed(body: bytes) -> bytes:
    """Seven bytes and their sum."""
    return body + bytes([sum(body) & 0xFF])


# --- what the controller makes of it ---


class PlainState(NamedTuple):
    """The newest payload of each page, (id, mux), and when it came."""

    pages: Mapping[tuple[int, int], tuple[bytes, int]] = {}
    decoded: int = 0
    corrupt: int = 0

    def receive(self, frames: Sequence[CanFrame], now_ms: int) -> PlainState:
        news, corrupt = dict[tuple[int, int], tuple[bytes, int]](), 0
        for frame in frames:
            if frame.extended or frame.id not in RX:
                continue
            data = frame.data
            if len(data) != 8 or sum(data[:7]) & 0xFF != data[7]:
                corrupt += 1
            else:
                news[frame.id, data[0] if frame.id == SLOW else 0] = data, frame.at_ms
        if not news and not corrupt:
            return self
        return PlainState({**self.pages, **news}, self.decoded + len(news), self.corrupt + corrupt)

    def snapshot(self, now_ms: int) -> BatterySnapshot:
        fast, cells = self._read(FAST, 0, now_ms), self._read(SLOW, 0, now_ms)
        warmth, more = self._read(SLOW, 1, now_ms), self._read(MORE, 0, now_ms)
        feeds = {feed: Freshness(self._at_ms(*page), ROUNDS_MS[page]) for feed, page in FEEDS}
        return BatterySnapshot(
            pack_voltage_v=None if fast is None else _u16(fast, 0) / 10,
            current_a=None if fast is None else _s16(fast, 2) / 10,
            soc_pct=None if fast is None else round(_u16(fast, 4) / 100, 1),
            cell_min_v=None if cells is None else _u16(cells, 1) / 1000,
            cell_max_v=None if cells is None else _u16(cells, 3) / 1000,
            temp_min_c=None if warmth is None else warmth[1] / 2 - 40,
            temp_max_c=None if warmth is None else warmth[2] / 2 - 40,
            lv_supply_v=None if warmth is None else warmth[3] / 10,
            max_charge_w=None if more is None else _u16(more, 0) * 10.0,
            max_discharge_w=None if more is None else _u16(more, 2) * 10.0,
            energy_full_wh=None if more is None else _u16(more, 4) * 10.0,
            report=NO_REPORT if more is None else _report(more[6]),
            feeds=feeds, decoded_frames=self.decoded, corrupt_frames=self.corrupt,
        )  # fmt: skip

    def transmit(self, closed: frozenset[Contactor], now_ms: int) -> tuple[PlainState, tuple[CanFrame, ...]]:
        return self, ()

    def _at_ms(self, ident: int, mux: int) -> int | None:
        page = self.pages.get((ident, mux))
        return None if page is None else page[1]

    def _read(self, ident: int, mux: int, now_ms: int) -> bytes | None:
        """The payload while it is fresh."""
        page = self.pages.get((ident, mux))
        return None if page is None or now_ms - page[1] > 5 * ROUNDS_MS[ident, mux] else page[0]


def _u16(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]


def _s16(data: bytes, at: int) -> int:
    return (_u16(data, at) ^ 0x8000) - 0x8000


def _said(bits: int) -> PackReport:
    said = [bool(bits >> n & 1) for n in range(len(COMPLAINTS))]
    fault, open_now, open_asked, refuses, no_charge, no_discharge, warns, welded = said
    return PackReport(
        fault=fault, open_now=open_now, open_asked=open_asked, refuses=refuses, no_charge=no_charge,
        no_discharge=no_discharge, warns=warns, welded=welded, link_loaded=False,
    )  # fmt: skip


_REPORTS = tuple(map(_said, range(256)))


def _report(bits: int) -> PackReport:
    return _REPORTS[bits]


RX: Mapping[int, int] = {FAST: 10, SLOW: 50, MORE: 100}
ROUNDS_MS: Mapping[tuple[int, int], int] = {(FAST, 0): 20, (SLOW, 0): 100, (SLOW, 1): 100, (MORE, 0): 100}
FEEDS: tuple[tuple[Feed, tuple[int, int]], ...] = (
    (Feed.VOLTAGE, (FAST, 0)), (Feed.CURRENT, (FAST, 0)), (Feed.SOC, (FAST, 0)), (Feed.CELLS, (SLOW, 0)),
    (Feed.TEMPERATURES, (SLOW, 1)),
)  # fmt: skip


class Plain(BatteryProtocol):
    """The row no registry holds."""

    def start(self, options: Mapping[str, OptionValue] = NO_OPTIONS) -> PlainState:
        return PlainState()


PROTOCOL = Plain(
    "plain", "a pack that says the least a BMS can", RX, frozenset(), ("own", "none"), ("nca", "ncm", "lmo", "lfp"),
    frozenset(),
)  # fmt: skip


# --- the pack ---


class Pile(Protocol):
    """The cells it measures."""

    @property
    def soc(self) -> float: ...
    def extremes_v(self, current_a: float = 0.0) -> tuple[float, float]: ...
    def extremes_c(self) -> tuple[float, float]: ...


@dataclass
class PlainPack:
    """Measures `cells` and says so. Everything may be changed at any time; complaints: names of COMPLAINTS.

    offset_a, offset_v: what its sensors add. noise: called for each reading's error. cell_high_v, cell_low_v: what its
    extremes read instead of the truth.
    """

    cells: Pile
    offset_a: float = 0.0
    offset_v: float = 0.0
    offset_soc_pct: float = 0.0
    offset_c: float = 0.0
    noise: Callable[[], float] = field(default=lambda: 0.0)
    cell_high_v: float | None = None
    cell_low_v: float | None = None
    lv_supply_v: float = 13.5
    charge_w: float = 50_000.0
    discharge_w: float = 80_000.0
    complaints: set[str] = field(default_factory=set)
    _counter: int = field(default=0, init=False)

    def step(self, now_ms: int, volts: float, current_a: float) -> list[CanFrame]:
        """What it sends at this time, at these terminals."""
        turn = now_ms // 10
        frames = [CanFrame(FAST, self._fast(volts, current_a), now_ms)]
        if turn % 5 == 0:
            frames.append(CanFrame(SLOW, self._cells(current_a) if turn % 10 else self._warmth(), now_ms))
        if turn % 10 == 3:
            frames.append(CanFrame(MORE, self._more(), now_ms))
        return frames

    def _fast(self, volts: float, current_a: float) -> bytes:
        self._counter = (self._counter + 1) % 256
        pct = min(max(100.0 * self.cells.soc + self.offset_soc_pct, 0.0), 100.0)
        deci_v = round(10 * (volts + self.offset_v + 0.3 * self.noise()))
        deci_a = round(10 * (current_a + self.offset_a + self.noise()))
        return sealed(_words(deci_v, deci_a, round(100 * pct)) + bytes([self._counter]))

    def _cells(self, current_a: float) -> bytes:
        low_v, high_v = self.cells.extremes_v(current_a)
        low_v, high_v = self.cell_low_v or low_v, self.cell_high_v or high_v
        return sealed(bytes(1) + _words(round(1000 * low_v), round(1000 * high_v)) + bytes(2))

    def _warmth(self) -> bytes:
        cold, hot = (min(max(round(2 * (c + self.offset_c + 40)), 0), 255) for c in self.cells.extremes_c())
        return sealed(bytes([1, cold, hot, round(10 * self.lv_supply_v), 0, 0, 0]))

    def _more(self) -> bytes:
        bits = sum(1 << n for n, name in enumerate(COMPLAINTS) if name in self.complaints)
        watts = _words(round(self.charge_w / 10), round(self.discharge_w / 10), round(FULL_WH / 10))
        return sealed(watts + bytes([bits]))


def _words(*values: int) -> bytes:
    return b"".join((max(min(value, 0xFFFF), -0x8000) & 0xFFFF).to_bytes(2, "big") for value in values)
