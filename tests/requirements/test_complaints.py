"""What a user would complain of, and what must happen then (issue: a world that attacks the controller)."""

from itertools import pairwise

import pytest

from controller.model.battery import BatterySnapshot, Feed
from controller.model.events import Event
from controller.ports import CommandKind
from statecharts.supervisor import Contactor, State
from tests.bench import HEALTHY, Bench

NEGATIVE, PRECHARGE, POSITIVE = Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def closings(bench: Bench) -> list[int]:
    """When each closing began, ms."""
    return [
        at_ms for (_, before), (at_ms, closed) in pairwise(bench.closed_at)
        if closed and not before
    ]  # fmt: skip


def toggled(bench: Bench, for_ms: int, tick_ms: int = 10) -> Bench:
    """The inverter gives and takes its permission every second. While nothing may close, a look each `tick_ms`."""
    end_ms = bench.now_ms + for_ms
    while bench.now_ms < end_ms:
        spent = "cause: closings-spent" in bench.state.withheld
        bench.now_ms += tick_ms - 10 if spent else 0
        bench.inverter(go=bench.now_ms // 1_000 % 2 == 0).run_ms(10)
    return bench


@pytest.mark.requirement("C3", "I5", "cause:closings-spent", "cause:inverter-revoked")
def test_a_permission_that_toggles_every_second_closes_six_times_and_then_not_again():
    bench = toggled(Bench("own").enable(), 300_000)
    assert len(closings(bench)) == 6
    assert bench.at is State.STANDBY
    assert "cause: closings-spent" in bench.state.withheld
    began = closings(bench)
    assert all(later - earlier >= 10_000 for earlier, later in pairwise(began))


@pytest.mark.slow
@pytest.mark.requirement("C3", "I5", "cause:closings-spent")
def test_a_permission_that_toggles_every_second_for_a_day_closes_six_times_an_hour_and_twenty_a_day_at_most():
    bench = toggled(Bench("own").enable(), DAY_MS, tick_ms=500)
    began = closings(bench)
    assert 6 < len(began) <= 20
    assert all(sum(at <= other < at + HOUR_MS for other in began) <= 6 for at in began)
    assert Event.GATE_REFUSED not in bench.events()


@pytest.mark.requirement("C4", "S3.2", "I4")
@pytest.mark.parametrize("missing", ["cell_min_v", "cell_max_v", "temp_min_c", "temp_max_c"])
def test_cell_data_that_is_not_complete_closes_nothing_and_offers_nothing(missing: str):
    bench = Bench("own").says(**{missing: None}).enable().run_ms(65_000)
    assert bench.ever_closed == frozenset()
    assert bench.limits == (0.0, 0.0)
    assert any(missing in why for why in bench.state.withheld)
    bench.says(**{missing: getattr(HEALTHY, missing)}).until(State.RUNNING)


@pytest.mark.requirement("C5", "S3.2", "I4")
def test_before_the_first_frame_nothing_is_known_nothing_is_wrong_and_nothing_closes():
    bench = Bench("own", physics=False)
    bench.slate["pack"] = BatterySnapshot()
    bench.enable().run_ms(90_000)
    assert bench.at is State.STANDBY
    assert bench.events() == []
    assert bench.ever_closed == frozenset()
    assert bench.limits == (0.0, 0.0)


@pytest.mark.requirement("C5", "I4")
@pytest.mark.parametrize("wiring", ["own", "pack"])
def test_zeros_before_the_first_measurement_close_nothing_and_latch_nothing(wiring: str):
    names = ("pack_voltage_v", "soc_pct", "cell_min_v", "cell_max_v", "temp_min_c", "temp_max_c", "max_charge_w")
    zeros = dict.fromkeys(names, 0.0)
    bench = Bench(wiring).says(**zeros).enable().run_ms(70_000)
    assert bench.ever_closed == frozenset()
    assert bench.at is State.STANDBY
    assert bench.limits == (0.0, 0.0)
    bench.says(**{name: getattr(HEALTHY, name) for name in zeros}).until(State.RUNNING)


def standing_soc(energy_full_wh: float, for_ms: int) -> Bench:
    """Charging with 9.7 kW, and the SoC says the same all the time."""
    bench = Bench("own").says(energy_full_wh=energy_full_wh).running()
    bench.load_a = 27.0
    return bench.run_ms(for_ms)


@pytest.mark.requirement("C6", "cause:soc-jump")
def test_an_soc_that_stands_still_while_a_percent_a_minute_moves_halves_the_power():
    bench = standing_soc(9_000.0, 61_000)
    assert Event.SOC_JUMP in bench.events()
    assert bench.limits == (5_000.0, 5_000.0)


@pytest.mark.xfail(strict=True, reason="the charge is compared minute by minute, and less than 1 % in one is no jump")
@pytest.mark.requirement("C6")
def test_an_soc_that_stands_still_while_less_than_a_percent_a_minute_moves_is_noticed_within_ten():
    assert Event.SOC_JUMP in standing_soc(20_000.0, 601_000).events()


@pytest.mark.requirement("C6", "S4.1", "cause:cell-overvoltage")
def test_an_soc_that_stands_still_is_not_what_stops_the_charge():
    bench = Bench("own").running().says(soc_pct=50.0, cell_max_v=4.15).run_ms(20)
    assert bench.limits[0] == 0.0


@pytest.mark.requirement("C7", "cause:isolation-warning", "cause:isolation-low")
def test_isolation_that_is_low_only_while_closed_warns_and_keeps_running():
    bench = Bench("own").says(isolation_kohm=900.0).running().says(isolation_kohm=50.0).run_ms(60_000)
    assert Event.ISOLATION_WARNING in bench.events()
    assert bench.at is State.RUNNING
    bench.command(CommandKind.STOP).until(State.STANDBY).says(isolation_kohm=900.0).enable().until(State.RUNNING)


@pytest.mark.requirement("C7", "cause:isolation-low")
def test_isolation_that_stays_low_once_open_forbids_the_next_closing():
    bench = Bench("own").running().says(isolation_kohm=50.0).command(CommandKind.STOP).until(State.STANDBY)
    count = len(closings(bench))
    bench.enable().run_ms(60_000)
    assert len(closings(bench)) == count
    assert "cause: isolation-low" in bench.state.withheld


@pytest.mark.requirement("C8", "cause:bms-fault", "I6")
@pytest.mark.parametrize("follows", [True, False])
def test_a_bms_that_asks_to_open_under_50_a_is_unloaded_first(follows: bool):
    bench = Bench("own").running()
    bench.load_a = 50.0
    bench.run_ms(500).reports(open_asked=True)
    asked_ms = bench.now_ms
    bench.run_ms(500)
    assert bench.at is State.UNLOADING
    assert bench.limits == (0.0, 0.0)
    bench.load_a = 0.0 if follows else 50.0
    bench.run_ms(2_000)
    assert bench.opened_after_ms(asked_ms) <= (700 if follows else 2_000)
    assert (Event.OPENED_UNDER_LOAD in bench.events()) != follows


@pytest.mark.requirement("C9", "cause:unclean-restart", "I7", "S1.7")
@pytest.mark.parametrize("wiring", ["own", "pack", "pack+inverter"])
def test_a_reboot_while_closed_opens_checks_and_rests_a_minute_before_it_closes_again(wiring: str):
    before = Bench(wiring).running()
    assert before.stored is not None
    assert before.stored.closed
    bench = Bench(wiring, record=before.stored)
    bench.slate["pack"] = before.slate["pack"]
    bench.enable().run_ms(20)
    assert bench.closed == frozenset()
    assert State.VERIFYING_OPEN in [state for _, state, _ in bench.states]
    bench.run_ms(58_000)
    assert bench.ever_closed == frozenset()
    assert Event.UNCLEAN_RESTART in bench.events()
    bench.until(State.RUNNING)


@pytest.mark.requirement("C9", "cause:weld-measured")
def test_a_reboot_while_closed_onto_a_weld_locks_out():
    before = Bench("own").running()
    bench = Bench("own", record=before.stored)
    bench.welded = frozenset({NEGATIVE, POSITIVE})
    bench.enable().run_ms(60_000)
    assert bench.at is State.LOCKED_OUT
    assert bench.ever_closed == frozenset()


@pytest.mark.requirement("C2", "S2.8")
def test_what_the_link_still_holds_is_said_while_it_is_waited_for():
    bench = Bench("own")
    bench.link_v = 300.0
    bench.enable().run_ms(5_000)
    assert any("waiting for it to fall" in why for why in bench.state.withheld)
    assert bench.state.supervisor.link.since_ms is not None
    assert Feed.VOLTAGE in bench.state.pack.feeds
