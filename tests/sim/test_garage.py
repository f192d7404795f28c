"""The garage: the real loop closes and opens in every wiring, through frames, relays and registers alone."""

from dataclasses import replace

import pytest

from controller import core
from controller.model.events import Event
from controller.ports import CommandKind, Record
from sim.garage import Build, Garage
from statecharts.supervisor import Contactor, State

NEGATIVE, PRECHARGE, POSITIVE = Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE
BUILDS = {
    "own": Build("own", hurried=True), "none": Build("none", hurried=True),
    "pack": Build("pack", "tesla", hurried=True), "pack+inverter": Build("pack+inverter", "tesla", hurried=True),
    "a Leaf": Build("own", "leaf", hurried=True), "a Gen24 by bytes": Build("own", inverter="gen24", hurried=True),
    "a Sungrow by frames": Build("own", inverter="byd_can", hurried=True),
    "a Tesla and a Sungrow": Build("pack", "tesla", inverter="byd_can", hurried=True),
    "a Leaf and a Gen24 by bytes": Build("own", "leaf", inverter="gen24", hurried=True),
}  # fmt: skip


def running(build: Build) -> Garage:
    """Enabled, closed, 2 kW flowing in."""
    garage = Garage(build)
    garage.inverter.wish_w = 2_000.0
    garage.ask(CommandKind.ENABLE)
    assert garage.until(State.RUNNING, within_ms=20_000), garage.reason
    return garage.run_ms(12_000)


@pytest.mark.parametrize("wiring", BUILDS)
def test_it_closes_and_power_flows_in_every_wiring(wiring: str):
    garage = running(BUILDS[wiring])
    assert garage.at is State.RUNNING
    assert garage.plant.current_a * garage.plant.link_v == pytest.approx(2_000.0, rel=0.02)
    assert garage.broken == []


def test_a_driver_that_breaks_in_the_precharge_is_no_reason_for_the_gate_to_refuse_the_next_one():
    """Found by life 22 on 2026-11-26: the gate booked 39.5 s of it and refused the next precharge."""
    garage = Garage(Build("own", residual_v=355.0)).ask(CommandKind.ENABLE)
    assert garage.until(State.PRECHARGING)
    garage.bus.raises = RuntimeError("the driver broke")
    garage.run_ms(40_000)
    garage.bus.raises = None
    garage.run_ms(1_000).acknowledge_all().ask(CommandKind.ENABLE)
    assert garage.until(State.RUNNING, within_ms=600_000), garage.reason  # the supervisor lets the resistor rest longer
    assert garage.broken == []


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("forgets", [False, True])
def test_a_restart_that_forgets_what_was_on_disk_is_a_violation(torn: bool, forgets: bool, monkeypatch):
    """Life 1024 on 2026-11-26 cut the power with both copies destroyed: then a lock-out is what was on disk."""
    garage = Garage(Build("own", record=Record(9, latched=(Event.BMS_FAULT.value,)), disk_ms=0)).run_ms(1_000)
    if forgets:
        start = core.start
        monkeypatch.setattr(core, "start", lambda *given, record, **more: start(*given, record=None, **more))
    garage.disk.torn = torn
    garage.cut_power(100).run_ms(1_000)
    assert bool(garage.broken) is forgets, garage.broken
    if forgets:
        assert garage.broken[0].startswith("I9")
    else:
        assert garage.at is (State.LOCKED_OUT if torn else State.FAULT)


@pytest.mark.parametrize("wiring", BUILDS)
def test_a_stop_opens_it_and_nothing_flows_any_more(wiring: str):
    garage = running(BUILDS[wiring]).ask(CommandKind.STOP).run_ms(12_000)
    assert garage.at is State.STANDBY
    assert garage.broken == []
    assert not any(garage.closed.values())
    assert wiring == "none" or garage.plant.current_a == 0.0


def test_the_resistor_takes_what_charging_the_link_costs_once():
    garage = running(BUILDS["own"])
    half_cv2 = 0.5 * 0.001 * garage.plant.link_v**2
    assert garage.plant.precharge_j == pytest.approx(half_cv2, rel=0.1)


def test_a_power_cut_drops_the_relays_and_is_an_unclean_restart():
    garage = running(BUILDS["own"])
    garage.cut_power(2_000).run_ms(100)
    assert not any(garage.closed.values())
    garage.run_ms(2_000)
    assert [change.cause for change in garage.states[-3:]] == ["boot", "found-closed", "unclean-restart"]
    assert garage.at is State.FAULT


def test_the_record_of_a_closing_is_on_the_disk_before_it_closes():
    garage = Garage(replace(BUILDS["own"], disk_ms=700)).ask(CommandKind.ENABLE)
    assert garage.until(State.CLOSING_NEGATIVE, within_ms=20_000)
    assert garage.disk.record is not None
    assert garage.disk.record.closed


def test_a_full_disk_keeps_it_open():
    garage = Garage(BUILDS["own"]).ask(CommandKind.ENABLE)
    garage.disk.full = True
    garage.run_ms(10_000)
    assert garage.at is State.STANDBY
    assert garage.reason == "record: not stored yet"


def test_records_torn_in_both_copies_lock_it_out():
    garage = running(BUILDS["own"])
    garage.disk.torn = True
    garage.cut_power(500).run_ms(1_000)
    assert garage.at is State.LOCKED_OUT
    assert Event.RECORD_LOST.value in garage.reason


def test_a_config_edited_between_boots_counts_from_the_next_boot_on():
    garage = running(BUILDS["own"])
    garage.cut_power(500, replace(garage.settings, max_power_w=700.0)).run_ms(600)
    assert garage.state.setup.settings.max_power_w == 700.0


def test_a_relay_welded_at_boot_never_lets_it_close():
    garage = Garage(replace(BUILDS["own"], welded=frozenset({POSITIVE}))).ask(CommandKind.ENABLE).run_ms(20_000)
    assert {change.state for change in garage.states} <= {State.STARTING, State.FAULT}
    assert garage.broken == []


def test_a_residual_link_voltage_that_decays_is_waited_for():
    garage = Garage(replace(BUILDS["own"], residual_v=355.0, bleed_ohm=10_000.0)).ask(CommandKind.ENABLE)
    garage.run_ms(10_000)
    assert garage.at is State.STANDBY
    assert "link:" in garage.reason
    assert garage.until(State.RUNNING, within_ms=60_000)


def test_the_watchdog_drops_the_coils_of_a_controller_that_hangs():
    garage = running(BUILDS["own"]).stall(2_000).run_ms(700)
    assert not any(garage.closed.values())


def test_an_exception_in_a_driver_opens_in_the_same_tick():
    garage = running(BUILDS["own"])
    garage.bus.raises = RuntimeError("broken")
    garage.run_ms(30)
    assert not any(garage.closed.values())
    garage.bus.raises = None
    garage.run_ms(500)
    assert garage.at is State.FAULT
    assert "exception" in garage.reason


def test_what_a_person_latched_before_the_cut_is_latched_after_it():
    record = Record(9, latched=(Event.BMS_FAULT.value,))
    garage = Garage(replace(BUILDS["own"], record=record)).ask(CommandKind.ENABLE).run_ms(3_000)
    assert garage.at is State.FAULT
    assert garage.acknowledge_all().ask(CommandKind.ENABLE).until(State.RUNNING)


def test_a_garage_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="no garage"):
        Build("own", pack="tesla")
