"""What passes between us and an inverter, whatever its protocol."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class InverterStatus(Enum):
    """What an inverter is told of the battery. ACTIVE only while its DC terminals are live (safety.md, I10)."""

    STANDBY = "STANDBY"
    INACTIVE = "INACTIVE"
    ACTIVE = "ACTIVE"
    FAULT = "FAULT"
    UPDATING = "UPDATING"


@dataclass(frozen=True, slots=True)
class InverterRequest:
    """What the inverter asks and measures.

    go: it permits closing; None when it never said. heard_at_ms: its last valid request; None when never heard.
    link_voltage_v: its own measurement of the link, taken at link_at_ms. battery_voltage_v: that of the pack.
    beat_at_ms: when its heartbeat last changed; None when it has none, or is not heard.
    """

    go: bool | None = None
    heard_at_ms: int | None = None
    link_voltage_v: float | None = None
    link_at_ms: int | None = None
    battery_voltage_v: float | None = None
    beat_at_ms: int | None = None


class InverterView(NamedTuple):
    """What the inverter is told. None is unknown; each protocol says what it sends then. Power > 0 is charging.

    outer_voltage_v: the voltage on the inverter's side of the contactors, 0 while they are open.
    design_max_v and design_min_v: the window the pack may be used in. max_power_w: nameplate power.
    """

    status: InverterStatus
    soc_pct: float | None
    soh_pct: float | None
    energy_full_wh: float | None
    max_charge_w: float
    max_discharge_w: float
    pack_voltage_v: float | None
    outer_voltage_v: float | None
    current_a: float | None
    power_w: float | None
    temp_min_c: float | None
    temp_max_c: float | None
    cell_min_v: float | None
    cell_max_v: float | None
    design_max_v: float | None
    design_min_v: float | None
    max_power_w: float
    charged_wh: float | None
    discharged_wh: float | None
