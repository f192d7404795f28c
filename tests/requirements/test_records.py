"""What a restart must not forget."""

from dataclasses import replace

import pytest

from controller.model.events import Event
from controller.ports import CommandKind, Record
from statecharts.supervisor import State
from tests.bench import Bench


@pytest.mark.requirement("S1.7", "I9", "L1")
def test_a_latched_cause_survives_a_restart():
    first = Bench("own").running()
    first.reports(fault=True).run_ms(5_000)
    bench = Bench("own", record=first.stored).enable().run_ms(30_000)
    assert bench.at is State.FAULT
    assert bench.ever_closed == frozenset()
    bench.command(CommandKind.ACKNOWLEDGE, "bms-fault").until(State.RUNNING)


@pytest.mark.requirement("S1.7", "I9")
def test_a_latched_cause_that_is_gone_survives_a_restart_too():
    first = Bench("own").running()
    first.reports(fault=True).run_ms(3_000).reports(fault=False).until(State.FAULT).run_ms(1_000)
    bench = Bench("own", record=first.stored).enable().run_ms(30_000)
    assert bench.at is State.FAULT
    assert bench.ever_closed == frozenset()


@pytest.mark.requirement("S1.8", "I9")
def test_a_lock_out_on_record_is_one_though_no_cause_is_latched():
    bench = Bench("own", record=Record(seq=3, locked_out=True)).enable().run_ms(30_000)
    assert bench.at is State.LOCKED_OUT
    assert bench.ever_closed == frozenset()


@pytest.mark.requirement("S1.8", "I9")
def test_a_lock_out_survives_a_restart():
    first = Bench("own").run_ms(20_000)
    first.reports(welded=True).run_ms(1_000)
    assert first.stored is not None
    bench = Bench("own", record=first.stored).enable().run_ms(30_000)
    assert bench.at is State.LOCKED_OUT
    bench.command(CommandKind.UNLOCK).run_ms(100).enable().until(State.RUNNING)


@pytest.mark.requirement("C9", "cause:unclean-restart")
def test_a_restart_while_closed_is_checked_and_rests_a_minute():
    first = Bench("own").running()
    assert first.stored is not None
    assert first.stored.closed
    bench = Bench("own", record=first.stored, feedback=False)
    bench.link_v = 360.0
    bench.enable().run_ms(20)
    assert bench.at is State.VERIFYING_OPEN
    bench.run_ms(50_000)
    assert bench.ever_closed == frozenset()
    assert Event.UNCLEAN_RESTART in bench.events()
    bench.until(State.RUNNING)


@pytest.mark.requirement("C9", "cause:unclean-restarts-spent")
def test_the_third_restart_while_closed_in_a_day_latches():
    record = None
    for _ in range(3):
        bench = Bench("own", record=record).enable().until(State.RUNNING, within_ms=120_000)
        record = bench.stored
    bench = Bench("own", record=record).enable().run_ms(200_000)
    assert bench.at is State.FAULT
    bench.command(CommandKind.ACKNOWLEDGE, "unclean-restarts-spent").until(State.RUNNING, within_ms=120_000)


@pytest.mark.requirement("S1.7")
def test_an_opening_that_was_verified_is_no_unclean_restart():
    first = Bench("own").running()
    first.command(CommandKind.STOP).until(State.STANDBY)
    assert first.stored is not None
    assert not first.stored.closed
    bench = Bench("own", record=first.stored).run_ms(1_000)
    assert bench.at is State.STANDBY


@pytest.mark.requirement("S1.7", "I5", "S2.6")
def test_closings_and_tries_are_counted_over_a_restart():
    record = Record(seq=9, closings_age_ms=(60_000,) * 6, tries=0)
    bench = Bench("own", record=record).enable().run_ms(30_000)
    assert "cause: closings-spent" in bench.state.withheld
    record = replace(record, closings_age_ms=(), tries=3)
    bench = Bench("own", record=record).enable().run_ms(30_000)
    assert bench.at is State.FAULT


@pytest.mark.requirement("S1.7", "S2.6", "I2")
def test_precharge_energy_is_booked_over_a_restart():
    record = Record(seq=9, precharges_age_ms=((5_000, 2_000), (4_000, 2_000), (3_000, 2_000)))
    bench = Bench("own", record=record).enable().run_ms(30_000)
    assert any("resistor rests" in why for why in bench.state.withheld)


@pytest.mark.requirement("cause:record-lost", "S1.7")
def test_a_cause_no_rule_knows_is_held_as_a_lost_record():
    bench = Bench("own", record=Record(seq=1, latched=("from-the-future",))).enable().run_ms(30_000)
    assert bench.at is State.LOCKED_OUT


@pytest.mark.requirement("S1.7")
def test_a_record_is_written_only_when_something_in_it_changed():
    bench = Bench("own").running()
    assert bench.stored is not None
    before = bench.stored.seq
    bench.run_ms(10_000)
    assert bench.stored.seq == before
