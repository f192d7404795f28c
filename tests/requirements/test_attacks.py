"""What a reviewer with fresh eyes tried on the core, and what must not happen again."""

import math

import pytest

from controller.model.battery import Feed, PackContactor
from controller.model.events import Event
from controller.model.inverter import InverterStatus
from controller.model.settings import ContactorSettings, PrechargeSettings
from controller.ports import CommandKind, Record
from statecharts.supervisor import Contactor, State
from tests.bench import Bench

NEGATIVE, PRECHARGE, POSITIVE, PACK = Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE, Contactor.PACK


def never_refused(bench: Bench) -> bool:
    return Event.GATE_REFUSED not in bench.events()


# --- unknown is unknown, at every edge ---


@pytest.mark.requirement("S3.2", "I4", "I13")
def test_a_value_that_is_unknown_now_withholds_closing_though_it_was_fresh():
    bench = Bench("pack").enable().until(State.STANDBY).run_ms(9_900).says(hvil_ok=None).run_ms(3_000)
    assert bench.ever_closed == frozenset()
    assert never_refused(bench)


@pytest.mark.requirement("S3.2", "I4", "I13")
@pytest.mark.parametrize(("wiring", "state"), [("own", State.CLOSING_NEGATIVE), ("pack+inverter", State.WAKING_PACK)])
def test_a_signal_that_goes_stale_in_the_ladder_stops_it_before_the_gate_must(wiring: str, state: State):
    bench = Bench(wiring).enable().until(state).silence(Feed.SOC).run_ms(5_000)
    assert POSITIVE not in bench.ever_closed
    assert never_refused(bench)


@pytest.mark.requirement("I13")
def test_signals_nobody_requires_do_not_make_the_gate_refuse():
    bench = Bench("own").enable().run_ms(9_000).silence(Feed.CONTACTOR).until(State.RUNNING)
    assert never_refused(bench)


def press(bench: Bench) -> None:
    bench.estop_ok = False


def open_hvil(bench: Bench) -> None:
    bench.says(hvil_ok=False)


def revoke(bench: Bench) -> None:
    bench.inverter(go=False)


def overcharge(bench: Bench) -> None:
    bench.says(cell_max_v=4.40)


@pytest.mark.requirement("I4", "I13", "P1", "P2", "P3")
@pytest.mark.parametrize("cause", [press, open_hvil, revoke, overcharge])
@pytest.mark.parametrize("wiring", ["own", "pack", "pack+inverter"])
@pytest.mark.parametrize("edge", [1, 2, 3])
def test_no_output_rises_once_a_cause_is_seen_however_short_its_debounce_has_run(wiring: str, edge: int, cause):
    dry = Bench(wiring).enable().until(State.RUNNING)
    rises = [at for (_, before), (at, after) in zip(dry.closed_at, dry.closed_at[1:], strict=False) if after - before]
    if edge > len(rises):
        pytest.skip("this wiring has fewer edges")
    for before_ms in (10, 20, 50, 90):
        bench = Bench(wiring).enable().run_ms(rises[edge - 1] - before_ms)
        closed = bench.ever_closed
        cause(bench)
        bench.run_ms(30_000)
        assert bench.ever_closed == closed, before_ms
        assert never_refused(bench)


@pytest.mark.requirement("S3.2", "cause:e-stop-open")
def test_an_emergency_stop_that_becomes_unknown_counts_as_open():
    bench = Bench("own").running()
    bench.estop_ok = None
    since_ms = bench.now_ms
    bench.run_ms(500)
    assert bench.opened_after_ms(since_ms) <= 250


@pytest.mark.requirement("cause:feedback-lost")
def test_relays_that_are_not_fed_back_any_more_are_opened():
    bench = Bench("own").running()
    bench.feedback = False
    since_ms = bench.now_ms
    bench.run_ms(4_000)
    assert bench.opened_after_ms(since_ms) <= 3_000
    assert Event.FEEDBACK_LOST in bench.events()


