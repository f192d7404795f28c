"""controller.toml: one table of keys is what it is read by, checked by, written from, and shown from.

Every error is reported at once, with its line. A limit that a person must state has no default; the others may be moved
to the safe side only, within the hard bounds of the safety concept. Writing keeps the user's comments.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Protocol

import pydantic
import tomlkit
from tomlkit.exceptions import TOMLKitError

from controller.model.settings import (
    CHEMISTRIES,
    Chemistry,
    ContactorSettings,
    Curve,
    Option,
    PackSettings,
    PrechargeSettings,
    Settings,
)

SCHEMA: Final = 1
SCHEMA_FILE: Final = "controller.schema.json"
SYSTEM_PATH: Final = Path("/etc/packwarden/controller.toml")
SIZE_MAX: Final = 256 * 1024
SYNTAX_ERRORS_MAX: Final = 20


class Kind(Protocol):
    """What a battery and an inverter of the registries have in common here. `options` may be missing."""

    @property
    def title(self) -> str: ...


class BatteryKind(Kind, Protocol):
    @property
    def wirings(self) -> tuple[str, ...]: ...
    @property
    def chemistries(self) -> tuple[str, ...]: ...


class InverterKind(Kind, Protocol):
    @property
    def precharges(self) -> bool: ...
    @property
    def precharge_max_ms(self) -> int: ...


@dataclass(frozen=True)
class Catalogue:
    """What can be chosen, by name: the two registries."""

    batteries: Mapping[str, BatteryKind]
    inverters: Mapping[str, InverterKind]


class Problem(NamedTuple):
    """One thing wrong. line: None when it is about the file as a whole. fix: what would be right."""

    line: int | None
    key: str
    message: str
    fix: str


class ConfigError(Exception):
    """A config that cannot be used; str() is one line for each problem."""

    def __init__(self, name: str, problems: list[Problem]) -> None:
        self.name = name
        self.problems = sorted(problems, key=lambda p: (p.line or 0, p.key))
        super().__init__("\n".join(self._line(problem) for problem in self.problems))

    def _line(self, problem: Problem) -> str:
        where = self.name if problem.line is None else f"{self.name}:{problem.line}"
        return f"{where}: {problem.key + ': ' if problem.key else ''}{problem.message}; {problem.fix}"


# --- the table of keys ---


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the file.

    kind: float, int, bool, str or list (a curve). default: None when there is none. yours: a person must state it, the
    default is only what `init` writes. safe: it may be moved to the safe side only.
    """

    section: str
    name: str
    kind: type
    default: Any
    text: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    yours: bool = False
    safe: bool = False

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def bound(self) -> str:
        """The hard bound in words, "" when there is none."""
        if self.low is None and self.high is None:
            return ""
        low, high = ("" if edge is None else f"{edge:.12g}" for edge in (self.low, self.high))
        return f"{low}…{high} {self.unit}".rstrip()


Row = tuple[str, float | None, float | None, str, str]


def _rows(section: str, owner: type, *rows: Row) -> tuple[Key, ...]:
    """Keys whose type and default are those of a field of `owner`; a default of None is a number nobody stated."""
    known: dict[str, Field[Any]] = {field.name: field for field in fields(owner)}
    keys = []
    for name, low, high, unit, text in rows:
        default = known[name].default if known[name].default is not MISSING else None
        kind = float if default is None else list if isinstance(default, tuple) else type(default)
        default = [list(point) for point in default] if kind is list else default
        keys.append(Key(section, name, kind, default, text, unit, low, high, safe=kind is not str))
    return tuple(keys)


def _yours(section: str, name: str, default: float, low: float, high: float, unit: str, text: str) -> Key:
    return Key(section, name, type(default), default, text, unit, low, high, yours=True)


_PER_CENT_OF_CURRENT = "Points [°C, fraction of the current], linear between them; nowhere above the default."

