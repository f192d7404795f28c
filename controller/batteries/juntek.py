"""Juntek shunts on a serial line: pack voltage, current and ampere-hours, and nothing of single cells.

Two unrelated wire formats, chosen by `model`; facts: the Juntek protocol note, sections 1 and 2.

    VAT series, 57600 baud         AA 1C | channel address | voltage current power Ah Wh uptime | output °C 00 00 | sum
    KG-F, KL-F, KH-F, 115200 baud  :r50=address,sum,voltage,current,remaining Ah,…,temperature,power,output,direction,…

The SoC goes by the shunt's counter. At rest the mean cell's voltage says where it can be at all; a counter that is far
outside is corrected to there (batt2gen24 goes by the voltage then), and counts on from that. `soc_by` tells which.
A restart forgets the correction until the next rest. Temperatures are those of the shunt, which has no other.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from controller.batteries.base import BatteryProtocol, PackKind
from controller.codec.checks import juntek_kg_sum, juntek_vat_sum
from controller.codec.dbc import Values
from controller.model.battery import BatterySnapshot, Feed, PackReport
from controller.model.reading import Freshness
from controller.model.settings import CHEMISTRIES, NO_OPTIONS, Curve, Option, OptionValue
from controller.ports import CanFrame, SerialLine
from controller.schedule import Beat, Schedule
from statecharts.supervisor import Contactor

ROUND_MS = 1000
MAX_AGE_MS = 5 * ROUND_MS
SILENT_MS = 3000
GAP_MS = 500
"""What is torn by a gap this long is no frame any more."""

# --- What the wire says ----------------------------------------------------------------------------------------------


class Reading(NamedTuple):
    """One answer. used_ah, left_ah: what its counter tells, the other is None. current_a: positive is charging.

    output: 0 is on, else why the shunt's own relay is not, or that it is off.
    """

    address: int
    voltage_v: float
    current_a: float | None
    used_ah: float | None
    left_ah: float | None
    temp_c: float
    output: int


Cut = tuple[tuple[Reading, ...], int, bytes]
"""The answers found in a piece of the stream, how many were corrupt, and what may be the beginning of another."""


def vat_cut(stream: bytes) -> Cut:
    """Frames `AA 1C … sum`; anything else is skipped, byte by byte, until the next one begins.

    The current is taken to be positive while discharging, and the counter to tell what was used (note, uncertain 2).
    """
    readings, corrupt, at = list[Reading](), 0, 0
    while (at := stream.find(b"\xaa", at)) >= 0:
        frame = stream[at : at + 29]
        if frame[1:2] not in (b"", b"\x1c"):
            at += 1
        elif len(frame) < 29:
            return tuple(readings), corrupt, frame
        elif juntek_vat_sum(frame[:28]) != frame[28]:
            corrupt, at = corrupt + 1, at + 1
        else:
            address, volts, amps, _, used, _, _, output, celsius = struct.unpack(">xxxBHhIIIIBbxxx", frame)
            readings.append(Reading(address, volts / 100, -amps / 10, used / 1000, None, celsius, output))
            at += 29
    return tuple(readings), corrupt, b""


KG_ANSWER = re.compile(rb":r50=(\d{1,3}),(\d{1,3}),((?:\d{1,10},){10,})\r?")
KG_LINE_MAX = 256
KG_MAX_V, KG_MAX_A, KG_MAX_C = 1_000, 1_000, 200
"""Beyond these it is no measurement, whatever its sum says: 0 is none, and one torn line in 255 has a right one."""


def kg_cut(stream: bytes) -> Cut:
    """Lines `:r50=…`, from their last colon on; other lines, and the torn front of one, are skipped.

    A direction of 1 is taken to be charging, 0 discharging; others make the current unknown (note, uncertain 5).
    """
    readings, corrupt = [], 0
    *lines, rest = stream.split(b"\n")
    for line in lines:
        line = line[max(0, line.rfind(b":")) :]
        if not line.startswith(b":r50="):
            continue
        answer = KG_ANSWER.fullmatch(line)
        numbers = [int(field) for field in answer[3].split(b",")[:-1]] if answer else []
        if answer is None or int(answer[2]) not in (0, juntek_kg_sum(numbers)):
            corrupt += 1
            continue
        volts, amps, left, _, _, _, warmth, _, output, towards = numbers[:10]
        if volts > 100 * KG_MAX_V or amps > 100 * KG_MAX_A or warmth > 100 + KG_MAX_C:
            corrupt += 1
            continue
        current_a = {0: -amps / 100, 1: amps / 100}.get(towards)
        readings.append(Reading(int(answer[1]), volts / 100, current_a, None, left / 1000, warmth - 100.0, output))
    return tuple(readings), corrupt, rest[-KG_LINE_MAX:]


def vat_poll(command: int, address: int) -> bytes:
    frame = bytes((0xAA, 0x04, command, address))
    return frame + bytes((juntek_vat_sum(frame),))


def kg_poll(address: int) -> bytes:
    return b":R50=%d,%d,1,\r\n" % (address, juntek_kg_sum((1,)))


class Dialect(NamedTuple):
    """One wire format. wake: what is sent between two polls while there is no answer, empty when nothing helps."""

    baud: int
    cut: Callable[[bytes], Cut]
    poll: Callable[[int], bytes]
    wake: Callable[[int], bytes]
    trips: frozenset[int]


VAT = Dialect(57_600, vat_cut, lambda a: vat_poll(0x01, a), lambda a: vat_poll(0xFF, a), frozenset())
KG = Dialect(115_200, kg_cut, kg_poll, lambda a: b"", frozenset(range(1, 7)))
DIALECTS: Mapping[str, Dialect] = {"vat4300": VAT, "kg-f": KG, "kl-f": KG, "kh-f": KG}
"""The first fields, all that is read here, are the same in KG-F, KL-F and KH-F."""
OVER_VOLTAGE, UNDER_VOLTAGE = 1, 3
POLLS = Schedule((Beat(ROUND_MS), Beat(ROUND_MS, ROUND_MS // 2)))

# --- What it means ---------------------------------------------------------------------------------------------------

_NICKEL: Curve = (
    (2.500, 0.0), (2.808, 0.5), (3.118, 3.5), (3.318, 8.5), (3.419, 13.6), (3.583, 29.2), (3.694, 45.2), (4.066, 83.9),
    (4.112, 95.5), (4.200, 100.0),
)  # fmt: skip
AT_REST: Mapping[str, Curve] = {
    "nca": _NICKEL,
    "ncm": _NICKEL,
    "lmo": (
        (3.327, 0.0), (3.721, 16.8), (3.801, 27.2), (3.866, 37.6), (3.906, 48.0), (3.947, 58.4), (4.047, 79.2),
        (4.084, 89.6), (4.184, 100.0),
    ),
    "lfp": (
        (2.010, 0.0), (2.741, 1.2), (2.930, 2.7), (3.087, 5.3), (3.194, 8.9), (3.277, 29.7), (3.351, 98.3),
        (3.418, 99.5), (3.598, 100.0),
    ),
}  # fmt: skip
"""SoC over the voltage of a cell at rest. nca, ncm: Samsung 40T; lfp: Lithium Werks APR18650M1B; both measured at C/20
and less in soorajsunil/Piecewise-Battery-OCV, README.md. lmo: rests of a cell of a 2013 Leaf in
batterysim/equiv-circ-model, examples/data/cell-low-current-hppc-25c-2.csv. None was found for lto: its counter stands.
"""
REST_A, REST_MS = 1.0, 15 * 60_000
SLACK_V, SLACK_PCT = 0.020, 10.0
"""How far a cell at rest may be from its curve, and the counter from what that allows. A flat curve allows a lot."""


def over(curve: Curve, volts: float) -> float:
    """The curve at `volts`, linear between its points, constant beyond them."""
    for (v0, p0), (v1, p1) in pairwise(curve):
        if volts <= v1:
            return p0 if volts <= v0 else p0 + (p1 - p0) * (volts - v0) / (v1 - v0)
    return curve[-1][1]


class Charge(NamedTuple):
    """The SoC. counter_pct: as the shunt counts, None without a capacity. offset_pct: what the voltage put right."""

    counter_pct: float | None = None
    offset_pct: float = 0.0
    rest_since_ms: int | None = None

    @property
    def soc_pct(self) -> float | None:
        if self.counter_pct is None:
            return None
        return round(min(100.0, max(0.0, self.counter_pct + self.offset_pct)), 1)

    def read(
        self, counter_pct: float | None, current_a: float | None, cell_v: float | None, curve: Curve | None, now_ms: int
    ) -> Charge:
        """With one more reading. Corrected only at rest, and only when the counter contradicts the voltage."""
        since_ms = self.rest_since_ms
        if current_a is None or abs(current_a) > REST_A:
            since_ms = None
        elif since_ms is None:
            since_ms = now_ms
        rested = since_ms is not None and now_ms - since_ms >= REST_MS
        offset_pct = self.offset_pct
        if rested and counter_pct is not None and cell_v is not None and curve is not None:
            lowest, highest = over(curve, cell_v - SLACK_V), over(curve, cell_v + SLACK_V)
            if not lowest - SLACK_PCT <= counter_pct + offset_pct <= highest + SLACK_PCT:
                offset_pct = min(highest, max(lowest, counter_pct)) - counter_pct
        return Charge(counter_pct, offset_pct, since_ms)


@dataclass(frozen=True, slots=True)
class Setup:
    """What the config says. capacity_ah, cells: 0 when it does not. sign: -1 turns the current round."""

    dialect: Dialect
    address: int
    listen_only: bool
    sign: int
    capacity_ah: float
    cells: int
    curve: Curve | None

    def counter_pct(self, reading: Reading) -> float | None:
        if not self.capacity_ah:
            return None
        left_ah = self.capacity_ah - reading.used_ah if reading.used_ah is not None else reading.left_ah
        return None if left_ah is None else 100 * left_ah / self.capacity_ah


class JuntekState(NamedTuple):
    """Everything heard from one shunt. tail: the beginning of an answer, heard_ms: when its last byte came."""

    setup: Setup
    schedule: Schedule = POLLS
    tail: bytes = b""
    heard_ms: int = 0
    reading: Reading | None = None
    at_ms: int = 0
    charge: Charge = Charge()
    soc_at_ms: int | None = None
    current_at_ms: int | None = None
    accepted: int = 0
    corrupt: int = 0

    def receive(self, frames: Sequence[CanFrame], now_ms: int) -> JuntekState:
        return self

    def hear(self, data: bytes, now_ms: int) -> JuntekState:
        if not data:
            return self
        kept = self.tail if now_ms - self.heard_ms <= GAP_MS else b""
        readings, corrupt, tail = self.setup.dialect.cut(kept + data)
        state = self._replace(tail=tail, heard_ms=now_ms, corrupt=self.corrupt + corrupt)
        for reading in readings:
            if reading.address == self.setup.address:
                state = state._take(reading, now_ms)
        return state

    def _take(self, reading: Reading, now_ms: int) -> JuntekState:
        setup = self.setup
        amps = None if reading.current_a is None else round(setup.sign * reading.current_a, 1) + 0.0
        reading = reading._replace(current_a=amps)
        charge = self.charge if self._fresh(now_ms) else self.charge._replace(rest_since_ms=None)
        cell_v = reading.voltage_v / setup.cells if setup.cells else None
        charge = charge.read(setup.counter_pct(reading), amps, cell_v, setup.curve, now_ms)
        return self._replace(
            reading=reading,
            at_ms=now_ms,
            charge=charge,
            soc_at_ms=now_ms if charge.soc_pct is not None else self.soc_at_ms,
            current_at_ms=now_ms if amps is not None else self.current_at_ms,
            accepted=self.accepted + 1,
        )

    def _fresh(self, now_ms: int) -> Reading | None:
        return self.reading if now_ms - self.at_ms <= MAX_AGE_MS else None

    def snapshot(self, now_ms: int) -> BatterySnapshot:
        reading, stamp = self._fresh(now_ms), None if self.reading is None else self.at_ms
        feeds = {
            Feed.VOLTAGE: Freshness(stamp, ROUND_MS),
            Feed.CURRENT: Freshness(self.current_at_ms, ROUND_MS),
            Feed.SOC: Freshness(self.soc_at_ms, ROUND_MS),
        }
        if reading is None:
            return BatterySnapshot(feeds=feeds, decoded_frames=self.accepted, corrupt_frames=self.corrupt)
        soc_pct = self.charge.soc_pct
        return BatterySnapshot(
            pack_voltage_v=reading.voltage_v,
            current_a=reading.current_a,
            soc_pct=soc_pct,
            soc_by=None if soc_pct is None else "voltage" if self.charge.offset_pct else "counter",
            temp_min_c=reading.temp_c,
            temp_max_c=reading.temp_c,
            report=self._report(reading.output),
            feeds=feeds,
            decoded_frames=self.accepted,
            corrupt_frames=self.corrupt,
        )

    def _report(self, output: int) -> PackReport:
        """A trip of the shunt's own protection forbids what it is about. "Off" says nothing: seen while current flows.

        The VAT does not tell a trip from off, so it only warns.
        """
        trips, alerts = self.setup.dialect.trips, (output,) if output else ()
        if not trips:
            return PackReport(warns=output != 0, alerts=alerts)
        tripped = output in trips
        no_charge, no_discharge = tripped and output != UNDER_VOLTAGE, tripped and output != OVER_VOLTAGE
        return PackReport(no_charge=no_charge, no_discharge=no_discharge, warns=tripped, alerts=alerts)

    def ask(self, now_ms: int) -> tuple[JuntekState, bytes]:
        """A poll a second; half way between, after 3 s without an answer, what wakes the box."""
        setup = self.setup
        if setup.listen_only:
            return self, b""
        schedule, due = self.schedule.tick(now_ms)
        state = self if schedule is self.schedule else self._replace(schedule=schedule)
        if 0 in due:
            return state, setup.dialect.poll(setup.address)
        silent = self.reading is None or now_ms - self.at_ms > SILENT_MS
        return state, setup.dialect.wake(setup.address) if due and silent else b""

    def transmit(self, closed: frozenset[Contactor], now_ms: int) -> tuple[JuntekState, tuple[CanFrame, ...]]:
        return self, ()


def line(options: Mapping[str, OptionValue]) -> SerialLine:
    return SerialLine(DIALECTS[str(PROTOCOL.chosen(options)["model"])].baud)


class Juntek(BatteryProtocol):
    """The row of the registry."""

    def start(self, options: Mapping[str, OptionValue] = NO_OPTIONS) -> JuntekState:
        chosen = self.chosen(options)
        return JuntekState(
            Setup(
                dialect=DIALECTS[str(chosen["model"])],
                address=int(chosen["address"]),
                listen_only=bool(chosen["listen_only"]),
                sign=-1 if chosen["invert_current"] else 1,
                capacity_ah=float(chosen["capacity_ah"]),
                cells=int(chosen["cells"]),
                curve=AT_REST.get(str(chosen["chemistry"])),
            )
        )

    def kind(self, pack: BatterySnapshot) -> PackKind:
        return PackKind(None, None)

    def explain(self, frame: CanFrame) -> tuple[tuple[str, Values], ...]:
        return ()


UNCERTAIN = (
    "VAT4300: no second source confirms that it speaks on RS485, nor its settings; those of the VAT1300 are taken.",
    "VAT: the sign of its current (taken as positive while discharging, `invert_current`), and whether its Ah are those"
    " used; where its sum stands, and what bytes 26 and 27 are.",
    "KG, KL, KH: a direction of 1 is taken to be charging, as users found; the manual says forward and reverse.",
    "An output of 99 or 255 is off by the manuals, and was seen while current flows: it forbids nothing.",
)
RECORDINGS = {"juntek-kgf-serial.txt": "mysystem32/juntek_kg, Potoonite/juntek-rs485"}

PROTOCOL = Juntek(
    name="juntek",
    title="Juntek shunt (VAT series, KG-F, KL-F, KH-F)",
    rx={},
    tx=frozenset(),
    wirings=("none",),
    chemistries=tuple(CHEMISTRIES),
    telling=frozenset(),
    options=(
        Option(
            "model", "vat4300",
            "Which shunt it is. The VAT1100 and VAT1300 speak like the VAT4300, whose RS485 no second source confirms",
            choices=tuple(DIALECTS),
        ),
        Option("address", 1, "Its address on the line.", low=1, high=99),
        Option("capacity_ah", 0.0, "Capacity of the pack; the SoC is counted against it.", "Ah", 1, 5000, yours=True),
        Option("listen_only", False, "Its own display stays connected and asks; two that ask would collide."),
        Option(
            "invert_current", False,
            "Turn the sign of the current round. Right is: positive while charging; check it with a known load.",
        ),
        Option("cells", 0, "Cells in series."),
        Option("chemistry", "", "What its cells are."),
        Option("energy_full_wh", 0.0, "Nameplate energy: a shunt counts Ah only.", yours=True),
    ),
    lacks=frozenset({Feed.CELLS, Feed.TEMPERATURES}),
    line=line,
)  # fmt: skip
