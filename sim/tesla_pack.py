"""A Tesla Model 3 pack as frames: what the controller meets at the far end of the cable.

It shares no table with the code it tests: bits are packed here, from the protocol note
(`protocols/batteries/tesla-model-3-y.md`, layout L1 where firmware differs) and from recordings of real packs.
Only what the contactor logic and the decoder can see is modelled. The pack warns of its cells and temperatures but
does not rescue them: nobody may lean on the pack's own cut-off. No clock, no randomness without a seed.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Literal, NamedTuple

from controller.ports import CanFrame

# --- Layouts: where the bits lie -------------------------------------------------------------------------------------


class Field(NamedTuple):
    """Little-endian bits; physical = raw * factor + offset. sna: the raw value of "not available", None = all ones."""

    start: int
    width: int
    factor: float = 1.0
    offset: float = 0.0
    sna: int | None = None


class Layout(NamedTuple):
    """One frame, or one multiplexer value of it."""

    length: int
    fields: Mapping[str, Field]


def encode(layout: Layout, **values: float | None) -> bytes:
    """Physical values to payload; None becomes "not available", a field not named stays 0.

    Raises ValueError for a value the bits cannot hold.
    """
    word = 0
    for name, value in values.items():
        start, width, factor, offset, sna = layout.fields[name]
        mask = (1 << width) - 1
        if value is None:
            raw = mask if sna is None else sna
        else:
            raw = round((value - offset) / factor)
            if not -(mask + 1) // 2 <= raw <= mask:
                raise ValueError(f"{name} = {value} does not fit into {width} bits")
        word |= (raw & mask) << start
    return word.to_bytes(layout.length, "little")


def _layout(length: int, **fields: Field) -> Layout:
    return Layout(length, fields)


F = Field
MUX = F(0, 4)

# fmt: off
VOLTAGE_CURRENT = _layout(  # 0x132. The raw current fits all recordings as 0.05 A - 822 A, positive = charging
    8, voltage_v=F(0, 16, 0.01, sna=0), current_a=F(16, 16, 0.1, sna=0x8000),
    raw_current_a=F(32, 16, 0.05, -822.0, sna=0), charge_min=F(48, 12))
CONTACTORS = _layout(  # 0x20A
    6, negative=F(0, 3, sna=0), positive=F(3, 3, sna=0), fc_positive_aux_open=F(6, 1), fc_negative_aux_open=F(7, 1),
    set_state=F(8, 4, sna=0), fc_negative=F(12, 3, sna=0), fc_positive=F(16, 3, sna=0), fc_set_state=F(19, 4, sna=0),
    fc_request=F(24, 2, sna=0), fc_open_requested=F(28, 1, sna=0), request=F(30, 2, sna=0),
    reset_required=F(32, 1, sna=0), open_now=F(33, 1, sna=0), closing_allowed=F(35, 1, sna=0),
    link_allowed=F(36, 1, sna=0), hvil=F(40, 4, sna=0))
STATUS = _layout(  # 0x212
    8, contactor=F(8, 3, sna=0), hv_state=F(16, 3, sna=0), isolation_kohm=F(19, 10, 10.0), bms_state=F(32, 4, sna=9),
    ship_by_air=F(37, 1, sna=0), charge_power_w=F(40, 11, 125.0), state_request=F(56, 4, sna=9))
PCS_STATUS = _layout(  # 0x224
    8, precharge=F(0, 2), support_12v=F(2, 2), main=F(6, 4), sub=F(10, 5), faulted=F(15, 1),
    current_a=F(16, 12, 0.1), max_current_a=F(29, 12, 0.1), initial_sub=F(59, 5))
POWER_AVAILABLE = _layout(  # 0x252
    8, charge_w=F(0, 16, 10.0, sna=0), discharge_w=F(16, 16, 10.0, sna=0), heat_w=F(32, 10, 10.0, sna=0),
    calculated=F(48, 1, sna=0))
SOC = _layout(  # 0x292
    8, min_pct=F(0, 10, 0.1), ui_pct=F(10, 10, 0.1), max_pct=F(20, 10, 0.1), ave_pct=F(30, 10, 0.1),
    bol_kwh=F(40, 10, 0.1), temp_pct=F(50, 8, 0.4))
RAILS = {  # 0x2B4 by length
    5: _layout(5, lv_v=F(0, 10, 0.0390625), link_v=F(10, 12, 0.146484375), lv_a=F(24, 12, 0.1)),
    6: _layout(6, lv_v=F(0, 16, 0.01), link_v=F(16, 16, 0.1), lv_a=F(32, 16, 0.1))}
LIMITS = _layout(  # 0x2D2
    8, min_v=F(0, 16, 0.02, sna=0), max_v=F(16, 16, 0.02, sna=0), charge_a=F(32, 14, 0.1, sna=0),
    discharge_a=F(48, 14, 0.128, sna=0))
THERMAL = _layout(  # 0x312, flat
    8, dissipation_kw=F(0, 10, 0.02), flow_lpm=F(10, 7, 0.3), active_cool_c=F(17, 9, 0.25, -25.0),
    passive_c=F(26, 9, 0.25, -25.0), active_heat_c=F(35, 9, 0.25, -25.0), min_c=F(44, 9, 0.25, -25.0),
    max_c=F(53, 9, 0.25, -25.0), pcs_no_flow=F(62, 1), no_flow=F(63, 1))
EXTREMES = (  # 0x332: temperatures; cells, numbered from 1
    _layout(6, mux=F(0, 2), max_sensor=F(2, 4, sna=0), min_sensor=F(8, 4, sna=0), max_c=F(16, 8, 0.5, -40.0, 0),
            min_c=F(24, 8, 0.5, -40.0, 0), model_max_c=F(32, 8, 0.5, -40.0, 0), model_min_c=F(40, 8, 0.5, -40.0, 0)),
    _layout(6, mux=F(0, 2), max_v=F(2, 12, 0.002, sna=0), min_v=F(16, 12, 0.002, sna=0),
            max_cell=F(32, 7, 1.0, 1.0, 0), min_cell=F(40, 7, 1.0, 1.0, 0)))
ENERGY = _layout(  # 0x352, flat
    8, full_kwh=F(0, 11, 0.1), remaining_kwh=F(11, 11, 0.1), expected_kwh=F(22, 11, 0.1), ideal_kwh=F(33, 11, 0.1),
    to_complete_kwh=F(44, 11, 0.1), buffer_kwh=F(55, 8, 0.1), complete=F(63, 1, sna=0))
ENERGY_MUXED = (  # 0x352 since about 2021
    _layout(8, mux=F(0, 2), full_kwh=F(16, 16, 0.02), remaining_kwh=F(32, 16, 0.02), ideal_kwh=F(48, 16, 0.02)),
    _layout(8, mux=F(0, 2), complete=F(15, 1, sna=0), buffer_kwh=F(16, 16, 0.01), expected_kwh=F(32, 16, 0.02),
            to_complete_kwh=F(48, 16, 0.02)),
    _layout(8, mux=F(0, 2), shown_remaining_kwh=F(8, 16, 0.02), shown_full_kwh=F(24, 16, 0.02),
            user_soe_pct=F(52, 11, 0.05)))
PACK_CONFIG = (  # 0x392
    _layout(8, mux=F(0, 8), reserved=F(8, 5)),
    _layout(8, mux=F(0, 8), module_type=F(8, 3), mass_kg=F(16, 8, 1.0, 300.0), bus_max_v=F(24, 10, 0.1, 375.0),
            bol_kwh=F(40, 10, 0.1)))
LIFETIME = _layout(8, discharged_kwh=F(0, 32, 0.001), charged_kwh=F(32, 32, 0.001))  # 0x3D2
CELLS = _layout(  # 0x401; status 0 missing, 2 nominal
    8, mux=F(0, 8), status_0=F(8, 2, sna=0), status_1=F(10, 2, sna=0), status_2=F(12, 2, sna=0), counter=F(14, 2),
    cell_0_v=F(16, 16, 0.0001, sna=0), cell_1_v=F(32, 16, 0.0001, sna=0), cell_2_v=F(48, 16, 0.0001, sna=0))
HVP_DEBUG = {  # 0x7AA; mux 0, 6 and 7 of recorded packs are not what the note says and are replayed as recorded
    1: _layout(8, mux=MUX, link_v=F(8, 16, 0.1), pack_v=F(24, 16, 0.1), fc_link_v=F(40, 16, 0.1)),
    2: _layout(8, mux=MUX, contactor_supply_v=F(4, 12, 0.1), pack_negative_v=F(16, 16, 0.1),
               pack_positive_v=F(32, 16, 0.1), pyro=F(48, 12, 0.1)),
    3: _layout(8, mux=MUX, link_negative_v=F(8, 16, 0.1), link_positive_v=F(24, 16, 0.1)),
    4: _layout(8, mux=MUX, fc_supply_v=F(16, 12, 0.1), hvil_in_v=F(28, 12, 0.1), hvil_out_v=F(40, 12, 0.1)),
    5: _layout(8, mux=MUX, coil_a=F(24, 12, 0.1), supply_v=F(36, 12, 0.1), reference_v=F(48, 16, 0.001))}
# fmt: on


# --- Words the pack uses ---------------------------------------------------------------------------------------------


class Phase(Enum):
    """What the pack is doing; the value is what 0x212 calls it."""

    ASLEEP = None
    WAKING = 0
    OPEN = 1
    OPENING = 2
    CLOSING = 3
    CLOSED = 4
    BLOCKED = 6


class Contact(IntEnum):
    """State of one contactor in 0x20A."""

    OPEN = 1
    PRECHARGE = 2
    PULLED_IN = 4
    OPENING = 5
    ECONOMIZED = 6
    WELDED = 7


class Hvil(IntEnum):
    """The interlock loop in 0x20A."""

    UNKNOWN = 0
    OK = 1
    INTERNAL_OPEN = 3
    VEHICLE_OPEN = 4
    LID_OPEN = 5


class PowerState(IntEnum):
    """vehiclePowerState in 0x221: what the car wants."""

    OFF = 0
    CONDITIONING = 1
    ACCESSORY = 2
    DRIVE = 3


SET_STATE = {Phase.OPEN: 1, Phase.CLOSING: 2, Phase.BLOCKED: 3, Phase.OPENING: 4, Phase.CLOSED: 5}
PARTIAL_WELD, FULL_WELD = 6, 7
FELL_OPEN = 163  # its alert

WAKE_MS = 800  # everything "not available"
HVIL_KNOWN_MS = 1_500  # after waking
REACTION_MS = 300  # from the first DRIVE to the first coil
PRECHARGE_MS = 800  # at least
PRECHARGE_TAU_S = 0.25
POSITIVE_OPENS_MS, OPENING_MS = 100, 300
SILENCE_MS = 1_000  # of 0x221, and of 0x3A1 while closed
OWN_OPENING_MS = 500  # from HVIL or open-now to opening by itself: later than the controller has to be
STALL_MS = 2_000  # of a precharge, until the alerts come
RESET_OFF_MS = 60_000  # without 12 V frees a blocked pack
ASLEEP_V, WEAK_V = 5.0, 9.0
CELL_PHASE_MS, CELL_MUXES = 500, 36
CHARGED = 0.98


# --- Chemistries -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chemistry:
    """One kind of pack. ocv_v: open-circuit voltage of a cell over SoC in %. Identity and limits are recorded ones."""

    cells: int
    ocv_v: tuple[tuple[float, float], ...]
    cell_ohm: float
    capacity_ah: float
    full_kwh: float
    bol_kwh: float
    min_v: float
    max_v: float
    cell_min_v: float
    cell_max_v: float
    module_type: int
    mass_kg: float
    bus_max_v: float
    reserved_config: int

    def cell_ocv_v(self, soc_pct: float) -> float:
        points = self.ocv_v
        right = min(max(bisect_right(points, (soc_pct, math.inf)), 1), len(points) - 1)
        (x0, y0), (x1, y1) = points[right - 1], points[right]
        return y0 + (y1 - y0) * (soc_pct - x0) / (x1 - x0)


NCA = Chemistry(
    cells=96,
    ocv_v=(
        (0.0, 3.10), (5.0, 3.33), (10.0, 3.43), (20.0, 3.53), (30.0, 3.60), (40.0, 3.66),
        (50.0, 3.73), (60.0, 3.82), (70.0, 3.92), (80.0, 4.01), (90.0, 4.09), (100.0, 4.19),
    ),
    cell_ohm=0.0007,
    capacity_ah=204.0,
    full_kwh=72.5,
    bol_kwh=82.1,
    min_v=241.78,
    max_v=402.88,
    cell_min_v=2.95,
    cell_max_v=4.25,
    module_type=3,
    mass_kg=464.0,
    bus_max_v=403.2,
    reserved_config=14,
)  # fmt: skip
LFP = Chemistry(
    cells=106,
    ocv_v=(
        (0.0, 2.85), (5.0, 3.10), (10.0, 3.20), (20.0, 3.25), (30.0, 3.28), (50.0, 3.30),
        (70.0, 3.33), (90.0, 3.345), (97.0, 3.37), (100.0, 3.45),
    ),
    cell_ohm=0.0006,
    capacity_ah=157.0,
    full_kwh=54.4,
    bol_kwh=55.1,
    min_v=214.26,
    max_v=402.18,
    cell_min_v=2.80,
    cell_max_v=3.65,
    module_type=5,
    mass_kg=469.0,
    bus_max_v=402.8,
    reserved_config=16,
)  # fmt: skip


# --- The pack --------------------------------------------------------------------------------------------------------


class _Ear:
    """Follows the counter of one id: a frame that repeats the counter, or leaps, is not heard."""

    def __init__(self) -> None:
        self._counter: int | None = None
        self.heard_at_ms = -SILENCE_MS

    def hears(self, counter: int, now_ms: int) -> bool:
        """True when 1 to 3 after the one before: two lost frames are forgiven."""
        before, self._counter = self._counter, counter
        if before is not None and not 1 <= (counter - before) % 16 <= 3:
            return False
        self.heard_at_ms = now_ms
        return True


class Slot(NamedTuple):
    """When an id is sent: every period_ms after waking, taking its multiplexer values in turn. None = a pause."""

    id: int
    period_ms: int
    phase_ms: int
    muxes: tuple[int | None, ...] = (0,)


@dataclass
class TeslaPack:
    """The pack. Options and misbehaviour are plain attributes; a test may change the latter at any time.

    firmware: "old" also takes the two constant 0x221 frames and wants no 0x3A1. link_bytes: layout of 0x2B4.
    offset_a: what the current sensor adds (a recorded pack read -4.3 A with everything open). seed: sensor noise.
    lv_supply_v: below 9 V it does not close and HVIL is unknown, below 5 V it sleeps.
    """

    chemistry: Chemistry = NCA
    soc_pct: float = 55.0
    temp_c: float = 22.0
    firmware: Literal["old", "new"] = "new"
    link_bytes: Literal[5, 6] = 5
    energy_muxed: bool = False
    cell_period_ms: int = 1_600
    offset_a: float = 0.0
    seed: int | None = None
    serial: str = "TG321202003AHX"
    link_tau_s: float = 3.0
    max_charge_w: float = 50_000.0
    max_discharge_w: float = 100_000.0

    lv_supply_v: float = 13.6
    isolation_kohm: float = 6_000.0
    hvil: Hvil = Hvil.OK
    open_now: bool = False
    bms_fault: bool = False
    reset_required: bool = False
    load_on_link: bool = False
    pyro_blown: bool = False
    silenced: set[int] = field(default_factory=set)
    frozen: set[int] = field(default_factory=set)

    phase: Phase = field(default=Phase.ASLEEP, init=False)
    current_a: float = field(default=0.0, init=False)
    link_v: float = field(default=0.0, init=False)
    charged_kwh: float = field(default=12_999.001, init=False)
    discharged_kwh: float = field(default=12_345.678, init=False)

    def __post_init__(self) -> None:
        cells = self.chemistry.cells
        # 12 mV from the lowest to the highest cell, scattered over the pack: 37 shares no divisor with 96 or 106
        self._spread_v = [0.012 * (i * 37 % cells / (cells - 1) - 0.5) for i in range(cells)]
        self._offset_v: dict[int, float] = {}
        self._mean_v = self.chemistry.cell_ocv_v(self.soc_pct)
        self._welded: set[str] = set()
        self._request = PowerState.OFF
        self._drive_since_ms = 0
        self._refuses = False  # opened by itself; closes again only after the request was withdrawn
        self._latched_alerts: frozenset[int] = frozenset()
        self._power_ear, self._front_ear = _Ear(), _Ear()
        self._now_ms: int | None = None
        self._since_ms = self._woke_ms = self._well_ms = 0
        self._slots = _schedule(self)
        self._sent: dict[int, int] = {}
        self._payloads: dict[int, bytes] = {}
        self._reported: Mapping[str, float | None] = {}
        self._rng = None if self.seed is None else random.Random(self.seed)

    # What others may do to it

    def receive(self, frames: Iterable[CanFrame], now_ms: int) -> None:
        """Hear the controller. Wrong checksums, lengths and counters are as good as silence."""
        if self.phase is Phase.ASLEEP:
            return
        for frame in frames:
            data = frame.data
            if frame.extended or len(data) != 8:
                continue
            if frame.id == 0x221 and data[7] == (sum(data[:7]) + 0x23) & 0xFF:
                self._hear_power_state(data, now_ms)
            elif frame.id == 0x3A1 and data[7] == (sum(data[:7]) + 0x34) & 0xFF:
                self._front_ear.hears(data[6] >> 4, now_ms)

    def step(self, now_ms: int, load_a: float = 0.0) -> list[CanFrame]:
        """Live until now_ms, with load_a (positive charges the pack) on the terminals; the frames sent at that time."""
        if self._now_ms is None:
            self._now_ms = self._since_ms = now_ms
        elapsed_s = (now_ms - self._now_ms) / 1_000.0
        self._now_ms = now_ms
        self._advance(now_ms)
        self._conduct(elapsed_s, load_a)
        return [] if self.phase is Phase.ASLEEP else self._speak(now_ms)

    def hvil_open(self, where: Hvil = Hvil.VEHICLE_OPEN) -> None:
        """Break the interlock loop; `hvil = Hvil.OK` mends it."""
        self.hvil = where

    def weld_positive(self) -> None:
        """The positive contactor sticks from now on. The pack finds out when it should be open."""
        self._welded.add("positive")

    def weld_negative(self) -> None:
        """The negative contactor sticks from now on."""
        self._welded.add("negative")

    def block(self) -> None:
        """Open and refuse to close until `reset_required` is cleared or 12 V was away for a minute."""
        self.reset_required = True

    def falls_open(self) -> None:
        """Both contactors drop at once, unasked, and the BMS is in FAULT until `bms_fault` is cleared."""
        self.bms_fault = self._refuses = True
        self._latched_alerts |= {FELL_OPEN}
        self._enter(Phase.OPEN)

    def offset_cell(self, index: int, volts: float) -> None:
        """Shift one cell (numbered from 0) from where its SoC would put it."""
        self._offset_v[index] = volts

    def silence(self, *ids: int) -> None:
        """Send these ids no more (none named: all); `silenced.clear()` ends it."""
        self.silenced |= set(ids or ENCODERS)

    def freeze(self, *ids: int) -> None:
        """Repeat the last payload of these ids (none named: all); `frozen.clear()` ends it."""
        self.frozen |= set(ids or ENCODERS)

    # What can be known of it

    @property
    def hvil_seen(self) -> Hvil:
        """What 0x20A reports: unknown soon after waking and on a weak supply."""
        now_ms = self._now_ms or 0
        weak = self.lv_supply_v < WEAK_V or now_ms - self._woke_ms < HVIL_KNOWN_MS
        return Hvil.UNKNOWN if weak else self.hvil

    @property
    def weld_seen(self) -> frozenset[str]:
        """The welds the pack knows of: it looks when its contactors should be open."""
        looks = self.phase in (Phase.OPEN, Phase.OPENING, Phase.BLOCKED)
        return frozenset(self._welded) if looks else frozenset()

    @property
    def closing_allowed(self) -> bool:
        ill = self.bms_fault or self.reset_required or self.open_now or self.weld_seen
        return self.hvil_seen is Hvil.OK and not ill

    @property
    def conducting(self) -> bool:
        """Both contactors carry, whoever asked them to, and the pyro fuse is whole."""
        negative = self.phase in (Phase.CLOSING, Phase.CLOSED) or "negative" in self._welded
        positive = self.phase is Phase.CLOSED or "positive" in self._welded
        return negative and positive and not self.pyro_blown

    def cell_v(self, index: int) -> float:
        """Voltage of a cell (numbered from 0) under the present current."""
        return self._mean_v + self._spread_v[index] + self._offset_v.get(index, 0.0)

    @property
    def pack_v(self) -> float:
        """Sum of the cells; the spread sums to nothing."""
        return 2.0 if self.pyro_blown else self.chemistry.cells * self._mean_v + sum(self._offset_v.values())

    @property
    def lv_v(self) -> float:
        """The 12 V rail: precharging runs from it, a load on the link pulls it down to 9 V."""
        if self.phase is not Phase.CLOSING:
            return self.lv_supply_v
        if not self.load_on_link:
            return self.lv_supply_v - 0.5
        return self.lv_supply_v - (self.lv_supply_v - 9.0) * min(1.0, self.held_ms / 1_000.0)

    @property
    def held_ms(self) -> int:
        """How long the phase lasts."""
        return (self._now_ms or 0) - self._since_ms

    @property
    def stalled(self) -> bool:
        return self.phase is Phase.CLOSING and self.load_on_link and self.held_ms >= STALL_MS

    @property
    def charge_w(self) -> float:
        """Recorded packs offer no power while open."""
        return self.max_charge_w if self.phase is Phase.CLOSED else 0.0

    @property
    def discharge_w(self) -> float:
        return self.max_discharge_w if self.phase is Phase.CLOSED else 0.0

    @property
    def temps_c(self) -> tuple[float, float]:
        """Coldest and hottest, within what the sensors can show."""
        temp_c = min(max(self.temp_c, -24.0), 86.0)
        return temp_c - 1.0, temp_c + 1.0

    @property
    def cell_round(self) -> int:
        """How often all cells were sent since waking."""
        return ((self._now_ms or 0) - self._woke_ms - CELL_PHASE_MS) // (CELL_MUXES * self.cell_period_ms)

    def say(self, layout: Layout, **values: float | None) -> bytes:
        """What the BMS sends: while it wakes, nothing is available."""
        if self.phase is Phase.WAKING:
            values = {name: value if name in ("mux", "counter") else None for name, value in values.items()}
        return encode(layout, **values)

    def noisy(self, value: float, sigma: float) -> float:
        return value if self._rng is None else value + self._rng.gauss(0.0, sigma)

    def alerts(self) -> frozenset[int]:
        """Numbers of the active alerts. A pack without its car always misses the gateway (a090)."""
        cell_v = [self.cell_v(i) for i in range(self.chemistry.cells)]
        welds, kind = len(self.weld_seen), self.chemistry
        active = {
            17: max(cell_v) > kind.cell_max_v,
            18: min(cell_v) < kind.cell_min_v,
            19: self.temp_c > 60.0,
            36: self.hvil_seen > Hvil.OK,
            71: self.stalled,
            81: self.phase is Phase.BLOCKED,
            82: self.open_now,
            83: self.stalled,
            90: True,
            123: self.isolation_kohm < 150.0,
            136: self.temp_c > 50.0,
            137: min(cell_v) < kind.cell_min_v + 0.05,
            138: max(cell_v) > kind.cell_max_v - 0.05,
            165: welds > 0,
            166: welds == 2,
            179: self.lv_supply_v < WEAK_V,
        }
        return frozenset(number for number, on in active.items() if on) | self._latched_alerts

    def contactor_report(self) -> Mapping[str, float | None]:
        """The values of 0x20A. Until the interlock is known they are those of the recorded bench pack."""
        report: dict[str, float | None] = {"fc_positive_aux_open": 1, "fc_negative_aux_open": 1}
        negative, positive, set_state = self._contacts()
        report |= {"negative": negative, "positive": positive, "set_state": set_state}
        report |= {"fc_negative": 1, "fc_positive": 1, "fc_set_state": 1, "hvil": self.hvil_seen}
        lost = self.phase is Phase.OPEN and self.hvil_seen is Hvil.UNKNOWN
        going_up = self.phase in (Phase.CLOSING, Phase.CLOSED)
        request = {Phase.CLOSING: 1, Phase.CLOSED: 2}.get(self.phase, 0)
        return report | {
            "fc_request": 2 if lost else 0,
            "fc_open_requested": lost,
            "request": 2 if lost else request,
            "reset_required": self.reset_required,
            "open_now": self.open_now or lost,
            "closing_allowed": self.closing_allowed,
            "link_allowed": going_up or lost,
        }

    # How it works

    def _contacts(self) -> tuple[int, int, int | None]:
        """Negative, positive and set state as 0x20A shows them."""
        negative, positive = {
            Phase.CLOSING: (Contact.PULLED_IN, Contact.PRECHARGE),
            Phase.CLOSED: (Contact.ECONOMIZED, Contact.ECONOMIZED),
            Phase.OPENING: (Contact.OPENING, Contact.OPEN),
        }.get(self.phase, (Contact.OPEN, Contact.OPEN))
        if self.phase is Phase.OPENING and self.held_ms < POSITIVE_OPENS_MS:
            negative, positive = Contact.ECONOMIZED, Contact.OPENING
        welds = self.weld_seen
        if not welds:
            return negative, positive, SET_STATE.get(self.phase)
        positive = Contact.WELDED if "positive" in welds else positive
        negative = Contact.WELDED if "negative" in welds else negative
        return negative, positive, FULL_WELD if len(welds) == 2 else PARTIAL_WELD

    def _hear_power_state(self, data: bytes, now_ms: int) -> None:
        """0x221: mux 1 counts, and OFF in any. Old firmware forgives a constant counter if the HV controller is on."""
        state, mux = PowerState(data[0] >> 5 & 3), data[0] & 0x1F
        heard = self._power_ear.hears(data[6] >> 4, now_ms)
        if not heard and self.firmware == "old" and mux == 1 and state is PowerState.DRIVE and data[1] >> 4 & 3 == 1:
            heard, self._power_ear.heard_at_ms = True, now_ms
        if heard and (mux == 1 or state is PowerState.OFF):
            if state is PowerState.DRIVE and self._request is not state:
                self._drive_since_ms = now_ms
            self._request = state

    def _advance(self, now_ms: int) -> None:
        if now_ms - self._power_ear.heard_at_ms > SILENCE_MS:
            self._request = PowerState.OFF
        if self._request is PowerState.OFF:
            self._refuses = False
        if self.hvil_seen is Hvil.OK and not self.open_now:
            self._well_ms = now_ms
        phase = Phase.ASLEEP if self.lv_supply_v < ASLEEP_V else self._next_phase(now_ms)
        if phase is not self.phase:
            self._enter(phase)

    def _next_phase(self, now_ms: int) -> Phase:
        match self.phase:
            case Phase.ASLEEP:
                return Phase.WAKING
            case Phase.WAKING:
                return Phase.OPEN if self.held_ms >= WAKE_MS else Phase.WAKING
            case Phase.OPEN | Phase.BLOCKED:
                return self._next_when_open(now_ms)
            case Phase.OPENING:
                return Phase.OPEN if self.held_ms >= OPENING_MS else Phase.OPENING
            case Phase.CLOSING:
                charged = self.link_v >= CHARGED * self.pack_v and self.held_ms >= PRECHARGE_MS
                if self._must_open(now_ms):
                    return Phase.OPENING
                return Phase.CLOSED if charged else Phase.CLOSING
            case Phase.CLOSED:
                return Phase.OPENING if self._must_open(now_ms) else Phase.CLOSED

    def _next_when_open(self, now_ms: int) -> Phase:
        thinks = self.phase is Phase.OPEN and now_ms - max(self._drive_since_ms, self._since_ms) < REACTION_MS
        wanted = self._request is PowerState.DRIVE and not thinks
        if self.reset_required or (wanted and self.hvil_seen > Hvil.OK):
            return Phase.BLOCKED
        return Phase.CLOSING if wanted and self.closing_allowed and not self._refuses else Phase.OPEN

    def _must_open(self, now_ms: int) -> bool:
        """Asked to, or by its own decision; the latter it does not take back while still asked to close."""
        if self._request is PowerState.OFF:
            return True
        front_ms = max(self._since_ms, self._front_ear.heard_at_ms)
        alone = self.phase is Phase.CLOSED and self.firmware == "new" and now_ms - front_ms > SILENCE_MS
        if alone:
            self._latched_alerts |= {88, 89}
        self._refuses = alone or self.reset_required or now_ms - self._well_ms >= OWN_OPENING_MS
        return self._refuses

    def _enter(self, phase: Phase) -> None:
        now_ms = self._now_ms or 0
        if phase is Phase.WAKING:
            if self._since_ms <= now_ms - RESET_OFF_MS:
                self.reset_required = False
            self._woke_ms = self._well_ms = now_ms
            self._sent, self._payloads, self._reported = {}, {}, {}
        if phase in (Phase.CLOSING, Phase.ASLEEP):
            self._latched_alerts = frozenset()
        self.phase, self._since_ms = phase, now_ms

    def _conduct(self, elapsed_s: float, load_a: float) -> None:
        """Current, charge, heat and the voltage of the link."""
        self.current_a = load_a if self.conducting else 0.0
        amp_hours = self.current_a * elapsed_s / 3_600.0
        self.soc_pct = min(max(self.soc_pct + 100.0 * amp_hours / self.chemistry.capacity_ah, 0.0), 100.0)
        self._mean_v = self.chemistry.cell_ocv_v(self.soc_pct) + self.current_a * self.chemistry.cell_ohm
        pack_v, ohm = self.pack_v, self.chemistry.cells * self.chemistry.cell_ohm
        self.charged_kwh += max(amp_hours, 0.0) * pack_v / 1_000.0
        self.discharged_kwh += max(-amp_hours, 0.0) * pack_v / 1_000.0
        self.temp_c += ohm * self.current_a**2 * elapsed_s / 330_000.0  # J/K: 350 kg of cells
        target_v, tau_s = 0.0, self.link_tau_s
        if self.phase is Phase.CLOSING:
            target_v, tau_s = pack_v * (0.15 if self.load_on_link else 1.0), PRECHARGE_TAU_S
        self.link_v = target_v + (self.link_v - target_v) * math.exp(-elapsed_s / tau_s)
        if self.conducting:
            self.link_v = pack_v

    def _speak(self, now_ms: int) -> list[CanFrame]:
        """Everything due since the last step; 0x20A on every change as well."""
        since_wake_ms, frames = now_ms - self._woke_ms, []
        report = self.contactor_report()
        changed, self._reported = report != self._reported, report
        for slot in self._slots:
            turn = (since_wake_ms - slot.phase_ms) // slot.period_ms
            mux = slot.muxes[turn % len(slot.muxes)]
            due = turn >= 0 and turn != self._sent.get(slot.id) and mux is not None
            self._sent[slot.id] = turn
            if (due or (changed and slot.id == 0x20A)) and slot.id not in self.silenced:
                if slot.id not in self.frozen or slot.id not in self._payloads:
                    self._payloads[slot.id] = ENCODERS[slot.id](self, mux or 0)
                frames.append(CanFrame(slot.id, self._payloads[slot.id], now_ms))
        return frames


def _schedule(pack: TeslaPack) -> tuple[Slot, ...]:
    """Periods and orders of multiplexer values as recorded on a bench pack and in an LFP car; phases spread out."""
    muxed = Slot(0x352, 200, 60, (0, None, None, 1, None, None, 2, None, None, None))
    return (
        Slot(0x132, 10, 0),
        Slot(0x20A, 1_000, 450),
        Slot(0x212, 100, 80),
        Slot(0x224, 100, 90),
        Slot(0x252, 100, 10),
        Slot(0x292, 100, 20),
        Slot(0x2B4, 100, 70),
        Slot(0x2D2, 100, 30),
        Slot(0x312, 1_000, 650),
        Slot(0x320, 330, 50, (0, 1, 2)),
        Slot(0x332, 1_000, 40, (0, 1)),
        muxed if pack.energy_muxed else Slot(0x352, 1_000, 60),
        Slot(0x392, 500, 180, (0, 1)),
        Slot(0x3AA, 1_000, 250),
        Slot(0x3D2, 1_000, 850),
        Slot(0x401, pack.cell_period_ms, CELL_PHASE_MS, tuple(range(CELL_MUXES))),
        Slot(0x72A, 5_000, 1_040, (0, 1, 2)),
        Slot(0x7AA, 100, 0, (7, 0, 1, 2, None, 3, 4, 5, None, 6)),
    )


# --- Frames: what it says --------------------------------------------------------------------------------------------


def _voltage_current(pack: TeslaPack, _mux: int) -> bytes:
    current_a = pack.noisy(pack.current_a + pack.offset_a, 0.1)
    voltage_v = pack.noisy(pack.pack_v, 0.04)
    return pack.say(VOLTAGE_CURRENT, voltage_v=voltage_v, current_a=current_a, raw_current_a=current_a, charge_min=None)


def _contactors(pack: TeslaPack, _mux: int) -> bytes:
    return pack.say(CONTACTORS, **pack.contactor_report())


def _status(pack: TeslaPack, _mux: int) -> bytes:
    welded, closed = bool(pack.weld_seen), pack.phase is Phase.CLOSED
    return pack.say(
        STATUS,
        contactor=5 if welded else pack.phase.value,
        hv_state={Phase.CLOSING: 1, Phase.OPENING: 2, Phase.CLOSED: 3}.get(pack.phase, 0),
        isolation_kohm=pack.isolation_kohm,
        bms_state=7 if welded else 6 if pack.bms_fault else int(closed),
        ship_by_air=1,
        charge_power_w=pack.charge_w,
        state_request=7 if welded else int(closed or pack.phase is Phase.CLOSING),
    )


def _pcs_status(pack: TeslaPack, _mux: int) -> bytes:
    """Idle as recorded; precharging and supporting 12 V as in the note's examples."""
    if pack.stalled:
        return encode(PCS_STATUS, precharge=2, main=6, sub=14, faulted=1)
    if pack.phase is Phase.CLOSING:
        return encode(PCS_STATUS, precharge=1, main=3, sub=9, max_current_a=125.0)
    if pack.phase is Phase.CLOSED:
        return encode(PCS_STATUS, support_12v=1, main=1, sub=2, current_a=12.5, max_current_a=160.0)
    return encode(PCS_STATUS, sub=1, initial_sub=1)


