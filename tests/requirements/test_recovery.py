"""A recovery charge masks exactly undervoltage, for 5 A and 30 minutes."""

import pytest

from controller.model.battery import Feed
from controller.model.events import Event
from controller.ports import CommandKind
from statecharts.supervisor import State
from tests.bench import Bench

EMPTY = {"cell_min_v": 2.5, "cell_max_v": 2.6, "pack_voltage_v": 245.0, "soc_pct": 1.0}


def recovering(**changes: object) -> Bench:
    bench = Bench("pack").says(**(EMPTY | changes)).run_ms(1_000)
    return bench.command(CommandKind.RECOVERY_CHARGE).enable()


@pytest.mark.requirement("S3.4", "cause:cell-undervoltage-critical")
def test_without_it_an_empty_pack_stays_open():
    bench = Bench("pack").says(**EMPTY).enable().run_ms(60_000)
    assert bench.ever_closed == frozenset()


@pytest.mark.requirement("S3.4")
def test_an_empty_pack_is_charged_with_five_amperes_and_gives_nothing():
    bench = recovering().until(State.RUNNING).run_ms(20_000)
    charge_w, discharge_w = bench.limits
    assert 0.0 < charge_w <= 5.0 * 245.0
    assert discharge_w == 0.0


@pytest.mark.requirement("S3.4")
def test_it_ends_after_thirty_minutes():
    bench = recovering().until(State.RUNNING)
    began_ms = bench.now_ms
    while bench.at is State.RUNNING and bench.now_ms - began_ms < 1_900_000:
        bench.run_ms(10_000)
    assert 1_700_000 <= bench.now_ms - began_ms <= 1_810_000


@pytest.mark.requirement("S3.4")
def test_a_cell_below_the_floor_is_not_recovered():
    bench = recovering(cell_min_v=1.99).run_ms(60_000)
    assert bench.ever_closed == frozenset()


@pytest.mark.requirement("P9", "S3.4", "I12")
@pytest.mark.parametrize(
    ("other", "event"),
    [
        ({"cell_max_v": 4.5}, Event.CELL_OVERVOLTAGE_CRITICAL),
        ({"temp_max_c": 65.0}, Event.TEMPERATURE_CRITICAL),
        ({"hvil_ok": False}, Event.HVIL_OPEN),
    ],
)
def test_nothing_else_is_masked(other: dict, event: Event):
    bench = recovering().until(State.RUNNING).says(**other).run_ms(7_000)
    assert event in bench.events()
    assert bench.closed == frozenset()


@pytest.mark.requirement("P9", "S3.4", "I12")
def test_lost_data_is_not_masked():
    bench = recovering().until(State.RUNNING).silence(Feed.VOLTAGE)
    since_ms = bench.now_ms
    bench.run_ms(2_000)
    assert bench.opened_after_ms(since_ms) <= 1_200


@pytest.mark.requirement("S3.4")
def test_a_stop_ends_it():
    bench = recovering().until(State.RUNNING).command(CommandKind.STOP).until(State.STANDBY).enable().run_ms(60_000)
    assert bench.at is State.STANDBY