LIMITS = (
    _yours("limits", "max_charge_a", 20.0, 1, 500, "A", "What fuse, cable and contactors carry while charging."),
    _yours("limits", "max_discharge_a", 20.0, 1, 500, "A", "What fuse, cable and contactors carry while discharging."),
    _yours("limits", "max_power_w", 5000.0, 100, 100_000, "W", "Power in either direction that is never exceeded."),
    *_rows(
        "limits",
        PackSettings,
        ("soc_min_pct", 0, 50, "%", "No discharging at or below this SoC."),
        ("soc_max_pct", 50, 100, "%", "No charging at or above this SoC."),
        ("temp_max_c", 20, 55, "°C", "Highest cell temperature; 5 K above it the pack is opened."),
        ("temp_min_c", -20, 10, "°C", "Lowest cell temperature."),
        ("lv_min_open_v", 11.7, 14, "V", "12 V supply below which nothing is closed."),
        ("lv_min_closed_v", 10.5, 14, "V", "12 V supply below which an energised pack is opened."),
        ("isolation_min_kohm", 100, 5000, "kΩ", "Isolation below which nothing is closed …"),
        ("isolation_kohm_per_v", 0.5, 10, "kΩ/V", "… and for each volt of the pack; the higher of the two counts."),
    ),
    *_rows(
        "limits",
        Chemistry,
        ("charge_taper_v", 1.5, 4.5, "V", "Highest cell: charging is reduced from here on …"),
        ("charge_stop_v", 1.5, 4.5, "V", "… to nothing here."),
        ("critical_high_v", 1.5, 4.5, "V", "Highest cell at which the pack is opened."),
        ("discharge_taper_v", 1.5, 4.5, "V", "Lowest cell: discharging is reduced from here on …"),
        ("discharge_stop_v", 1.5, 4.5, "V", "… to nothing here."),
        ("critical_low_v", 1.5, 4.5, "V", "Lowest cell at which the pack is opened."),
        ("spread_warn_v", 0.01, 0.3, "V", "Difference between cells at rest that is worth a warning."),
    ),
    *_rows(
        "limits",
        PackSettings,
        ("charge_over_coldest", None, None, "", "Charging over the coldest cell. " + _PER_CENT_OF_CURRENT),
        ("charge_over_hottest", None, None, "", "Charging over the hottest cell. " + _PER_CENT_OF_CURRENT),
        ("discharge_over_coldest", None, None, "", "Discharging over the coldest cell. " + _PER_CENT_OF_CURRENT),
        ("discharge_over_hottest", None, None, "", "Discharging over the hottest cell. " + _PER_CENT_OF_CURRENT),
    ),
)

PRECHARGE = _rows(
    "precharge",
    PrechargeSettings,
    ("resistance_ohm", 1, 10_000, "Ω", "The precharge resistor. Needed for the wiring `own`."),
    ("capacitance_f", 1e-6, 0.1, "F", "The capacitors of the link; with the resistor it tells how fast it must charge."),
    ("charged_fraction", 0.95, 0.999, "", "Charged means: the link has this fraction of the pack's voltage …"),
    ("charged_gap_v", 1, 20, "V", "… and is at most this far below it …"),
    ("charged_current_a", 0.1, 1, "A", "… and less than this current flows …"),
    ("charged_samples", 5, 100, "", "… in this many fresh samples in a row …"),
    ("charged_ms", 50, 1000, "ms", "… over at least this time."),
    ("limit_ms", 100, 10_000, "ms", "Longest precharge; above 2000 only where the inverter's profile allows it."),
    ("tries", 1, 3, "", "Failed precharges before a person has to look."),
    ("cool_down_ms", 30_000, 3_600_000, "ms", "Rest of the resistor after a failed precharge."),
    ("unverified_reason", None, None, "", "Why no link voltage can be measured. Needs resistor and capacitors declared; "
     "the precharge is then a timer, shown as unverified and listed in the safety report."),
)  # fmt: skip

CONTACTORS = _rows(
    "contactors",
    ContactorSettings,
    ("settle_feedback_ms", 200, 2000, "ms", "From negative to precharge, with feedback."),
    ("settle_blind_ms", 500, 2000, "ms", "From negative to precharge, without feedback."),
    ("overlap_ms", 500, 2000, "ms", "From positive on to precharge off."),
    ("confirm_ms", 100, 1000, "ms", "Longest time a contactor may take to be fed back."),
    ("waking_ms", 1000, 10_000, "ms", "Longest time a pack may take to close its own contactors."),
    ("break_current_a", 0.5, 5, "A", "Current below which contactors may open without haste."),
    ("break_max_a", 10, 200, "A", "Current our relays may break at all (data sheet); above it the fuse goes first."),
    ("break_ms", 20, 100, "ms", "From positive off to the rest off."),
    ("fuse_ms", 100, 3000, "ms", "Longest wait for the fuse."),
    ("minimum_off_ms", 10_000, 3_600_000, "ms", "Shortest time between opening and closing."),
    ("closings_per_hour", 1, 6, "", "Closings in an hour before an acknowledgement is needed."),
    ("closings_per_day", 1, 20, "", "Closings in a day before an acknowledgement is needed."),
    ("offset_max_a", 0.5, 6, "A", "Reading of the pack's current sensor with everything open that is still an offset."),
    ("open_link_v", 10, 60, "V", "A link below this, or below the next, is dead: nothing is welded."),
    ("open_link_fraction", 0.01, 0.1, "", "The same, as a fraction of the pack's voltage."),
    ("verify_ms", 5000, 30_000, "ms", "Time the link has to fall by a tenth after opening."),
    ("pack_open_ms", 1000, 10_000, "ms", "Time a pack has to report its own contactors open."),
    ("signals_ms", 5000, 60_000, "ms", "Longest wait for the required signals after a start."),
    ("auto_enable", None, None, "", "Enable again by itself after a power cut."),
    ("auto_enable_ms", 60_000, 3_600_000, "ms", "Wait before that."),
)  # fmt: skip