def _power_available(pack: TeslaPack, _mux: int) -> bytes:
    heat_w, calculated = (5_000.0, 1) if pack.phase is Phase.CLOSED else (0.0, 0)
    return pack.say(
        POWER_AVAILABLE, charge_w=pack.charge_w, discharge_w=pack.discharge_w, heat_w=heat_w, calculated=calculated
    )


def _soc(pack: TeslaPack, _mux: int) -> bytes:
    soc_pct = pack.soc_pct
    low_pct, high_pct, bol_kwh = max(soc_pct - 0.5, 0.0), min(soc_pct + 0.5, 100.0), pack.chemistry.bol_kwh
    return pack.say(
        SOC, min_pct=low_pct, ui_pct=soc_pct, max_pct=high_pct, ave_pct=soc_pct, bol_kwh=bol_kwh, temp_pct=40.0
    )


def _rails(pack: TeslaPack, _mux: int) -> bytes:
    lv_a = 12.5 if pack.phase is Phase.CLOSED else 0.0
    return encode(RAILS[pack.link_bytes], lv_v=pack.lv_v, link_v=pack.link_v, lv_a=lv_a)


def _limits(pack: TeslaPack, _mux: int) -> bytes:
    charge_a, discharge_a = (min(watts / pack.pack_v, 1_600.0) for watts in (pack.charge_w, pack.discharge_w))
    kind = pack.chemistry
    return pack.say(LIMITS, min_v=kind.min_v, max_v=kind.max_v, charge_a=charge_a, discharge_a=discharge_a)


