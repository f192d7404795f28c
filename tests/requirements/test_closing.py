"""When the contactors may close, and in which order."""

import pytest

from controller.model.battery import Feed, PackContactor
from controller.model.events import Event
from controller.model.settings import ContactorSettings, PrechargeSettings
from controller.ports import CommandKind
from statecharts.supervisor import Contactor, State
from tests.bench import Bench, needs

WIRINGS = ("own", "pack", "pack+inverter", "none")
NEGATIVE, PRECHARGE, POSITIVE, PACK = Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE, Contactor.PACK


@pytest.mark.requirement("S1.1", "I1", "I2")
def test_our_relays_close_negative_then_precharge_then_positive_and_drop_the_precharge():
    bench = Bench("own").running()
    assert [closed for _, closed in bench.closed_at] == [
        frozenset(),
        {NEGATIVE},
        {NEGATIVE, PRECHARGE},
        {NEGATIVE, PRECHARGE, POSITIVE},
        {NEGATIVE, POSITIVE},
    ]


@pytest.mark.requirement("S1.1", "I1")
def test_a_pack_closes_by_itself_and_the_inverter_relay_follows_its_word():
    bench = Bench("pack+inverter").running()
    assert [closed for _, closed in bench.closed_at] == [frozenset(), {PACK}, {PACK, POSITIVE}]
    asked_ms, followed_ms = bench.closed_at[1][0], bench.closed_at[2][0]
    assert followed_ms - asked_ms >= 1000  # the bench's pack takes 1 s to say CLOSED


@pytest.mark.requirement("S1.2")
@pytest.mark.parametrize("wiring", WIRINGS)
def test_nothing_closes_before_a_person_enables_it(wiring: str):
    bench = Bench(wiring).run_ms(30_000)
    assert bench.at is State.STANDBY
    assert bench.ever_closed == frozenset()
    assert "operator: not enabled" in bench.state.withheld


@pytest.mark.requirement("S1.2", "S3.2", "I4")
@pytest.mark.parametrize("wiring", WIRINGS)
def test_every_required_signal_that_is_unknown_withholds_closing(wiring: str):
    for feed in needs(wiring):
        bench = Bench(wiring).silence(feed).enable().run_ms(70_000)
        assert bench.at is State.STANDBY, feed
        assert bench.ever_closed == frozenset()
        assert any(feed.value in why for why in bench.state.withheld)


@pytest.mark.requirement("P3", "I4", "cause:{event}")
@pytest.mark.parametrize(
    ("fault", "event"),
    [
        ({"cell_max_v": 4.26}, Event.CELL_OVERVOLTAGE_CRITICAL),
        ({"cell_min_v": 2.89}, Event.CELL_UNDERVOLTAGE_CRITICAL),
        ({"temp_max_c": 61.0}, Event.TEMPERATURE_CRITICAL),
        ({"hvil_ok": False}, Event.HVIL_OPEN),
        ({"isolation_kohm": 90.0}, Event.ISOLATION_LOW),
        ({"lv_supply_v": 11.6}, Event.LV_SUPPLY_LOW),
        ({"pack_voltage_v": 3.0}, Event.PACK_FUSE_BLOWN),
    ],
)
@pytest.mark.parametrize("wiring", ["own", "pack"])
def test_a_fault_that_is_already_there_keeps_it_open(wiring: str, fault: dict, event: Event):
    bench = Bench(wiring).says(**fault).enable().run_ms(60_000)
    assert bench.ever_closed == frozenset()
    assert event in bench.events()
    assert f"cause: {event.value}" in bench.state.withheld


@pytest.mark.requirement("I9", "cause:e-stop-open")
def test_the_emergency_stop_at_rest_is_held_until_it_is_acknowledged():
    bench = Bench("own").enable()
    bench.estop_ok = False
    bench.run_ms(15_000)
    assert bench.at is State.FAULT
    bench.estop_ok = True
    bench.run_ms(1_000).command(CommandKind.ACKNOWLEDGE, "e-stop-open").until(State.RUNNING)