@pytest.mark.requirement("S3.2", "cause:inverter-revoked")
def test_a_go_that_becomes_unknown_in_the_ladder_stops_it():
    bench = Bench("own").enable().until(State.PRECHARGING).inverter(go=None).run_ms(20_000)
    assert POSITIVE not in bench.ever_closed


@pytest.mark.requirement("S3.3", "I9")
def test_a_cause_not_known_to_be_gone_cannot_be_acknowledged():
    bench = Bench("own").running().reports(fault=True).run_ms(3_000)
    bench.reports(fault=False).run_ms(10).reports(fault=None).run_ms(20)
    bench.command(CommandKind.ACKNOWLEDGE, "bms-fault").run_ms(20_000)
    assert bench.at is State.FAULT


@pytest.mark.requirement("S3.2", "cause:temperature-critical")
def test_a_debounce_does_not_run_while_nothing_can_be_told():
    bench = Bench("own").running().says(temp_max_c=61.0).run_ms(20)
    bench.says(temp_max_c=None, temp_min_c=None).silence(Feed.TEMPERATURES).run_ms(4_000)
    bench.silence().says(temp_min_c=20.0, temp_max_c=61.0).run_ms(20)
    assert Event.TEMPERATURE_CRITICAL not in bench.events()


# --- the record ---


@pytest.mark.requirement("S1.7", "I5")
@pytest.mark.parametrize("wiring", ["own", "pack"])
def test_the_ladder_starts_only_with_its_own_closing_and_precharge_on_disk(wiring: str):
    bench = Bench(wiring).enable()
    while not bench.closed:
        bench.run_ms(10)
        on_disk = bench.stored
    assert on_disk is not None
    assert on_disk.closed
    assert len(on_disk.closings_age_ms) == 1
    assert [ms for _, ms in on_disk.precharges_age_ms] == [2_000]


@pytest.mark.requirement("S1.7", "I5")
def test_a_permission_that_goes_before_the_ladder_takes_the_closing_off_the_record():
    bench = Bench("own").enable()
    bench.disk_full = True
    bench.run_ms(15_000)
    bench.command(CommandKind.STOP).run_ms(100)
    bench.disk_full = False
    bench.run_ms(2_000)
    assert bench.stored is None or not bench.stored.closings_age_ms


@pytest.mark.requirement("S2.7", "I5")
def test_a_closing_is_counted_in_the_very_tick_an_old_one_is_forgotten():
    bench = Bench("pack", record=Record(seq=9, closings_age_ms=(86_395_000,))).enable().until(State.RUNNING)
    assert bench.stored is not None
    assert min(bench.stored.closings_age_ms) < 5_000


@pytest.mark.requirement("S1.7")
def test_a_record_that_was_not_stored_is_handed_out_again():
    bench = Bench("own").enable().run_ms(9_900)
    bench.disk_full = True
    bench.run_ms(1_000)
    assert "record: not stored yet" in bench.state.withheld
    bench.disk_full = False
    bench.until(State.RUNNING)


@pytest.mark.requirement("cause:unclean-restarts-spent")
def test_unclean_restarts_of_days_ago_do_not_count():
    record = Record(seq=4, closed=True, unclean_age_ms=(90_000_000, 200_000_000))
    bench = Bench("own", record=record).enable().until(State.RUNNING, within_ms=120_000)
    assert Event.UNCLEAN_RESTARTS_SPENT not in bench.events()


# --- wishes ---


@pytest.mark.requirement("S1.10")
def test_a_stop_is_stronger_than_auto_enable():
    auto = ContactorSettings(auto_enable=True)
    bench = Bench("own", record=Record(seq=3), contactors=auto).run_ms(30_000)
    bench.command(CommandKind.STOP).run_ms(60_000)
    assert bench.ever_closed == frozenset()


