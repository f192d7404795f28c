"""Charge and discharge limits handed to the inverter: the minimum of every source, computed last (I8)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import inf, isfinite
from operator import itemgetter
from typing import NamedTuple

from controller.model.battery import BatterySnapshot, Feed, PackContactor
from controller.model.events import Event
from controller.model.settings import Curve, Settings
from controller.safety.monitor import Faults

_BY_LIMIT = itemgetter(1)
RISE_PER_S = 0.10
HYSTERESIS = 0.02


class Bound(NamedTuple):
    """A power of one direction and when it ends."""

    limit_w: float
    until_ms: int


class Cap(NamedTuple):
    """A person's wish for less power. None leaves a direction alone."""

    charge: Bound | None = None
    discharge: Bound | None = None

    def at(self, now_ms: int) -> Cap:
        """What of it still counts."""
        charge, discharge = (b if b is not None and now_ms < b.until_ms else None for b in self)
        return self if (charge, discharge) == self else Cap(charge, discharge)


NO_CAP = Cap()


class Source(NamedTuple):
    """What derates one direction, and to which fraction of the configured current."""

    name: str
    fraction: float


class Deratings(NamedTuple):
    """Both directions, and the cell voltages and temperatures they were judged by."""

    charge: Source = Source("starting", 0.0)
    discharge: Source = Source("starting", 0.0)
    judged: tuple[float | None, ...] = ()


UNJUDGED = Deratings()


@dataclass(frozen=True, slots=True)
class Limits:
    """What is published, W, and the name of what bounds it. The deratings are remembered for their hysteresis."""

    charge_w: float = 0.0
    discharge_w: float = 0.0
    charge_by: str = "starting"
    discharge_by: str = "starting"
    deratings: Deratings = UNJUDGED
    at_ms: int = 0


def over(curve: Curve, at: float) -> float:
    """A curve's value at `at`, linear between its points, constant beyond them."""
    if at <= curve[0][0]:
        return curve[0][1]
    for (x0, y0), (x1, y1) in pairwise(curve):
        if at <= x1:
            return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    return curve[-1][1]


def _least(source: Source) -> float:
    """What is no number is less than everything."""
    return source.fraction if isfinite(source.fraction) else -1.0


def charge_derating(pack: BatterySnapshot, settings: Settings) -> Source:
    """The fraction of the charge current cells and temperatures allow. Anything unknown is 0."""
    own, cell = settings.pack, settings.pack.chemistry
    taper = (cell.charge_taper_v, cell.charge_stop_v)
    curves = (own.charge_over_coldest, own.charge_over_hottest)
    return _derating(("highest cell", pack.cell_max_v), taper, curves, pack, settings)


def discharge_derating(pack: BatterySnapshot, settings: Settings) -> Source:
    """The fraction of the discharge current cells and temperatures allow. Anything unknown is 0."""
    own, cell = settings.pack, settings.pack.chemistry
    taper = (cell.discharge_taper_v, cell.discharge_stop_v)
    curves = (own.discharge_over_coldest, own.discharge_over_hottest)
    return _derating(("lowest cell", pack.cell_min_v), taper, curves, pack, settings)


def _derating(
    extreme: tuple[str, float | None], taper: tuple[float, float], curves: tuple[Curve, Curve], pack: BatterySnapshot,
    settings: Settings,
) -> Source:  # fmt: skip
    """The least of what one extreme cell and both extreme temperatures allow.

    A battery that lacks cells is judged by its mean cell, one that lacks temperatures by none (the config names what
    protects it instead).
    """
    (name, cell_v), lacks, parts = extreme, settings.lacks, list[Source]()
    if lacks and Feed.CELLS in lacks:
        name, cell_v = "mean cell", None if pack.pack_voltage_v is None else pack.pack_voltage_v / settings.pack.cells
    if cell_v is None:
        return Source("unknown cells or temperatures", 0.0)
    parts.append(Source(name, _taper(cell_v, *taper)))
    if not lacks or Feed.TEMPERATURES not in lacks:
        if pack.temp_min_c is None or pack.temp_max_c is None:
            return Source("unknown cells or temperatures", 0.0)
        parts.append(Source("coldest cell", over(curves[0], pack.temp_min_c)))
        parts.append(Source("hottest cell", over(curves[1], pack.temp_max_c)))
    return min(parts, key=_least)


def _taper(cell_v: float, begin_v: float, stop_v: float) -> float:
    """1 before `begin_v`, 0 from `stop_v` on, whichever of the two is higher."""
    return min(1.0, max(0.0, (cell_v - stop_v) / (begin_v - stop_v)))


def _with_hysteresis(derating: Source, before: float) -> Source:
    """A derating falls at once and rises only by more than 2 %, or to its end. What is no number is nothing."""
    name, fraction = derating
    if not isfinite(fraction):
        return Source(name, 0.0)
    rises = fraction >= before + HYSTERESIS or fraction >= 1.0
    return derating if fraction <= before or rises else Source(name, before)


