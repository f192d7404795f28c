"""Nissan Leaf and e-NV200 packs of all generations: what the LBC says, what it is asked, and what keeps it content.

Facts: the Leaf protocol note (sections cited below) and the recordings leaf-*.log; the bits stand in `leaf.dbc`.
The LBC measures and permits; the three relays in the pack are switched by whoever owns them, here by wiring `own`.
It broadcasts no cell voltage fit for protection: cells are asked for, by ISO-TP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from controller.batteries.base import BatteryProtocol, PackKind
from controller.codec import dbc, isotp
from controller.codec.checks import leaf_crc8, leaf_nibble_sum
from controller.codec.dbc import Mailbox, Page, Value, Values
from controller.model.battery import BatterySnapshot, Feed, PackReport
from controller.model.reading import Freshness
from controller.model.settings import NO_OPTIONS, Option, OptionValue
from controller.ports import CanFrame
from controller.schedule import Beat, Schedule
from statecharts.supervisor import Contactor

# --- Tables ----------------------------------------------------------------------------------------------------------


def genuine(data: bytes, before: bytes | None) -> bool:
    """The CRC is right, and the counter is not that of the frame just before: an LBC that repeats itself is stuck.

    A leap is no reason to refuse: a bus that loses frames shows them, and what is lost too long is stale anyway.
    """
    return leaf_crc8(data[:7]) == data[7] and (before is None or (data[6] ^ before[6]) & 3 != 0)


TABLES = dbc.load(Path(__file__).with_name("leaf.dbc"), checks=dict.fromkeys((0x1DB, 0x1DC, 0x55B), genuine))
STATUS, POWER, SOC = TABLES.page("LB_status"), TABLES.page("LB_power"), TABLES.page("LB_soc")
REMAINING, MAXIMUM = TABLES.page("LB_energy", 0), TABLES.page("LB_energy", 1)
EXTREMES = tuple(TABLES.page("LB_extremes", index) for index in range(4))
HOTTEST, COLDEST = EXTREMES[1], EXTREMES[3]
CAPACITY = TABLES.page("LB_capacity")
ONLY_ZE1 = tuple(TABLES.page(f"LB_unknown{name}") for name in ("5EB", "1ED", "1C2"))
ANSWER, REQUEST = TABLES.page("LB_diagnosisAnswer"), TABLES.page("LB_diagnosisRequest")

CELLS = 96
CELL_MAX_V = 4.5
SMALL_PACK_GIDS = 281
EMPTY_GIDS = 10
GAP_MS = 1000
SETTLING_MS = 1000
"""After its first frame a healthy LBC takes 0.3 s to permit closing and to see its interlock (recorded starts)."""
UNDECIDED_MS = 3000


class Generation(StrEnum):
    """Section 0. A 40 kWh e-NV200 has none of the ZE1's own ids, and counts as AZE0."""

    ZE0 = "2011 to 2012"
    AZE0 = "2013 to 2017"
    ZE1 = "2018 and newer"


def generation_of(known: Generation | None, box: Mailbox, awake_ms: int | None) -> Generation | None:
    """From the ids heard, never back. A ZE0 is what has shown nothing else for 3 s; the car's 0x380 and 0x5BF, which
    Battery-Emulator takes for a ZE1's, are in recordings of a ZE0 as well.
    """
    if known is Generation.ZE1 or any(page in box.latest for page in ONLY_ZE1):
        return Generation.ZE1
    if CAPACITY in box.latest:
        return Generation.AZE0
    return Generation.ZE0 if known or (awake_ms is not None and awake_ms >= UNDECIDED_MS) else None


# --- Single values: None is unknown ----------------------------------------------------------------------------------


def between(value: Value, low: float, high: float) -> Value:
    return value if value is not None and low <= value <= high else None


def pack_voltage_v(status: Values) -> Value:
    return between(status["LB_totalVoltage"], 0.0, 450.0)


def current_a(status: Values) -> Value:
    """Positive is charging: the raw sign."""
    return status["LB_current"]


def soc_pct(soc: Values) -> Value:
    value = between(soc["LB_stateOfCharge"], 0.0, 100.0)
    return None if value is None else round(value, 1)


