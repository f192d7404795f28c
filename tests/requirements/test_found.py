"""Violations found by generated lives, as short as they get, and by reviews; each mended."""

import pytest

from controller.model.events import Event
from controller.model.settings import RECOVERY_MS
from controller.ports import CommandKind, Record
from statecharts.supervisor import Contactor, State
from tests.bench import Bench


@pytest.mark.requirement("I5", "S1.7")
def test_an_acknowledgement_does_not_forget_the_closing_that_waits_for_the_disk():
    bench = Bench("own").enable()
    bench.disk_full = True
    bench.run_ms(12_000).command(CommandKind.ACKNOWLEDGE, "closings-spent").run_ms(20)
    bench.disk_full = False
    bench.until(State.RUNNING)
    assert bench.stored is not None
    assert len(bench.stored.closings_age_ms) == 1


@pytest.mark.requirement("I12")
@pytest.mark.parametrize("ticks", range(4))
def test_a_weld_seen_in_the_tick_of_another_stop_is_not_forgotten(ticks: int):
    bench = Bench("own").enable().until(State.CLOSING_NEGATIVE)
    bench.physics, bench.estop_ok = False, False
    bench.run_ms(10 * ticks)
    bench.link_v = 200.0
    bench.run_ms(40_000)
    assert bench.at is State.LOCKED_OUT


# --- found by reviews ---


@pytest.mark.requirement("S1.9")
def test_where_nothing_disconnects_an_inverter_that_ignores_a_fault_is_seen_and_nobody_speaks_to_it_any_more():
    bench = Bench("none").running()
    bench.physics, bench.interlock_ok = False, False
    bench.says(current_a=-30.0).run_ms(3_000)
    assert bench.at is State.FAULT
    assert bench.outputs.registers
    bench.run_ms(30_000).happened(Event.INVERTER_IGNORES_LIMIT)
    assert bench.outputs.registers == {}
    bench.interlock_ok = True
    bench.run_ms(1_000).command(CommandKind.ACKNOWLEDGE, "inverter-ignores-limit").run_ms(20)
    assert bench.happened(Event.COMMAND_REFUSED).detail.endswith("still present, or not known to be gone")
    bench.says(current_a=0.0).run_ms(1_000)
    assert bench.outputs.registers == {}
    bench.command(CommandKind.ACKNOWLEDGE, "interlock-open").run_ms(20)
    bench.command(CommandKind.ACKNOWLEDGE, "inverter-ignores-limit").run_ms(20)
    assert bench.outputs.registers


@pytest.mark.requirement("S3.3")
def test_where_nothing_disconnects_a_cause_that_comes_while_current_flows_is_held():
    bench = Bench("none").until(State.STANDBY)
    bench.physics = False
    bench.says(current_a=-8.0).reports(fault=True).run_ms(500).reports(fault=False).run_ms(500)
    assert [rule.id for rule in bench.state.faults.held] == [Event.BMS_FAULT]


@pytest.mark.requirement("S2.1")
def test_where_nothing_disconnects_what_flows_is_no_offset_of_the_sensor():
    bench = Bench("none").until(State.STANDBY)
    bench.physics = False
    assert bench.says(current_a=3.0).run_ms(3_000).state.watch.offset_a is None


@pytest.mark.requirement("S3.2")
@pytest.mark.parametrize("wiring", ["own", "pack", "none"])
@pytest.mark.parametrize(("name", "cause"), [
    ("temp_min_c", Event.TEMPERATURE_DATA_LOST), ("cell_max_v", Event.CELL_DATA_LOST),
    ("pack_voltage_v", Event.PACK_DATA_LOST), ("soc_pct", Event.SOC_LOST),
])  # fmt: skip
def test_a_value_that_becomes_unknown_while_its_frames_go_on_counts_as_lost(wiring: str, name: str, cause: Event):
    bench = Bench(wiring).running().stamped()
    bench.says(**{name: None}).run_ms(65_000)
    assert bench.happened(cause)
    assert not bench.closed
    assert bench.at is not State.RUNNING


@pytest.mark.requirement("S3.2")
@pytest.mark.parametrize("wiring", ["own", "pack+inverter"])
def test_a_contact_that_is_wired_and_unreadable_from_the_start_closes_nothing(wiring: str):
    bench = Bench(wiring)
    bench.unreadable = frozenset({Contactor.POSITIVE})
    bench.enable().run_ms(20_000)
    assert bench.ever_closed == frozenset()
    assert "cause: feedback-lost" in bench.state.withheld


@pytest.mark.requirement("S1.8", "S1.10")
def test_a_locked_out_machine_that_was_found_closed_is_done_with_that_once_unlocked():
    bench = Bench("own", record=Record(seq=7, closed=True, locked_out=True)).run_ms(12_000)
    assert bench.at is State.LOCKED_OUT
    bench.command(CommandKind.UNLOCK).run_ms(80_000)
    assert bench.at is State.STANDBY
    assert Event.UNCLEAN_RESTART not in [rule.id for rule in bench.state.faults.held]


@pytest.mark.requirement("S3.4")
def test_a_recovery_charge_asked_for_in_a_fault_ends_with_its_time():
    bench = Bench("own").until(State.STANDBY)
    bench.estop_ok = False
    bench.until(State.FAULT).command(CommandKind.RECOVERY_CHARGE).run_ms(20)
    assert bench.state.supervisor.recovery_until_ms is not None
    bench.now_ms += RECOVERY_MS
    bench.run_ms(20)
    assert bench.state.supervisor.recovery_until_ms is None
