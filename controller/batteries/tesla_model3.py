"""Tesla Model 3 and Y packs (and 2021+ Model S / X): what they say, and what they must hear to close.

Facts: the Tesla protocol note (sections cited below) and the recordings tesla-*.log; the bits stand in the .dbc files
beside this one. Where two layouts of one id collide, what is seen decides: `EnergyLayout` for 0x352, and with it for
the isolation in 0x212; the length for 0x2B4. Until it is decided, the values are unknown.
The pack closes its contactors by itself while it hears 0x221 say DRIVE, and opens them on OFF. ACCESSORY is not sent:
recorded cars stay CLOSED on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from controller.batteries.base import BatteryProtocol, PackKind
from controller.codec import dbc
from controller.codec.checks import with_nibble, with_tesla_sum
from controller.codec.dbc import Mailbox, Page, Value, Values
from controller.model.battery import BatterySnapshot, Feed, PackContactor, PackReport
from controller.model.reading import Freshness
from controller.model.settings import NO_OPTIONS, Option, OptionValue
from controller.ports import CanFrame
from controller.schedule import Beat, Schedule
from statecharts.supervisor import Contactor

# --- Tables ----------------------------------------------------------------------------------------------------------

HERE = Path(__file__).parent


def soc_in_order(data: bytes, before: bytes | None) -> bool:
    """0x292: a frame with socMin above socMax is refused (section 1.5)."""
    del before
    bits = int.from_bytes(data, "little")
    return len(data) < 4 or bits & 0x3FF <= bits >> 20 & 0x3FF


TABLES = dbc.load(
    *(HERE / f"tesla_model3{part}.dbc" for part in ("", "_2020", "_2021", "_pcs6")), checks={0x292: soc_in_order}
)
HV_BUS = TABLES.page("BMS_hvBusStatus")
CONTACTORS = TABLES.page("HVP_contactorState")
STATUS = TABLES.page("BMS_status")
STATUS_2020 = TABLES.page("BMS_status2020")
AVAILABLE = TABLES.page("BMS_powerAvailable")
SOC = TABLES.page("BMS_socStatus")
RAILS_5 = TABLES.page("PCS_dcdcRailStatus5")
RAILS_6 = TABLES.page("PCS_dcdcRailStatus6")
LIMITS = TABLES.page("BMS_driveLimits")
ALERTS = tuple(TABLES.page("BMS_alertMatrix", index) for index in range(5))
ALERT_BITS = tuple(f"BMS_alerts{60 * index + 1:03}to{60 * index + 60:03}" for index in range(5))
TEMPERATURES = TABLES.page("BMS_bmbMinMax", 0)
CELLS = TABLES.page("BMS_bmbMinMax", 1)
ENERGY_2020 = TABLES.page("BMS_energyStatus2020")
ENERGY_2021 = TABLES.page("BMS_energyStatus2021", 0)
COUNTERS = TABLES.page("BMS_kwhCounter")
BRICKS = tuple(TABLES.page("BMS_brickMeasurements", index) for index in range(37))
HEALTH = TABLES.page("BMS_stateOfHealth")
SERIAL = tuple((TABLES.page("BMS_serialNumber", i), f"BMS_serialChars{c}") for i, c in ((0, "01to07"), (1, "08to14")))
HVP_VOLTAGES = TABLES.page("HVP_debugMessage", 1)
HVP_SUPPLY = TABLES.page("HVP_debugMessage", 5)

# --- Single values: None is unknown ----------------------------------------------------------------------------------

PACK_MAX_V = 500.0
CELL_MAX_V = 4.5
POWER_MAX_KW = 655.0
LINK_GAP_MAX_V = 10.0
WEAK_SUPPLY_V = 9.5


def between(value: Value, low: float, high: float, digits: int) -> Value:
    """The value, rounded, when it is known and low < value <= high."""
    return round(value, digits) if value is not None and low < value <= high else None


def pack_voltage_v(bus: Values) -> Value:
    return between(bus["BMS_packVoltage"], 0.0, PACK_MAX_V, 2)


def current_a(bus: Values) -> Value:
    """Positive is charging: the raw sign, as Battery-Emulator and the recordings have it (section 1.1)."""
    amps = bus["BMS_packCurrent"]
    return None if amps is None else round(amps, 1)


def soc_pct(soc: Values) -> Value:
    return between(soc["BMS_socUI"], -1.0, 100.0, 1)


def pair(low: Value, high: Value) -> tuple[Value, Value]:
    """A minimum and a maximum; if they contradict each other neither is known."""
    return (None, None) if low is not None and high is not None and low > high else (low, high)


def cell_extremes_v(cells: Values) -> tuple[Value, Value]:
    low = between(cells["BMS_brickVoltageMin"], 0.0, CELL_MAX_V, 3)
    return pair(low, between(cells["BMS_brickVoltageMax"], 0.0, CELL_MAX_V, 3))


def temperatures_c(temperatures: Values) -> tuple[Value, Value]:
    return pair(temperatures["BMS_thermistorTMin"], temperatures["BMS_thermistorTMax"])


HVIL_OK = 1
HVIL_UNKNOWN = (None, 0, 10, 11, 14, 15)
"""UNKNOWN, drive inverter or power module not heard, SNA, and the one value no source names (section 1.2)."""


def hvil_ok(contactors: Values) -> bool | None:
    raw = contactors["HVP_hvilStatus"]
    return None if raw in HVIL_UNKNOWN else raw == HVIL_OK


def design_window_v(limits: Values) -> tuple[Value, Value]:
    """Lowest and highest voltage the BMS states. The factor is 0.01 or 0.02, whichever is believable (section 1.6)."""
    low, high = limits["BMS_minBusVoltage"], limits["BMS_maxBusVoltage"]
    if low is None or high is None:
        return None, None
    for factor in (1, 2):
        if 330.0 <= factor * high <= 480.0:
            return pair(round(factor * low, 2), round(factor * high, 2))
    return None, None


def watts(kw: Value) -> Value:
    return None if kw is None or kw > POWER_MAX_KW else round(1000 * kw)


# --- Contactors ------------------------------------------------------------------------------------------------------

P = PackContactor
BMS_STATES: Mapping[Value, P] = {1: P.OPEN, 2: P.OPENING, 3: P.CLOSING, 4: P.CLOSED, 5: P.WELDED, 6: P.BLOCKED}
"""BMS_contactorState, 0x212."""
SET_STATES: Mapping[Value, P] = {
    1: P.OPEN, 2: P.CLOSING, 3: P.BLOCKED, 4: P.OPENING, 5: P.CLOSED, 6: P.WELDED, 7: P.WELDED,
    8: P.CLOSING, 9: P.CLOSING,
}  # fmt: skip
"""HVP_packContactorSetState, 0x20A. With only one contactor closed the pack is neither open nor closed."""
WORST_FIRST = (P.WELDED, P.BLOCKED, P.OPENING, P.CLOSING)
CONTACT_BLOCKED, CONTACT_WELDED = 3, 7
SET_CLOSING, SET_BLOCKED, SET_WELDS = 2, 3, (6, 7)
BMS_CLOSING, BMS_CLOSED, BMS_WELDED, BMS_BLOCKED = 3, 4, 5, 6
BMS_FAULTS = (6, 7)


def contactor_state(status: Values, contactors: Values) -> PackContactor | None:
    """What 0x212 and 0x20A say together: the worse; OPEN against CLOSED is neither, so OPENING."""
    said = {BMS_STATES.get(status["BMS_contactorState"]), SET_STATES.get(contactors["HVP_packContactorSetState"])}
    said.discard(None)
    if len(said) == 1:
        return said.pop()
    return next((state for state in WORST_FIRST if state in said), P.OPENING) if said else None


# --- Alerts and the report -------------------------------------------------------------------------------------------

PACK_WELDS = (165, 166)
FAULTS = (17, 18, 19, 22, 23, 36, 39, 61, 82, 99, 106, 107, 146, 159, 163, *PACK_WELDS, 167, 168, 169)
"""Section 1.13, reaction "fault"; of a105 to a107, one lost temperature sensor (a105) warns.

