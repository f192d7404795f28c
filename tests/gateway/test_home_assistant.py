"""What Home Assistant is told: the shape of the discovery, names people know, and templates that find their values."""

from __future__ import annotations

import json
from typing import Any

import jinja2
import pytest

from controller.gateway import topics
from controller.gateway.home_assistant import About, discovery
from controller.gateway.hub import Newest
from controller.gateway.topics import LASTS_S, Names
from controller.gateway.wall import Stamp
from controller.model.events import Event
from tests.gateway import statuses

NAMES = Names("packwarden", "barn", "leaf")
ABOUT = About("Nissan Leaf", "own", 96, True, 5000.0, "0.1.0")
COMMON = {"p", "name", "uniq_id", "ic", "ent_cat"}
READ = COMMON | {"stat_t", "val_tpl", "dev_cla"}
ALLOWED = {
    "sensor": READ | {"unit_of_meas", "stat_cla", "sug_dsp_prc", "ops", "en"},
    "binary_sensor": READ | {"json_attr_t", "json_attr_tpl"},
    "button": COMMON | {"cmd_t", "pl_prs", "cmd_tpl", "qos", "json_attr_t", "json_attr_tpl"},
    "number": READ | {"cmd_t", "qos", "unit_of_meas", "min", "max", "step", "mode"},
    "event": COMMON | {"stat_t", "evt_typ"},
}
"""Keys of the MQTT platforms in Home Assistant's documentation that we use, in their short form."""
BATTERY_EMULATOR = (
    "State of Health", "Temperature Min", "Temperature Max", "Battery Power", "Battery Current", "Cell Max Voltage",
    "Cell Min Voltage", "Cell Voltage Delta", "Battery Voltage", "Total Capacity", "Remaining Capacity",
    "Max Discharge Power", "Max Charge Power", "Battery Charged Energy", "Battery Discharged Energy",
    "Insulation Resistance", "Balancing Cells", "Event Level", "Event",
)  # fmt: skip
"""Names in Software/src/devboard/mqtt/mqtt.cpp of dalathegreat/Battery-Emulator."""


def told(about: About = ABOUT, old: bytes = b"") -> dict[str, Any]:
    found = json.loads(discovery(NAMES, "homeassistant", about, old).payload)
    assert isinstance(found, dict)
    return found


def components(about: About = ABOUT) -> dict[str, dict[str, Any]]:
    found = told(about)["cmps"]
    assert isinstance(found, dict)
    return found


def shown(component: dict[str, Any], status: statuses.Status, template: str = "val_tpl") -> str:
    """What Home Assistant shows of this status."""
    sent = topics.messages(NAMES, Newest(status, 0.0, Stamp(0.0, True)), LASTS_S)
    bodies = {message.topic: json.loads(message.payload) for message in sent}
    where = component.get("stat_t" if template == "val_tpl" else "json_attr_t", "")
    return rendered(component[template], value_json=bodies[where])


def rendered(template: str, **values: Any) -> str:
    environment = jinja2.Environment()
    environment.filters["tojson"] = json.dumps
    return environment.from_string(template).render(**values)


# --- its shape ---


def test_it_is_one_retained_message_of_one_device():
    message = discovery(NAMES, "homeassistant", ABOUT)
    assert message.topic == "homeassistant/device/packwarden-barn--leaf/config"
    assert (message.qos, message.retain) == (1, True)
    assert set(json.loads(message.payload)) == {"dev", "o", "avty_t", "cmps"}
    assert len(message.payload) < 64 * 1024


def test_two_packs_never_share_an_id():
    one = discovery(Names("packwarden", "a_b", "c"), "homeassistant", ABOUT)
    other = discovery(Names("packwarden", "a", "b_c"), "homeassistant", ABOUT)
    assert one.topic != other.topic
    ids = [{c["uniq_id"] for c in json.loads(m.payload)["cmps"].values()} for m in (one, other)]
    assert not ids[0] & ids[1]


def test_availability_is_that_of_gateway_and_control():
    assert told()["avty_t"] == topics.available(NAMES, heard=True).topic
    assert (topics.available(NAMES, True).payload, topics.available(NAMES, False).payload) == ("online", "offline")


@pytest.mark.parametrize(("name", "component"), components().items())
def test_each_component_has_only_keys_its_platform_knows(name: str, component: dict[str, Any]):
    assert component.keys() <= ALLOWED[component["p"]]
    assert component["uniq_id"].endswith(f"-{name}")