SIGNS: Mapping[Page, tuple[tuple[str, Callable[[Values], Value]], ...]] = {
    STATUS: (("voltage", pack_voltage_v), ("current", current_a)),
    SOC: (("soc", soc_pct),),
    REMAINING: (("average", lambda values: values["LB_averageTemperature"]),),
    MAXIMUM: (("average", lambda values: values["LB_averageTemperature"]),),
    HOTTEST: (("hottest", lambda values: values["LB_temperatureMax"]),),
    COLDEST: (("coldest", lambda values: values["LB_temperatureMin"]),),
}
"""What is required, by its page: a stamp is kept of the last valid one."""


def watts(kw: Value) -> Value:
    return None if kw is None else round(1000 * kw)


def any_of(*known: bool | None) -> bool | None:
    """True if one is True, else None if one is unknown."""
    return True if True in known else None if None in known else False


def is_in(value: Value, *wanted: int) -> bool | None:
    return None if value is None else value in wanted


FULLY_DISCHARGED, FULLY_CHARGED, CAUTION, FAULTS = (1, 3), (2, 3), 4, (5, 6, 7)
START_BLOCKED = tuple(range(153, 201))


@lru_cache(maxsize=64)
def report(
    failsafe: Value, relay_cut: Value, permitted: Value, full: Value, empty: Value, gids: Value, isolation: Value,
    trouble: Value,
) -> PackReport:  # fmt: skip
    """From raw values of 0x1DB (permitted: None where nobody wired it), 0x55B, 0x5BC and 0x5C0.

    Section 2.1: stop requests limit one direction; the caution lamp alone warns, by choice: nobody recorded one.
    """
    cut = is_in(relay_cut, 1, 2, 3)
    few_gids = None if gids is None else gids < EMPTY_GIDS
    return PackReport(
        fault=is_in(failsafe, *FAULTS),
        open_asked=None if failsafe is None else False,  # it has no such wish beside its failsafe and relay cut
        withholds=cut if permitted is None else any_of(cut, permitted == 0),
        refuses=is_in(trouble, *START_BLOCKED),
        isolation_alert=is_in(isolation, 1),
        no_charge=any_of(is_in(failsafe, *FULLY_CHARGED), is_in(full, 1)),
        no_discharge=any_of(is_in(failsafe, *FULLY_DISCHARGED), is_in(empty, 1), few_gids),
        warns=is_in(failsafe, CAUTION),
        alerts=(int(trouble),) if trouble else (),
    )


# --- Answers (section 2.7): an implausible one is None, and counts as not given --------------------------------------


class CellVoltages(NamedTuple):
    """All cells, V, in their order, and the extremes."""

    cells_v: tuple[float, ...]
    min_v: float
    max_v: float


def cell_voltages(answer: bytes) -> CellVoltages | None:
    """Group 0x02: 96 words in mV."""
    if len(answer) < 2 + 2 * CELLS:
        return None
    cells_v = tuple(int.from_bytes(answer[at : at + 2], "big") / 1000 for at in range(2, 2 + 2 * CELLS, 2))
    lowest, highest = min(cells_v), max(cells_v)
    return CellVoltages(cells_v, lowest, highest) if lowest > 0.0 and highest <= CELL_MAX_V else None


def temperatures_c(answer: bytes) -> tuple[float, float] | None:
    """Group 0x04: coldest and hottest of up to four sensors, each a raw word (0xFFFF: not there) and whole °C.

    The direct °C agree with the raw words where both were recorded (18 to 20 °C, a ZE1); below 0 they are taken as
    signed, which no source states.
    """
    if len(answer) < 14:
        return None
    sensors = [answer[at : at + 3] for at in range(2, 14, 3)]
    known = [int.from_bytes(sensor[2:], "big", signed=True) for sensor in sensors if sensor[:2] != b"\xff\xff"]
    return (float(min(known)), float(max(known))) if known else None


class Condition(NamedTuple):
    """Group 0x01. isolation_kohm: None when it was not measured. hx_pct: conductance as a share of a new pack's."""

    lv_supply_v: Value
    isolation_kohm: Value
    hx_pct: Value


HX_AT: Mapping[int, tuple[int, float]] = {0x29: (28, 100.0), 0x2B: (28, 100.0), 0x35: (30, 102.4)}
"""Length of the answer → where its Hx stands, and in what parts of a percent."""