Isolation has a hazard of its own (safety.md, section 3: closed it only warns), so it is not among them.
"""
ISOLATION = (34, 35, 123, 151)
REFUSALS = (52, 81)
WARNINGS = (62, 69, 105, 136, 137, 138, 170, 179)
FORCED_OPEN, TRANSITION_FAILED, CLOSE_FAILED = 82, 71, 83


def any_of(*known: bool | None) -> bool | None:
    """True if one is True, else None if one is unknown."""
    return True if True in known else None if None in known else False


def all_of(*known: bool | None) -> bool | None:
    """False if one is False, else None if one is unknown."""
    return False if False in known else None if None in known else True


def is_in(value: Value, wanted: tuple[int, ...]) -> bool | None:
    return None if value is None else value in wanted


def flag(value: Value) -> bool | None:
    return None if value is None else value != 0


class Complaint(NamedTuple):
    """Everything a PackReport is made of. alerts: the 60 bits of each page of 0x320, None while unknown."""

    alerts: tuple[Value, ...]
    bms_contactor: Value
    bms_state: Value
    pack_set: Value
    negative: Value
    positive: Value
    fc_set: Value
    reset_required: Value
    open_now: Value
    open_asked: Value
    supply_weak: bool | None


@lru_cache(maxsize=256)
def report(c: Complaint) -> PackReport:
    """Sections 1.2, 1.3, 1.13 and 3.4. One source that complains is enough; False needs every source to be known."""

    def alert(*numbers: int) -> bool | None:
        return any_of(*(_alert_active(c.alerts, number) for number in numbers))

    def contacts(state: int) -> bool | None:
        return any_of(is_in(c.negative, (state,)), is_in(c.positive, (state,)))

    closing = any_of(is_in(c.bms_contactor, (BMS_CLOSING,)), is_in(c.pack_set, (SET_CLOSING,)))
    return PackReport(
        fault=any_of(is_in(c.bms_state, BMS_FAULTS), is_in(c.fc_set, SET_WELDS), alert(*FAULTS)),
        open_now=flag(c.open_now),
        open_asked=any_of(flag(c.open_asked), alert(FORCED_OPEN)),
        refuses=any_of(
            is_in(c.bms_contactor, (BMS_BLOCKED,)), is_in(c.pack_set, (SET_BLOCKED,)), contacts(CONTACT_BLOCKED),
            flag(c.reset_required), alert(*REFUSALS),
        ),
        link_loaded=any_of(
            all_of(alert(TRANSITION_FAILED), alert(CLOSE_FAILED)), all_of(closing, c.supply_weak)
        ),
        welded=any_of(
            is_in(c.bms_contactor, (BMS_WELDED,)), is_in(c.pack_set, SET_WELDS), contacts(CONTACT_WELDED),
            alert(*PACK_WELDS),
        ),
        isolation_alert=alert(*ISOLATION),
        warns=alert(*WARNINGS),
        alerts=active_alerts(c.alerts),
    )  # fmt: skip


def _alert_active(pages: tuple[Value, ...], number: int) -> bool | None:
    """Alert n sits on page (n - 1) // 60, bit (n - 1) % 60 of its 60 (section 1.13)."""
    bits = pages[(number - 1) // 60]
    return None if bits is None else bool(int(bits) >> (number - 1) % 60 & 1)


def active_alerts(pages: tuple[Value, ...]) -> tuple[int, ...]:
    """The numbers of all active alerts, lowest first."""
    return tuple(
        60 * index + bit + 1 for index, bits in enumerate(pages) for bit in range(60) if int(bits or 0) >> bit & 1
    )


# --- 0x352: which layout ---------------------------------------------------------------------------------------------

PACK_MIN_KWH, PACK_MAX_KWH = 20.0, 120.0
BUFFER_MAX_KWH = 30.0
UNDECIDED_MS = 5_000


def flat_fits(values: Values) -> bool | None:
    """Does 0x352 read without pages give believable energies? None: it says "not available"."""
    full = values["BMS_nominalFullPackEnergy"]
    if full is None:
        return None
    parts = (
        values["BMS_nominalEnergyRemaining"], values["BMS_expectedEnergyRemaining"],
        values["BMS_idealEnergyRemaining"], values["BMS_energyToChargeComplete"],
    )  # fmt: skip
    return PACK_MIN_KWH <= full <= PACK_MAX_KWH and all(part is None or part <= 1.05 * full for part in parts)


def paged_fits(index: int | None, values: Values) -> bool | None:
    """Does 0x352 read as a page give believable energies? None: it says "not available"."""
    if index == 0:
        full, remaining = values["BMS_nominalFullPackEnergy"], values["BMS_nominalEnergyRemaining"]
        if full is None:
            return None
        return PACK_MIN_KWH <= full <= PACK_MAX_KWH and (remaining is None or remaining <= 1.05 * full)
    if index == 1:
        parts = values["BMS_expectedEnergyRemaining"], values["BMS_energyToChargeComplete"]
        buffer = values["BMS_energyBuffer"]
        return (buffer is None or buffer <= BUFFER_MAX_KWH) and all(p is None or p <= PACK_MAX_KWH for p in parts)
    share = values["BMS_userFacingSoe"]
    return share is None or share <= 100.0


@dataclass(frozen=True, slots=True)
class EnergyLayout:
    """Which of the two layouts of 0x352 this pack speaks (section 1.8, made decidable both ways).

        D5 22 8B 57 CC 12 97 16     flat (2020): the low bits of the first byte belong to an energy
        00 00 29 0E F4 06 FE 06     page 0 (2021): 72.50 kWh full. As flat: 0 kWh, impossible

    Each frame is read both ways, and a reading that gives impossible energies is out. Paged: flat is out, and pages 0
    and 1 were both seen. Flat: paged is out (page 3, or impossible energies) and two frames came, or neither is out but
    pages 0 and 1 were not both seen in 5 s. A frame that contradicts what was decided starts everything again. On the
    recordings flat is decided at the second frame, paged at the second or third.
    """

    known: str | None = None
    flat: bool = True
    paged: bool = True
    pages: frozenset[int] = frozenset()
    frames: int = 0
    since_ms: int = 0

    def see(self, data: bytes, at_ms: int) -> EnergyLayout:
        """The layout after one more frame."""
        flat = flat_fits(ENERGY_2020.decode(data)) if len(data) >= 8 else None
        if flat is None:
            return self
        page = TABLES.layouts["BMS_energyStatus2021"].page_of(data)
        paged = page is not None and paged_fits(page.index, page.decode(data)) is not False
        before = self
        if not (flat and self.flat) and not (paged and self.paged):
            before = EnergyLayout()
            if not flat and not paged:
                return before
        flat, paged = flat and before.flat, paged and before.paged
        since_ms = before.since_ms if before.frames else at_ms
        frames = before.frames + 1
        pages = before.pages | {data[0] & 3}
        both = {0, 1} <= pages
        overdue = at_ms - since_ms >= UNDECIDED_MS and not both
        is_flat = flat and (overdue if paged else frames >= 2)
        known = "2020" if is_flat else "2021" if paged and not flat and both else None
        return EnergyLayout(known, flat, paged, pages, frames, since_ms)


def beginning_of_life_kwh(soc: Values) -> Value:
    """Energy when new, from 0x292. In the 2026 layout these bits are one flag and a power: then bits 1…7 are 0."""
    kwh = soc["BMS_beginningOfLifeEnergy"]
    if kwh is None or not PACK_MIN_KWH <= kwh <= PACK_MAX_KWH or round(10 * kwh) & 0xFE == 0:
        return None
    return kwh


# --- Single cells and their number -----------------------------------------------------------------------------------

NCA_CELLS, LFP_CELLS = (92, 96), range(102, 109)
NOMINAL = 2
REST_A = 20.0
COUNT_SLACK = 3
BRICK_NAMES = tuple(
    tuple((f"BMS_brickVoltage{n}", f"BMS_brickStatus{n}") for n in range(3 * index + 1, 3 * index + 4))
    for index in range(len(BRICKS))
)
BRICK_INDEX = {page: index for index, page in enumerate(BRICKS)}
BRICKS_MAX_AGE_MS = BRICKS[0].max_age_ms


def cells_by_voltage(pack_v: Value, cell_min_v: Value, cell_max_v: Value) -> int | None:
    """Cells in series, from pack over cell voltage, if that gives a known number. Wrong while the current moves."""
    if pack_v is None or cell_min_v is None or cell_max_v is None:
        return None
    cells = pack_v / ((cell_min_v + cell_max_v) / 2)
    near = next((number for number in NCA_CELLS if abs(cells - number) <= 1.0), round(cells))
    return near if near in NCA_CELLS or near in LFP_CELLS else None


@dataclass(frozen=True, slots=True)
class CellBook:
    """The voltage of each cell, gathered page by page from 0x401, and how many there are.

    A round takes about a minute, and packs of fewer cells send all 36 pages too; so the highest NOMINAL cell is the
    number only once a page has come again (`counted`). Until then two agreeing looks at pack over cell voltage have to
    do (`agreed`). Where the two contradict each other, pages were lost, and the number is unknown: 96 cells counted in
    an LFP pack would let it be charged to 4.15 V.
    """

    volts: tuple[Value, ...] = (None,) * (3 * len(BRICKS))
    at_ms: tuple[int | None, ...] = (None,) * len(BRICKS)
    oldest_ms: int | None = None
    newest: int | None = None
    counted: int | None = None
    looked: tuple[int, float] | None = None
    agreed: int | None = None

    def page(self, index: int, values: Values, at_ms: int) -> CellBook:
        """With one more page of 0x401."""
        volts = tuple(
            between(values[volt], 0.0, CELL_MAX_V, 4) if values[status] == NOMINAL else None
            for volt, status in BRICK_NAMES[index]
        )
        around = self.at_ms[index] is not None and index != self.newest
        gathered = (*self.volts[: 3 * index], *volts, *self.volts[3 * index + 3 :])
        stamps = (*self.at_ms[:index], at_ms, *self.at_ms[index + 1 :])
        counted = self.counted
        if around or counted is not None:
            counted = max([number + 1 for number, value in enumerate(gathered) if value is not None], default=0)
            counted = max(counted, self.counted or 0) or None
        oldest_ms = min(stamp for stamp in stamps if stamp is not None)
        return replace(self, volts=gathered, at_ms=stamps, oldest_ms=oldest_ms, newest=index, counted=counted)

    def look(self, cells: int | None, amps: Value) -> CellBook:
        """With one more look at pack over cell voltage. Two looks agree at (nearly) one current."""
        if cells is None or amps is None:
            return self
        same = self.looked is not None and cells == self.looked[0] and abs(amps - self.looked[1]) <= REST_A
        return replace(self, looked=(cells, amps), agreed=cells if same else self.agreed)

    @property
    def number(self) -> int | None:
        """Cells in series, None while it is not known."""
        if self.counted is not None and self.agreed is not None and abs(self.counted - self.agreed) > COUNT_SLACK:
            return None
        return self.counted or self.agreed

    def cells_v(self, now_ms: int) -> tuple[Value, ...]:
        """One entry a cell, None where unknown or too old; while their number is not known, up to the last one seen."""
        cells = self.number
        if cells is None:
            cells = max((n + 1 for n, value in enumerate(self.volts) if value is not None), default=0)
        if self.oldest_ms is None or now_ms - self.oldest_ms <= BRICKS_MAX_AGE_MS:
            return self.volts[:cells]
        return tuple(
            value if at_ms is not None and now_ms - at_ms <= BRICKS_MAX_AGE_MS else None
            for index, at_ms in enumerate(self.at_ms)
            for value in self.volts[3 * index : 3 * index + 3]
        )[:cells]


# --- What is sent ----------------------------------------------------------------------------------------------------


class When(Enum):
    """When a row is sent."""

    ALWAYS = "always: it also keeps the pack awake"
    ASKED = "while the pack is asked to close"
    CLOSED = "while it is asked to, and 0x212 says CLOSED"


class Row(NamedTuple):
    """A periodic frame: its payloads in turn, the first `head` of them only once."""

    can_id: int
    period_ms: int
    payloads: tuple[bytes, ...]
    when: When = When.ALWAYS
    head: int = 0

    def payload(self, count: int) -> bytes:
        if count < self.head:
            return self.payloads[count]
        return self.payloads[self.head + (count - self.head) % (len(self.payloads) - self.head)]


def fixed(*payloads: str) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(payload) for payload in payloads)


