"""Home Assistant's MQTT discovery of one pack, as a value: one device, one retained message, all its components in it.

Device-based discovery, Home Assistant 2024.11 or newer: homeassistant/device/<id>/config. Names follow those of
dalathegreat/Battery-Emulator (Software/src/devboard/mqtt/mqtt.cpp), so that its users find what they know.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from controller.gateway.topics import PRESS, SEVERITIES, Message, Names
from controller.messages import CAP_MAX_S
from controller.model.battery import PackContactor
from controller.model.events import Event
from statecharts.supervisor import Contactor, State

COILS: Final[Mapping[str, tuple[Contactor, ...]]] = {
    "pack": (Contactor.PACK,),
    "pack+inverter": (Contactor.PACK, Contactor.POSITIVE),
    "own": (Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE),
    "none": (),
}
COIL_NAMES: Final[Mapping[Contactor, str]] = {
    Contactor.PACK: "Pack Contactors",
    Contactor.NEGATIVE: "Negative Contactor",
    Contactor.PRECHARGE: "Precharge Contactor",
    Contactor.POSITIVE: "Positive Contactor",
}
MEASURED: Final = "measurement"
LIMIT_STEP_W: Final = 10

Component = dict[str, Any]


class About(NamedTuple):
    """What is to be known of the pack. cells: how many have a voltage of their own, 0 for none. estop: wired to us."""

    title: str
    wiring: str
    cells: int
    estop: bool
    max_power_w: float
    program: str


def topic(names: Names, prefix: str) -> str:
    return f"{prefix}/device/{device_id(names)}/config"


def device_id(names: Names) -> str:
    return f"packwarden-{names.site}--{names.pack}"


def discovery(names: Names, prefix: str, about: About, old: bytes = b"") -> Message:
    """The message. old: the one that is retained; what it has and this one has not is taken out of Home Assistant."""
    components = dict(_components(names, about))
    device = device_id(names)
    for name, component in components.items():
        component["uniq_id"] = f"{device}-{name}"
    told = {
        "dev": {
            "ids": [device], "name": f"{names.site} {names.pack}", "mf": "packwarden", "mdl": about.title,
            "sw": about.program,
        },
        "o": {"name": "packwarden", "sw": about.program},
        "avty_t": names.topic("available"),
        "cmps": {**_removed(old, components), **components},
    }  # fmt: skip
    return Message(topic(names, prefix), json.dumps(told, ensure_ascii=False, separators=(",", ":")), qos=1)


def _removed(old: bytes, components: Mapping[str, Component]) -> dict[str, Component]:
    """A component with nothing but its platform takes it out (home-assistant/core, components/mqtt/discovery.py)."""
    try:
        before = json.loads(old)["cmps"]
        gone = {name: was["p"] for name, was in before.items() if name not in components}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: {"p": platform} for name, platform in gone.items()}


def _components(names: Names, about: About) -> Iterator[tuple[str, Component]]:
    yield from _sensors(names)
    yield from _cells(names, about.cells)
    yield from _binary_sensors(names, about)
    yield from _buttons(names)
    yield from _numbers(names, about)
    yield "event", {
        "p": "event", "name": "Event", "stat_t": names.topic("event"), "evt_typ": [event.value for event in Event],
        "ic": "mdi:information-outline",
    }  # fmt: skip


# --- what is read ---


class Row(NamedTuple):
    """One sensor. value: its place in the message. precision: decimals shown. options: of a text, all it can be."""

    id: str
    name: str
    value: str
    unit: str = ""
    kind: str = ""
    total: bool = False
    precision: int | None = None
    topic: str = "state"
    options: tuple[str, ...] = ()
    diagnostic: bool = False
    icon: str = ""


def _cap(direction: str, what: str) -> str:
    return f"(value_json.cap_{direction} or {{}}).{what} | default(None)"


SENSORS: Final = (
    Row("soc", "SOC", "signals.soc_pct", "%", "battery", precision=1),
    Row("state_of_health", "State of Health", "signals.soh_pct", "%", precision=1, icon="mdi:battery-heart-variant"),
    Row("battery_voltage", "Battery Voltage", "signals.pack_voltage_v", "V", "voltage", precision=1),
    Row("battery_current", "Battery Current", "signals.current_a", "A", "current", precision=1),
    Row("battery_power", "Battery Power", "power_w", "W", "power", precision=0),
    Row("temperature_min", "Temperature Min", "signals.temp_min_c", "°C", "temperature", precision=1),
    Row("temperature_max", "Temperature Max", "signals.temp_max_c", "°C", "temperature", precision=1),
    Row("cell_min_voltage", "Cell Min Voltage", "signals.cell_min_v", "V", "voltage", precision=3),
    Row("cell_max_voltage", "Cell Max Voltage", "signals.cell_max_v", "V", "voltage", precision=3),
    Row("cell_voltage_delta", "Cell Voltage Delta", "cell_spread_mv", "mV", "voltage", precision=0),
    Row("total_capacity", "Total Capacity", "signals.energy_full_wh", "Wh", "energy_storage"),
    Row("remaining_capacity", "Remaining Capacity", "signals.energy_remaining_wh", "Wh", "energy_storage"),
    Row("charged_energy", "Battery Charged Energy", "signals.charged_wh", "Wh", "energy", total=True),
    Row("discharged_energy", "Battery Discharged Energy", "signals.discharged_wh", "Wh", "energy", total=True),
    Row("max_charge_power", "Max Charge Power", "charge_w", "W", "power", topic="limits"),
    Row("max_discharge_power", "Max Discharge Power", "discharge_w", "W", "power", topic="limits"),
    Row("insulation_resistance", "Insulation Resistance", "signals.isolation_kohm", "kΩ", precision=0, diagnostic=True,
        icon="mdi:resistor"),
    Row("link_voltage", "Link Voltage", "signals.link_voltage_v", "V", "voltage", precision=1, diagnostic=True),
    Row("lv_supply", "12 V Supply", "signals.lv_supply_v", "V", "voltage", precision=1, diagnostic=True),
    Row("charge_limit_left", "Charge Limit Left", _cap("charge", "left_s"), "s", "duration",
        topic="limits", precision=0, diagnostic=True),
    Row("discharge_limit_left", "Discharge Limit Left", _cap("discharge", "left_s"), "s", "duration",
        topic="limits", precision=0, diagnostic=True),
)  # fmt: skip
TEXTS: Final = (
    Row("status", "Status", "state", options=tuple(state.value for state in State), icon="mdi:state-machine"),
    Row("cause", "Status Cause", "cause", icon="mdi:information-box-outline"),
    Row("waits_for", "Waits For", "(value_json.withheld | join('; ') or '–')[:250]", icon="mdi:timer-sand"),
    Row("event_level", "Event Level", "value_json.level or 'none'", options=("none", *SEVERITIES),
        icon="mdi:information-outline"),
    Row("pack_contactors_state", "Pack Contactors State", "signals.contactor_state", diagnostic=True,
        options=tuple(state.value for state in PackContactor), icon="mdi:electric-switch"),
    Row("charge_limited_by", "Charge Limited By", "charge_by", topic="limits", icon="mdi:home-battery-outline"),
    Row("discharge_limited_by", "Discharge Limited By", "discharge_by", topic="limits",
        icon="mdi:home-battery-outline"),
    Row("refusal", "Last Refusal", "value_json.why[:250]", topic="refused", diagnostic=True, icon="mdi:cancel"),
)  # fmt: skip


def _template(value: str) -> str:
    """Unknown comes out as None, which Home Assistant shows as unknown."""
    inside = value if "value_json" in value else f"value_json.{value}"
    return f"{{{{ {inside} }}}}"


def _sensor(names: Names, row: Row) -> Component:
    optional = {
        "unit_of_meas": row.unit, "dev_cla": row.kind, "ic": row.icon,
        "ent_cat": "diagnostic" if row.diagnostic else "",
    }  # fmt: skip
    component = {
        "p": "sensor", "name": row.name, "stat_t": names.topic(row.topic), "val_tpl": _template(row.value),
        **{key: value for key, value in optional.items() if value},
    }  # fmt: skip
    return component if row.precision is None else {**component, "sug_dsp_prc": row.precision}


def _sensors(names: Names) -> Iterator[tuple[str, Component]]:
    for row in SENSORS:
        yield row.id, {**_sensor(names, row), "stat_cla": "total_increasing" if row.total else MEASURED}
    for row in TEXTS:
        told = {"dev_cla": "enum", "ops": list(row.options)} if row.options else {}
        yield row.id, {**_sensor(names, row), **told}
    yield "balancing_cells", {
        "p": "sensor", "name": "Balancing Cells", "stat_t": names.topic("state"), "stat_cla": MEASURED,
        "val_tpl": "{{ None if value_json.balancing is none else value_json.balancing | length }}",
        "ent_cat": "diagnostic", "ic": "mdi:fuel-cell",
    }  # fmt: skip


def _cells(names: Names, cells: int) -> Iterator[tuple[str, Component]]:
    """Off until a person turns them on: a hundred entities is much for a recorder."""
    for number in range(1, cells + 1):
        volts = f"cells_v[{number - 1}] | default(None)"
        row = Row(f"cell_{number}", f"Cell Voltage {number}", volts, "V", "voltage", precision=3, topic="cells",
                  diagnostic=True)  # fmt: skip
        yield row.id, {**_sensor(names, row), "stat_cla": MEASURED, "en": False}


def _binary_sensors(names: Names, about: About) -> Iterator[tuple[str, Component]]:
    def row(name: str, told: str, topic: str = "state", **more: Any) -> Component:
        return {"p": "binary_sensor", "name": name, "stat_t": names.topic(topic), "val_tpl": told, **more}

    for coil in COILS[about.wiring]:
        on = _on_off(f"'{coil.value}' in value_json.closed")
        yield f"contactor_{coil.value}", row(COIL_NAMES[coil], on, ic="mdi:electric-switch")
    yield "enabled", row("Enabled", _on_off("value_json.enabled"), ic="mdi:check-circle-outline")
    acting = "value_json.faults | rejectattr('severity', 'eq', 'warning') | list"
    yield "fault", row("Fault", _on_off(acting), "faults", dev_cla="problem",
                       json_attr_t=names.topic("faults"), json_attr_tpl=_FAULT_WORDS)  # fmt: skip
    if about.estop:
        open_now = "value_json.faults | selectattr('id', 'eq', 'e-stop-open') | selectattr('active') | list"
        yield "e_stop", row("Emergency Stop", _on_off(open_now), "faults", dev_cla="safety")
    hvil, balancing, go = "value_json.signals.hvil_ok", "value_json.balancing", "value_json.inverter.go"
    yield "interlock", row("Interlock", _on_off(f"not {hvil}", hvil), dev_cla="safety")
    yield "balancing", row("Balancing", _on_off(balancing, balancing), dev_cla="running")
    yield "inverter_go", row("Inverter Gives Its Go", _on_off(go, go), ent_cat="diagnostic")


def _on_off(condition: str, known: str = "") -> str:
    """known: what is None while the state is unknown."""
    told = f"'ON' if {condition} else 'OFF'"
    return f"{{{{ 'None' if {known} is none else {told} }}}}" if known else f"{{{{ {told} }}}}"


_FAULT_WORDS: Final = (
    "{{ {'held': value_json.held, 'causes': value_json.faults | map(attribute='id') | list, "
    "'what': value_json.faults | map(attribute='what') | list, "
    "'do': value_json.faults | map(attribute='do') | list} | tojson }}"
)


# --- what is commanded ---

_HELD: Final = "{{ {'held': value_json.held} | tojson }}"
_NAME_THEM: Final = "{{ {'names': this.attributes.get('held', [])} | tojson }}"
"""A press acknowledges what the person saw as held, by name; what came a moment later stays."""


def _buttons(names: Names) -> Iterator[tuple[str, Component]]:
    def row(name: str, command: str, icon: str, **more: Any) -> Component:
        return {"p": "button", "name": name, "cmd_t": names.topic(f"command/{command}"), "ic": icon, "qos": 1, **more}

    yield "enable", row("Enable (Close Contactors)", "enable", "mdi:battery-sync-outline", pl_prs=PRESS)
    yield "stop", row("Stop (Open Contactors)", "stop", "mdi:battery-remove-outline", pl_prs=PRESS)
    yield "unlimit", row("Lift Power Limits", "unlimit", "mdi:speedometer", pl_prs=PRESS)
    yield "acknowledge", row(
        "Acknowledge Held Causes", "acknowledge", "mdi:check-all", cmd_tpl=_NAME_THEM,
        json_attr_t=names.topic("faults"), json_attr_tpl=_HELD,
    )  # fmt: skip


def _numbers(names: Names, about: About) -> Iterator[tuple[str, Component]]:
    def row(name: str, command: str, told: str, unit: str, kind: str, low: float, high: float, step: float
            ) -> Component:  # fmt: skip
        return {
            "p": "number", "name": name, "cmd_t": names.topic(f"command/{command}"), "qos": 1,
            "stat_t": names.topic("limits"), "val_tpl": _template(told), "unit_of_meas": unit, "dev_cla": kind,
            "min": low, "max": high, "step": step, "mode": "box",
        }  # fmt: skip

    for direction in ("charge", "discharge"):
        yield f"{direction}_limit", row(
            f"{direction.title()} Limit", f"{direction}_limit", _cap(direction, "limit_w"), "W", "power",
            0, about.max_power_w, LIMIT_STEP_W,
        )  # fmt: skip
    lasts, most = "value_json.lasts_s / 60", CAP_MAX_S / 60
    yield "limit_minutes", row("Limit Duration", "limit_minutes", lasts, "min", "duration", 1, most, 1)