@pytest.mark.requirement("S1.10")
@pytest.mark.parametrize("record", [Record(seq=3, closed=True), Record(seq=3, latched=("bms-fault",))])
def test_auto_enable_needs_a_clean_boot(record: Record):
    auto = ContactorSettings(auto_enable=True, auto_enable_ms=90_000)
    bench = Bench("own", record=record, contactors=auto).run_ms(200_000)
    assert bench.ever_closed == frozenset()


@pytest.mark.requirement("S1.2", "I7")
def test_a_stopping_service_cannot_be_enabled_and_says_why_it_rests():
    bench = Bench("own").running().command(CommandKind.SERVICE_STOP).until(State.STANDBY)
    bench.enable().run_ms(20_000)
    assert "service: stopping" in bench.state.withheld
    assert "stopping" in bench.happened(Event.COMMAND_REFUSED).detail
    assert bench.stored is not None
    assert not bench.stored.closed


@pytest.mark.requirement("S4.4")
@pytest.mark.parametrize("watts", [math.nan, math.inf, -1.0])
def test_a_cap_that_is_no_number_of_watts_is_refused_and_changes_nothing(watts: float):
    bench = Bench("own").running()
    bench.command(CommandKind.CAP, charge_w=500.0, for_ms=60_000).run_ms(20)
    bench.command(CommandKind.CAP, charge_w=watts, for_ms=60_000).run_ms(20)
    assert bench.limits[0] == 500.0


@pytest.mark.requirement("S4.4")
def test_a_cap_for_one_direction_leaves_the_other_as_it_is():
    bench = Bench("own").running()
    bench.command(CommandKind.CAP, charge_w=500.0, for_ms=60_000).run_ms(20)
    bench.command(CommandKind.CAP, discharge_w=700.0, for_ms=60_000).run_ms(20)
    assert bench.limits == (500.0, 700.0)


@pytest.mark.requirement("S1.8")
def test_one_unlock_is_enough_once_the_link_is_low():
    bench = Bench("own", physics=False)
    bench.link_v = 355.0
    bench.run_ms(30_000)
    assert bench.at is State.LOCKED_OUT
    bench.link_v = 0.0
    bench.command(CommandKind.UNLOCK).run_ms(1_000)
    assert bench.at is State.STANDBY


# --- precharge, welds, currents ---


@pytest.mark.requirement("S2.11", "I1")
def test_a_slow_source_does_not_verify_a_precharge():
    slow = PrechargeSettings(resistance_ohm=100.0, capacitance_f=0.004)
    bench = Bench("own", precharge=slow, physics=False).enable().until(State.PRECHARGING)
    for volts in (250.0, 355.0, 357.0, 359.0, 359.0, 359.0, 359.0, 359.0):
        bench.link_v, bench.sampled_ms = volts, bench.now_ms
        bench.run_ms(190)
    assert POSITIVE not in bench.ever_closed


@pytest.mark.requirement("S2.2", "S2.11", "I1")
def test_one_frozen_sample_is_not_five():
    bench = Bench("own").enable().until(State.PRECHARGING).run_ms(200)
    bench.physics, bench.link_v, bench.sampled_ms = False, 359.0, bench.now_ms
    bench.says(current_a=0.0).run_ms(3_000)
    assert POSITIVE not in bench.ever_closed


@pytest.mark.requirement("S2.1")
def test_the_offset_is_not_measured_through_a_weld():
    bench = Bench("own", physics=False)
    bench.welded = frozenset({NEGATIVE, POSITIVE})
    bench.link_v = 360.0
    bench.says(current_a=5.8).run_ms(3_000)
    assert bench.state.watch.offset_a is None


