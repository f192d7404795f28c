"""A malformed table is refused when built, with every mistake named."""

from dataclasses import replace
from enum import Enum

import pytest

from statecharts.chart import ChartError, Row
from statecharts.shadow import SHADOW
from statecharts.supervisor import ENERGISED, SUPERVISOR, Contactor, Guard, State


class Elsewhere(Enum):
    NOWHERE = "nowhere"


def test_a_row_to_an_unknown_state_is_refused_and_named():
    with pytest.raises(ChartError, match=r"row 1 .*unknown target state"):
        replace(SUPERVISOR, rows=(replace(SUPERVISOR.rows[0], target=Elsewhere.NOWHERE), *SUPERVISOR.rows[1:]))


def test_a_row_from_an_unknown_state_is_refused_and_named():
    with pytest.raises(ChartError, match="unknown source state"):
        replace(SUPERVISOR, rows=(*SUPERVISOR.rows, replace(SUPERVISOR.rows[0], source=Elsewhere.NOWHERE)))


def test_a_state_without_outputs_is_refused_and_named():
    closed = {state: outputs for state, outputs in SUPERVISOR.closed.items() if state is not State.RUNNING}
    with pytest.raises(ChartError, match="state RUNNING: no entry in 'closed'"):
        replace(SUPERVISOR, closed=closed)


def test_an_unknown_guard_is_refused_and_named():
    with pytest.raises(ChartError, match="unknown guard"):
        replace(SUPERVISOR, rows=(*SUPERVISOR.rows, Row(State.FAULT, (Elsewhere.NOWHERE,), State.STANDBY, "x")))


def test_a_guard_no_row_reads_is_refused_and_named():
    rows = tuple(row for row in SUPERVISOR.rows if Guard.UNLOCKED not in row.reads)
    with pytest.raises(ChartError, match="guards no row reads: UNLOCKED"):
        replace(SUPERVISOR, rows=rows)


def test_a_row_that_always_fires_is_refused():
    with pytest.raises(ChartError, match="at least one guard"):
        replace(SUPERVISOR, rows=(*SUPERVISOR.rows, Row(State.FAULT, (), State.STANDBY, "always")))


def test_the_same_row_twice_is_refused():
    with pytest.raises(ChartError, match="stands in the table twice"):
        replace(SUPERVISOR, rows=(*SUPERVISOR.rows, SUPERVISOR.rows[0]))


@pytest.mark.parametrize("kind", ["timers", "stops"])
def test_a_timer_or_a_stop_that_is_no_guard_is_refused(kind: str):
    with pytest.raises(ChartError, match=f"unknown guard in '{kind}'"):
        replace(SUPERVISOR, **{kind: frozenset({Elsewhere.NOWHERE})})


def test_every_mistake_is_named_at_once():
    broken = replace(SUPERVISOR.rows[0], target=Elsewhere.NOWHERE, cause="")
    with pytest.raises(ChartError) as refused:
        replace(SUPERVISOR, rows=(broken, *SUPERVISOR.rows[1:]), resting=frozenset({Elsewhere.NOWHERE}))
    text = str(refused.value)
    assert "unknown target state" in text
    assert "a row needs a cause" in text
    assert "unknown state in 'resting'" in text


def test_outputs_of_a_state_are_those_its_wiring_has():
    assert SUPERVISOR.energised(State.RUNNING, "own") == {Contactor.NEGATIVE, Contactor.POSITIVE}
    assert SUPERVISOR.energised(State.RUNNING, "pack") == {Contactor.PACK}
    assert SUPERVISOR.energised(State.RUNNING, "pack+inverter") == {Contactor.PACK, Contactor.POSITIVE}
    assert SUPERVISOR.energised(State.RUNNING, "none") == frozenset()
    assert SUPERVISOR.energised(State.PRECHARGING, "own") == {Contactor.NEGATIVE, Contactor.PRECHARGE}


def test_the_first_row_out_of_every_energised_state_is_an_immediate_cause_but_for_the_fuse():
    for state in ENERGISED:
        rows = [row for row in SUPERVISOR.rows_from(state) if row.target is not state]
        assert rows[0].when == (Guard.OPEN_NOW,)
        assert rows[0].target is State.VERIFYING_OPEN


def test_the_shadow_energises_nothing_in_any_state():
    assert not any(SHADOW.energised(state, "shadow") for state in State)
