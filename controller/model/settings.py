"""Every number the core judges by. Defaults and hard bounds are those of the safety concept, sections 2 to 4.

A default may be moved to the safe side only; `config.py` refuses the rest. Voltages V, currents A, powers W, times ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from controller.model.battery import Feed


@dataclass(frozen=True, slots=True)
class Chemistry:
    """Limits of one cell, V: charging tapers from `charge_taper_v` to nothing at `charge_stop_v`, and so on down."""

    name: str
    charge_taper_v: float
    charge_stop_v: float
    critical_high_v: float
    discharge_taper_v: float
    discharge_stop_v: float
    critical_low_v: float
    spread_warn_v: float


CHEMISTRIES: Mapping[str, Chemistry] = MappingProxyType(
    {
        "nca": Chemistry("nca", 4.05, 4.15, 4.25, 3.30, 3.10, 2.90, 0.300),
        "ncm": Chemistry("ncm", 4.05, 4.15, 4.25, 3.30, 3.10, 2.90, 0.300),
        "lmo": Chemistry("lmo", 4.00, 4.10, 4.22, 3.30, 3.10, 2.80, 0.150),
        "lfp": Chemistry("lfp", 3.45, 3.50, 3.65, 3.05, 2.90, 2.60, 0.300),
        "lto": Chemistry("lto", 2.70, 2.75, 2.85, 2.10, 2.00, 1.90, 0.300),
    }
)
"""Aged packs, so inside what the chemistry allows (safety concept, section 4)."""

RECOVERY_A = 5.0
RECOVERY_MS = 1_800_000
RECOVERY_FLOOR_V: Mapping[str, float] = MappingProxyType({"lto": 1.5})
RECOVERY_FLOOR_ELSE_V = 2.0
"""A recovery charge: at most 5 A for 30 min, no cell below the floor (safety concept, section 3)."""

Curve = tuple[tuple[float, float], ...]
OptionValue = str | float | bool
NO_OPTIONS: Mapping[str, OptionValue] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Option:
    """One key of the config file that a battery or an inverter brings along. Its type is that of its default.

    text: what it means, for the person who writes the file. low, high: hard bounds of a number. choices: what a string
    may be. pattern: a regular expression it has to match as a whole. yours: a person must state it.
    """

    name: str
    default: OptionValue
    text: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    yours: bool = False


CHARGE_OVER_COLDEST: Curve = ((0.0, 0.0), (2.0, 0.25), (5.0, 0.5), (10.0, 1.0))
CHARGE_OVER_HOTTEST: Curve = ((40.0, 1.0), (45.0, 0.5), (50.0, 0.25), (55.0, 0.0))
DISCHARGE_OVER_COLDEST: Curve = ((-10.0, 0.0), (0.0, 0.25), (5.0, 0.5), (10.0, 1.0))
DISCHARGE_OVER_HOTTEST: Curve = CHARGE_OVER_HOTTEST
"""Fraction of the configured current over the temperature in °C; linear between the points."""


@dataclass(frozen=True, slots=True)
class PackSettings:
    """The pack as it stands in the garage.

    cells: in series. max_charge_a, max_discharge_a: what cable, fuse and contactors carry.
    soc_min_pct, soc_max_pct: the window it is used in. temp_max_c: above it the pack is opened (limit + 5 K).
    energy_full_wh: nameplate, for packs whose BMS does not tell; None when nobody stated it. charge_over_coldest …:
    fraction of the current over the temperature.
    """

    chemistry: Chemistry
    cells: int
    max_charge_a: float
    max_discharge_a: float
    soc_min_pct: float = 5.0
    soc_max_pct: float = 95.0
    temp_max_c: float = 55.0
    temp_min_c: float = -20.0
    lv_min_open_v: float = 11.7
    lv_min_closed_v: float = 10.5
    isolation_min_kohm: float = 100.0
    isolation_kohm_per_v: float = 0.5
    energy_full_wh: float | None = None
    charge_over_coldest: Curve = CHARGE_OVER_COLDEST
    charge_over_hottest: Curve = CHARGE_OVER_HOTTEST
    discharge_over_coldest: Curve = DISCHARGE_OVER_COLDEST
    discharge_over_hottest: Curve = DISCHARGE_OVER_HOTTEST

    @property
    def design_max_v(self) -> float:
        return self.cells * self.chemistry.charge_stop_v

    @property
    def design_min_v(self) -> float:
        return self.cells * self.chemistry.discharge_stop_v


@dataclass(frozen=True, slots=True)
class PrechargeSettings:
    """The resistor and the link it charges. resistance_ohm and capacitance_f are declared by the user, or None."""

    resistance_ohm: float | None = None
    capacitance_f: float | None = None
    charged_fraction: float = 0.98
    charged_gap_v: float = 20.0
    charged_current_a: float = 1.0
    charged_samples: int = 5
    charged_ms: int = 50
    limit_ms: int = 2000
    tries: int = 3
    cool_down_ms: int = 30_000
    unverified_reason: str = ""

    @property
    def tau_ms(self) -> float | None:
        """R·C in ms; None when either is not declared."""
        if self.resistance_ohm is None or self.capacitance_f is None:
            return None
        return self.resistance_ohm * self.capacitance_f * 1000.0

    @property
    def overdue_ms(self) -> int:
        """Too slow: max(5 τ declared, configured), never above the configured bound of 10 s."""
        tau_ms = self.tau_ms
        return min(10_000, max(self.limit_ms, 0 if tau_ms is None else round(5 * tau_ms)))


@dataclass(frozen=True, slots=True)
class ContactorSettings:
    """Times and bounds of closing and opening."""

    settle_feedback_ms: int = 200
    settle_blind_ms: int = 500
    overlap_ms: int = 500
    confirm_ms: int = 1000
    waking_ms: int = 10_000
    break_current_a: float = 3.5
    break_max_a: float = 200.0
    break_ms: int = 100
    fuse_ms: int = 3000
    minimum_off_ms: int = 10_000
    closings_per_hour: int = 6
    closings_per_day: int = 20
    offset_max_a: float = 6.0
    open_link_v: float = 60.0
    open_link_fraction: float = 0.10
    verify_ms: int = 30_000
    pack_open_ms: int = 10_000
    signals_ms: int = 60_000
    auto_enable: bool = False
    auto_enable_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the core needs to know. wiring: "pack", "pack+inverter", "own" or "none".

    lacks: required signals this battery cannot give.
    """

    battery: str
    inverter: str
    wiring: str
    pack: PackSettings
    max_power_w: float
    precharge: PrechargeSettings = field(default_factory=PrechargeSettings)
    contactors: ContactorSettings = field(default_factory=ContactorSettings)
    battery_options: Mapping[str, str | float | bool] = field(default_factory=dict)
    inverter_options: Mapping[str, str | float | bool] = field(default_factory=dict)
    off_grid: bool = False
    lacks: frozenset[Feed] = frozenset()