@pytest.mark.requirement("S2.9", "cause:weld-measured")
@pytest.mark.parametrize(("wiring", "member"), [("own", NEGATIVE), ("own", POSITIVE), ("pack+inverter", POSITIVE)])
def test_a_contact_that_contradicts_locks_out_though_the_link_falls(wiring: str, member: Contactor):
    bench = Bench(wiring).running()
    bench.welded = frozenset({member})
    bench.physics = False
    bench.link_v = 0.0
    bench.says(contactor_state=PackContactor.OPEN).command(CommandKind.STOP).run_ms(15_000)
    assert bench.at is State.LOCKED_OUT


@pytest.mark.requirement("S2.8", "S2.12")
@pytest.mark.parametrize("settled_ms", [180, 190, 200, 210])
def test_a_rise_on_negative_alone_is_seen_in_its_own_tick(settled_ms: int):
    bench = Bench("own").enable().until(State.CLOSING_NEGATIVE).run_ms(settled_ms - 10)
    if bench.at is State.CLOSING_NEGATIVE:
        bench.physics, bench.link_v = False, 200.0
        bench.run_ms(30)
        assert PRECHARGE not in bench.ever_closed
        assert bench.at is State.LOCKED_OUT


@pytest.mark.requirement("cause:pack-closed-unasked")
def test_a_pack_that_stays_closed_unasked_locks_out():
    bench = Bench("pack").run_ms(12_000)
    bench.pack_obeys = False
    bench.says(contactor_state=PackContactor.CLOSED).run_ms(9_000)
    assert bench.at is State.STANDBY
    bench.run_ms(2_000)
    assert bench.at is State.LOCKED_OUT
    assert Event.PACK_CLOSED_UNASKED in bench.events()


@pytest.mark.requirement("S3.2", "cause:weld-current")
def test_current_tells_of_no_weld_while_the_packs_state_is_unknown():
    bench = Bench("pack").run_ms(12_000)
    bench.physics = bench.pack_obeys = False
    bench.says(contactor_state=None, current_a=8.0).run_ms(5_000)
    assert bench.at is State.STANDBY


@pytest.mark.requirement("S2.7", "I5")
def test_the_rest_between_closings_counts_from_when_the_pack_is_open():
    bench = Bench("pack", physics=False).says(contactor_state=PackContactor.CLOSED).enable().run_ms(9_500)
    bench.says(contactor_state=PackContactor.OPEN)
    opened_ms = bench.now_ms
    bench.until(State.WAKING_PACK)
    assert bench.now_ms - opened_ms >= 10_000


@pytest.mark.requirement("S1.6")
@pytest.mark.parametrize("state", [State.CLOSING_POSITIVE, State.OPENING_POSITIVE])
def test_no_relay_of_ours_breaks_what_is_the_fuses_work(state: State):
    bench = Bench("own").enable()
    if state is State.OPENING_POSITIVE:
        bench.until(State.RUNNING).command(CommandKind.STOP)
    bench.until(state)
    closed = bench.closed
    bench.physics = False
    bench.says(current_a=-250.0).command(CommandKind.STOP).run_ms(1_000)
    assert bench.closed == closed
    bench.run_ms(2_500)
    assert bench.closed == frozenset()


@pytest.mark.requirement("S1.6", "cause:e-stop-open")
def test_the_emergency_stop_waits_for_no_fuse():
    bench = Bench("own").running()
    bench.load_a = 250.0
    bench.estop_ok = False
    pressed_ms = bench.now_ms
    bench.run_ms(500)
    assert bench.opened_after_ms(pressed_ms) <= 250


@pytest.mark.requirement("S1.9", "I10")
def test_a_setup_that_switches_nothing_shows_fault_whenever_it_is_off():
    bench = Bench("none").run_ms(5_000)
    assert bench.view.status is InverterStatus.FAULT
    bench.enable().until(State.RUNNING)
    assert bench.view.status is InverterStatus.ACTIVE
    bench.physics = False
    bench.says(current_a=-30.0).command(CommandKind.STOP).run_ms(20_000)
    assert bench.view.status is InverterStatus.FAULT
    assert Event.WELD_CURRENT not in bench.events()