_NAME = "[A-Za-z0-9_-]{1,32}"
PLACES = (
    Key("can", "interface", str, "socketcan", "python-can interface of the pack's bus."),
    Key("can", "channel", str, "can0", "Channel of the pack's bus."),
    Key("can", "bitrate", int, 500_000, "Bit rate of the pack's bus.", "bit/s", 10_000, 1_000_000),
    Key("serial", "port", str, "/dev/ttyUSB0", "Serial port of the RS485 line. A name under /dev/serial/by-id stays."),
    Key("site", "name", str, "home", "Name of the place; part of the MQTT topics. Letters, digits, _ and -.",
        pattern=_NAME),
    Key("site", "pack", str, "pack", "Name of the pack; part of the MQTT topics. Letters, digits, _ and -.",
        pattern=_NAME),
)  # fmt: skip

SECTIONS: Mapping[str, str] = {
    "battery": "The pack.",
    "inverter": "The inverter.",
    "wiring": "Who opens and closes what.",
    "limits": "What may never be exceeded.",
    "precharge": "Charging the inverter's capacitors through the resistor.",
    "contactors": "Times and bounds of closing and opening.",
    "can": "The pack's CAN bus.",
    "serial": "The RS485 line.",
    "site": "Names.",
}

WIRINGS: Mapping[str, str] = {
    "pack": "the pack switches its own contactors",
    "pack+inverter": "the same, then a relay of ours to an inverter that precharges itself",
    "own": "relays of ours: negative, precharge, positive",
    "none": "nothing can be switched; a stop is 0 W and FAULT",
}


def keys(catalogue: Catalogue, battery: str | None = None, inverter: str | None = None) -> tuple[Key, ...]:
    """Every key there is, with the options of this battery and inverter; of all of them where the name is none."""
    return (
        Key("battery", "name", str, None, "Which battery.", choices=tuple(catalogue.batteries), yours=True),
        Key("battery", "chemistry", str, None, "Of its cells.", choices=tuple(CHEMISTRIES), yours=True),
        Key("battery", "cells", int, None, "Cells in series.", "", 4, 240, yours=True),
        *_rows(
            "battery",
            PackSettings,
            ("energy_full_wh", 500, 200_000, "Wh", "Nameplate energy, for packs whose BMS does not tell."),
        ),
        *_options("battery", catalogue.batteries, battery),
        Key("inverter", "name", str, None, "Which inverter.", choices=tuple(catalogue.inverters), yours=True),
        Key("inverter", "off_grid", bool, False, "The house hangs on it: a silent inverter is warned of, not opened."),
        *_options("inverter", catalogue.inverters, inverter),
        Key("wiring", "kind", str, None, _wiring_text(), choices=tuple(WIRINGS), yours=True),
        *LIMITS,
        *PRECHARGE,
        *CONTACTORS,
        *PLACES,
    )


def _wiring_text() -> str:
    return "; ".join(f"{name}: {text}" for name, text in WIRINGS.items()) + "."


def _options(section: str, kinds: Mapping[str, Kind], name: str | None) -> Iterator[Key]:
    """The options of one kind, or of all; of two with one name the wider bounds."""
    found: dict[str, Key] = {}
    for kind in [kinds[name]] if name in kinds else kinds.values():
        options: tuple[Option, ...] = getattr(kind, "options", ())
        for o in options:
            key = Key(section, o.name, type(o.default), o.default, o.text, o.unit, o.low, o.high, o.choices, o.pattern)
            known = found.setdefault(o.name, key)
            low = None if None in (known.low, o.low) else min(known.low or 0, o.low or 0)
            high = None if None in (known.high, o.high) else max(known.high or 0, o.high or 0)
            found[o.name] = replace(known, low=low, high=high)
    yield from found.values()
