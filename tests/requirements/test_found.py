"""Violations found by the generated lives, as short as they get, each mended."""

import pytest

from controller.ports import CommandKind
from statecharts.supervisor import State
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
