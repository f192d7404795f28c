"""controller.toml on buses, ports, relays and pins: what is missing, shared, or does not belong."""

from __future__ import annotations

import pytest

from controller import config
from controller.batteries.registry import BATTERIES
from controller.config import Catalogue, Problem
from controller.inverters.registry import INVERTERS
from tests.controller.test_config import CATALOGUE, INVERTER_RELAY, LEAF, METER, RIGHT

OWN = (
    LEAF.replace(METER, "")
    + '\n[precharge]\nresistance_ohm = 50\ncapacitance_f = 0.001\nunverified_reason = "no meter"\n'
)
INVERTER = RIGHT.replace('"pack"', '"pack+inverter"')
SLCAN = '[can]\ninterface = "slcan"\nchannel = "/dev/ttyUSB0"\n'
DRIVEN = "the kernel of a Raspberry Pi goes on driving the pins of a program that was killed"
BOARD = '[relays]\nkind = "modbus"\npositive = 1\nport = "/dev/ttyUSB5"\n[pins]\nheartbeat = 12\n'


def problems(text: str, catalogue: Catalogue = CATALOGUE) -> list[Problem]:
    return config.check(text, "controller.toml", catalogue)


def keys_of(text: str, catalogue: Catalogue = CATALOGUE) -> list[str]:
    return [problem.key for problem in problems(text, catalogue)]


def test_what_is_complete_is_accepted() -> None:
    for text in (RIGHT, OWN, INVERTER + INVERTER_RELAY, INVERTER + BOARD, RIGHT + "[pins]\nestop = 24\n"):
        assert problems(text) == []


def test_relays_and_wiring_must_agree() -> None:
    (wrong,) = problems(RIGHT + INVERTER_RELAY)
    assert (wrong.key, wrong.message) == ("relays.kind", "is `gpio`, but the wiring `pack` has no relay of ours")
    (wrong,) = problems(INVERTER)
    assert wrong.message == "is `none`, but the wiring `pack+inverter` has relays of ours"


def test_every_relay_of_the_wiring_has_a_number_and_no_other_one_has() -> None:
    assert keys_of(OWN.replace("precharge = 27\n", "")) == ["relays.precharge"]
    assert keys_of(INVERTER + INVERTER_RELAY + "negative = 17\n") == ["relays.negative"]
    assert keys_of(INVERTER + INVERTER_RELAY + "precharge_feedback = 6\n") == ["relays.precharge_feedback"]


def test_a_welded_contactor_must_be_told_by_something() -> None:
    blind = OWN.replace("positive_feedback = 5\n", "")
    (wrong,) = problems(blind)
    assert (wrong.key, wrong.fix) == (
        "relays.negative_feedback", "wire the auxiliary contacts, or set link.source",
    )  # fmt: skip
    assert problems(blind + METER) == []


def test_a_precharge_nobody_can_verify_must_be_stated_to_be_one() -> None:
    (wrong,) = problems(OWN.replace('unverified_reason = "no meter"\n', ""))
    assert wrong.key == "link.source"
    assert "precharge.unverified_reason" in wrong.fix


def test_a_meter_needs_what_its_manual_says_of_it() -> None:
    assert keys_of(RIGHT + '[link]\nsource = "modbus"\n') == [
        "link.port", "link.update_ms", "link.voltage_register", "link.volts_per_count",
    ]  # fmt: skip


def test_a_modbus_board_needs_a_port() -> None:
    assert keys_of(INVERTER + BOARD.replace('port = "/dev/ttyUSB5"\n', "")) == ["relays.port"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (INVERTER + BOARD, "a Modbus board keeps its coils closed when this program dies"),
        (INVERTER + INVERTER_RELAY, DRIVEN),
        (OWN, DRIVEN),
    ],
)
def test_relays_of_ours_need_a_relay_watchdog(text: str, why: str) -> None:
    (wrong,) = problems(text.replace("heartbeat = 12\n", ""))
    assert (wrong.key, wrong.message) == ("pins.heartbeat", f"is missing; {why}")