def _thermal(pack: TeslaPack, _mux: int) -> bytes:
    min_c, max_c = pack.temps_c
    targets = {"active_cool_c": 35.0, "passive_c": 30.0, "active_heat_c": 10.0}
    return pack.say(THERMAL, flow_lpm=6.0, min_c=min_c, max_c=max_c, **targets)


def _alert_matrix(pack: TeslaPack, mux: int) -> bytes:
    """Alert n is bit 4 + (n - 1) % 60 of mux (n - 1) // 60."""
    numbers = () if pack.phase is Phase.WAKING else pack.alerts()
    word = mux | sum(1 << 4 + (n - 1) % 60 for n in numbers if (n - 1) // 60 == mux)
    return word.to_bytes(8, "little")


def _extremes(pack: TeslaPack, mux: int) -> bytes:
    """As on recorded packs the model temperatures are not available."""
    if mux == 0:
        min_c, max_c = pack.temps_c
        return pack.say(EXTREMES[0], mux=0, max_sensor=5, min_sensor=2, max_c=max_c, min_c=min_c)
    voltages = [(pack.cell_v(i), i) for i in range(pack.chemistry.cells)]
    (min_v, lowest), (max_v, highest) = min(voltages), max(voltages)
    return pack.say(EXTREMES[1], mux=1, max_v=max_v, min_v=min_v, max_cell=highest + 1, min_cell=lowest + 1)


def _energy(pack: TeslaPack, mux: int) -> bytes:
    layout = ENERGY_MUXED[mux] if pack.energy_muxed else ENERGY
    full_kwh = pack.chemistry.full_kwh
    left_kwh = full_kwh * pack.soc_pct / 100.0
    values = {
        "mux": mux,
        "full_kwh": full_kwh,
        "remaining_kwh": left_kwh,
        "expected_kwh": left_kwh,
        "ideal_kwh": left_kwh,
        "to_complete_kwh": full_kwh - left_kwh,
        "buffer_kwh": 3.0,
        "complete": pack.soc_pct >= 100.0,
        "shown_remaining_kwh": left_kwh,
        "shown_full_kwh": full_kwh,
        "user_soe_pct": pack.soc_pct,
    }
    return pack.say(layout, **{name: values[name] for name in layout.fields})


def _pack_config(pack: TeslaPack, mux: int) -> bytes:
    kind = pack.chemistry
    if mux == 0:
        return encode(PACK_CONFIG[0], mux=0, reserved=kind.reserved_config)
    return encode(PACK_CONFIG[1], mux=1, module_type=kind.module_type, mass_kg=kind.mass_kg, bus_max_v=kind.bus_max_v)


def _hvp_alerts(pack: TeslaPack, _mux: int) -> bytes:
    """0x3AA, flat as recorded: 23 weak 12 V, 25 HVIL, 35 pyro, 38 fell open, 40 blocked, 42 forced, 48 close failed."""
    active = {
        23: pack.lv_supply_v < WEAK_V,
        25: pack.hvil_seen > Hvil.OK,
        35: pack.pyro_blown,
        38: FELL_OPEN in pack.alerts(),
        40: pack.phase is Phase.BLOCKED,
        42: pack.open_now,
        48: pack.stalled,
    }
    return sum(1 << bit for bit, on in active.items() if on).to_bytes(8, "little")


def _lifetime(pack: TeslaPack, _mux: int) -> bytes:
    return encode(LIFETIME, discharged_kwh=pack.discharged_kwh, charged_kwh=pack.charged_kwh)


def _cells(pack: TeslaPack, mux: int) -> bytes:
    """36 multiplexer values in every pack, the cells it has not being missing; the counter counts rounds."""
    values: dict[str, float] = {"mux": mux, "counter": pack.cell_round % 4}
    for i, index in enumerate(range(3 * mux, 3 * mux + 3)):
        if index < pack.chemistry.cells:
            values |= {f"status_{i}": 2, f"cell_{i}_v": pack.cell_v(index)}
    return pack.say(CELLS, **values)


def _serial(pack: TeslaPack, mux: int) -> bytes:
    """Two halves of the serial number, and as mux 2 the birth date it tells, in seconds since 1970."""
    if mux < 2:
        return bytes([mux]) + pack.serial[7 * mux : 7 * mux + 7].encode("ascii")
    year, day = int(pack.serial[3:5]), int(pack.serial[5:8])
    days = 10_957 + 365 * year + (year + 3) // 4 + day - 1  # 10,957 from 1970 to 2000
    return bytes([2]) + (86_400 * days).to_bytes(4, "little") + bytes(3)


def _hvp_debug(pack: TeslaPack, mux: int) -> bytes:
    """Recorded payloads: tesla-m3-lfp-vehicle-bus-a (closed), tesla-m3-bench-battery-only (open)."""
    closed, loop, pack_v, link_v = pack.phase is Phase.CLOSED, pack.hvil_seen is Hvil.OK, pack.pack_v, pack.link_v
    match mux:
        case 0:
            return bytes.fromhex("C0EFCEF400000000" if closed else "00EC4FF000000000")
        case 1:
            values = {"link_v": link_v, "pack_v": pack_v, "fc_link_v": 0.1}
        case 2:
            halves = {"pack_negative_v": -pack_v / 2.0, "pack_positive_v": pack_v / 2.0}
            values = {"contactor_supply_v": pack.lv_v - 0.3, "pyro": 3.3, **halves}
        case 3:
            values = {"link_negative_v": -link_v / 2.0, "link_positive_v": link_v / 2.0}
        case 4:
            values = {"fc_supply_v": 1.6, "hvil_in_v": 1.2 if loop else 0.0, "hvil_out_v": 2.5 if loop else 0.0}
        case 5:
            coil_a = {Phase.CLOSING: 3.9, Phase.CLOSED: 1.3}.get(pack.phase, 0.0)
            values = {"coil_a": coil_a, "supply_v": pack.lv_v, "reference_v": 1.23}
        case _:
            return bytes.fromhex("1604D08680DAAF02" if mux == 6 else "07F7FFF7FFF2FF00")
    return encode(HVP_DEBUG[mux], mux=mux, **values)


ENCODERS: Mapping[int, Callable[[TeslaPack, int], bytes]] = {
    0x132: _voltage_current,
    0x20A: _contactors,
    0x212: _status,
    0x224: _pcs_status,
    0x252: _power_available,
    0x292: _soc,
    0x2B4: _rails,
    0x2D2: _limits,
    0x312: _thermal,
    0x320: _alert_matrix,
    0x332: _extremes,
    0x352: _energy,
    0x392: _pack_config,
    0x3AA: _hvp_alerts,
    0x3D2: _lifetime,
    0x401: _cells,
    0x72A: _serial,
    0x7AA: _hvp_debug,
}
