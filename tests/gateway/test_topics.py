"""Statuses as MQTT messages, payloads as commands: our own tree, and batt2gen24's topics as its README shows them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.gateway import batt2gen24, topics
from controller.gateway.hub import Happening, Newest
from controller.gateway.topics import LASTS_S, Names, Refused, Wish
from controller.gateway.wall import Stamp
from controller.messages import line_of, parse
from tests.gateway import statuses

NAMES = Names("packwarden", "barn", "leaf")
OLD = batt2gen24.Names("", "hassbian", 5000.0)
STAMP = Stamp(1_687_763_171.613, True)
README_STAT = """{"stat_batt_voltage": 362.34000000000003, "last_updated": 1687763171.613073, "stat_batt_current": 0.5,
"stat_batt_power": 181.17000000000002, "stat_soc": 49.1, "last_updated_soc": 1687763171.5606484,
"stat_bat_beginning_of_life": 82.1, "stat_min_cell_t": 23, "stat_max_cell_t": 27,
"stat_nominal_full_pack_energy": 72.5, "stat_min_cell_u": 3.764, "stat_max_cell_u": 3.78}"""
README_INVERTER = """{"static_nominal_capacity": 60000, "static_max_power": 6000, "static_max_voltage": 402.56,
"static_min_voltage": 242.14000000000001, "status": 3, "mode": 129, "soc": 49.1, "soh": 88.30694275274057,
"target_discharge_power": 7974, "target_charge_power": 7974, "batt_voltage": 362.48, "batt_power": 181.24,
"cell_temp_min": 23, "cell_temp_max": 27, "cell_voltage_min": 3.764, "cell_voltage_max": 3.78,
"last_updated": 1687762796.7101412, "last_updated_soc": 1687762796.6628082}"""
"""As printed by mosquitto_sub in the README of batt2gen24."""


def told(status: statuses.Status) -> dict[str, Any]:
    """Topic → object, of our tree."""
    sent = topics.messages(NAMES, Newest(status, 0.0, STAMP), LASTS_S)
    return {message.topic: json.loads(message.payload) for message in sent}


def old(status: statuses.Status, names: batt2gen24.Names = OLD) -> dict[str, Any]:
    return {m.topic: json.loads(m.payload) for m in batt2gen24.messages(names, Newest(status, 0.0, STAMP))}


# --- batt2gen24 ---


def test_bms_stat_has_the_keys_of_the_readme_in_their_order():
    assert list(old(statuses.running())["bms/stat"]) == list(json.loads(README_STAT))


def test_inverter_data_has_the_keys_of_the_readme_in_their_order():
    assert list(old(statuses.running())["inverter/data"]) == list(json.loads(README_INVERTER))


def test_bms_stat_is_in_the_units_of_the_readme():
    """A pack like the one there: 72.5 of once 82.1 kWh, 96 cells of 3.77 V, a current of some ampere."""
    status = statuses.running()
    status["signals"].update(pack_voltage_v=362.34, current_a=0.5, soc_pct=49.1, temp_min_c=23.0, temp_max_c=27.0)
    status["ages_s"].update(pack_voltage_v=0.25, soc_pct=1.5)
    stat = old(status)["bms/stat"]
    assert stat["stat_batt_voltage"] == 362.34
    assert stat["stat_batt_power"] == pytest.approx(181.17, abs=0.5)
    assert (stat["stat_nominal_full_pack_energy"], stat["stat_bat_beginning_of_life"]) == (72.5, 82.1)
    assert (stat["stat_min_cell_t"], stat["stat_max_cell_t"]) == (23, 27)
    assert (stat["last_updated"], stat["last_updated_soc"]) == (1687763171.363, 1687763170.113)


def test_inverter_data_tells_what_the_inverter_is_told():
    data = old(statuses.running())["inverter/data"]
    assert (data["status"], data["mode"], data["static_max_power"]) == (3, 128, 5000.0)
    assert (data["target_charge_power"], data["target_discharge_power"]) == (5000, 5000)
    assert data["static_nominal_capacity"] == 72500


def test_what_the_inverter_wrote_is_published_and_what_it_reads_is_not():
    registers = old(statuses.running())["inverter/registers"]
    assert list(registers) == ["401"]
    assert registers["401"][:2] == [2, 65280]


def test_the_tele_topic_of_this_host_holds_every_object_under_its_topic():
    sent = old(statuses.running())
    state = sent.pop("tele/batt2gen24_hassbian/STATE")
    assert state == sent
    assert {"bms/stat", "bms/cellstat", "bms/static", "bms/target", "bms/specific", "inverter/data"} <= state.keys()


def test_unknown_is_null_with_every_key_there():
    stat, data = (old(statuses.unheard())[name] for name in ("bms/stat", "inverter/data"))
    assert set(stat.values()) == {None}
    assert list(data) == list(json.loads(README_INVERTER))
    assert data["soc"] is data["last_updated"] is data["batt_power"] is None


def test_the_prefix_goes_before_every_topic():
    sent = old(statuses.running(), OLD._replace(prefix="garage/"))
    assert sent
    assert all(topic.startswith("garage/") for topic in sent)
    assert batt2gen24.refused_topic(OLD._replace(prefix="garage/")) == "garage/controller/refused"


def test_nothing_of_batt2gen24_is_retained():
    assert not [m for m in batt2gen24.messages(OLD, Newest(statuses.running(), 0.0, STAMP)) if m.retain or m.qos]


# --- our tree ---


def test_every_message_says_when_in_utc_and_whether_the_clock_was_right():
    for clock in (True, False, None):
        sent = topics.messages(NAMES, Newest(statuses.running(), 0.0, Stamp(STAMP.utc_s, clock)), LASTS_S)
        for message in sent:
            about = json.loads(message.payload)
            assert (about["schema"], about["at"]) == (1, "2023-06-26T07:06:11.613Z")
            assert about["clock_synchronised"] is clock


def test_the_state_tells_signals_with_their_ages_and_what_follows_from_them():
    status = statuses.running()
    status["signals"].update(pack_voltage_v=360.0, current_a=-10.0, cell_min_v=3.7, cell_max_v=3.752)
    state = told(status)["packwarden/barn/leaf/state"]
    assert state["state"] == "RUNNING"
    assert state["signals"] == status["signals"]
    assert state["ages_s"] == status["ages_s"]
    assert (state["power_w"], state["cell_spread_mv"]) == (-3600, 52)


def test_what_is_not_known_is_null_in_the_state():
    state = told(statuses.unheard())["packwarden/barn/leaf/state"]
    assert state["power_w"] is state["cell_spread_mv"] is state["level"] is None


def test_a_held_cause_is_told_with_its_words_and_among_those_to_acknowledge():
    faults = told(statuses.held())["packwarden/barn/leaf/faults"]
    assert (faults["held"], faults["level"]) == (["hvil-open"], "open")
    assert faults["faults"][0]["do"]


def test_the_caps_and_how_long_the_next_one_lasts_stand_beside_the_limits():
    status = statuses.running()
    status["cap"]["charge"] = {"limit_w": 2000.0, "left_s": 12.5}
    limits = told(status)["packwarden/barn/leaf/limits"]
    assert limits["cap_charge"] == {"limit_w": 2000.0, "left_s": 12.5}
    assert (limits["cap_discharge"], limits["lasts_s"], limits["charge_by"]) == (None, 3600.0, "max_power_w")


def test_state_limits_cells_and_faults_are_retained():
    sent = topics.messages(NAMES, Newest(statuses.running(), 0.0, STAMP), LASTS_S)
    assert {m.topic.rpartition("/")[2]: m.retain for m in sent} == dict.fromkeys(
        ("state", "limits", "cells", "faults"), True
    )


def happening(number: int, t_s: float, name: str = "hvil-open", boot: str = "b") -> Happening:
    return Happening(number, boot, t_s, name, "open", "contactors CLOSED", STAMP)


def test_an_event_carries_its_words_and_its_place_in_time():
    message = topics.event(NAMES, happening(1, 12.5))
    body = json.loads(message.payload)
    assert (message.topic, message.qos, message.retain) == ("packwarden/barn/leaf/event", 1, True)
    assert (body["event_type"], body["severity"], body["t_s"], body["boot"]) == ("hvil-open", "open", 12.5, "b")
    assert "interlock" in body["what"]
    assert body["do"]


def test_an_event_of_a_newer_control_process_has_no_words_but_is_told():
    body = json.loads(topics.event(NAMES, happening(1, 12.5, "never-heard-of")).payload)
    assert (body["event_type"], body["what"], body["do"]) == ("never-heard-of", None, None)


def test_after_a_restart_of_the_gateway_events_go_on_behind_the_one_sent_last():
    """Two of them in one tick: the one behind it is not lost, the one before it not repeated."""
    happened = [happening(1, 5.0), happening(2, 7.0), happening(3, 7.0, "state-changed"), happening(4, 9.0)]
    until = topics.sent_until(topics.event(NAMES, happened[1]).payload.encode())
    assert until is not None
    assert [one.number for one in topics.unsent(happened, until)] == [3, 4]


def test_after_a_restart_of_the_machine_every_event_is_new():
    until = topics.sent_until(topics.event(NAMES, happening(1, 7.0, boot="earlier")).payload.encode())
    assert until is not None
    assert [one.number for one in topics.unsent([happening(1, 7.0), happening(2, 8.0)], until)] == [1, 2]


@pytest.mark.parametrize("payload", [b"", b"{}", b"[1]", b"7", b"\xff", b'{"boot": 1}', b"[" * 5000])
def test_a_retained_event_that_is_none_of_ours_says_nothing(payload: bytes):
    assert topics.sent_until(payload) is None


# --- commands ---


def wish(name: str, payload: str | bytes, lasts_s: float = LASTS_S) -> Wish:
    data = payload if isinstance(payload, bytes) else payload.encode()
    return topics.wish(NAMES, NAMES.topic(f"command/{name}"), data, lasts_s)


def old_wish(topic: str, payload: str | bytes) -> Wish | None:
    return batt2gen24.wish(OLD, topic, payload if isinstance(payload, bytes) else payload.encode())


@pytest.mark.parametrize(("name", "payload", "asks"), [
    ("enable", "PRESS", ({"do": "enable"},)),
    ("stop", "PRESS", ({"do": "stop"},)),
    ("stop", "PRESS\n", ({"do": "stop"},)),
    ("acknowledge", "hvil-open", ({"do": "acknowledge", "name": "hvil-open"},)),
    ("acknowledge", '{"names": ["hvil-open", "bms-fault"]}',
     ({"do": "acknowledge", "name": "hvil-open"}, {"do": "acknowledge", "name": "bms-fault"})),
    ("limit", '{"charge_w": 2000, "for_s": 7200}', ({"do": "cap", "charge_w": 2000, "for_s": 7200},)),
    ("charge_limit", "2000", ({"do": "cap", "charge_w": 2000.0, "for_s": 3600.0},)),
    ("discharge_limit", "0", ({"do": "cap", "discharge_w": 0.0, "for_s": 3600.0},)),
])  # fmt: skip
def test_a_command_becomes_what_control_understands(name: str, payload: str, asks: tuple[dict[str, Any], ...]):
    found = wish(name, payload)
    assert tuple(dict(ask) for ask in found.asks) == asks
    assert all(parse(line_of(ask)).command is not None for ask in found.asks)


def test_a_cap_from_a_slider_lasts_as_long_as_was_set():
    lasts_s = wish("limit_minutes", "90").lasts_s
    assert lasts_s == 5400
    assert wish("charge_limit", "1500.5", lasts_s).asks[0]["for_s"] == 5400


def test_lifting_a_limit_is_one_above_all_that_is_over_at_once():
    (ask,) = wish("unlimit", "PRESS").asks
    command = parse(line_of(ask)).command
    assert command is not None
    assert (command.charge_w, command.discharge_w, command.for_ms) == (1_000_000, 1_000_000, 1000)


@pytest.mark.parametrize(("name", "payload", "why"), [
    ("enable", "", "only PRESS"),
    ("enable", "press", "only PRESS"),
    ("stop", '{"a": 1}', "only PRESS"),
    ("acknowledge", "", "nothing is named"),
    ("acknowledge", '{"names": []}', "nothing is named"),
    ("acknowledge", '{"names": ["a"], "names": ["b"]}', "a key is there twice"),
    ("acknowledge", '{"names": [1]}', "name: must be a line"),
    ("acknowledge", '{"names": "hvil-open"}', "write a name"),
    ("acknowledge", '{"all": true}', "write a name"),
    ("acknowledge", json.dumps({"names": ["a"] * 33}), "at most 32 names"),
    ("acknowledge", "a" * 201, "name: must be a line of 1 to 200"),
    ("limit", "2000", "no JSON object"),
    ("limit", "{", "no JSON"),
    ("limit", '{"charge_w": 2000}', "for_s: is missing"),
    ("limit", '{"for_s": 60}', "charge_w: or discharge_w"),
    ("limit", '{"charge_w": -1, "for_s": 60}', "charge_w: must be a number"),
    ("limit", '{"charge_w": true, "for_s": 60}', "charge_w: must be a number"),
    ("limit", '{"charge_w": NaN, "for_s": 60}', "NaN is no number"),
    ("limit", '{"charge_w": 1e999, "for_s": 60}', "cannot be passed on"),
    ("limit", '{"charge_w": 1, "for_s": 604801}', "for_s: must be"),
    ("limit", '{"do": "enable", "charge_w": 1, "for_s": 60}', "a limit has"),
    ("limit", '{"version": 2, "charge_w": 1, "for_s": 60}', "a limit has"),
    ("limit", '{"inspected": "all", "charge_w": 1, "for_s": 60}', "cap has no such field"),
    ("limit", '{"\\ud800": 1, "charge_w": 1, "for_s": 60}', "\\ud800: cap has no such field"),
    ("limit", "[" * 1500, "no JSON"),
    ("charge_limit", "-5", "no number of W"),
    ("charge_limit", "nan", "no number of W"),
    ("charge_limit", "1e3", "no number of W"),
    ("charge_limit", "99999999", "no number of W"),
    ("charge_limit", "9999999", "charge_w: must be a number"),
    ("limit_minutes", "0", "from 1 to 10080"),
    ("limit_minutes", "10081", "from 1 to 10080"),
    ("enable", b"\xff\xfe", "no text"),
    ("enable", b"P" * 5000, "at most 2048 bytes"),
])  # fmt: skip
def test_what_cannot_be_obeyed_is_refused_with_its_reason(name: str, payload: str | bytes, why: str):
    with pytest.raises(Refused) as refusal:
        wish(name, payload)
    assert why in str(refusal.value)


@pytest.mark.parametrize("do", ["unlock", "recovery-charge"])
def test_what_needs_a_person_at_the_machine_has_no_topic(do: str):
    assert not [topic for topic in topics.commands(NAMES) if do in topic]
    with pytest.raises(KeyError):
        wish(do, "PRESS")


def test_batt2gen24_closes_and_opens():
    assert old_wish("bms/control", "close_contactor") == Wish(({"do": "enable"},))
    assert old_wish("bms/control", "open_contactor") == Wish(({"do": "stop"},))


@pytest.mark.parametrize(("topic", "payload", "why"), [
    ("bms/control", "fry", "must be one of close_contactor, open_contactor"),
    ("bms/specific", '{"test_bms_fault": 1}', "not in a normal run"),
    ("bms/specific", '{"test_bms_fault": 1, "x": 2}', "only"),
    ("bms/specific", '{"x": 2}', "only"),
    ("bms/specific", "close", "no JSON"),
    ("external/control", '{"type":"relay","id":0,"state":"on"}', "no relay of this setup is free"),
    ("external/control", '{"type":"relay","id":999,"state":"on"}', "id: must be a number"),
    ("external/control", '{"type":"relay","id":0,"state":"maybe"}', "must look like"),
    ("external/control", '{"type":"lamp","id":0,"state":"on"}', "must look like"),
    ("external/control", '{"type":"relay","id":0,"state":["on"]}', "must look like"),
    ("external/control", "on", "no JSON"),
])  # fmt: skip
def test_batt2gen24s_commands_are_refused_with_their_reason(topic: str, payload: str, why: str):
    with pytest.raises(Refused) as refusal:
        old_wish(topic, payload)
    assert why in str(refusal.value)


@pytest.mark.parametrize("status", [statuses.running, statuses.held, statuses.unheard])
def test_our_own_bms_specific_commands_nothing_when_it_comes_back(status: Any):
    specific = next(m for m in batt2gen24.messages(OLD, Newest(status(), 0.0, STAMP)) if m.topic == "bms/specific")
    assert old_wish("bms/specific", specific.payload) is None


@given(st.sampled_from(sorted(topics.COMMANDS)), st.binary(max_size=3000) | st.text().map(lambda text: text.encode(
    "utf-8", "surrogatepass")) | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner:
    st.lists(inner) | st.dictionaries(st.sampled_from(["charge_w", "for_s", "names", "x"]), inner)).map(
    lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_is_sent_is_a_wish_control_understands_or_a_refusal_that_can_be_published(name: str, payload: bytes):
    try:
        found = wish(name, payload)
    except Refused as refusal:
        topics.refusal("r", "t", payload, str(refusal), STAMP).payload.encode()
    else:
        assert all(parse(line_of(ask)).command is not None for ask in found.asks)


def test_a_refusal_shows_the_beginning_of_what_was_sent():
    message = topics.refusal("controller/refused", "bms/control", b"\xff" + b"x" * 5000, "too long", STAMP)
    body = json.loads(message.payload)
    assert (message.qos, message.retain) == (1, False)
    assert (body["topic"], body["why"], len(body["payload"])) == ("bms/control", "too long", 201)