def high_counter(can_id: int, payload: str, counter: int = 0) -> tuple[bytes, ...]:
    """16 frames: counter in the high nibble of the byte before the last, additive checksum in the last."""
    data = bytes.fromhex(payload)
    turns = (with_nibble(data, len(data) - 2, (counter + n) % 16, high=True) for n in range(16))
    return tuple(with_tesla_sum(can_id, turn, len(data) - 1) for turn in turns)


def low_counter(can_id: int, payload: str, counter: int = 0) -> tuple[bytes, ...]:
    """16 frames: additive checksum in byte 0, counter in the low nibble of byte 1."""
    data = bytes.fromhex(payload)
    turns = (with_nibble(data, 1, (counter + n) % 16, high=False) for n in range(16))
    return tuple(with_tesla_sum(can_id, turn, 0) for turn in turns)


POWER_ID = 0x221
POWER_PERIOD_MS = 50
FIRST_COUNTER = 15
DRIVE = (high_counter(POWER_ID, "60 55 55 15 54 51 01 00"), high_counter(POWER_ID, "61 05 55 05 00 00 00 00"))
OFF = (high_counter(POWER_ID, "00 01 00 00 00 50 01 00"), high_counter(POWER_ID, "01 01 01 50 00 00 00 00"))
"""0x221 VCFRONT_LVPowerState (section 2.2): by multiplexer, then by counter."""

