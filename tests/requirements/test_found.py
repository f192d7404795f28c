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