def limits(
    before: Limits, pack: BatterySnapshot, settings: Settings, faults: Faults, offered: str, profile_w: float,
    cap: Cap, now_ms: int, *, before_go: bool = False,
) -> Limits:  # fmt: skip
    """This tick's limits. `offered` is empty when the state lets the inverter have them, else why not.

    before_go: nothing is closed, and an inverter that takes up no offer of 0 sees what RUNNING would offer. A real
    open Tesla pack allows 0 W (logs/tesla-m3-bench-battery-only.log), which says nothing of then and bounds nothing.
    """
    if before_go and pack.contactor_state is PackContactor.OPEN:
        pack = _as_if_closed(pack)
    deratings = _deratings(before, pack, settings)
    charge, discharge = deratings.charge, deratings.discharge
    common = [("inverter profile", profile_w), ("max_power_w", settings.max_power_w)]
    if offered:
        common.append((offered, 0.0))
    own = settings.pack
    up = common + _own_sources(pack, settings, own.max_charge_a, charge, pack.max_charge_w)
    down = common + _own_sources(pack, settings, own.max_discharge_a, discharge, pack.max_discharge_w)
    if pack.max_discharge_a is not None and pack.pack_voltage_v is not None:
        down.append(("BMS current", pack.max_discharge_a * pack.pack_voltage_v))
    if pack.soc_pct is None:
        up.append(("unknown SoC", 0.0))
        down.append(("unknown SoC", 0.0))
    else:
        up += [("SoC window", 0.0)] if pack.soc_pct >= own.soc_max_pct else []
        down += [("SoC window", 0.0)] if pack.soc_pct <= own.soc_min_pct else []
    up.extend((rule.id.value, 0.0) for rule in faults.charge_forbidden)
    down.extend((rule.id.value, 0.0) for rule in faults.discharge_forbidden)
    up += [] if cap.charge is None else [("operator cap", cap.charge.limit_w)]
    down += [] if cap.discharge is None else [("operator cap", cap.discharge.limit_w)]
    half = faults.active_since_ms(Event.SOC_JUMP) is not None
    rise_w = settings.max_power_w * RISE_PER_S * (now_ms - before.at_ms) / 1000.0
    charge_w, charge_by = _published(up, before.charge_w, rise_w, half)
    discharge_w, discharge_by = _published(down, before.discharge_w, rise_w, half)
    return Limits(charge_w, discharge_w, charge_by, discharge_by, deratings, now_ms)


def _as_if_closed(pack: BatterySnapshot) -> BatterySnapshot:
    """Without the zeros an open pack's BMS says."""
    return pack._replace(
        max_charge_w=pack.max_charge_w or _boundless(pack.max_charge_w),
        max_discharge_w=pack.max_discharge_w or _boundless(pack.max_discharge_w),
        max_discharge_a=pack.max_discharge_a or _boundless(pack.max_discharge_a),
    )


def _boundless(zero: float | None) -> float | None:
    return None if zero is None else inf


def _deratings(before: Limits, pack: BatterySnapshot, settings: Settings) -> Deratings:
    """Of this tick. What cells and temperatures have not changed is not worked out again."""
    judged: tuple[float | None, ...] = (pack.cell_min_v, pack.cell_max_v, pack.temp_min_c, pack.temp_max_c)
    if settings.lacks:
        judged = (*judged, pack.pack_voltage_v)
    last = before.deratings
    if judged == last.judged:
        return last
    charge, discharge = charge_derating(pack, settings), discharge_derating(pack, settings)
    return Deratings(
        _with_hysteresis(charge, last.charge.fraction),
        _with_hysteresis(discharge, last.discharge.fraction),
        judged,
    )


def _own_sources(
    pack: BatterySnapshot, settings: Settings, max_a: float, derating: Source, bms_w: float | None
) -> list[tuple[str, float]]:
    """What the pack itself bounds in one direction: the configured current, whole and derated, and its BMS.

    A battery that lacks cells has no BMS that could allow anything; it still may forbid, by its report.
    """
    has_bms = bms_w is not None or Feed.CELLS not in settings.lacks
    bms = [("BMS", 0.0 if bms_w is None else bms_w)] if has_bms else []
    if pack.pack_voltage_v is None or pack.current_a is None:
        return [("unknown pack voltage or current", 0.0), *bms]
    full_w = max_a * pack.pack_voltage_v
    return [("configured current", full_w), (derating.name, derating.fraction * full_w), *bms]


def _published(sources: list[tuple[str, float]], before_w: float, rise_w: float, half: bool) -> tuple[float, str]:
    """The smallest source, halved after an SoC jump, rising no faster than allowed."""
    name, limit_w = min(sources, key=_BY_LIMIT)
    limit_w = max(0.0, limit_w)
    if half and limit_w:
        name, limit_w = "soc-jump", limit_w / 2
    if limit_w > before_w + rise_w:
        name, limit_w = f"rising to {name}", before_w + rise_w
    return limit_w, name