STALK_SUMS = bytes.fromhex("46 44 52 6D 43 41 DD F9 4C A5 F6 8C 49 2F 31 3B")
VEHICLE_STATUS = fixed(
    "C3 FF FF FF 3D 00 D0 01", "08 62 0B 18 00 28 E2 CB", "C3 FF FF FF 3D 00 F0 21", "08 62 0B 18 00 28 02 EB",
    "C3 FF FF FF 3D 00 10 41", "08 62 0B 18 00 28 22 0B", "C3 FF FF FF 3D 00 30 61", "08 62 0B 18 00 28 42 2B",
    "C3 FF FF FF 3D 00 50 81", "08 62 0B 18 00 28 62 4B", "C3 FF FF FF 3D 00 70 A1", "08 62 0B 18 00 28 82 6B",
    "C3 FF FF FF 3D 00 90 C1", "08 62 0B 18 00 28 A2 8B", "C3 FF FF FF 3D 00 B0 E1", "08 62 0B 18 00 28 C2 AB",
)  # fmt: skip
"""0x3A1, 16 frames replayed verbatim (section 2.3): its last byte is not the additive checksum."""

FULL: tuple[Row, ...] = (
    Row(0x118, 10, low_counter(0x118, "AB 60 2A 00 00 08 00 00")),
    Row(0x2E1, 10, fixed("29 0A 00 FF 0F 00 00 00", "02 00 00 00 00 00 03 00", "03 6D 99 02 1B 57 00 00",
                         "FC 1B D1 99 9A D8 09 00", "05 00 00 00 00 00 00 00", "08 21 04 6E A0 88 06 04")),
    Row(0x3C2, 50, fixed("00 55 55 55 00 00 5A 45", "29 55 00 00 00 00 00 00")),
    Row(0x39D, 50, low_counter(0x39D, "E1 59 C1 27 00", 9)),
    Row(0x3A1, 50, VEHICLE_STATUS, When.CLOSED),
    Row(0x102, 100, fixed("22 33 00 00 C0 38 21 08")),
    Row(0x103, 100, fixed("22 33 00 00 30 F2 20 02")),
    Row(0x229, 100, tuple(bytes((check, counter, 0)) for counter, check in enumerate(STALK_SUMS))),
    Row(0x241, 100, fixed("35 34 0C 0F 8F 55 00")),
    Row(0x2D1, 100, fixed("FF 01")),
    Row(0x2A8, 100, high_counter(0x2A8, "02 00 00 00 00 80 00 2C")),
    Row(0x2E8, 100, high_counter(0x2E8, "02 00 10 00 00 80 00 7C")),
    Row(0x7FF, 100, fixed("01 49 42 47 00 03 15 01", "02 66 32 24 04 49 95 82", "03 01 08 48 01 00 00 12",
                          "04 73 03 67 5C 00 00 00", "05 00 00 00 20 00 00 00")),
    Row(0x213, 500, high_counter(0x213, "00 15")),
    Row(0x284, 500, fixed("10 00 00 00 00")),
    Row(0x293, 500, high_counter(0x293, "01 0C 55 91 55 15 01 F3")),
    Row(0x313, 500, high_counter(0x313, "00 00 00 05 00 00 00 1B")),
    Row(0x333, 500, fixed("84 30 84 07 02")),
    Row(0x334, 500, (bytes.fromhex("3F 3F C8 00 E2 3F 80 1E"), *high_counter(0x334, "3F 3F 00 0F E2 3F 90 75", 9)),
        head=1),
    Row(0x3B3, 500, fixed("90 80 05 08 00 00 00 01")),
    Row(0x55A, 500, fixed("01 00 00 00 00 00 00 00")),
    Row(0x082, 1000, fixed("00 00 00 80 00 80 00 80")),
    Row(0x321, 1000, high_counter(0x321, "EC 71 A7 6E 02 6C 00 04")),
)  # fmt: skip
"""Section 2.3, with checksums and counters of section 2.1; 0x221 is sent beside it. 0x7FF: section 2.5."""