def condition(answer: bytes) -> Condition | None:
    if len(answer) not in HX_AT:  # 0x2C shortly after waking: not to be believed
        return None

    def word(at: int) -> int:
        return int.from_bytes(answer[at : at + 2], "big")

    at, parts = HX_AT[len(answer)]
    return Condition(between(round(word(22) / 1024, 2), 0.1, 30.0), word(24) or None, round(word(at) / parts, 1))


def shunts(answer: bytes) -> tuple[int, ...] | None:
    """Group 0x06: the cells being balanced, one bit each, cell 1 first."""
    bits = int.from_bytes(answer[2:14], "little")
    return tuple(cell for cell in range(1, CELLS + 1) if bits >> cell - 1 & 1) if len(answer) >= 14 else None


def text(answer: bytes) -> str | None:
    """Groups 0x83, 0x84: printable ASCII up to the first byte that is none."""
    length = next((n for n, byte in enumerate(answer[2:]) if not 0x20 <= byte < 0x7F), len(answer) - 2)
    return answer[2 : 2 + length].decode("ascii").strip() or None


GROUP_CONDITION, GROUP_CELLS, GROUP_TEMPERATURES, GROUP_SHUNTS, GROUP_PART, GROUP_SERIAL = 1, 2, 4, 6, 0x83, 0x84
GROUPS: Mapping[int, Callable[[bytes], object]] = {
    GROUP_CONDITION: condition, GROUP_CELLS: cell_voltages, GROUP_TEMPERATURES: temperatures_c, GROUP_SHUNTS: shunts,
    GROUP_PART: text, GROUP_SERIAL: text,
}  # fmt: skip
ROTATION = (
    GROUP_CELLS, GROUP_TEMPERATURES, GROUP_CELLS, GROUP_CONDITION, GROUP_CELLS, GROUP_TEMPERATURES, GROUP_CELLS,
    GROUP_SHUNTS,
)  # fmt: skip
ONCE = (GROUP_SERIAL, GROUP_PART)
"""Asked in the turn of the shunts, until answered."""
ASK_MS = 2000
"""The quicker pace of section 2.7, so that every cell is seen every 4 s; a recorded phone asked four times as often."""
ROUNDS_MS = {group: ASK_MS * len(ROTATION) // ROTATION.count(group) for group in set(ROTATION)}
QUIET_MS = 100_000
POSITIVE_RESPONSE = 0x61
NO_ANSWERS: Mapping[int, tuple[Any, int]] = MappingProxyType({})


class Diagnosis(NamedTuple):
    """What the LBC answered, to us or to somebody else: group → (what it said, when).

    asked_ms: when our newest question went out, None when somebody else asked since. turn: of the rotation.
    quiet_until_ms: until then the bus is left to somebody else. flow_due: the newest frame wants flow control from us.
    """

    answers: Mapping[int, tuple[Any, int]] = NO_ANSWERS
    assembly: isotp.Assembly = isotp.NOTHING
    asked_ms: int | None = None
    turn: int = 0
    quiet_until_ms: int = 0
    flow_due: bool = False

    def hear(self, can_id: int, data: bytes, at_ms: int) -> Diagnosis:
        """With one more frame of 0x7BB or, from somebody else, of 0x79B."""
        if can_id == REQUEST.can_id:
            return self._replace(asked_ms=None, quiet_until_ms=at_ms + QUIET_MS, flow_due=False)
        assembly, answers = self.assembly.receive(data, at_ms), self.answers
        if (whole := assembly.whole) is not None and len(whole) > 2 and whole[0] == POSITIVE_RESPONSE:
            said = GROUPS[whole[1]](whole) if whole[1] in GROUPS else None
            answers = answers if said is None else {**answers, whole[1]: (said, at_ms)}
        ours = self.asked_ms is not None and at_ms - self.asked_ms <= isotp.TIMEOUT_MS
        return self._replace(answers=answers, assembly=assembly, flow_due=ours and assembly.incomplete)

    def ask(self, due: bool, now_ms: int) -> tuple[Diagnosis, bytes]:
        """What is to be sent in this tick, empty when nothing is; `due`: the pace allows the next question."""
        if self.flow_due:
            return self._replace(flow_due=False), isotp.FLOW_CONTROL
        if not due or now_ms < self.quiet_until_ms:
            return self, b""
        group = ROTATION[self.turn % len(ROTATION)]
        if group == GROUP_SHUNTS:
            asked = (*(once for once in ONCE if once not in self.answers), GROUP_SHUNTS)
            group = asked[self.turn // len(ROTATION) % len(asked)]
        question = bytes((2, 0x21, group, 0, 0, 0, 0, 0))
        return self._replace(assembly=isotp.NOTHING, asked_ms=now_ms, turn=self.turn + 1), question

    def said(self, group: int, now_ms: int) -> Any:
        """The newest answer while it may be believed, else None. Part and serial number do not age."""
        answer, at_ms = self.answers.get(group, (None, 0))
        return answer if group in ONCE or now_ms - at_ms <= 5 * ROUNDS_MS[group] else None

    def freshness(self, group: int) -> Freshness:
        answer = self.answers.get(group)
        return Freshness(None if answer is None else answer[1], ROUNDS_MS[group])


# --- What is sent (section 3) ----------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A periodic frame: its payloads in turn. ze1: only for a ZE1."""

    can_id: int
    beat: Beat
    payloads: tuple[bytes, ...]
    ze1: bool = False


def fixed(*payloads: str) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(payload) for payload in payloads)


def with_crc(*payloads: str) -> tuple[bytes, ...]:
    return tuple(data + bytes((leaf_crc8(data),)) for data in fixed(*payloads))


def charge_frames() -> tuple[bytes, ...]:
    """0x1F2: 20 frames, its counter of four running beside a bit that changes every five."""
    frames = []
    for n in range(20):
        data = bytes((0x10, 0x64, 0, 0xB0 | n // 5 % 2 << 2, 0, 0x1E, n % 4, 0x80))
        frames.append(data[:7] + bytes((data[7] | leaf_nibble_sum(data),)))
    return tuple(frames)


WAKE_UP_ID = 0x50B
MAIL_SEEN = bytes.fromhex("00 00 06 C0 00 00 20")
ROWS: tuple[Row, ...] = (
    Row(0x1D4, Beat(10), with_crc(*(f"6E 6E 00 04 {turn} 46 E0" for turn in ("07", "47", "87", "C7")))),
    Row(0x1F2, Beat(10), charge_frames()),
    Row(WAKE_UP_ID, Beat(100), fixed("00 00 06 C0 00 00 00")),
    Row(0x50C, Beat(100, 10), with_crc("00 00 00 00 5D", "00 00 00 01 B2", "00 00 00 02 5D", "00 00 00 03 B2")),
    Row(0x355, Beat(40, 20), fixed("00 00 00 00 10 00 40 00"), ze1=True),
    Row(0x3B8, Beat(100, 30), fixed(*(f"7F {'E8' if n % 2 else 'C8'} {n % 15:02X} 07 FF" for n in range(30))),
        ze1=True),
    Row(0x5C5, Beat(100, 40), fixed("40 01 2F 5E 00 00 00 00"), ze1=True),
    Row(0x626, Beat(100, 50), fixed("02 00 FF 1D 20 00"), ze1=True),
    Row(0x5EC, Beat(500, 70), fixed("00"), ze1=True),
)  # fmt: skip
"""As a car that is ready, at all times: nobody has shown that a pack cares for the relay bits in 0x1D4 (section 9)."""
ASKING = len(ROWS)
GRID = Schedule((*(row.beat for row in ROWS), Beat(ASK_MS, 80)))


# --- The pack --------------------------------------------------------------------------------------------------------

NO_STAMPS: Mapping[str, int] = MappingProxyType({})
FAST = frozenset({STATUS, POWER, *ONLY_ZE1})
"""What comes in every tick; all else makes up the slow part of a snapshot."""


class Kept:
    """The slow part of a snapshot, worked out once while nothing of it changes: when, and until when it holds."""

    __slots__ = ("complaint", "feeds", "since_ms", "until_ms", "values")

    def __init__(self) -> None:
        self.since_ms, self.until_ms = 0, -1
        self.values: dict[str, Any] = {}
        self.feeds: dict[Feed, Freshness] = {}
        self.complaint: tuple[Value, ...] = ()


class LeafState(NamedTuple):
    """Everything heard from and sent to one pack.

    valid_at_ms: last valid value of each of SIGNS. woke_ms: first 0x1DB after a gap. generation: None until told. sent:
    how often each of ROWS was.
    """

    wh_per_gid: float
    interlock_wired: bool
    kept: Kept
    box: Mailbox = Mailbox(TABLES)
    diagnosis: Diagnosis = Diagnosis()
    valid_at_ms: Mapping[str, int] = NO_STAMPS
    woke_ms: int | None = None
    generation: Generation | None = None
    schedule: Schedule = GRID
    sent: tuple[int, ...] = (0,) * len(ROWS)

    def receive(self, frames: Sequence[CanFrame], now_ms: int) -> LeafState:
        box = self.box.receive(frames, now_ms)
        if box is self.box:
            return self
        stamps, woke_ms, diagnosis = dict(self.valid_at_ms), self.woke_ms, self.diagnosis
        news = dict.fromkeys(box.news)
        for page in news:
            latest = box.latest[page]
            for name, value in SIGNS.get(page, ()):
                if value(latest.values) is not None:
                    stamps[name] = latest.at_ms
        if STATUS in news:
            before, at_ms = self.box.latest.get(STATUS), box.latest[STATUS].at_ms
            if before is None or at_ms - before.at_ms > GAP_MS:
                woke_ms = at_ms
        if ANSWER in news or REQUEST in news:
            for frame in frames:
                if frame.id in (ANSWER.can_id, REQUEST.can_id) and not frame.extended:
                    diagnosis = diagnosis.hear(frame.id, frame.data, min(frame.at_ms, now_ms))
        generation = generation_of(self.generation, box, None if woke_ms is None else now_ms - woke_ms)
        kept = self.kept if news.keys() <= FAST and generation is self.generation else Kept()
        return LeafState(
            self.wh_per_gid, self.interlock_wired, kept, box, diagnosis, stamps, woke_ms, generation, self.schedule,
            self.sent,
        )  # fmt: skip

    def snapshot(self, now_ms: int) -> BatterySnapshot:
        kept, stamps = self.kept, self.valid_at_ms
        if not kept.since_ms <= now_ms <= kept.until_ms:
            self._look(kept, now_ms)
        status, power = self.box.read(STATUS, now_ms), self.box.read(POWER, now_ms)
        looked_at = self.interlock_wired and self.woke_ms is not None and now_ms - self.woke_ms >= SETTLING_MS
        interlock = status["LB_interlock"] if looked_at else None
        permitted = status["LB_mainRelayOnFlag"] if looked_at else None
        return BatterySnapshot(
            pack_voltage_v=pack_voltage_v(status),
            current_a=current_a(status),
            max_charge_w=watts(power["LB_chargePowerLimit"]),
            max_discharge_w=watts(power["LB_dischargePowerLimit"]),
            hvil_ok=None if interlock is None else interlock == 1,
            report=report(
                status["LB_failsafeStatus"], status["LB_relayCutRequest"], permitted, status["LB_fullChargeFlag"],
                *kept.complaint,
            ),
            feeds={
                Feed.VOLTAGE: Freshness(stamps.get("voltage"), STATUS.round_ms),
                Feed.CURRENT: Freshness(stamps.get("current"), STATUS.round_ms),
                **kept.feeds,
            },
            decoded_frames=self.box.accepted,
            corrupt_frames=self.box.rejected,
            **kept.values,
        )  # fmt: skip

    def _look(self, kept: Kept, now_ms: int) -> None:
        """Work out the slow part, and until when nothing of it becomes too old."""
        read, said = self.box.read, self.diagnosis.said
        soc, gids = read(SOC, now_ms), read(REMAINING, now_ms)["LB_remainingGids"]
        cells: CellVoltages | None = said(GROUP_CELLS, now_ms)
        told: Condition | None = said(GROUP_CONDITION, now_ms)
        temp_min_c, temp_max_c, temp_freshness = self._temperatures(now_ms)
        kept.values = {
            "soc_pct": soc_pct(soc),
            "soh_pct": self._energy("LB_stateOfHealth", now_ms),
            "cell_min_v": None if cells is None else cells.min_v,
            "cell_max_v": None if cells is None else cells.max_v,
            "temp_min_c": temp_min_c,
            "temp_max_c": temp_max_c,
            "energy_full_wh": self._energy_full_wh(gids, now_ms),
            "energy_remaining_wh": None if gids is None else round(gids * self.wh_per_gid),
            "isolation_kohm": None if told is None else told.isolation_kohm,
            "lv_supply_v": None if told is None else told.lv_supply_v,
            "cells": CELLS if self.box.latest else None,
            "cells_v": () if cells is None else cells.cells_v,
            "serial": said(GROUP_SERIAL, now_ms),
            "part_number": said(GROUP_PART, now_ms),
            "balancing": said(GROUP_SHUNTS, now_ms),
        }
        kept.feeds = {
            Feed.CELLS: self.diagnosis.freshness(GROUP_CELLS),
            Feed.TEMPERATURES: temp_freshness,
            Feed.SOC: Freshness(self.valid_at_ms.get("soc"), SOC.round_ms),
        }
        extremes = self._extremes_newest(now_ms)
        trouble = None if extremes is None else extremes["LB_troubleCode"]
        kept.complaint = soc["LB_capacityEmpty"], gids, soc["LB_irSensorMalfunction"], trouble
        ends = [latest.at_ms + page.max_age_ms for page, latest in self.box.latest.items() if page not in FAST]
        ends += [
            at_ms + 5 * ROUNDS_MS[group] for group, (_, at_ms) in self.diagnosis.answers.items() if group in ROUNDS_MS
        ]
        kept.since_ms, kept.until_ms = now_ms, min((end for end in ends if end >= now_ms), default=now_ms)

    def transmit(self, closed: frozenset[Contactor], now_ms: int) -> tuple[LeafState, tuple[CanFrame, ...]]:
        """Nothing to an LBC that does not say 0x5BC: it sleeps, or its supply is being cut on purpose."""
        del closed
        awake = self._energy_read(now_ms) is not None
        schedule, due = self.schedule.tick(now_ms) if awake else (self.schedule, ())
        if not due:
            return self, ()
        frames, sent, mail = list[CanFrame](), list(self.sent), self._mail(now_ms)
        for index in due:
            if index == ASKING or (ROWS[index].ze1 and self.generation is not Generation.ZE1):
                continue
            row = ROWS[index]
            payload = row.payloads[sent[index] % len(row.payloads)]
            frames.append(CanFrame(row.can_id, MAIL_SEEN if mail and row.can_id == WAKE_UP_ID else payload))
            sent[index] += 1
        diagnosis, question = self.diagnosis.ask(ASKING in due, now_ms)
        if question:
            frames.append(CanFrame(REQUEST.can_id, question))
        return self._replace(diagnosis=diagnosis, schedule=schedule, sent=tuple(sent)), tuple(frames)

    def _energy_read(self, now_ms: int) -> Values | None:
        """0x5BC, whichever page is there."""
        for page in (REMAINING, MAXIMUM):
            latest = self.box.latest.get(page)
            if latest is not None and now_ms - latest.at_ms <= page.max_age_ms:
                return latest.values
        return None

    def _energy(self, name: str, now_ms: int) -> Value:
        values = self._energy_read(now_ms)
        return None if values is None else values[name]

    def _energy_full_wh(self, gids: Value, now_ms: int) -> Value:
        """Section 2.4: what it holds at most, aged. A bridge may keep the maximum away; then 0x59E tells it.

        A ZE0 that says neither has 24 kWh, unless it holds more than that.
        """
        soh, most = self._energy("LB_stateOfHealth", now_ms), self.box.read(MAXIMUM, now_ms)["LB_maximumGids"]
        for_qc_wh = self.box.read(CAPACITY, now_ms)["LB_fullCapacityForQC"]
        if most is None and for_qc_wh:
            return round(for_qc_wh)
        small = self.generation is Generation.ZE0 and gids is not None and gids <= SMALL_PACK_GIDS
        if soh is None or (most is None and not small):
            return None
        return round((SMALL_PACK_GIDS if most is None else most) * self.wh_per_gid * soh / 100)

    def _temperatures(self, now_ms: int) -> tuple[Value, Value, Freshness]:
        """Coldest and hottest by the best source of the generation (section 2.5): the others mean something else."""
        stamp, read = self.valid_at_ms.get, self.box.read
        match self.generation:
            case Generation.ZE1:
                low, high = self.diagnosis.said(GROUP_TEMPERATURES, now_ms) or (None, None)
                return low, high, self.diagnosis.freshness(GROUP_TEMPERATURES)
            case Generation.AZE0:
                low, high = read(COLDEST, now_ms)["LB_temperatureMin"], read(HOTTEST, now_ms)["LB_temperatureMax"]
                if low is not None and high is not None and low > high:
                    low = high = None
                both = [stamp("coldest"), stamp("hottest")]
                oldest_ms = min((at_ms for at_ms in both if at_ms is not None), default=None)
                return low, high, Freshness(None if None in both else oldest_ms, COLDEST.round_ms)
            case Generation.ZE0:
                mean = self._energy("LB_averageTemperature", now_ms)
                return None if mean is None else mean - 1, mean, Freshness(stamp("average"), REMAINING.round_ms)
            case None:
                return None, None, Freshness(None, COLDEST.round_ms)

    def _extremes_newest(self, now_ms: int) -> Values | None:
        """0x5C0, the page that came last."""
        pages = [self.box.latest[page] for page in EXTREMES if page in self.box.latest]
        newest = max(pages, key=lambda latest: latest.at_ms, default=None)
        return None if newest is None or now_ms - newest.at_ms > newest.page.max_age_ms else newest.values

    def _mail(self, now_ms: int) -> bool:
        values = self._extremes_newest(now_ms)
        return values is not None and values["LB_heaterMailRequest"] == 1


class Leaf(BatteryProtocol):
    """The row of the registry."""

    def start(self, options: Mapping[str, OptionValue] = NO_OPTIONS) -> LeafState:
        chosen = self.chosen(options)
        return LeafState(float(chosen["wh_per_gid"]), bool(chosen["interlock_wired"]), Kept())

    def kind(self, pack: BatterySnapshot) -> PackKind:
        """All have 96 cells. LMO and NMC cannot be told apart, and the safety concept judges both by one row."""
        return PackKind(CELLS, "lmo", ("ncm",))

    def explain(self, frame: CanFrame) -> tuple[tuple[str, Values], ...]:
        return () if frame.extended else TABLES.explain(frame.id, frame.data)


UNCERTAIN = (
    "What a gid is worth, 77 or 80 Wh (`wh_per_gid`), and with it the energies by 4 %.",
    "Whether a pack cares for the relay bits in 0x1D4, or misses the car's 0x50A, which is not sent.",
    "What a pack does that hears no car at all: nobody recorded one.",
    "The sign of the current rests on recorded cars; watch a first charge at low current.",
    "Temperatures below 0 °C in the answer to group 0x04 are taken as signed, and those of a ZE1 in 0x5C0 not at all.",
    "The byte order of the sleep bits in 0x55B, which are left out.",
    "What an LBC does with the questions of two: while somebody else asks, we are quiet for 100 s.",
)
RECORDINGS = {"leaf-*.log": "dalathegreat/EV-CANlogs"}

PROTOCOL = Leaf(
    name="leaf",
    title="Nissan Leaf / e-NV200",
    rx=TABLES.cycles(),
    tx=frozenset({REQUEST.can_id} | {row.can_id for row in ROWS}),
    wirings=("own",),
    chemistries=("lmo", "ncm"),
    telling=frozenset({0x1DB, 0x1DC, 0x55B, 0x5BC, 0x5C0, 0x59E}),
    options=(
        Option(
            "wh_per_gid", 80.0,
            "what the pack's counter of energy is worth; 80 is what recorded packs reckon with themselves, 77 comes"
            " nearer to the display of a car",
            unit="Wh", low=77.0, high=80.0,
        ),
        Option(
            "interlock_wired", True,
            "both high-voltage plugs of the pack are seated, with the pins of their interlock; false for the 30 kWh"
            " packs that never permit closing: then neither interlock nor permission of the pack is looked at",
        ),
    ),
)  # fmt: skip
