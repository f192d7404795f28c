"""The topics and keys of batt2gen24, for what its users have built on them. As values; see docs/mqtt.md.

Topics and keys: README of pelle8/batteryemulator on gitlab. Those of its examples (bms/stat, inverter/data) are kept
exactly, with their units: V, A, W, %, °C, kWh in bms/stat, Wh in inverter/data, times in seconds since 1970.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from controller.gateway.hub import Newest, Status
from controller.gateway.topics import Message, Refused, Wish, checked, object_of, power_w, text_of

WRITTEN_BY_INVERTER: Final = ("401",)
"""Blocks of registers a BYD Modbus inverter writes."""
CONTROL: Final = {"close_contactor": "enable", "open_contactor": "stop"}
SPECIFIC: Final = ("contactor_state", "hvil_ok", "isolation_kohm", "lv_supply_v", "link_voltage_v", "serial")
RELAY: Final = '{"type": "relay", "id": 0, "state": "on"}'
NO_FAULT_TEST: Final = "test_bms_fault works in sim and with --allow-fault-injection, not in a normal run"

Object = dict[str, Any]


class Names(NamedTuple):
    """prefix: before every topic, empty as there. host: the name in tele/. max_power_w: that of the config."""

    prefix: str
    host: str
    max_power_w: float


def messages(names: Names, newest: Newest) -> list[Message]:
    """Everything batt2gen24 publishes. Nothing of it is retained, as there. Unknown is null."""
    status, stamp_s = newest.status, newest.stamp.utc_s
    objects = {
        "bms/stat": _stat(status, stamp_s),
        "bms/cellstat": {"cells": status["cells_v"], "last_updated": stamp_s},
        "bms/static": _static(status),
        "bms/target": _target(status),
        "bms/specific": {name: status["signals"][name] for name in SPECIFIC},
        "inverter/data": _inverter(names, status, stamp_s),
        "inverter/registers": _written(status),
    }
    objects[f"tele/batt2gen24_{names.host}/STATE"] = dict(objects)
    return [
        Message(names.prefix + topic, json.dumps(told, allow_nan=False), retain=False)
        for topic, told in objects.items()
    ]


def refused_topic(names: Names) -> str:
    return f"{names.prefix}controller/refused"


def _updated(status: Status, signal: str, stamp_s: float) -> float | None:
    """When the signal was last valid; None when it never was."""
    age_s = status["ages_s"].get(signal)
    return None if age_s is None else round(stamp_s - age_s, 3)


def _stat(status: Status, stamp_s: float) -> Object:
    told = status["signals"]
    full_wh, soh_pct = told["energy_full_wh"], told["soh_pct"]
    return {
        "stat_batt_voltage": told["pack_voltage_v"],
        "last_updated": _updated(status, "pack_voltage_v", stamp_s),
        "stat_batt_current": told["current_a"],
        "stat_batt_power": power_w(status),
        "stat_soc": told["soc_pct"],
        "last_updated_soc": _updated(status, "soc_pct", stamp_s),
        "stat_bat_beginning_of_life": round(full_wh / soh_pct / 10, 1) if full_wh and soh_pct else None,
        "stat_min_cell_t": told["temp_min_c"],
        "stat_max_cell_t": told["temp_max_c"],
        "stat_nominal_full_pack_energy": None if full_wh is None else round(full_wh / 1000, 1),
        "stat_min_cell_u": told["cell_min_v"],
        "stat_max_cell_u": told["cell_max_v"],
    }


def _static(status: Status) -> Object:
    told = status["signals"]
    return {
        "static_number_of_cells": told["cells"], "static_nominal_capacity": told["energy_full_wh"],
        "static_max_voltage": told["design_max_v"], "static_min_voltage": told["design_min_v"],
    }  # fmt: skip


def _target(status: Status) -> Object:
    """The power that is allowed now, and the current that makes at the pack's voltage."""
    volts = status["signals"]["pack_voltage_v"]
    told: Object = {}
    for name in ("charge", "discharge"):
        watts = status["limits"][f"{name}_w"]
        told[f"target_{name}_power"] = watts
        told[f"target_{name}_current"] = round(watts / volts, 1) if volts else None
    return told


def _inverter(names: Names, status: Status, stamp_s: float) -> Object:
    told, said = status["signals"], status["inverter"]["says"].get("301", {})
    return {
        "static_nominal_capacity": told["energy_full_wh"],
        "static_max_power": names.max_power_w,
        "static_max_voltage": told["design_max_v"],
        "static_min_voltage": told["design_min_v"],
        "status": said.get("status"),
        "mode": said.get("mode"),
        "soc": told["soc_pct"],
        "soh": told["soh_pct"],
        "target_discharge_power": status["limits"]["discharge_w"],
        "target_charge_power": status["limits"]["charge_w"],
        "batt_voltage": told["pack_voltage_v"],
        "batt_power": power_w(status),
        "cell_temp_min": told["temp_min_c"],
        "cell_temp_max": told["temp_max_c"],
        "cell_voltage_min": told["cell_min_v"],
        "cell_voltage_max": told["cell_max_v"],
        "last_updated": _updated(status, "pack_voltage_v", stamp_s),
        "last_updated_soc": _updated(status, "soc_pct", stamp_s),
    }


def _written(status: Status) -> Object:
    registers = status["inverter"]["registers"]
    return {first: registers[first] for first in WRITTEN_BY_INVERTER if first in registers}


# --- commands ---


def commands(names: Names) -> list[str]:
    """The topics to subscribe to."""
    return [names.prefix + topic for topic in COMMANDS]


def wish(names: Names, topic: str, payload: bytes) -> Wish | None:
    """The wish behind a payload; None for our own bms/specific that comes back. Raises Refused."""
    return COMMANDS[topic.removeprefix(names.prefix)](text_of(payload))


def _control(text: str) -> Wish:
    if text not in CONTROL:
        raise Refused(f"must be one of {', '.join(CONTROL)}")
    return Wish(({"do": CONTROL[text]},))


def _external(text: str) -> Wish:
    told = object_of(text)
    if set(told) != {"type", "id", "state"} or told["type"] != "relay" or told["state"] not in ("on", "off"):
        raise Refused(f"must look like {RELAY}, with state on or off")
    return checked(Wish(({"do": "relay", "id": told["id"], "on": told["state"] == "on"},)))


def _specific(text: str) -> Wish | None:
    told = object_of(text)
    if told.keys() == set(SPECIFIC):
        return None
    if list(told) == ["test_bms_fault"]:
        raise Refused(NO_FAULT_TEST)
    raise Refused('only {"test_bms_fault": 1} is a command here')


COMMANDS: Final[Mapping[str, Callable[[str], Wish | None]]] = {
    "bms/control": _control,
    "external/control": _external,
    "bms/specific": _specific,
}