DIGITAL_HVIL: tuple[Row, ...] = (
    Row(0x1CF, 10, fixed(*(f"01 00 00 1A 1C 02 {turn}" for turn in (
        "60 69", "80 89", "A0 A9", "C0 C9", "E0 E9", "00 09", "20 29", "40 49"))), When.ASKED),
    Row(0x118, 10, fixed(*(f"{0x61 + n:02X} {0x80 + n:02X} 30 10 00 08 00 80" for n in range(16))), When.ASKED),
)  # fmt: skip
"""Section 2.4: the interlock answer of 2021+ S/X and 2024+ packs. Without it they open, so it ends with the wish."""

MINIMAL: tuple[Row, ...] = (
    Row(POWER_ID, POWER_PERIOD_MS, fixed("41 11 01 00 00 00 20 96"), When.ASKED),
    Row(POWER_ID, POWER_PERIOD_MS, fixed("61 15 01 00 00 00 20 BA"), When.ASKED),
)
"""Section 2.2, old packs: two constant frames, a tick apart because a port keeps only the newest frame of an id.

To open, nothing at all is sent: the source goes on with the first (ACCESSORY), but recorded cars stay CLOSED on it.
"""


def rows(closing: str, *, digital_hvil: bool) -> tuple[Row, ...]:
    """What one way of closing sends beside the 0x221 of the full method."""
    if closing == "minimal":
        return MINIMAL
    return (*(row for row in FULL if row.can_id != 0x118), *DIGITAL_HVIL) if digital_hvil else FULL


def beats(table: tuple[Row, ...]) -> tuple[Beat, ...]:
    """Rows of one period follow each other at 10 ms, so that no tick sends them all."""
    seen: dict[int, int] = {POWER_PERIOD_MS: 1} if table is not MINIMAL else {}
    placed = []
    for row in table:
        place = seen.get(row.period_ms, 0)
        seen[row.period_ms] = place + 1
        placed.append(Beat(row.period_ms, 10 * place % row.period_ms))
    return tuple(placed)


@dataclass(frozen=True, slots=True)
class Sender:
    """What was sent so far, as a value.

    asked: the last tick wanted the pack closed. power: 0x221 is sent (not in the minimal method); counter and
    mux: of its next frame. counts: how often each row went out.
    """

    table: tuple[Row, ...]
    schedule: Schedule
    power: bool
    counts: tuple[int, ...]
    asked: bool = False
    counter: int = FIRST_COUNTER
    mux: int = 1

    @classmethod
    def start(cls, closing: str, *, digital_hvil: bool) -> Sender:
        table = rows(closing, digital_hvil=digital_hvil)
        power = closing == "full"
        grid = (*beats(table), Beat(POWER_PERIOD_MS)) if power else beats(table)
        return cls(table, Schedule(grid), power, (0,) * len(table))

    def tick(self, asked: bool, is_closed: bool, now_ms: int) -> tuple[Sender, tuple[CanFrame, ...]]:
        """The frames of this tick. A changed wish is said at once, in 0x221 with mux 1, whatever the period."""
        schedule, due = self.schedule.tick(now_ms)
        changed = asked != self.asked
        if not due and not changed:
            return self, ()
        frames: list[CanFrame] = []
        counts = list(self.counts)
        counter, mux = self.counter, self.mux
        if self.power and (changed or len(self.table) in due):
            mux = 1 if changed else mux
            frames.append(CanFrame(POWER_ID, (DRIVE if asked else OFF)[mux][counter]))
            counter, mux = (counter + 1) % 16, 1 - mux
        gates = {When.ALWAYS: True, When.ASKED: asked, When.CLOSED: asked and is_closed}
        for index in due:
            if index == len(self.table):
                continue
            row = self.table[index]
            if gates[row.when]:
                frames.append(CanFrame(row.can_id, row.payload(counts[index])))
                counts[index] += 1
            else:
                counts[index] = 0
        sent = Sender(self.table, schedule, self.power, tuple(counts), asked, counter, mux)
        return sent, tuple(frames)