@pytest.mark.requirement("cause:soc-jump")
def test_an_soc_that_creeps_without_charge_is_a_jump():
    bench = Bench("own").running()
    for step in range(1, 6):
        bench.says(soc_pct=50.0 + 0.4 * step).run_ms(100)
    assert Event.SOC_JUMP in bench.events()


@pytest.mark.requirement("cause:soc-jump")
def test_an_soc_that_moves_against_the_current_is_a_jump():
    bench = Bench("own").running()
    bench.load_a = 60.0
    for step in range(1, 12):
        bench.run_ms(10_000).says(soc_pct=50.0 - 0.1 * step)
    assert Event.SOC_JUMP in bench.events()


@pytest.mark.requirement("S4.4", "I8")
def test_the_discharge_current_of_the_bms_bounds_the_power():
    bench = Bench("own").running().says(max_discharge_a=10.0).run_ms(20)
    assert bench.limits == (10_000.0, 3_600.0)


@pytest.mark.requirement("cause:gate-refused", "I9")
def test_a_gate_refusal_can_be_acknowledged():
    bench = Bench("own").running()
    bench.breakdowns = [Event.GATE_REFUSED]
    bench.run_ms(10)
    bench.breakdowns = []
    bench.until(State.FAULT).command(CommandKind.ACKNOWLEDGE, "gate-refused").until(State.RUNNING)


@pytest.mark.requirement("cause:inverter-unheard")
def test_an_off_grid_inverter_that_is_silent_is_only_warned_of():
    bench = Bench("own", off_grid=True).running().deaf()
    bench.run_ms(70_000)
    assert Event.INVERTER_UNHEARD in bench.events()
    assert bench.at is State.RUNNING


def enabled_without_go(wiring: str) -> Bench:
    return Bench(wiring).inverter(go=None).enable().run_ms(30_000)


@pytest.mark.requirement("I10")
def test_what_cannot_be_disconnected_is_offered_once_before_the_go_and_not_again_after_it_was_taken_back():
    bench = enabled_without_go("none")
    assert bench.view.status is InverterStatus.STANDBY
    assert min(bench.limits) > 0.0
    bench.inverter(go=True).until(State.RUNNING).run_ms(11_000).inverter(go=False).run_ms(60_000)
    assert bench.at is State.STANDBY
    assert bench.view.status is InverterStatus.FAULT
    assert bench.limits == (0.0, 0.0)
    bench.enable().run_ms(20_000)
    assert bench.view.status is InverterStatus.STANDBY
    assert min(bench.limits) > 0.0


@pytest.mark.requirement("I9")
def test_a_critical_cause_is_held_while_power_is_offered_to_what_cannot_be_disconnected():
    bench = enabled_without_go("none").says(cell_max_v=4.30).run_ms(1_000)
    assert Event.CELL_OVERVOLTAGE_CRITICAL in {rule.id for rule in bench.state.faults.held}
    bench.says(cell_max_v=3.76).run_ms(60_000)
    assert bench.at is State.FAULT
    assert bench.limits == (0.0, 0.0)


@pytest.mark.requirement("S2.7")
def test_a_link_meter_that_fell_silent_is_no_link_voltage():
    bench = Bench("own").run_ms(15_000)
    bench.sampled_ms = bench.now_ms
    bench.run_ms(10_000).enable().run_ms(30_000)
    assert bench.at is State.STANDBY
    assert "link: no voltage known" in bench.state.withheld
    assert bench.ever_closed == frozenset()


@pytest.mark.requirement("I5")
def test_what_does_not_act_cannot_be_acknowledged_so_closings_stay_counted():
    bench = Bench("own").running().command(CommandKind.ACKNOWLEDGE, "closings-spent").run_ms(20)
    assert len(bench.state.supervisor.closings_ms) == 1
    assert Event.COMMAND_REFUSED in bench.events()
