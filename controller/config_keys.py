"""The keys of controller.toml as one table: meaning, unit, default and hard bound of each.

Hard bounds are those of the safety concept, sections 2 to 4. The options of a battery or an inverter come from its row
in the registry, handed in as a Catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from typing import Any, Protocol

from controller.model.battery import Feed
from controller.model.settings import (
    CHEMISTRIES,
    Chemistry,
    ContactorSettings,
    Option,
    PackSettings,
    PrechargeSettings,
)


class Kind(Protocol):
    """What a battery and an inverter of the registries have in common here."""

    @property
    def title(self) -> str: ...
    @property
    def options(self) -> tuple[Option, ...]: ...


class BatteryKind(Kind, Protocol):
    @property
    def wirings(self) -> tuple[str, ...]: ...
    @property
    def chemistries(self) -> tuple[str, ...]: ...
    @property
    def lacks(self) -> frozenset[Feed]: ...
    @property
    def line(self) -> object: ...


class InverterKind(Kind, Protocol):
    @property
    def precharges(self) -> bool: ...
    @property
    def precharge_max_ms(self) -> int: ...
    @property
    def line(self) -> object: ...
    @property
    def bitrate(self) -> int | None: ...
    @property
    def ignores_zero(self) -> frozenset[str]: ...
    @property
    def windows_v(self) -> Mapping[str, tuple[float, float]]: ...


@dataclass(frozen=True)
class Catalogue:
    """What can be chosen, by name: the two registries."""

    batteries: Mapping[str, BatteryKind]
    inverters: Mapping[str, InverterKind]


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the file.

    kind: float, int, bool, str or list (a Curve). default: None when there is none. yours: a person must state it, the
    default is only what `init` writes. secret: its value is never printed.
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
    secret: bool = False

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
        default: Any = None if known[name].default is MISSING else known[name].default
        kind = float if default is None else list if isinstance(default, tuple) else type(default)
        keys.append(Key(section, name, kind, default, text, unit, low, high))
    return tuple(keys)


def _yours(section: str, name: str, default: float, low: float, high: float, unit: str, text: str) -> Key:
    return Key(section, name, type(default), default, text, unit, low, high, yours=True)


PROTECTION = Key(
    "battery", "cells_protected_by", str, None,
    "What protects each cell and watches its temperature, as this battery reports neither; say, a BMS with a relay.",
    pattern=r".*\w.*",
)  # fmt: skip

_CURVE = "Points [°C, fraction of the current], linear between them; nowhere above the default."

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
        (
            "isolation_min_kohm",
            100,
            5000,
            "kΩ",
            "Isolation below which nothing is closed; the stricter of this and the next counts.",
        ),
        ("isolation_kohm_per_v", 0.5, 10, "kΩ/V", "The same for each volt of the pack."),
    ),
    *_rows(
        "limits",
        Chemistry,
        ("charge_taper_v", 1.5, 4.5, "V", "Highest cell: from here on charging is reduced."),
        ("charge_stop_v", 1.5, 4.5, "V", "Highest cell: here charging has come down to nothing."),
        ("critical_high_v", 1.5, 4.5, "V", "Highest cell: here the pack is opened."),
        ("discharge_taper_v", 1.5, 4.5, "V", "Lowest cell: from here on discharging is reduced."),
        ("discharge_stop_v", 1.5, 4.5, "V", "Lowest cell: here discharging has come down to nothing."),
        ("critical_low_v", 1.5, 4.5, "V", "Lowest cell: here the pack is opened."),
        ("spread_warn_v", 0.01, 0.3, "V", "Difference between cells at rest that is worth a warning."),
    ),
    *_rows(
        "limits",
        PackSettings,
        ("charge_over_coldest", None, None, "", "Charging over the coldest cell. " + _CURVE),
        ("charge_over_hottest", None, None, "", "Charging over the hottest cell. " + _CURVE),
        ("discharge_over_coldest", None, None, "", "Discharging over the coldest cell. " + _CURVE),
        ("discharge_over_hottest", None, None, "", "Discharging over the hottest cell. " + _CURVE),
    ),
)

PRECHARGE = _rows(
    "precharge",
    PrechargeSettings,
    ("resistance_ohm", 1, 10_000, "Ω", "The precharge resistor. Needed for the wiring `own`."),
    (
        "capacitance_f",
        1e-6,
        0.1,
        "F",
        "The capacitors of the link; with the resistor it tells how fast it must charge.",
    ),
    ("charged_fraction", 0.95, 0.999, "", "Charged: the link has at least this fraction of the pack's voltage."),
    ("charged_gap_v", 1, 20, "V", "Charged: the link is at most this far from the pack's voltage."),
    ("charged_current_a", 0.1, 1, "A", "Charged: less than this current flows, its offset taken away."),
    ("charged_samples", 5, 100, "", "Charged: seen in this many fresh samples in a row."),
    ("charged_ms", 50, 1000, "ms", "Charged: seen for at least this time."),
    ("limit_ms", 100, 10_000, "ms", "Longest precharge; above 2000 only where the inverter's profile allows it."),
    ("tries", 1, 3, "", "Failed precharges before a person has to look."),
    ("cool_down_ms", 30_000, 3_600_000, "ms", "Rest of the resistor after a failed precharge."),
    ("unverified_reason", None, None, "", "Why the link cannot be measured: then a timer. R and C must be declared."),
)

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
    ("open_link_v", 10, 60, "V", "A link below this, or below the next, is dead and nothing is welded."),
    ("open_link_fraction", 0.01, 0.1, "", "The same as a fraction of the pack's voltage."),
    ("verify_ms", 5000, 30_000, "ms", "Time the link has to fall by a tenth after opening."),
    ("pack_open_ms", 1000, 10_000, "ms", "Time a pack has to report its own contactors open."),
    ("signals_ms", 5000, 60_000, "ms", "Longest wait for the required signals after a start."),
    ("auto_enable", None, None, "", "Enable again by itself after a power cut."),
    ("auto_enable_ms", 60_000, 3_600_000, "ms", "Wait before enabling by itself."),
)

_BY_ID = "its name under /dev/serial/by-id stays the same"


def _bus(section: str, channel: str, bitrate: int | None, whose: str) -> tuple[Key, ...]:
    return (
        Key(section, "interface", str, "socketcan", f"python-can's interface of {whose} bus: socketcan, slcan, …"),
        Key(section, "channel", str, channel, f"Channel of {whose} bus; a serial port for slcan."),
        Key(section, "bitrate", int, bitrate, f"Bit rate of {whose} bus.", "bit/s", 10_000, 1_000_000),
        Key(section, "tty_baud", int, 115_200, "For slcan: speed of the adapter's own port.", "baud", 9600, 4_000_000),
    )


def _line(section: str, port: str, whose: str) -> tuple[Key, ...]:
    return (
        Key(section, "port", str, port, f"Serial port of {whose} line; {_BY_ID}."),
        Key(section, "rs485", bool, False, "The kernel turns the transmitter on by RTS; most adapters do it alone."),
    )


def _modbus(section: str) -> tuple[Key, ...]:
    return (
        Key(section, "port", str, "", f"For modbus: its serial port; {_BY_ID}."),
        Key(section, "baud", int, 9600, "For modbus: its speed.", "baud", 1200, 921_600),
        Key(section, "unit", int, 1, "For modbus: its unit number.", "", 1, 247),
    )


def _number(section: str, name: str, low: int, high: int, text: str) -> Key:
    return Key(section, name, int, None, text, "", low, high)


COILS = ("negative", "precharge", "positive")
RELAYS = (
    Key("relays", "kind", str, "none", "gpio: pins of the Pi. modbus: a board on RS485.",
        choices=("none", "gpio", "modbus")),
    *(_number("relays", coil, 1, 32, f"The {coil} contactor's relay: GPIO or relay number.") for coil in COILS),
    Key("relays", "active_low", bool, False, "For gpio: a low level energises, as on many opto-coupled boards."),
    *(_number("relays", f"{coil}_feedback", 1, 32, f"The {coil} contactor's auxiliary contact: GPIO or input number.")
      for coil in COILS),
    Key("relays", "feedback_normally_closed", bool, False, "The auxiliary contacts open when their contactor closes."),
    *_modbus("relays"),
)  # fmt: skip
PINS = (
    _number("pins", "estop", 2, 27, "GPIO number of the emergency stop's second contact, normally closed, to ground."),
    _number("pins", "interlock", 2, 27, "GPIO number of the interlock loop, normally closed, to ground."),
    _number("pins", "heartbeat", 2, 27, "GPIO number of the output that feeds the external relay watchdog."),
)
LINK = (
    Key("link", "source", str, "none", "modbus: a meter of ours measures the link.", choices=("none", "modbus")),
    *_modbus("link"),
    Key("link", "voltage_register", int, None, "Its voltage register: the address on the wire.", "", 0, 65_535),
    Key("link", "input_register", bool, False, "It is an input register (function 4), not a holding register (3)."),
    Key("link", "volts_per_count", float, None, "Its scale.", "V", 1e-6, 100),
    Key("link", "update_ms", int, None, "How old the value in the register can be when it is read (manual).", "ms",
        0, 60_000),
)  # fmt: skip

_NAME = "[A-Za-z0-9_-]{1,32}"
DISPATCH = (
    Key("dispatch", "inverter", str, "none", "Whose power `controller dispatch` steers, over Modbus TCP.",
        choices=("none", "sungrow", "fronius", "goodwe")),
    Key("dispatch", "host", str, "", "Its name or IP address in the network.", pattern="[A-Za-z0-9.:_-]*"),
    Key("dispatch", "port", int, 502, "Its Modbus TCP port.", "", 1, 65_535),
    Key("dispatch", "unit", int, 1, "Its Modbus unit: 1 for Sungrow and Fronius, 247 for GoodWe.", "", 1, 247),
    Key("dispatch", "sungrow_mode", int, 3, "3: external EMS, falls back by itself. 2: forced, stays until rewritten.",
        "", 2, 3),
    Key("dispatch", "timeout_s", int, 60, "After this silence of ours a Fronius, or a Sungrow in mode 3, falls back.",
        "s", 20, 900),
)  # fmt: skip

PLACES = (
    *_bus("can", "can0", 500_000, "the pack's"),
    *_line("battery_serial", "/dev/ttyUSB1", "the pack's"),
    *_line("serial", "/dev/ttyUSB0", "the inverter's"),
    *_bus("inverter_can", "can1", None, "the inverter's"),
    *RELAYS,
    *PINS,
    *LINK,
    Key("site", "name", str, "home", "Name of the place in MQTT topics: letters, digits, _ and -.", pattern=_NAME),
    Key("site", "pack", str, "pack", "Name of the pack in MQTT topics: letters, digits, _ and -.", pattern=_NAME),
    *DISPATCH,
)

_LEVEL = "[A-Za-z0-9_-]+"
_LEVELS = f"{_LEVEL}(/{_LEVEL})*"
MQTT = (
    Key("mqtt", "host", str, "", "The broker: only its name or address. Empty: no MQTT.", pattern=r"[^/\s]*"),
    Key("mqtt", "port", int, 1883, "Its port; with TLS mostly 8883.", "", 1, 65_535),
    Key("mqtt", "user", str, "", "Our user name there."),
    Key("mqtt", "password_file", str, "", "A file with our password, readable by the gateway only."),
    Key("mqtt", "password", str, "", "The password itself, where no file is wanted. It is never printed.", secret=True),
    Key("mqtt", "tls", bool, False, "Encrypt, and check the broker's certificate."),
    Key("mqtt", "ca_file", str, "", "For TLS: the certificate that signed the broker's. Empty: those of the system."),
    Key("mqtt", "client_id", str, "", "Our name at the broker, no other's. Empty: packwarden-SITE-PACK."),
    Key("mqtt", "every_s", float, 2.0, "Values are published this often; a change of state at once.", "s", 0.5, 300),
    Key("mqtt", "tree", str, "packwarden", "Top of our topics: letters, digits, _, - and /.", pattern=_LEVELS),
    Key("mqtt", "batt2gen24", bool, True, "The topics of batt2gen24 as well. Off for a second pack at one broker."),
    Key("mqtt", "batt2gen24_prefix", str, "", "Put before them, say garage/ : letters, digits, _, - and /.",
        pattern=f"({_LEVELS}/?)?"),
    Key("mqtt", "discovery_prefix", str, "homeassistant", "Top of Home Assistant's discovery topics. Empty: none.",
        pattern=f"({_LEVELS})?"),
)  # fmt: skip

WEB = (
    Key("web", "port", int, 8443, "Port of the page; 0: no page.", "", 0, 65_535),
    Key("web", "bind", str, "0.0.0.0",
        "Where it listens once a password is set (`controller gateway passwd`); until then on 127.0.0.1 only.",
        pattern=r"[0-9A-Fa-f.:]+"),
    Key("web", "certificate", str, "", "A TLS certificate of yours, PEM with its chain. Empty: a self-made one."),
    Key("web", "key", str, "", "Its key, PEM, readable by the gateway only. Empty: in the same file."),
    Key("web", "guests", bool, False, "Whoever reaches the page may look; commands need a log-in in any case."),
    Key("web", "metrics_token", str, "", "Prometheus reads /metrics with this bearer token; never printed.",
        pattern=r"(\S{16,})?", secret=True),
)  # fmt: skip

HISTORY = (
    Key("history", "days", int, 400, "Days for which each minute is kept; 0: no history.", "d", 0, 10_000),
    Key("history", "seconds_days", int, 2, "Days for which each second is kept.", "d", 1, 100),
    Key("history", "max_mb", int, 500, "The file grows no larger.", "MB", 20, 100_000),
    Key("history", "folder", str, "", "Where the file is. Empty: the folder of the gateway's state."),
)

INFLUX = (
    Key(
        "influx",
        "url",
        str,
        "",
        "Where to write, with org and bucket, or db; docs/history.md. Empty: nowhere.",
        pattern=r"(https?://[!-~]+)?",
    ),
    Key("influx", "token", str, "", "Its token; user:password for version 1. It is never printed.", secret=True),
    Key("influx", "every_s", int, 10, "One line in so many seconds.", "s", 1, 3600),
)

INCIDENTS = (
    Key("incidents", "memory_mib", int, 12, "The last ten minutes of every input take no more memory.", "MiB", 1, 64),
    Key("incidents", "disk_mib", int, 128, "The bundles take no more room; the oldest goes first.", "MiB", 16, 10_000),
)

SECTIONS: Mapping[str, str] = {
    "battery": "The pack.",
    "inverter": "The inverter.",
    "wiring": "Who opens and closes what.",
    "limits": "What may never be exceeded.",
    "precharge": "Charging the inverter's capacitors through the resistor.",
    "contactors": "Times and bounds of closing and opening.",
    "can": "The pack's CAN bus.",
    "battery_serial": "The pack's serial line.",
    "serial": "The inverter's RS485 line.",
    "inverter_can": "The inverter's CAN bus.",
    "relays": "The contactors we switch, fully on or off: an economiser is a module of the contactor's own.",
    "pins": "Hard-wired inputs, and the heartbeat. Numbers are the GPIO numbers (BCM).",
    "link": "A voltage meter of ours on the inverter's side of the contactors.",
    "site": "Names.",
    "mqtt": "The MQTT broker. See docs/mqtt.md and docs/home-assistant.md.",
    "web": "The page. See docs/page.md.",
    "history": "What is remembered of the values. See docs/history.md.",
    "influx": "An InfluxDB that is written to. See docs/history.md.",
    "incidents": "What is kept of the minutes before a fault.",
    "dispatch": "The inverter whose power is steered over Modbus TCP. See docs/dispatch.md.",
}

EXAMPLES: Mapping[str, Any] = {
    "cells": 96, "energy_full_wh": 30_000.0, "resistance_ohm": 100.0, "capacitance_f": 0.001, "bitrate": 500_000,
    "negative": 17, "precharge": 27, "positive": 22, "negative_feedback": 5, "precharge_feedback": 6,
    "positive_feedback": 13, "estop": 24, "interlock": 16, "heartbeat": 12, "voltage_register": 0,
    "volts_per_count": 0.1, "update_ms": 100,
}  # fmt: skip
"""What is shown where there is no default."""

WIRINGS: Mapping[str, str] = {
    "pack": "the pack switches its own contactors",
    "pack+inverter": "the same, then a relay of ours to an inverter that precharges itself",
    "own": "relays of ours: negative, precharge, positive",
    "none": "nothing can be switched; a stop is 0 W and FAULT",
}


def keys(catalogue: Catalogue, battery: str | None = None, inverter: str | None = None) -> tuple[Key, ...]:
    """Every key there is, with the options of this battery and inverter; of all of them where the name is none."""
    return (
        *_battery_keys(catalogue.batteries, battery),
        Key("inverter", "name", str, None, "The inverter's protocol.", choices=tuple(catalogue.inverters), yours=True),
        Key("inverter", "off_grid", bool, False, "The house hangs on it: a silent inverter is warned of, not opened."),
        *_inverter_options(catalogue, battery, inverter),
        Key("wiring", "kind", str, None, _wiring_text(), choices=tuple(WIRINGS), yours=True),
        *LIMITS,
        *PRECHARGE,
        *CONTACTORS,
        *PLACES,
        *MQTT,
        *WEB,
        *HISTORY,
        *INFLUX,
        *INCIDENTS,
    )


def _battery_keys(batteries: Mapping[str, BatteryKind], name: str | None) -> tuple[Key, ...]:
    """The section of the battery. An option named like a key of every battery is that key, stated if it has to be."""
    common = (
        Key("battery", "name", str, None, "The battery's protocol.", choices=tuple(batteries), yours=True),
        Key("battery", "chemistry", str, None, "What its cells are.", choices=tuple(CHEMISTRIES), yours=True),
        Key("battery", "cells", int, None, "Cells in series.", "", 4, 240, yours=True),
        *_rows(
            "battery",
            PackSettings,
            ("energy_full_wh", 500, 200_000, "Wh", "Nameplate energy, for packs whose BMS does not tell."),
        ),
    )
    chosen = batteries.get(name or "")
    options = {key.name: key for key in _options("battery", batteries, name)}
    stated = [replace(key, yours=(key.name in options and options.pop(key.name).yours) or key.yours) for key in common]
    if any(kind.lacks for kind in ([chosen] if chosen else batteries.values())):
        stated.append(replace(PROTECTION, yours=chosen is not None))
    return (*stated, *options.values())


def _inverter_options(catalogue: Catalogue, battery: str | None, inverter: str | None) -> Iterator[Key]:
    """A battery that lacks its cells never tells their health: what the inverter is told of it has to be stated."""
    chosen = catalogue.batteries.get(battery or "")
    unhealthy = inverter in catalogue.inverters and chosen is not None and Feed.CELLS in chosen.lacks
    for key in _options("inverter", catalogue.inverters, inverter):
        yield replace(key, low=1, yours=True) if unhealthy and key.name == "soh_pct" else key


def _wiring_text() -> str:
    return "; ".join(f"{name}: {text}" for name, text in WIRINGS.items()) + "."


def _options(section: str, kinds: Mapping[str, Kind], name: str | None) -> Iterator[Key]:
    """The options of one kind, or of all; where two differ under one name, without bounds."""
    found: dict[str, Key] = {}
    chosen = kinds.values() if name is None or name not in kinds else [kinds[name]]
    for kind in chosen:
        for o in kind.options:
            yours = o.yours and name in kinds
            key = Key(
                section, o.name, type(o.default), o.default, o.text, o.unit, o.low, o.high, o.choices, o.pattern, yours
            )
            same = found.setdefault(o.name, key)
            if same != key:
                found[o.name] = replace(key, low=None, high=None, choices=(), pattern="")
    return iter(found.values())