# --- The pack --------------------------------------------------------------------------------------------------------

FEEDS: tuple[tuple[Feed, Page, Callable[[Values], bool]], ...] = (
    (Feed.VOLTAGE, HV_BUS, lambda values: pack_voltage_v(values) is not None),
    (Feed.CURRENT, HV_BUS, lambda values: current_a(values) is not None),
    (Feed.CELLS, CELLS, lambda values: None not in cell_extremes_v(values)),
    (Feed.TEMPERATURES, TEMPERATURES, lambda values: None not in temperatures_c(values)),
    (Feed.SOC, SOC, lambda values: soc_pct(values) is not None),
    (Feed.CONTACTOR, STATUS, lambda values: values["BMS_contactorState"] in BMS_STATES),
    (Feed.HVIL, CONTACTORS, lambda values: hvil_ok(values) is not None),
)
"""What refreshes each group of signals: a valid value on its page."""
FED_BY = {page: tuple((n, f[2]) for n, f in enumerate(FEEDS) if f[1] is page) for page in {f[1] for f in FEEDS}}
FEED_NAMES = tuple(feed for feed, _, _ in FEEDS)
FEED_ROUNDS_MS = tuple(page.round_ms for _, page, _ in FEEDS)
freshness = lru_cache(maxsize=256)(Freshness)
"""Most stay the same from tick to tick."""


class Kept:
    """The slow part of a snapshot, as it was worked out last: for which content, when, and until when it holds."""

    __slots__ = ("at_ms", "content", "slow", "until_ms")

    def __init__(self) -> None:
        self.content: object = None
        self.at_ms = self.until_ms = 0
        self.slow: dict[str, Any] = {}