def test_names_and_unique_ids_are_there_once():
    for key in ("name", "uniq_id"):
        found = [component[key] for component in components().values()]
        assert len(found) == len(set(found))


def test_every_state_topic_is_one_we_publish_and_every_command_topic_one_we_listen_to():
    published = {NAMES.topic(name) for name in ("state", "limits", "cells", "faults", "event", "refused")}
    for component in components().values():
        assert component.get("stat_t", NAMES.topic("state")) in published
        assert component.get("cmd_t", topics.commands(NAMES)[0]) in topics.commands(NAMES)


def test_users_of_battery_emulator_find_the_names_they_know():
    assert set(BATTERY_EMULATOR) <= {component["name"] for component in components().values()}


@pytest.mark.parametrize(("name", "unit", "kind", "state"), [
    ("soc", "%", "battery", "measurement"),
    ("battery_voltage", "V", "voltage", "measurement"),
    ("battery_power", "W", "power", "measurement"),
    ("cell_voltage_delta", "mV", "voltage", "measurement"),
    ("temperature_min", "°C", "temperature", "measurement"),
    ("total_capacity", "Wh", "energy_storage", "measurement"),
    ("charged_energy", "Wh", "energy", "total_increasing"),
])  # fmt: skip
def test_sensors_say_what_they_measure(name: str, unit: str, kind: str, state: str):
    sensor = components()[name]
    assert (sensor["unit_of_meas"], sensor["dev_cla"], sensor["stat_cla"]) == (unit, kind, state)


# --- what fits the pack ---


def test_each_cell_has_a_sensor_that_is_off_by_default():
    cells = [component for name, component in components().items() if name.startswith("cell_") and name[5:].isdigit()]
    assert len(cells) == 96
    assert not any(cell["en"] for cell in cells)


@pytest.mark.parametrize(("wiring", "coils"), [
    ("pack", {"contactor_pack"}),
    ("pack+inverter", {"contactor_pack", "contactor_positive"}),
    ("own", {"contactor_negative", "contactor_precharge", "contactor_positive"}),
    ("none", set()),
])  # fmt: skip
def test_there_are_the_contactors_of_the_wiring(wiring: str, coils: set[str]):
    found = components(ABOUT._replace(wiring=wiring))
    assert {name for name in found if name.startswith("contactor_")} == coils


def test_an_emergency_stop_that_is_not_wired_is_not_shown():
    assert "e_stop" in components()
    assert "e_stop" not in components(ABOUT._replace(estop=False))


def test_cells_that_are_no_more_are_taken_out_and_named_again_when_they_come_back():
    before = discovery(NAMES, "homeassistant", ABOUT).payload.encode()
    fewer = told(ABOUT._replace(cells=94), before)["cmps"]
    assert fewer["cell_95"] == fewer["cell_96"] == {"p": "sensor"}
    again = told(ABOUT, json.dumps({"cmps": fewer}).encode())["cmps"]
    assert again["cell_96"]["name"] == "Cell Voltage 96"


def test_nothing_is_taken_out_twice_or_without_reason():
    before = discovery(NAMES, "homeassistant", ABOUT).payload
    assert discovery(NAMES, "homeassistant", ABOUT, before.encode()).payload == before
    fewer = ABOUT._replace(cells=94)
    after = discovery(NAMES, "homeassistant", fewer, before.encode()).payload
    assert discovery(NAMES, "homeassistant", fewer, after.encode()).payload == after


@pytest.mark.parametrize("old", [b"", b"{", b"[]", b"7", b'{"cmps": 7}', b'{"cmps": {"a": {}}}', b"\xff"])
def test_an_old_message_that_is_none_of_ours_changes_nothing(old: bytes):
    assert told(ABOUT, old) == told()


# --- what is shown ---


@pytest.mark.parametrize(("name", "text"), [
    ("soc", "55.0"), ("battery_voltage", "362.4"), ("status", "RUNNING"), ("cause", "pack-closed"),
    ("max_charge_power", "5000"), ("charge_limited_by", "max_power_w"), ("contactor_pack", "ON"), ("enabled", "ON"),
    ("fault", "OFF"), ("interlock", "OFF"), ("inverter_go", "ON"), ("event_level", "none"), ("waits_for", "–"),
    ("pack_contactors_state", "CLOSED"), ("charge_limit", "None"), ("charge_limit_left", "None"),
    ("limit_minutes", "60.0"),
])  # fmt: skip
def test_a_running_pack_is_shown(name: str, text: str):
    component = components(ABOUT._replace(wiring="pack"))[name]
    assert shown(component, statuses.running()) == text


