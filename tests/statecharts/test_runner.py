"""`transitions` does what the table says: nothing more, and no other guard is asked."""

from dataclasses import replace
from itertools import product

import pytest

from statecharts.chart import Chart
from statecharts.explore import first_match
from statecharts.runner import Runner
from statecharts.shadow import SHADOW
from statecharts.supervisor import SUPERVISOR, Guard, State


@pytest.mark.parametrize("chart", [SUPERVISOR, SHADOW], ids=lambda chart: chart.name)
def test_the_runtime_and_the_model_check_agree_on_every_combination_of_guards(chart: Chart):
    runner = Runner(chart)
    compared = 0
    for state in chart.states:
        read = chart.reads(state)
        for answers in product((False, True), repeat=len(read)):
            true = frozenset(g for g, yes in zip(read, answers, strict=True) if yes)
            assert runner.fire(state, true.__contains__) == first_match(chart.rows_from(state), true)
            compared += 1
    assert compared > len(chart.rows)


@pytest.mark.parametrize("chart", [SUPERVISOR, SHADOW], ids=lambda chart: chart.name)
def test_no_row_reads_a_guard_that_is_not_in_the_table_of_its_state(chart: Chart):
    runner = Runner(chart)
    for state in chart.states:
        for answer in (False, True):
            asked = set()

            def reads(guard, asked=asked, answer=answer):
                asked.add(guard)
                return answer

            runner.fire(state, reads)
            assert asked <= set(chart.reads(state))


def test_a_row_that_holds_the_state_is_reported_and_does_not_leave_it():
    true = {Guard.OPEN_NOW, Guard.ABOVE_BREAK_MAX, Guard.WIRED_POSITIVE}
    row = Runner(SUPERVISOR).fire(State.RUNNING, true.__contains__)
    assert row is not None
    assert row.cause == "fuse-clearing"
    assert row.target is State.RUNNING


def test_there_is_no_way_to_a_state_but_by_rows():
    machine_methods = [name for name in dir(Runner(SUPERVISOR)._seat) if name.startswith("to_")]
    assert machine_methods == []


def test_swapping_two_rows_changes_what_the_runtime_does():
    precharging = [row for row in SUPERVISOR.rows if row.source is State.PRECHARGING]
    charged = next(row for row in precharging if Guard.LINK_CHARGED in row.when)
    stop = next(row for row in precharging if Guard.STOP in row.when)
    rows = tuple({charged: stop, stop: charged}.get(row, row) for row in SUPERVISOR.rows)
    true = {Guard.LINK_CHARGED, Guard.STOP}
    assert Runner(SUPERVISOR).fire(State.PRECHARGING, true.__contains__) == stop
    assert Runner(replace(SUPERVISOR, rows=rows)).fire(State.PRECHARGING, true.__contains__) == charged


def test_an_interpreter_that_goes_elsewhere_than_its_row_is_not_believed():
    runner = Runner(SUPERVISOR)
    seat = runner._seat

    def astray() -> bool:
        seat.fired, seat.state = SUPERVISOR.rows_from(State.STARTING)[0], State.RUNNING
        return True

    seat.tick = astray
    with pytest.raises(AssertionError, match=r"went to RUNNING but the row says LOCKED_OUT"):
        runner.fire(State.STARTING, {Guard.WELDED}.__contains__)