class TeslaState(NamedTuple):
    """Everything heard from and sent to one pack.

    content: stands for all that was said on other pages than HV_BUS; a new object whenever any of it changed.
    """

    sender: Sender
    box: Mailbox
    valid_at_ms: tuple[int | None, ...]
    energy: EnergyLayout
    cells: CellBook
    content: object
    kept: Kept

    def receive(self, frames: Sequence[CanFrame], now_ms: int) -> TeslaState:
        box = self.box.receive(frames, now_ms)
        if box is self.box:
            return self
        news, energy, cells = box.news, self.energy, self.cells
        valid_at_ms = list(self.valid_at_ms)
        for page in dict.fromkeys(news):
            latest = box.latest[page]
            for n, valid in FED_BY.get(page, ()):
                if valid(latest.values):
                    valid_at_ms[n] = latest.at_ms
            if page is ENERGY_2020:
                energy = energy.see(latest.data, latest.at_ms)
            elif page is CELLS:
                bus, extremes = box.read(HV_BUS, now_ms), cell_extremes_v(latest.values)
                cells = cells.look(cells_by_voltage(pack_voltage_v(bus), *extremes), current_a(bus))
            elif page in BRICK_INDEX:
                cells = cells.page(BRICK_INDEX[page], latest.values, latest.at_ms)
        more = self._says_more(box) or energy is not self.energy or cells is not self.cells
        content = object() if more else self.content
        return TeslaState(self.sender, box, tuple(valid_at_ms), energy, cells, content, self.kept)

    def _says_more(self, box: Mailbox) -> bool:
        """Whether the news say anything on a page but HV_BUS that was not said before, or was too old to count."""
        for page in box.news:
            if page is HV_BUS:
                continue
            before, latest = self.box.latest.get(page), box.latest[page]
            if before is None or latest.at_ms - before.at_ms > page.max_age_ms:
                return True
            if page is RAILS_5 or page is RAILS_6:  # of its rails one is used; of both layouts the one that came last
                both = RAILS_5 in box.latest and RAILS_6 in box.latest
                if both or before.values["PCS_dcdcLvBusVolt"] != latest.values["PCS_dcdcLvBusVolt"]:
                    return True
            elif before.data != latest.data:
                return True
        return False

    def snapshot(self, now_ms: int) -> BatterySnapshot:
        kept = self.kept
        if kept.content is not self.content or not kept.at_ms <= now_ms <= kept.until_ms:
            kept.slow, kept.content = self._slow(now_ms), self.content
            kept.at_ms, kept.until_ms = now_ms, self._until_ms(now_ms)
        bus = self.box.read(HV_BUS, now_ms)
        pack_v = pack_voltage_v(bus)
        is_closed = kept.slow["contactor_state"] is PackContactor.CLOSED
        link_v, link_at_ms = self._link(pack_v, is_closed, self._rails(now_ms), now_ms)
        return BatterySnapshot(
            pack_voltage_v=pack_v,
            current_a=current_a(bus),
            link_voltage_v=link_v,
            link_at_ms=link_at_ms,
            feeds=dict(zip(FEED_NAMES, map(freshness, self.valid_at_ms, FEED_ROUNDS_MS), strict=True)),
            decoded_frames=self.box.accepted,
            corrupt_frames=self.box.rejected,
            **kept.slow,
        )

    def _until_ms(self, now_ms: int) -> int:
        """The last moment at which every page that counts now still does."""
        return min(
            (
                latest.at_ms + page.max_age_ms
                for page, latest in self.box.latest.items()
                if page is not HV_BUS and now_ms - latest.at_ms <= page.max_age_ms
            ),
            default=now_ms,
        )

    def _slow(self, now_ms: int) -> dict[str, Any]:
        """All of a snapshot that HV_BUS has no part in, but for stamps and counters."""
        read = self.box.read
        soc, power, limits = read(SOC, now_ms), read(AVAILABLE, now_ms), read(LIMITS, now_ms)
        status, contactors, counters = read(STATUS, now_ms), read(CONTACTORS, now_ms), read(COUNTERS, now_ms)
        cell_min_v, cell_max_v = cell_extremes_v(read(CELLS, now_ms))
        temp_min_c, temp_max_c = temperatures_c(read(TEMPERATURES, now_ms))
        full_kwh, remaining_kwh = self._energy_kwh(now_ms)
        supply_v, lowest_v = self._supply_v(self._rails(now_ms), now_ms)
        design_min_v, design_max_v = design_window_v(limits)
        return {
            "soc_pct": soc_pct(soc),
            "soh_pct": self._soh_pct(full_kwh, soc, now_ms),
            "cell_min_v": cell_min_v,
            "cell_max_v": cell_max_v,
            "temp_min_c": temp_min_c,
            "temp_max_c": temp_max_c,
            "max_charge_w": watts(power["BMS_maxRegenPower"]),
            "max_discharge_w": watts(power["BMS_maxDischargePower"]),
            "max_charge_a": between(limits["BMS_maxChargeCurrent"], -1.0, 2000.0, 1),
            "max_discharge_a": between(limits["BMS_maxDischargeCurrent"], -1.0, 2100.0, 1),
            "design_min_v": design_min_v,
            "design_max_v": design_max_v,
            "energy_full_wh": None if full_kwh is None else round(1000 * full_kwh),
            "energy_remaining_wh": None if remaining_kwh is None else round(1000 * remaining_kwh),
            "charged_wh": _wh(counters["BMS_kwhChargeTotal"]),
            "discharged_wh": _wh(counters["BMS_kwhDischargeTotal"]),
            "isolation_kohm": self._isolation_kohm(now_ms),
            "contactor_state": contactor_state(status, contactors),
            "hvil_ok": hvil_ok(contactors),
            "lv_supply_v": supply_v,
            "cells": self.cells.number if cell_min_v is not None else None,
            "cells_v": self.cells.cells_v(now_ms) if cell_min_v is not None else (),
            "report": self._report(status, contactors, lowest_v, now_ms),
            "serial": self._serial(),
        }

    def transmit(self, closed: frozenset[Contactor], now_ms: int) -> tuple[TeslaState, tuple[CanFrame, ...]]:
        is_closed = self.box.read(STATUS, now_ms)["BMS_contactorState"] == BMS_CLOSED
        sender, frames = self.sender.tick(Contactor.PACK in closed, is_closed, now_ms)
        if sender is self.sender:
            return self, ()
        return TeslaState(sender, self.box, self.valid_at_ms, self.energy, self.cells, self.content, self.kept), frames

    def _energy_kwh(self, now_ms: int) -> tuple[Value, Value]:
        """Full and remaining, once the layout is known. Rounded away by the caller."""
        if self.energy.known is None:
            return None, None
        values = self.box.read(ENERGY_2020 if self.energy.known == "2020" else ENERGY_2021, now_ms)
        full = between(values["BMS_nominalFullPackEnergy"], 0.0, PACK_MAX_KWH, 2)
        return full, between(values["BMS_nominalEnergyRemaining"], -1.0, PACK_MAX_KWH, 2)

    def _soh_pct(self, full_kwh: Value, soc: Values, now_ms: int) -> Value:
        """0x492, else full energy over energy when new (72.5 / 82.1 = 88.31 %, section 1.5)."""
        said = between(self.box.read(HEALTH, now_ms)["BMS_sohEnergyPercent"], 0.0, 102.2, 2)
        new_kwh = beginning_of_life_kwh(soc)
        if said is not None or full_kwh is None or new_kwh is None:
            return said
        return between(100 * full_kwh / new_kwh, 0.0, 110.0, 2)

    def _isolation_kohm(self, now_ms: int) -> Value:
        """Only in the 2020 layout; in newer ones these bits are a power, and read as a false alarm (section 1.3)."""
        if self.energy.known != "2020":
            return None
        return self.box.read(STATUS_2020, now_ms)["BMS_isolationResistance"]

    def _rails(self, now_ms: int) -> tuple[Page, Values]:
        """0x2B4 in the layout that came last."""
        five, six = self.box.latest.get(RAILS_5), self.box.latest.get(RAILS_6)
        page = RAILS_6 if six is not None and (five is None or six.at_ms > five.at_ms) else RAILS_5
        return page, self.box.read(page, now_ms)

    def _link(
        self, pack_v: Value, is_closed: bool, rails: tuple[Page, Values], now_ms: int
    ) -> tuple[Value, int | None]:
        """The DC link and when it was measured: HVP (0x7AA) before PCS (0x2B4). Closed, it must agree with the pack."""
        hvp = self.box.read(HVP_VOLTAGES, now_ms)["HVP_dcLinkVoltage"]
        for page, value in ((HVP_VOLTAGES, hvp), (rails[0], rails[1]["PCS_dcdcHvBusVolt"])):
            link_v = between(value, -20.0, 600.0, 2)
            if link_v is None or (is_closed and (pack_v is None or abs(link_v - pack_v) > LINK_GAP_MAX_V)):
                continue
            return link_v, self.box.latest[page].at_ms
        return None, None

    def _supply_v(self, rails: tuple[Page, Values], now_ms: int) -> tuple[Value, Value]:
        """The 12 V supply, as the HV processor measures it (0x7AA), else as the DC-DC does (0x2B4); and the lower."""
        hvp_v = between(self.box.read(HVP_SUPPLY, now_ms)["HVP_battery12V"], 0.0, 30.0, 2)
        pcs_v = between(rails[1]["PCS_dcdcLvBusVolt"], 0.0, 30.0, 2)
        known = [value for value in (hvp_v, pcs_v) if value is not None]
        return (known[0], min(known)) if known else (None, None)

    def _report(self, status: Values, contactors: Values, supply_v: Value, now_ms: int) -> PackReport:
        return report(
            Complaint(
                alerts=tuple(
                    [self.box.read(page, now_ms)[bits] for page, bits in zip(ALERTS, ALERT_BITS, strict=True)]
                ),
                bms_contactor=status["BMS_contactorState"],
                bms_state=status["BMS_state"],
                pack_set=contactors["HVP_packContactorSetState"],
                negative=contactors["HVP_packContNegativeState"],
                positive=contactors["HVP_packContPositiveState"],
                fc_set=contactors["HVP_fcContactorSetState"],
                reset_required=contactors["HVP_packCtrsResetRequired"],
                open_now=contactors["HVP_packCtrsOpenNowRequested"],
                open_asked=contactors["HVP_packCtrsOpenRequested"],
                supply_weak=None if supply_v is None else supply_v < WEAK_SUPPLY_V,
            )
        )

    def _serial(self) -> str | None:
        """Both halves, each seven ASCII characters (section 1.15). It does not age: a pack keeps its number."""
        text = ""
        for page, name in SERIAL:
            latest = self.box.latest.get(page)
            value = None if latest is None else latest.values[name]
            half = b"" if value is None else int(value).to_bytes(7, "little").rstrip(b"\0 ")
            if not half or not all(0x20 < byte < 0x7F for byte in half):
                return None
            text += half.decode("ascii")
        return text