@pytest.mark.parametrize(("wiring", "asked"), [("pack", False), ("pack+inverter", True)])
def test_a_new_config_leaves_the_heartbeat_s_pin_to_its_owner_where_relays_are_ours(wiring: str, asked: bool) -> None:
    rows = config.template(Catalogue(BATTERIES, INVERTERS), "tesla_model3", "byd_modbus", wiring).split("\n")
    assert ("heartbeat = 12" in rows) is asked
    about = rows.index("heartbeat = 12" if asked else "#heartbeat = 12") - 1
    assert rows[about].startswith("# YOURS TO SET") is asked


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("positive = 22", "positive = 17", "GPIO 17 is relays.negative already"),
        ("positive = 22", "positive = 28", "there is no GPIO 28 to use"),
        ("positive = 22", "positive = 1", "there is no GPIO 1 to use"),
        ("positive = 22", "positive = 8", "GPIO 8 is pulled up while the Pi boots, which would energise the relay"),
        ("positive_feedback = 5", "positive_feedback = 22", "GPIO 22 is relays.positive already"),
        ("heartbeat = 12", "heartbeat = 12\nestop = 5", "GPIO 5 is relays.positive_feedback already"),
        ("heartbeat = 12", "heartbeat = 24\nestop = 24", "GPIO 24 is pins.estop already"),
    ],
)
def test_each_pin_exists_serves_one_purpose_and_rests_off(old: str, new: str, message: str) -> None:
    assert [problem.message for problem in problems(OWN.replace(old, new))] == [message]


def test_a_board_that_a_low_level_energises_may_use_the_pins_that_are_pulled_up() -> None:
    assert problems(OWN.replace("positive = 22", "positive = 8\nactive_low = true")) == []


def test_numbers_of_a_modbus_board_are_no_pins() -> None:
    assert problems(INVERTER + BOARD.replace("positive = 1\n", "positive = 12\n")) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (INVERTER_RELAY, None),
        (BOARD.replace("ttyUSB5", "ttyUSB0"), "/dev/ttyUSB0 is serial.port already"),
        (
            '[can]\ninterface = "slcan"\nchannel = "/dev/ttyUSB0"\n' + INVERTER_RELAY,
            "/dev/ttyUSB0 is can.channel already",
        ),
    ],
)
def test_a_bus_or_port_has_one_user(more: str, message: str | None) -> None:
    assert [problem.message for problem in problems(INVERTER + more)] == ([message] if message else [])


def test_the_pack_and_the_inverter_do_not_share_a_can_bus() -> None:
    text = config.template(Catalogue(BATTERIES, INVERTERS), "tesla_model3", "byd_can", "pack")
    both = text.replace("#channel = ", "channel = ").replace('"can1"', '"can0"')
    (wrong,) = problems(both, Catalogue(BATTERIES, INVERTERS))
    assert (wrong.key, wrong.message) == ("inverter_can.channel", "can0 is can.channel already")


def test_a_new_config_shows_only_the_places_this_setup_has() -> None:
    def sections(*setup: str) -> set[str]:
        text = config.template(Catalogue(BATTERIES, INVERTERS), *setup)
        return {row[1:].partition("]")[0] for row in text.split("\n") if row.startswith("[")}

    places = {"can", "battery_serial", "serial", "inverter_can", "relays", "link"}
    assert sections("tesla_model3", "byd_modbus", "pack") & places == {"can", "serial"}
    assert sections("tesla_model3", "byd_modbus", "pack+inverter") & places == {"can", "serial", "relays"}
    assert sections("tesla_model3", "byd_can", "pack") & places == {"can", "inverter_can"}
    assert sections("leaf", "byd_can", "own") & places == {"can", "inverter_can", "relays", "link"}
