"""Each invariant sees what it is there for: one tick of a healthy life is falsified, and it is told of by number."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from controller.model.events import Event
from controller.model.inverter import InverterStatus
from controller.ports import CommandKind
from controller.safety.monitor import NO_FAULTS
from sim.invariants import CAUSES, INVARIANTS, Invariants, Moment
from statecharts.supervisor import Contactor, State
from tests.bench import Bench

NEGATIVE, PRECHARGE, POSITIVE = Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE


@cache
def life() -> tuple[Moment, ...]:
    """Closing, running, a fault under load, FAULT, acknowledged."""
    seen: list[Moment] = []
    bench = Bench("own")
    bench.estop_ok = bench.interlock_ok = True
    bench.observers.append(seen.append)
    bench.running().load_a = 30.0
    bench.run_ms(500).reports(fault=True).run_ms(3000).reports(fault=False).until(State.FAULT)
    bench.run_ms(50).command(CommandKind.ACKNOWLEDGE, "bms-fault").run_ms(50)
    return tuple(seen)


def told(falsified: Callable[[Moment, Moment], Moment | None]) -> set[str]:
    """The numbers of what is found broken when the ticks `falsified` answers for are replaced."""
    observers = Invariants()
    before = life()[0]
    found: set[str] = set()
    for now in life():
        found |= {what.split()[0] for what in observers.look(falsified(now, before) or now)}
        before = now
    return found


def entering(state: State, **changes: object) -> Callable[[Moment, Moment], Moment | None]:
    return lambda now, before: (
        now._replace(**changes) if now.state is state is not before.state else None  # type: ignore[arg-type]
    )  # fmt: skip


def staying(state: State, **changes: object) -> Callable[[Moment, Moment], Moment | None]:
    return lambda now, before: now._replace(**changes) if now.state is state else None  # type: ignore[arg-type]


def more_w(now: Moment, before: Moment) -> Moment | None:
    return now._replace(limits=replace(now.limits, charge_w=now.limits.charge_w + 1.0))


def told_of_no_load(now: Moment, before: Moment) -> Moment:
    return now._replace(told=tuple(notice for notice in now.told if notice.id is not Event.OPENED_UNDER_LOAD))


def released_unasked(now: Moment, before: Moment) -> Moment:
    return now._replace(commands=())


def masked(now: Moment, before: Moment) -> Moment | None:
    return now._replace(faults=NO_FAULTS) if Event.BMS_FAULT in now.held else None


FALSIFIED = [
    ("I1", entering(State.CLOSING_POSITIVE, closed=frozenset({POSITIVE, PRECHARGE}))),
    ("I1", staying(State.PRECHARGING, closed=frozenset({NEGATIVE, PRECHARGE, POSITIVE}))),
    ("I1", staying(State.PRECHARGING, link_v=None)),
    ("I2", staying(State.RUNNING, closed=frozenset({NEGATIVE, POSITIVE, PRECHARGE}))),
    ("I3", staying(State.RUNNING, estop_ok=False)),
    ("I3", staying(State.RUNNING, estop_ok=None)),
    ("I4", lambda now, _: now._replace(interlock_ok=False) if now.state is State.CLOSING_POSITIVE else None),
    ("I4", lambda now, _: now._replace(pack=now.pack._replace(temp_max_c=None)) if now.live else None),
    ("I5", lambda now, _: now._replace(stored=None)),
    ("I5", lambda now, _: now._replace(closed=frozenset({NEGATIVE})) if now.now_ms == 5000 else None),
    ("I6", told_of_no_load),
    ("I6", entering(State.UNLOADING, closed=frozenset({NEGATIVE}), told=())),
    ("I7", staying(State.RUNNING, breakdowns=(Event.EXCEPTION,), heartbeat=False)),
    ("I8", more_w),
    ("I9", released_unasked),
    ("I9", lambda now, _: now._replace(record=replace(now.record, latched=())) if now.held and now.record else None),
    ("I10", lambda now, _: now._replace(view=now.view._replace(status=InverterStatus.ACTIVE))),
    ("I10", lambda now, _: now._replace(view=now.view._replace(outer_voltage_v=360.0))),
    ("I11", staying(State.RUNNING, closed=frozenset({NEGATIVE}))),
    (
        "I11",
        lambda now, _: (
            now._replace(feedback={POSITIVE: False}, faults=NO_FAULTS) if now.state is State.RUNNING else None
        ),
    ),
    ("I12", masked),
    ("I13", entering(State.RUNNING, refusal="positive energised without negative")),
    ("L2", lambda now, _: now._replace(state=State.CLOSING_POSITIVE) if now.state is State.RUNNING else None),
]


def test_a_healthy_life_breaks_nothing_and_exercises_every_invariant():
    observers = Invariants()
    assert [what for now in life() for what in observers.look(now)] == []
    never_met = {name for name, met in observers.met.items() if not met}
    assert never_met == {"I7", "I12"}  # nothing broke down, and one cause came alone


@pytest.mark.parametrize(("name", "falsified"), FALSIFIED, ids=[f"{n}-{name}" for n, (name, _) in enumerate(FALSIFIED)])
def test_a_falsified_tick_is_told_by_its_number(name: str, falsified: Callable[[Moment, Moment], Moment | None]):
    assert name in told(falsified)


def test_every_invariant_is_falsified_here():
    assert {observer.id for observer in INVARIANTS} == {name for name, _ in FALSIFIED}


def test_no_cause_stands_in_the_table_twice_and_each_acts_before_its_budget_ends():
    assert len({cause.id for cause in CAUSES}) == len(CAUSES)
    assert all(cause.hold_ms <= cause.budget_ms for cause in CAUSES)