def _wh(kwh: Value) -> Value:
    return None if kwh is None else round(1000 * kwh)


class TeslaModel3(BatteryProtocol):
    """The row of the registry."""

    def start(self, options: Mapping[str, OptionValue] = NO_OPTIONS) -> TeslaState:
        chosen = self.chosen(options)
        sender = Sender.start(str(chosen["closing"]), digital_hvil=bool(chosen["digital_hvil"]))
        never = (None,) * len(FEEDS)
        return TeslaState(sender, Mailbox(TABLES), never, EnergyLayout(), CellBook(), object(), Kept())

    def kind(self, pack: BatterySnapshot) -> PackKind:
        """By the number of cells: 0x401 once a whole round was seen, else pack over cell voltage near rest.

        92 and 96 are NCA; 102 to 108 are LFP, unless a cell is above what LFP reaches. 110 (S/X) is neither.
        """
        cells = pack.cells
        if cells is None and pack.current_a is not None and abs(pack.current_a) <= REST_A:
            cells = cells_by_voltage(pack.pack_voltage_v, pack.cell_min_v, pack.cell_max_v)
        if cells in NCA_CELLS:
            return PackKind(cells, "nca")
        lfp = cells in LFP_CELLS and (pack.cell_max_v is None or pack.cell_max_v < 3.75)
        return PackKind(cells, "lfp" if lfp else None)

    def explain(self, frame: CanFrame) -> tuple[tuple[str, Values], ...]:
        """One frame tells no layout, so 0x212 is read without its 2020 fields, and 0x352 only as what it could be."""
        if frame.extended:
            return ()
        return tuple(
            (name, values)
            for name, values in TABLES.explain(frame.id, frame.data)
            if name != STATUS_2020.message
            and not (name == ENERGY_2020.message and flat_fits(values) is False)
            and not (name == ENERGY_2021.message and paged_fits(frame.data[0] & 3, values) is False)
        )


UNCERTAIN = (
    "No recording shows a pack close because it was asked: there are cars already closed, and a pack that stayed open.",
    "Whether firmware newer than about 2022 still closes on the two constant 0x221 frames (`closing`: minimal).",
    "Why the last byte of 0x3A1 is no checksum as in other frames, and whether the pack looks at it: sent as recorded.",
    "What 0x082 and 0x55A say; they are sent as cars send them.",
    "From which firmware on 0x212, 0x312 and 0x352 have their newer layouts: it is told by what is seen.",
    "0x2D2: the factor of its voltages, 0.01 or 0.02 (whichever is believable counts), and of the discharge current.",
    "0x7AA: its positions come from sources of 2020; nobody checked newer firmware.",
)
RECORDINGS = {
    "tesla-m3-parked-*.log": "SlipknotTN/Tesla_CanBus_Reader",
    "tesla-m3-dc-charging-*.log": "SlipknotTN/Tesla_CanBus_Reader",
    "tesla-m3-drive.log": "SlipknotTN/Tesla_CanBus_Reader",
    "tesla-m3-accelerate.log": "SlipknotTN/Tesla_CanBus_Reader",
    "tesla-m3-lfp-vehicle-bus-*.log": "securityinmobility/vehiclelogs",
    "tesla-m3-bench-battery-only.log": "dalathegreat/EV-CANlogs, by way of korhojoa/Battery-Emulator",
    "tesla-hvc-alone-power-up.log": "damienmaguire/Tesla-Model-3-Charger",
}

PROTOCOL = TeslaModel3(
    name="tesla_model3",
    title="Tesla Model 3 / Y (2021+ S / X)",
    rx=TABLES.cycles(),
    tx=frozenset({POWER_ID} | {row.can_id for row in (*FULL, *DIGITAL_HVIL, *MINIMAL)}),
    wirings=("pack", "pack+inverter"),
    chemistries=("nca", "lfp"),
    telling=frozenset({0x132, 0x20A, 0x212, 0x252, 0x2D2, 0x332, 0x3D2, 0x401, 0x7AA}),
    options=(
        Option(
            "closing", "full",
            "what the pack hears: full (every frame a car sends) or minimal (two constant 0x221, firmware up to about"
            " 2020; the pack is not kept awake, and opens when it hears nothing)",
            choices=("full", "minimal"),
        ),
        Option("digital_hvil", False, "2021+ S / X and 2024+ packs: answer the interlock by CAN (0x1CF, 0x118)"),
    ),
)  # fmt: skip