@pytest.mark.requirement("S1.2", "I10")
def test_without_the_inverters_go_nothing_closes_and_it_sees_the_offer():
    bench = Bench("pack").inverter(go=None).enable().run_ms(40_000)
    assert bench.at is State.STANDBY
    assert bench.state.withheld == ("inverter: no go",)
    assert bench.limits == (10_000.0, 10_000.0)
    assert bench.view.outer_voltage_v == 0.0
    bench.inverter(go=True).until(State.RUNNING)


@pytest.mark.requirement("I10", "S3.2")
def test_an_offer_before_the_go_is_withdrawn_when_anything_else_is_missing():
    bench = Bench("pack").inverter(go=None).enable().run_ms(40_000).says(hvil_ok=None).run_ms(10_000)
    assert bench.limits == (0.0, 0.0)


@pytest.mark.requirement("S2.7", "I5")
def test_contactors_rest_ten_seconds_between_two_closings():
    bench = Bench("own").running()
    bench.command(CommandKind.STOP).until(State.STANDBY)
    opened_ms = bench.closed_at[-1][0]
    bench.enable().until(State.CLOSING_NEGATIVE)
    assert bench.now_ms - opened_ms >= 10_000


@pytest.mark.requirement("S2.7", "I5", "cause:closings-spent")
def test_the_seventh_closing_within_an_hour_is_refused_until_acknowledged():
    bench = Bench("own")
    for _ in range(6):
        bench.enable().until(State.RUNNING).command(CommandKind.STOP).until(State.STANDBY)
    bench.enable().run_ms(60_000)
    assert bench.at is State.STANDBY
    assert "cause: closings-spent" in bench.state.withheld
    bench.command(CommandKind.ACKNOWLEDGE, "closings-spent").until(State.RUNNING)


@pytest.mark.requirement("S1.7", "I5")
def test_closing_waits_for_its_record_on_the_disk():
    bench = Bench("own").enable()
    bench.disk_full = True
    bench.run_ms(30_000)
    assert bench.ever_closed == frozenset()
    bench.disk_full = False
    bench.run_ms(10)
    assert bench.state.record is not None
    assert bench.state.record.closed
    assert bench.ever_closed == frozenset()


@pytest.mark.requirement("S1.7", "I3")
def test_opening_does_not_wait_for_the_disk():
    bench = Bench("own").running()
    bench.disk_full, bench.estop_ok = True, False
    pressed_ms = bench.now_ms
    bench.run_ms(500)
    assert bench.opened_after_ms(pressed_ms) <= 250


# --- precharge ---


@pytest.mark.requirement("S2.2", "S3.2", "I1")
def test_the_positive_contactor_stays_open_while_the_link_voltage_is_unknown():
    bench = Bench("own").enable().until(State.PRECHARGING)
    bench.physics, bench.link_v = False, None
    bench.run_ms(10_000)
    assert POSITIVE not in bench.ever_closed
    assert Event.PRECHARGE_FAILED in bench.events()