def test_a_cell_shows_its_own_voltage():
    status = statuses.running()
    assert shown(components()["cell_96"], status) == str(status["cells_v"][95])
    status["cells_v"] = status["cells_v"][:95]
    assert shown(components()["cell_96"], status) == "None"


def test_what_is_unknown_is_shown_as_unknown():
    unknown = ("soc", "battery_power", "cell_min_voltage", "interlock", "inverter_go", "charged_energy", "balancing",
               "balancing_cells", "pack_contactors_state", "cell_1")  # fmt: skip
    status = {**statuses.unheard(), "balancing": None}
    status["inverter"]["go"] = None
    for name in unknown:
        assert shown(components()[name], status) == "None", name


def test_every_template_renders_for_every_status():
    for status in (statuses.running(), statuses.held(), statuses.unheard()):
        for component in components(ABOUT._replace(wiring="pack")).values():
            if "val_tpl" in component and component["stat_t"] != NAMES.topic("refused"):
                assert shown(component, status)


def test_balancing_is_shown_with_the_number_of_cells():
    status = {**statuses.running(), "balancing": [3, 7]}
    assert shown(components()["balancing"], status) == "ON"
    assert shown(components()["balancing_cells"], status) == "2"
    assert shown(components()["balancing"], {**status, "balancing": []}) == "OFF"


def test_a_held_cause_is_a_fault_with_its_words():
    fault = components()["fault"]
    assert shown(fault, statuses.held()) == "ON"
    words = json.loads(shown(fault, statuses.held(), "json_attr_tpl"))
    assert words["held"] == words["causes"] == ["hvil-open"]
    assert words["do"][0]


def test_a_warning_is_no_fault():
    status = statuses.held()
    status["faults"][0].update(severity="warning", held=False)
    assert shown(components()["fault"], status) == "OFF"
    assert shown(components()["event_level"], status) == "warning"


def test_a_pressed_emergency_stop_is_unsafe():
    status = statuses.held()
    status["faults"][0].update(id="e-stop-open", active=True)
    assert shown(components()["e_stop"], status) == "ON"
    status["faults"][0]["active"] = False
    assert shown(components()["e_stop"], status) == "OFF"


def test_a_limit_is_shown_with_what_is_left_of_it():
    status = statuses.running()
    status["cap"]["discharge"] = {"limit_w": 1500.0, "left_s": 12.5}
    assert shown(components()["discharge_limit"], status) == "1500.0"
    assert shown(components()["discharge_limit_left"], status) == "12.5"


# --- what is commanded ---


def test_acknowledging_names_what_the_person_saw_as_held():
    button = components()["acknowledge"]
    attributes = json.loads(shown(button, statuses.held(), "json_attr_tpl"))
    payload = rendered(button["cmd_tpl"], this={"attributes": attributes})
    wish = topics.wish(NAMES, button["cmd_t"], payload.encode(), LASTS_S)
    assert wish.asks == ({"do": "acknowledge", "name": "hvil-open"},)


def test_acknowledging_when_nothing_is_held_is_refused():
    payload = rendered(components()["acknowledge"]["cmd_tpl"], this={"attributes": {}})
    with pytest.raises(topics.Refused, match="nothing is named"):
        topics.wish(NAMES, components()["acknowledge"]["cmd_t"], payload.encode(), LASTS_S)


@pytest.mark.parametrize(("name", "do"), [("enable", "enable"), ("stop", "stop"), ("unlimit", "cap")])
def test_buttons_ask_for_what_they_say(name: str, do: str):
    button = components()[name]
    (ask,) = topics.wish(NAMES, button["cmd_t"], button["pl_prs"].encode(), LASTS_S).asks
    assert ask["do"] == do


def test_numbers_reach_from_nothing_to_the_power_of_the_config():
    numbers = {name: component for name, component in components().items() if component["p"] == "number"}
    assert set(numbers) == {"charge_limit", "discharge_limit", "limit_minutes"}
    assert (numbers["charge_limit"]["min"], numbers["charge_limit"]["max"]) == (0, 5000)
    for name, number in numbers.items():
        for edge in ("min", "max"):
            topics.wish(NAMES, number["cmd_t"], str(float(number[edge])).encode(), LASTS_S), name


def test_every_event_can_be_an_event_of_home_assistant():
    assert components()["event"]["evt_typ"] == [event.value for event in Event]
