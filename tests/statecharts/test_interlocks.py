"""The model check holds for the chart as it is, and notices when a row is broken."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import pytest

from statecharts.chart import Chart, ChartError, Row
from statecharts.explore import first_match
from statecharts.interlocks import INTERLOCKS, broken, explorations_of, verify
from statecharts.supervisor import SUPERVISOR, Contactor, Guard, State

Change = Callable[[Row], Row | None]


def changed(change: Change, chart: Chart = SUPERVISOR) -> Chart:
    """The chart with every row put through `change`; None drops it."""
    return replace(chart, rows=tuple(new for row in chart.rows if (new := change(row)) is not None))


def broken_rules(chart: Chart) -> set[str]:
    return {example.rule for example in verify(chart).broken}


@pytest.mark.requirement("L3", "L2", "I1", "I2", "I4", "S1.3")
def test_the_chart_keeps_every_rule():
    verdict = verify(SUPERVISOR)
    assert verdict.broken == ()
    assert verdict.steps > 5000
    assert len(verdict.checked) == len(INTERLOCKS) + 3


def test_closing_positive_without_a_charged_link_is_found_with_the_way_there():
    def skip_precharge(row: Row) -> Row:
        skips = row.source is State.CLOSING_NEGATIVE and row.target is State.PRECHARGING
        return replace(row, target=State.CLOSING_POSITIVE) if skips else row

    examples = {example.rule: example for example in verify(changed(skip_precharge)).broken}
    example = examples["positive needs a charged link"]
    assert [step.source.state for step in example.path] == [State.STARTING, State.STANDBY, State.CLOSING_NEGATIVE]
    text = str(example)
    assert "wiring own" in text
    assert "STANDBY --ready--> CLOSING_NEGATIVE" in text
    assert "nothing has verified the link" in text


def test_a_state_exempt_from_an_immediate_cause_is_found():
    def exempt(row: Row) -> Row | None:
        return None if row.source is State.PRECHARGING and row.when == (Guard.OPEN_NOW,) else row

    assert "immediate causes open in the same tick" in broken_rules(changed(exempt))


def test_a_stop_that_goes_on_closing_is_found():
    def go_on(row: Row) -> Row:
        stops = row.source is State.CLOSING_NEGATIVE and row.when == (Guard.STOP,)
        return replace(row, target=State.PRECHARGING) if stops else row

    rules = broken_rules(changed(go_on))
    assert "graceful causes win" in rules
    assert "no stop row energises anything" in rules


def test_opening_under_load_for_a_graceful_cause_is_found():
    def at_once(row: Row) -> Row:
        return replace(row, target=State.VERIFYING_OPEN) if row.source is State.RUNNING and row.cause == "stop" else row

    assert "load is waited for" in broken_rules(changed(at_once))


def test_closing_while_a_stop_cause_acts_is_found():
    def ignore_stop(row: Row) -> Row:
        return replace(row, unless=()) if row.target is State.WAKING_PACK else row

    assert "only ready energises" in broken_rules(changed(ignore_stop))


def test_positive_without_negative_is_found():
    closed = {**SUPERVISOR.closed, State.RUNNING: frozenset({Contactor.PACK, Contactor.POSITIVE})}
    assert "positive needs negative" in broken_rules(replace(SUPERVISOR, closed=closed))


def test_a_precharge_that_stays_on_in_running_is_found():
    closed = {**SUPERVISOR.closed, State.RUNNING: SUPERVISOR.closed[State.CLOSING_POSITIVE]}
    assert "precharge only while precharging" in broken_rules(replace(SUPERVISOR, closed=closed))


def test_a_state_that_can_be_kept_for_ever_is_found():
    def no_timeout(row: Row) -> Row:
        return replace(row, when=(Guard.OPEN_CHECKED,)) if row.cause == "open-unknown" else row

    assert "every passing state is left in bounded time" in broken_rules(changed(no_timeout))


def test_a_row_that_can_never_fire_is_found():
    dead = Row(State.FAULT, (Guard.SELF_TESTED, Guard.OPEN_NOW), State.STANDBY, "dead", unless=(Guard.FAULTED,))
    assert "every row can fire" in broken_rules(replace(SUPERVISOR, rows=(*SUPERVISOR.rows, dead)))


def test_leaving_a_lock_out_by_an_acknowledgement_is_found():
    def softer(row: Row) -> Row:
        return replace(row, when=(Guard.SELF_TESTED,)) if row.cause == "unlocked" else row

    with pytest.raises(ChartError):  # nobody would read UNLOCKED any more
        changed(softer)
    extra = Row(State.LOCKED_OUT, (Guard.SELF_TESTED,), State.STANDBY, "acknowledged")
    assert "only a person unlocks" in broken_rules(replace(SUPERVISOR, rows=(*SUPERVISOR.rows, extra)))


def test_a_weld_that_does_not_lock_out_is_found():
    def forget(row: Row) -> Row:
        welds = row.source is State.VERIFYING_OPEN and row.target is State.LOCKED_OUT
        return replace(row, target=State.FAULT) if welds else row

    assert "a weld locks out" in broken_rules(changed(forget))


HARMLESS: dict[tuple[str, str], str] = {
    ("swap", "WAKING_PACK --link-loaded--> COOLING_DOWN"): "refusing with a load on the link: off either way",
    ("swap", "CLOSING_NEGATIVE --negative-overdue--> VERIFYING_OPEN"): "confirmed in the very tick of the deadline",
    ("swap", "CLOSING_POSITIVE --positive-overdue--> VERIFYING_OPEN"): "confirmed in the very tick of the deadline",
    ("drop WIRED_POSITIVE", "CLOSING_POSITIVE --fuse-clearing--> CLOSING_POSITIVE"): "other wirings never get there",
    ("drop WIRED_POSITIVE", "OPENING_POSITIVE --fuse-clearing--> OPENING_POSITIVE"): "other wirings never get there",
    ("drop UNLOAD_OVERDUE", "UNLOADING --fuse-clearing--> UNLOADING"): "it waits for the fuse a little earlier",
    ("drop POSITIVE_OVERDUE", "CLOSING_POSITIVE --fuse-clearing--> CLOSING_POSITIVE"): "it waits, for the fuse's time",
}
"""Changes of one row that change the machine and leave it safe, with the reason. Everything else must be found."""


def same_machine(chart: Chart) -> bool:
    """Whether a chart leads where ours does, whatever the guards say."""
    for wiring, state in product(chart.wirings, State):
        wired = chart.wired[wiring]
        read = {*chart.reads(state), *SUPERVISOR.reads(state)}
        free = [g for g in Guard if g in read and g not in wired]
        constant = {g for g in read if wired.get(g)}
        for answers in product((False, True), repeat=len(free)):
            true = frozenset(constant | {g for g, yes in zip(free, answers, strict=True) if yes})
            ours, theirs = first_match(SUPERVISOR.rows_from(state), true), first_match(chart.rows_from(state), true)
            if (ours.target if ours else state) is not (theirs.target if theirs else state):
                return False
    return True


def damages() -> Iterator[tuple[str, str, Callable[[], Chart]]]:
    """Every row deleted, led to every other state, robbed of each guard, and swapped with its next sibling."""
    rows = SUPERVISOR.rows

    def chart(*new: Row) -> Callable[[], Chart]:
        return lambda: replace(SUPERVISOR, rows=new)

    for n, row in enumerate(rows):
        name = f"{row.source.name} --{row.cause}--> {row.target.name}"
        before, rest = rows[:n], rows[n + 1 :]
        yield "delete", name, chart(*before, *rest)
        for state in State:
            if state is not row.target:
                yield f"lead to {state.name}", name, chart(*before, replace(row, target=state), *rest)
        for guard in row.when if len(row.when) > 1 else ():
            fewer = replace(row, when=tuple(g for g in row.when if g is not guard))
            yield f"drop {guard.name}", name, chart(*before, fewer, *rest)
        for guard in row.unless:
            fewer = replace(row, unless=tuple(g for g in row.unless if g is not guard))
            yield f"drop {guard.name}", name, chart(*before, fewer, *rest)
        for m in range(n + 1, len(rows)):
            if rows[m].source is row.source:
                yield "swap", _name(rows[m]), chart(*before, rows[m], *rows[n + 1 : m], row, *rows[m + 1 :])
                break


def _name(row: Row) -> str:
    return f"{row.source.name} --{row.cause}--> {row.target.name}"


@pytest.mark.requirement("L3")
@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_no_damage_to_a_single_row_goes_unnoticed(part: int):
    unnoticed, tried = [], 0
    for n, (what, name, build) in enumerate(damages()):
        if n % 8 != part or (what, name) in HARMLESS:
            continue
        tried += 1
        try:
            damaged = build()
        except ChartError:
            continue
        if not next(broken(damaged, explorations_of(damaged)), None) and not same_machine(damaged):
            unnoticed.append(f"{what}: {name}")
    assert unnoticed == [], unnoticed
    assert tried > 80