@pytest.mark.requirement("C1", "P13", "S2.5", "S2.6", "I2", "cause:precharge-tries-spent")
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.94])
def test_a_link_that_sticks_is_given_up_within_the_limit_three_times_then_latched(fraction: float):
    bench = Bench("own", precharge=PrechargeSettings(resistance_ohm=100.0, capacitance_f=0.001)).enable()
    for _ in range(140_000 // 10):
        bench.run_ms(10)
        charging = PRECHARGE in bench.closed
        bench.physics = not charging
        bench.link_v = fraction * 360.0 if charging else 0.0
        bench.says(current_a=-1.8 if charging and fraction < 1 else 0.0)
    assert POSITIVE not in bench.ever_closed
    spans, since_ms = [], None
    for at_ms, closed in bench.closed_at:
        if PRECHARGE in closed and since_ms is None:
            since_ms = at_ms
        elif PRECHARGE not in closed and since_ms is not None:
            spans.append(at_ms - since_ms)
            since_ms = None
    assert len(spans) == 3
    assert max(spans) <= 2010
    assert bench.at is State.FAULT
    assert Event.PRECHARGE_TRIES_SPENT in bench.events()


@pytest.mark.requirement("S2.4")
def test_a_link_that_charges_without_its_resistor_is_too_fast():
    bench = Bench("own").enable().until(State.PRECHARGING)
    bench.physics, bench.link_v = False, 360.0
    bench.run_ms(50)
    assert bench.at is State.COOLING_DOWN
    assert "too fast" in bench.happened(Event.PRECHARGE_FAILED).detail


@pytest.mark.requirement("S2.5")
def test_a_charged_link_whose_current_does_not_fall_is_not_trusted():
    bench = Bench("own").enable().until(State.PRECHARGING).run_ms(300)
    bench.physics, bench.link_v = False, 358.0
    bench.says(current_a=-1.5)
    bench.run_ms(1_000)
    assert POSITIVE not in bench.ever_closed
    assert "does not fall" in bench.happened(Event.PRECHARGE_FAILED).detail


@pytest.mark.requirement("S2.1", "S2.2")
def test_the_current_is_judged_without_its_offset():
    bench = Bench("own", physics=False).says(current_a=-4.3)
    bench.enable().until(State.PRECHARGING)
    for volts in (100.0, 200.0, 300.0, 340.0, 355.0, 359.0, 359.0, 359.0, 359.0, 359.0, 359.0, 359.0, 359.0):
        bench.link_v = volts
        bench.run_ms(30)
    assert POSITIVE in bench.closed


@pytest.mark.requirement("S2.1", "cause:current-offset-high")
def test_an_offset_above_six_amperes_forbids_closing():
    bench = Bench("own", physics=False).says(current_a=-6.1).enable().run_ms(30_000)
    assert bench.ever_closed == frozenset()
    assert "cause: current-offset-high" in bench.state.withheld


@pytest.mark.requirement("S2.10", "I1")
def test_an_unverified_precharge_takes_five_tau_and_its_reason():
    settings = PrechargeSettings(resistance_ohm=100.0, capacitance_f=0.001, unverified_reason="no sensor on the link")
    bench = Bench("own", precharge=settings, physics=False)
    bench.link_v = None
    bench.enable().until(State.PRECHARGING)
    began_ms = bench.now_ms
    bench.until(State.CLOSING_POSITIVE)
    assert 500 <= bench.now_ms - began_ms <= 530


# --- welds ---


@pytest.mark.requirement("S2.8", "S2.12", "cause:weld-measured")
def test_a_link_that_rises_on_negative_alone_locks_out():
    bench = Bench("own")
    bench.welded = frozenset({POSITIVE})
    bench.feedback = False
    bench.enable().run_ms(15_000)
    assert bench.at is State.LOCKED_OUT
    assert PRECHARGE not in bench.ever_closed


@pytest.mark.requirement("S2.8", "C2", "cause:weld-measured")
def test_a_link_stuck_at_pack_voltage_before_closing_locks_out():
    bench = Bench("own", physics=False)
    bench.link_v = 355.0
    bench.enable().run_ms(30_000)
    assert bench.at is State.LOCKED_OUT
    assert bench.ever_closed == frozenset()


@pytest.mark.requirement("S2.8", "C2")
def test_a_residual_link_voltage_that_decays_is_waited_for():
    bench = Bench("own")
    bench.link_v = 200.0
    bench.enable().run_ms(9_000)
    assert bench.ever_closed == frozenset()
    bench.until(State.RUNNING)


@pytest.mark.requirement("S2.8", "C2")
def test_a_link_fed_by_the_inverter_forbids_closing_without_locking_out():
    bench = Bench("own", physics=False)
    bench.link_v = 150.0
    bench.enable().run_ms(60_000)
    assert bench.at is State.STANDBY
    assert any("fed by the inverter" in why for why in bench.state.withheld)


@pytest.mark.requirement("S2.9", "cause:weld-measured")
def test_a_contact_that_stays_closed_after_opening_locks_out():
    bench = Bench("own").running()
    bench.welded = frozenset({POSITIVE})
    bench.command(CommandKind.STOP).run_ms(15_000)
    assert bench.at is State.LOCKED_OUT


@pytest.mark.requirement("S2.9", "L2", "cause:weld-measured")
def test_a_pack_that_does_not_open_in_ten_seconds_locks_out():
    bench = Bench("pack").running()
    bench.pack_obeys = False
    bench.command(CommandKind.STOP).run_ms(30_000)
    assert bench.at is State.LOCKED_OUT
    assert Event.WELD_MEASURED in bench.events()


@pytest.mark.requirement("S2.9", "cause:weld-current")
def test_current_with_everything_open_locks_out_after_one_second():
    bench = Bench("own").run_ms(20_000)
    bench.physics = False
    bench.says(current_a=5.1).run_ms(980)
    assert bench.at is State.STANDBY
    bench.run_ms(40)
    assert bench.at is State.LOCKED_OUT


@pytest.mark.requirement("S1.8", "I9", "L1", "cause:weld-reported")
def test_a_lock_out_survives_acknowledgement_and_enable_and_ends_with_an_unlock():
    bench = Bench("own").run_ms(20_000)
    bench.reports(welded=True).run_ms(1_000).reports(welded=False)
    bench.command(CommandKind.ACKNOWLEDGE, "weld-reported").enable().run_ms(20_000)
    assert bench.at is State.LOCKED_OUT
    assert "unlock" in bench.happened(Event.COMMAND_REFUSED).detail
    bench.command(CommandKind.UNLOCK).run_ms(20_000)
    assert bench.at is State.STANDBY
    assert bench.ever_closed == frozenset()
    bench.enable().until(State.RUNNING)


@pytest.mark.requirement("S1.10", "C9")
def test_a_pack_found_closed_at_boot_is_opened_and_checked_first():
    bench = Bench("pack", physics=False).says(contactor_state=PackContactor.CLOSED).enable().run_ms(100)
    assert bench.at is State.VERIFYING_OPEN
    assert bench.ever_closed == frozenset()
    bench.says(contactor_state=PackContactor.OPEN).run_ms(50)
    assert bench.at is State.STANDBY


@pytest.mark.requirement("S2.12", "I11", "cause:feedback-mismatch")
def test_feedback_that_never_confirms_negative_opens_again():
    bench = Bench("own")
    bench.stuck_open = frozenset({NEGATIVE})
    bench.enable().run_ms(15_000)
    assert bench.at is State.FAULT
    assert Event.FEEDBACK_MISMATCH in bench.events()
    assert PRECHARGE not in bench.ever_closed


@pytest.mark.requirement("S1.10", "cause:feedback-mismatch")
def test_a_closed_relay_at_boot_is_a_fault():
    bench = Bench("own")
    bench.welded = frozenset({PRECHARGE})
    bench.enable().run_ms(70_000)
    assert bench.at is State.FAULT
    assert bench.ever_closed == frozenset()


@pytest.mark.requirement("S1.2", "L2")
def test_missing_signals_are_no_fault_at_rest():
    bench = Bench("own").silence(Feed.VOLTAGE, Feed.CELLS).run_ms(59_000)
    assert bench.at is State.STARTING
    bench.run_ms(2_000)
    assert bench.at is State.STANDBY


@pytest.mark.requirement("S1.10")
def test_auto_enable_waits_a_minute_after_a_clean_restart():
    first = Bench("pack").running()
    first.command(CommandKind.STOP).until(State.STANDBY)
    bench = Bench("pack", record=first.stored, contactors=ContactorSettings(auto_enable=True))
    bench.run_ms(59_000)
    assert bench.ever_closed == frozenset()
    bench.until(State.RUNNING)


@pytest.mark.requirement("S1.10")
def test_a_first_start_is_never_enabled_by_itself():
    bench = Bench("pack", contactors=ContactorSettings(auto_enable=True)).run_ms(120_000)
    assert bench.ever_closed == frozenset()
