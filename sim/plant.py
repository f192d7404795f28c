"""The garage's physics: cells, fuse, three relays, precharge resistor, DC link, and what the inverter does to it.

    cells ── fuse ── wiring ─┬─ positive ─────────────┬─ link ──┬─────────┬────────┐
      │                      └─ precharge ─ resistor ─┘         C       bleed   inverter
      └───── negative ──────────────────────────────────────────┴─────────┴────────┘

Currents are positive while charging the pack, voltages V, energies J. A model of its own: it shares no table with the
controller. Time is what `step` is given; there is no clock, and no chance without a seed.

Error. Between two relay moves the link is solved in closed form, also where the load changes its kind, so the result
does not depend on the step, with three exceptions, each bounded by an inner step of its own and tested: the cells'
voltage and resistance are held for ≤ 100 ms (< 10 mV of the pack at 1 C); a constant power is linearised for ≤ 1 ms or
1 % of the link voltage (< 20 mV after a precharge); the fuse blows ≤ 1 ms late.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from controller.ports import RelayError
from statecharts.supervisor import Contactor

NEGATIVE, PRECHARGE, POSITIVE = Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE
OWN = (NEGATIVE, PRECHARGE, POSITIVE)

# --- Cells -----------------------------------------------------------------------------------------------------------


class Chemistry(NamedTuple):
    """ocv_v: knots (SoC, open-circuit voltage), linear between them, the outer pieces go on beyond full and empty."""

    name: str
    ocv_v: tuple[tuple[float, float], ...]


NCA = Chemistry(
    "nca",
    ((0.0, 2.51), (0.015, 2.90), (0.045, 3.15), (0.095, 3.32), (0.15, 3.42), (0.29, 3.57), (0.46, 3.70), (0.83, 4.06),
     (0.95, 4.10), (1.0, 4.19)),
)  # fmt: skip
"""Molicel INR21700-P42A at C/32; Sunil et al., IEEE Trans. Instrum. Meas. 2025 (soorajsunil/Piecewise-Battery-OCV)."""

NCM = Chemistry(
    "ncm",
    ((0.0, 2.50), (0.02, 2.84), (0.05, 3.07), (0.1, 3.26), (0.15, 3.40), (0.2, 3.45), (0.3, 3.55), (0.5, 3.71),
     (0.7, 3.92), (0.8, 4.02), (0.9, 4.09), (0.95, 4.11), (1.0, 4.18)),
)  # fmt: skip
"""LG M50: both electrode potentials of Chen et al., J. Electrochem. Soc. 167 (2020) 080534, x 0.028…0.901."""

LFP = Chemistry(
    "lfp",
    ((0.0, 2.01), (0.0033, 2.42), (0.012, 2.74), (0.027, 2.93), (0.053, 3.09), (0.089, 3.19), (0.30, 3.28),
     (0.98, 3.35), (0.995, 3.42), (1.0, 3.60)),
)  # fmt: skip
"""Lithium Werks APR18650M1B at C/32; source as NCA."""

LMO = Chemistry(
    "lmo",
    ((0.0, 2.78), (0.02, 3.15), (0.05, 3.40), (0.1, 3.58), (0.15, 3.71), (0.2, 3.75), (0.3, 3.81), (0.4, 3.86),
     (0.5, 3.92), (0.6, 3.97), (0.8, 4.02), (0.95, 4.04), (1.0, 4.09)),
)  # fmt: skip
"""Spinel of Doyle et al., J. Electrochem. Soc. 143 (1996) 1890, y 0.98…0.20, against the graphite of NCM, x ≤ 0.85."""

CHEMISTRIES: Mapping[str, Chemistry] = {kind.name: kind for kind in (NCA, NCM, LFP, LMO)}
REFERENCE_C, E_FOLD_K = 25.0, 36.0  # resistance halves from 0 to 25 °C, as it typically does
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def _pattern(count: int, seed: int | None) -> list[float]:
    """Numbers in −1…1, evenly spread over the pack without a seed, drawn with one."""
    if seed is None:
        return [2.0 * (i * GOLDEN % 1.0) - 1.0 for i in range(count)]
    draw = random.Random(seed)
    return [draw.uniform(-1.0, 1.0) for _ in range(count)]


class Cells:
    """Cells in series. One current flows through all, so one charge and two temperatures are all that moves.

    capacity_ah, cell_ohm: the mean, at 25 °C; typical of a 60 kWh car pack. spread: ± this fraction of capacity and
    resistance, the smaller cell having the larger resistance; soc_spread: ± this much SoC. heat_j_k, loss_w_k: of one
    cell: 3.4 kg at 1 kJ/kg/K, time constant 5 h. seed: of the spread, None = a fixed pattern.
    """

    def __init__(
        self, chemistry: Chemistry = NCA, count: int = 96, *, soc: float = 0.5, capacity_ah: float = 166.0,
        cell_ohm: float = 0.0007, spread: float = 0.02, soc_spread: float = 0.0, temp_c: float = 22.0,
        ambient_c: float = 22.0, heat_j_k: float = 3_400.0, loss_w_k: float = 0.19, seed: int | None = None,
    ) -> None:  # fmt: skip
        if not (0.0 <= soc <= 1.0 and 0.0 <= spread < 1.0 and count > 0 and capacity_ah > 0.0 and cell_ohm > 0.0):
            raise ValueError("cells: SoC 0…1, spread 0…1, count, capacity and resistance above 0")
        pattern = _pattern(count, seed)
        self.capacities_c = [3_600.0 * capacity_ah * (1.0 + spread * x) for x in pattern]
        self.ohms = [cell_ohm * (1.0 - spread * x) for x in pattern]
        self.socs = [min(max(soc + soc_spread * x, 0.0), 1.0) for x in reversed(pattern)]  # at charge_c = 0
        self.ambient_c, self.heat_j_k, self.loss_w_k = ambient_c, heat_j_k, loss_w_k
        self.charge_c = 0.0
        """Coulombs charged since the start."""
        self._knots = _down_to_zero(chemistry.ocv_v)
        self._base_c, self._rise_k = temp_c, 0.0
        self._measure()

    @property
    def soc(self) -> float:
        """Charge over capacity of the whole pack, 0…1."""
        if self._empty_c <= self.charge_c <= self._full_c:
            return (self._held_c + len(self.socs) * self.charge_c) / self._capacity_c
        held = sum(self.cell_soc(i) * capacity_c for i, capacity_c in enumerate(self.capacities_c))
        return held / self._capacity_c

    def cell_soc(self, index: int) -> float:
        """0…1. A cell driven further keeps counting inside: its voltage goes on along the outermost piece."""
        return min(max(self._soc(index), 0.0), 1.0)

    def cell_v(self, index: int, current_a: float = 0.0) -> float:
        return self._ocv(index)[0] + current_a * self.ohms[index] * self._resistance_factor

    def cell_c(self, index: int) -> float:
        """Its temperature, °C: the rise above the surroundings is as large as its resistance."""
        return self._base_c + self._rise_k * self.ohms[index] * len(self.ohms) / self._ohm_sum

    def extremes_v(self, current_a: float = 0.0) -> tuple[float, float]:
        """Lowest and highest cell."""
        voltages = [self.cell_v(i, current_a) for i in range(len(self.ohms))]
        return min(voltages), max(voltages)

    def extremes_c(self) -> tuple[float, float]:
        """Coldest and hottest cell."""
        temperatures = [self.cell_c(i) for i in range(len(self.ohms))]
        return min(temperatures), max(temperatures)

    @property
    def ohm(self) -> float:
        """Of all cells, at their temperature."""
        return self._ohm_sum * self._resistance_factor

    @property
    def emf_v(self) -> float:
        """The sum of the open-circuit voltages: linear in the charge until a cell passes a knot of its table."""
        return self._emf_v + self._emf_v_per_c * (self.charge_c - self._emf_at_c)

    def damage(self, index: int, *, soc: float | None = None, capacity_ah: float | None = None,
               ohm: float | None = None) -> None:  # fmt: skip
        """Make one cell a bad one, now: its SoC, its capacity, its resistance at 25 °C."""
        soc = self._soc(index) if soc is None else soc
        if capacity_ah is not None:
            self.capacities_c[index] = 3_600.0 * capacity_ah
        if ohm is not None:
            self.ohms[index] = ohm
        self.socs[index] = soc - self.charge_c / self.capacities_c[index]
        self._measure()

    def charge_to(self, soc: float) -> None:
        """Every cell is at this SoC now."""
        self.socs = [soc - self.charge_c / capacity_c for capacity_c in self.capacities_c]
        self._measure()

    def heat_to(self, temp_c: float) -> None:
        """All cells have this temperature now."""
        self._base_c, self._rise_k = temp_c, 0.0
        self._measure()

    def carry(self, charge_c: float, square_a2s: float, elapsed_s: float) -> None:
        """This charge and ∫ I² dt went through every cell."""
        self.charge_c += charge_c
        fade = -math.expm1(-elapsed_s * self.loss_w_k / self.heat_j_k)
        mean_w = square_a2s / elapsed_s * self.ohm / len(self.ohms)
        self._base_c += (self.ambient_c - self._base_c) * fade
        self._rise_k += (mean_w / self.loss_w_k - self._rise_k) * fade
        self._resistance_factor = _resistance_factor(self._base_c + self._rise_k)
        if not self._lowest_c <= self.charge_c <= self._highest_c:
            self._measure()

    def _soc(self, index: int) -> float:
        return self.socs[index] + self.charge_c / self.capacities_c[index]

    def _ocv(self, index: int) -> tuple[float, float, float, float]:
        """Voltage, its slope over SoC, and the SoC between which this holds."""
        soc, knots = self._soc(index), self._knots
        if soc < knots[0][0]:
            return 0.0, 0.0, -math.inf, knots[0][0]
        right = min(bisect_right(knots, (soc, math.inf)), len(knots) - 1)
        (x0, y0), (x1, y1) = knots[right - 1], knots[right]
        slope = (y1 - y0) / (x1 - x0)
        return y0 + slope * (soc - x0), slope, x0, x1 if right < len(knots) - 1 else math.inf

    def _measure(self) -> None:
        """Sum up the cells: voltage, its slope over charge, and the charge between which no cell passes a knot."""
        self._capacity_c = sum(self.capacities_c)
        held_c = [soc * capacity_c for soc, capacity_c in zip(self.socs, self.capacities_c, strict=True)]
        self._held_c = sum(held_c)
        self._empty_c = -min(held_c)
        self._full_c = min(capacity_c - c for c, capacity_c in zip(held_c, self.capacities_c, strict=True))
        self._emf_v, self._emf_v_per_c, self._emf_at_c = 0.0, 0.0, self.charge_c
        self._lowest_c, self._highest_c = -math.inf, math.inf
        self._ohm_sum = sum(self.ohms)
        self._resistance_factor = _resistance_factor(self._base_c + self._rise_k)
        for i, capacity_c in enumerate(self.capacities_c):
            volts, slope, low, high = self._ocv(i)
            self._emf_v += volts
            self._emf_v_per_c += slope / capacity_c
            soc = self._soc(i)
            self._lowest_c = max(self._lowest_c, self.charge_c + (low - soc) * capacity_c)
            self._highest_c = min(self._highest_c, self.charge_c + (high - soc) * capacity_c)


class Source(Protocol):
    """What the plant must know of the cells; `Cells`, or a pack that works them out itself."""

    @property
    def emf_v(self) -> float: ...
    @property
    def ohm(self) -> float: ...
    def extremes_v(self, current_a: float = 0.0) -> tuple[float, float]: ...
    def carry(self, charge_c: float, square_a2s: float, elapsed_s: float) -> None: ...


def _down_to_zero(knots: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """The first piece goes on down to 0 V, where an empty cell stays; reversal is not modelled."""
    (x0, y0), (x1, y1) = knots[:2]
    return ((x0 - y0 * (x1 - x0) / (y1 - y0), 0.0), *knots)


def _resistance_factor(temp_c: float) -> float:
    return math.exp((REFERENCE_C - min(max(temp_c, -40.0), 80.0)) / E_FOLD_K)


# --- Relays ----------------------------------------------------------------------------------------------------------


@dataclass
class Relay:
    """One contactor. Data sheet of the TE EVC135: operates in ≤ 25 ms, bounces ≤ 5 ms, releases in ≤ 10 ms, makes
    1250 A into a capacitor, breaks 660 A once.

    welded, stuck_open, aux_lost (feedback unknown), aux_stuck (feedback frozen at this) may be set at any time; a weld
    wins over stuck_open. weld_make_a, weld_break_a: an armature that moves at more welds its contact (20 V of gap
    drive 250 A, 360 V drive 4500 A).
    """

    closing_ms: float = 20.0
    opening_ms: float = 10.0
    bounces: int = 2
    bounce_ms: float = 1.0
    weld_make_a: float = 1_250.0
    weld_break_a: float = 660.0
    welded: bool = False
    stuck_open: bool = False
    aux_lost: bool = False
    aux_stuck: bool | None = None
    energised: bool = field(default=False, init=False)
    armature: bool = field(default=False, init=False)
    moves: list[tuple[float, bool]] = field(default_factory=list, init=False)

    @property
    def closed(self) -> bool:
        """Whether it conducts."""
        return self.welded or (self.armature and not self.stuck_open)

    @property
    def feedback(self) -> bool | None:
        """What the auxiliary contact says; it follows the main contact."""
        if self.aux_lost:
            return None
        return self.closed if self.aux_stuck is None else self.aux_stuck

    def energise(self, on: bool, now_ms: float) -> None:
        """Set the coil. The armature follows after its delay; on the way in the contact bounces."""
        if on is self.energised:
            return
        self.energised = on
        if on:
            touch_ms = now_ms + self.closing_ms
            self.moves = [(touch_ms + k * self.bounce_ms, k % 2 == 0) for k in range(2 * self.bounces + 1)]
        else:
            self.moves = [(now_ms + self.opening_ms, False)]


class PlantRelays:
    """RelayPort on top of the plant. broken: writes raise RelayError and change nothing; feedback is unknown then.

    members: the relays this board drives, None = all three. blind: none of them is fed back.
    """

    def __init__(self, plant: Plant, members: frozenset[Contactor] | None = None, *, blind: bool = False) -> None:
        self._plant, self._blind = plant, blind
        self._members = tuple(member for member in OWN if members is None or member in members)
        self.broken = False

    def write(self, closed: frozenset[Contactor]) -> None:
        if self.broken:
            raise RelayError("plant relays: told to fail")
        for member in self._members:
            self._plant.relays[member].energise(member in closed, self._plant.now_ms)

    def feedback(self) -> Mapping[Contactor, bool | None]:
        wired = () if self._blind else self._members
        return {member: None if self.broken else self._plant.relays[member].feedback for member in wired}


# --- The network -----------------------------------------------------------------------------------------------------

LONGEST_S, FINE_S, FINE_FRACTION = 0.1, 0.001, 0.01
TAPER_V = 10.0


class _Flow(NamedTuple):
    """A piece of time in which C·dV/dt = source − conductance·V. dV/dt starts at `rate` and grows as e^(growth·t)."""

    link_v: float
    rate: float
    growth: float

    def after(self, elapsed_s: float) -> float:
        """The link voltage then."""
        x = self.growth * elapsed_s
        return self.link_v + self.rate * elapsed_s * (math.expm1(x) / x if x else 1.0)

    def straight_s(self) -> float:
        """How long a tangent is good for, s: for ever when the link is within 0.1 % of where it settles."""
        if abs(self.rate) < 0.001 * self.link_v * -self.growth:
            return math.inf
        return min(FINE_S, FINE_FRACTION / max(abs(self.rate) / self.link_v, self.growth, FINE_FRACTION))

    def reaches(self, link_v: float) -> float:
        """When, in s; inf where it only comes close. Not asked of a link that goes the other way."""
        ratio = (link_v - self.link_v) / self.rate
        if self.growth * ratio <= -1.0:
            return math.inf
        return math.log1p(self.growth * ratio) / self.growth if self.growth else ratio

    def integrals(self, elapsed_s: float) -> tuple[float, float]:
        """∫ (V − V₀) dt and ∫ (V − V₀)² dt."""
        x = self.growth * elapsed_s
        if abs(x) < 0.01:  # the series, where the closed form would lose its digits
            once = 1 / 2 + x / 6 + x * x / 24 + x**3 / 120
            twice = 1 / 3 + x / 4 + 7 * x * x / 60 + x**3 / 24
        else:
            once = (math.expm1(x) - x) / x**2
            twice = (math.expm1(2.0 * x) / 2.0 - 2.0 * math.expm1(x) + x) / x**3
        return self.rate * elapsed_s**2 * once, self.rate**2 * elapsed_s**3 * twice


@dataclass
class Plant:
    """The whole circuit. Every attribute may be changed between two steps: that is how faults are made.

    precharge_ohm: inf = burnt open, near 0 = shorted. bleed_ohm: inf = none; small = a short on the link.
    load_a, load_w: what the inverter puts in at the link (negative = takes), by current and by power. What it takes
    fades out as V below load_min_v, what it puts in over the 10 V below load_max_v, as real ones cut off.
    fuse_a, fuse_a2s: it melts at last above the first, and after the second when it has no time to cool; those of a
    250 A fuse, about.
    precharge_j, precharge_peak_w: what the resistor took; peak_a: the largest pack current, either way.
    """

    cells: Source = field(default_factory=Cells)
    relay: Relay = field(default_factory=Relay)
    link_f: float = 0.001
    precharge_ohm: float = 100.0
    bleed_ohm: float = 100_000.0
    wiring_ohm: float = 0.01
    load_a: float = 0.0
    load_w: float = 0.0
    load_min_v: float = 80.0
    load_max_v: float = 500.0
    fuse_a: float = 400.0
    fuse_a2s: float = 20_000.0
    fuse_blown: bool = False
    link_v: float = 0.0

    relays: dict[Contactor, Relay] = field(init=False)
    now_ms: float = field(default=0.0, init=False)
    precharge_j: float = field(default=0.0, init=False)
    precharge_peak_w: float = field(default=0.0, init=False)
    peak_a: float = field(default=0.0, init=False)
    fuse_heat_a2: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        if not (self.link_f > 0.0 and self.wiring_ohm > 0.0 and 0.0 < self.load_min_v < self.load_max_v - TAPER_V):
            raise ValueError("the plant needs a capacitor, wires of some resistance, and load_min_v below load_max_v")
        self.relays = {member: replace(self.relay) for member in OWN}

    # --- what can be measured ---

    @property
    def current_a(self) -> float:
        """Of the pack, positive while it charges."""
        return self._path_s() * (self.link_v - self.cells.emf_v)

    @property
    def pack_v(self) -> float:
        """The sum of the cells, whatever the fuse and the relays do."""
        return self.cells.emf_v + self.current_a * self.cells.ohm

    @property
    def cell_extremes_v(self) -> tuple[float, float]:
        """Lowest and highest cell, under the present current."""
        return self.cells.extremes_v(self.current_a)

    # --- time ---

    def step(self, dt_ms: float) -> None:
        """Let this much time pass. Raises ValueError for a time that is none."""
        if not (math.isfinite(dt_ms) and dt_ms >= 0.0):
            raise ValueError(f"a step of {dt_ms} ms")
        end_ms = self.now_ms + dt_ms
        while True:
            move_ms = min((at_ms for relay in self.relays.values() for at_ms, _ in relay.moves), default=math.inf)
            until_ms = min(move_ms, end_ms)
            self._flow((until_ms - self.now_ms) / 1_000.0)
            self.now_ms = max(self.now_ms, until_ms)
            if move_ms > end_ms:
                return
            for member, relay in self.relays.items():
                while relay.moves and relay.moves[0][0] <= self.now_ms:
                    self._move(member, relay.moves.pop(0)[1])

    def _move(self, member: Contactor, close: bool) -> None:
        """A contact makes or breaks, and welds when the current is too much for it."""
        relay, broken_a = self.relays[member], self._through(member)
        relay.armature = close
        made_a = self._through(member)
        if (close and made_a > relay.weld_make_a) or (not close and broken_a > relay.weld_break_a):
            relay.welded = True

    def _through(self, member: Contactor) -> float:
        """|I| through this relay; a closed positive bridges the precharge."""
        bridged = member is PRECHARGE and self.relays[POSITIVE].closed
        return abs(self.current_a) if self.relays[member].closed and not bridged else 0.0

    def _path_s(self) -> float:
        """Conductance between the cells and the link, S."""
        if self.fuse_blown or not self.relays[NEGATIVE].closed:
            return 0.0
        ohm = self.cells.ohm + self.wiring_ohm
        if self.relays[POSITIVE].closed:
            return 1.0 / ohm
        return 1.0 / (ohm + self.precharge_ohm) if self.relays[PRECHARGE].closed else 0.0

    # --- the link ---

    def _flow(self, left_s: float) -> None:
        while left_s > 0.0:
            left_s -= self._piece(min(left_s, LONGEST_S))

    def _piece(self, longest_s: float) -> float:
        """One piece in which the network is linear; how long it lasted, s."""
        bounds_v = (0.0, self.load_min_v, self.load_max_v - TAPER_V, self.load_max_v, math.inf)
        zone = min(bisect_right(bounds_v, self.link_v) - 1, 3)
        flow, bent = self._solve(zone)
        if flow.rate < 0.0 and zone and self.link_v == bounds_v[zone]:
            zone -= 1
            flow, bent = self._solve(zone)
        path_s, start_a = self._path_s(), self.current_a
        elapsed_s = min(longest_s, flow.straight_s() if bent else math.inf)
        if abs(start_a) > self.fuse_a:
            elapsed_s = min(elapsed_s, FINE_S)
        link_v = flow.after(elapsed_s)
        if not bounds_v[zone] <= link_v <= bounds_v[zone + 1]:
            bound_v = bounds_v[zone] if link_v < bounds_v[zone] else bounds_v[zone + 1]
            elapsed_s, link_v = min(elapsed_s, flow.reaches(bound_v)), bound_v
        once, twice = flow.integrals(elapsed_s)
        charge_c = start_a * elapsed_s + path_s * once
        square_a2s = start_a**2 * elapsed_s + 2.0 * start_a * path_s * once + path_s**2 * twice
        self.link_v = link_v
        self._account(start_a, start_a + path_s * (link_v - flow.link_v), charge_c, max(square_a2s, 0.0), elapsed_s)
        return elapsed_s

    def _solve(self, zone: int) -> tuple[_Flow, bool]:
        """The link from here on, and whether it is only nearly linear."""
        path_s, (load_a, load_s, bent) = self._path_s(), self._load(zone)
        source_a = path_s * self.cells.emf_v + load_a
        conductance_s = path_s + 1.0 / self.bleed_ohm - load_s
        rate = (source_a - conductance_s * self.link_v) / self.link_f
        return _Flow(self.link_v, rate, -conductance_s / self.link_f), bent

    def _load(self, zone: int) -> tuple[float, float, bool]:
        """The inverter's current into the link as a + s·V, and whether that is a tangent only.

        Zones: 0 below load_min_v, 1 between, 2 where feeding fades out, 3 above load_max_v.
        """
        low_v, high_v, v = self.load_min_v, self.load_max_v - TAPER_V, self.link_v
        amps = siemens = 0.0
        bent = False
        for load_a, load_w in ((self.load_a, 0.0), (0.0, self.load_w)):
            takes = load_a + load_w < 0.0
            if zone == 0 and takes:
                siemens += (load_a + load_w / low_v) / low_v
            elif zone == 0:
                amps += load_a + load_w / low_v
            elif zone == 1 or takes:
                amps += load_a + 2.0 * load_w / v
                siemens -= load_w / v**2
                bent = bent or load_w != 0.0
            elif zone == 2:
                full_a = load_a + load_w / high_v
                amps += full_a * self.load_max_v / TAPER_V
                siemens -= full_a / TAPER_V
        return amps, siemens, bent

    def _account(self, start_a: float, end_a: float, charge_c: float, square_a2s: float, elapsed_s: float) -> None:
        """Book what flowed: cells, resistor, peaks (the current of a piece only falls or only rises), fuse."""
        peak_a = max(abs(start_a), abs(end_a))
        self.peak_a = max(self.peak_a, peak_a)
        if self.relays[PRECHARGE].closed and not self.relays[POSITIVE].closed and math.isfinite(self.precharge_ohm):
            self.precharge_j += self.precharge_ohm * square_a2s
            self.precharge_peak_w = max(self.precharge_peak_w, self.precharge_ohm * peak_a**2)
        if elapsed_s > 0.0:
            fade = -math.expm1(-elapsed_s * self.fuse_a**2 / self.fuse_a2s)
            self.fuse_heat_a2 += (square_a2s / elapsed_s - self.fuse_heat_a2) * fade
            self.fuse_blown = self.fuse_blown or self.fuse_heat_a2 > self.fuse_a**2
            self.cells.carry(charge_c, square_a2s, elapsed_s)
