"""What a pack tells us, whatever its protocol. None means unknown: never seen, marked invalid, or too old."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from controller.model.reading import Freshness


class PackContactor(StrEnum):
    """What the pack says of its own contactors. SNA is None, not a member."""

    OPEN = "OPEN"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"
    OPENING = "OPENING"
    BLOCKED = "BLOCKED"
    WELDED = "WELDED"


class Feed(StrEnum):
    """The groups of signals whose freshness is judged on its own."""

    VOLTAGE = "pack_voltage_v"
    CURRENT = "current_a"
    CELLS = "cell_min_v, cell_max_v"
    TEMPERATURES = "temp_min_c, temp_max_c"
    SOC = "soc_pct"
    CONTACTOR = "contactor_state"
    HVIL = "hvil_ok"

    @property
    def signals(self) -> tuple[str, ...]:
        """The snapshot's fields of this group."""
        return tuple(self.value.split(", "))


@dataclass(frozen=True, slots=True)
class PackReport:
    """What the pack complains of. Each is True, False, or None for "cannot tell".

    refuses: it will not close (blocked, reset required). link_loaded: it cannot precharge, something draws from the
    link. open_now and open_asked: its demand to open at once, or soon. withholds: it wants its contactors open for now,
    and may change its mind. no_charge and no_discharge: one direction is forbidden. alerts: the pack's own alert
    numbers, for display.
    """

    fault: bool | None = None
    open_now: bool | None = None
    open_asked: bool | None = None
    withholds: bool | None = None
    refuses: bool | None = None
    link_loaded: bool | None = None
    welded: bool | None = None
    isolation_alert: bool | None = None
    no_charge: bool | None = None
    no_discharge: bool | None = None
    warns: bool | None = None
    alerts: tuple[int, ...] = ()


NO_REPORT = PackReport()
NO_FEEDS: Mapping[Feed, Freshness] = MappingProxyType({})


class BatterySnapshot(NamedTuple):
    """One look at the pack. current_a > 0 is charging. Powers are what the pack's BMS allows now, W, never negative.

    design_min_v and design_max_v: the window the pack's BMS states. cells: how many there are in series, None while
    that is not certain. cells_v: last known voltage of each cell, index 0 is cell 1, as far as cells have been seen.
    balancing: the numbers of the cells whose shunt is on, from 1. corrupt_frames: known ids refused since the start
    (checksum, counter, length). soc_by: "counter" or "voltage", what soc_pct goes by where a battery has both.
    """

    pack_voltage_v: float | None = None
    current_a: float | None = None
    soc_pct: float | None = None
    soh_pct: float | None = None
    cell_min_v: float | None = None
    cell_max_v: float | None = None
    temp_min_c: float | None = None
    temp_max_c: float | None = None
    max_charge_w: float | None = None
    max_discharge_w: float | None = None
    max_charge_a: float | None = None
    max_discharge_a: float | None = None
    design_min_v: float | None = None
    design_max_v: float | None = None
    energy_full_wh: float | None = None
    energy_remaining_wh: float | None = None
    charged_wh: float | None = None
    discharged_wh: float | None = None
    isolation_kohm: float | None = None
    contactor_state: PackContactor | None = None
    hvil_ok: bool | None = None
    link_voltage_v: float | None = None
    link_at_ms: int | None = None
    lv_supply_v: float | None = None
    cells: int | None = None
    cells_v: tuple[float | None, ...] = ()
    report: PackReport = NO_REPORT
    feeds: Mapping[Feed, Freshness] = NO_FEEDS
    serial: str | None = None
    part_number: str | None = None
    balancing: tuple[int, ...] | None = None
    decoded_frames: int = 0
    corrupt_frames: int = 0
    soc_by: str | None = None


RESOLUTION: Mapping[str, int] = MappingProxyType(
    {
        "pack_voltage_v": 2, "current_a": 1, "soc_pct": 1, "soh_pct": 2, "cell_min_v": 3, "cell_max_v": 3,
        "temp_min_c": 1, "temp_max_c": 1, "max_charge_w": 0, "max_discharge_w": 0, "max_charge_a": 1,
        "max_discharge_a": 1, "design_min_v": 2, "design_max_v": 2, "energy_full_wh": 0, "energy_remaining_wh": 0,
        "charged_wh": 0, "discharged_wh": 0, "isolation_kohm": 0, "link_voltage_v": 2, "lv_supply_v": 2,
    }
)  # fmt: skip
"""Decimals of each number of the snapshot: what a protocol rounds to, and what is printed."""

SIGNALS: tuple[str, ...] = tuple(
    name for name in BatterySnapshot._fields if name in RESOLUTION or name in ("contactor_state", "hvil_ok")
)
"""The scalar signals of a snapshot, in their order of declaration."""
