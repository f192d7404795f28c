"""What a safety reviewer wants proven of the supervisor chart, one function a sentence; `verify` runs them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import islice

from statecharts.chart import Chart
from statecharts.explore import Counterexample, Exploration, Step, unbounded_stay, unreached
from statecharts.supervisor import CARRYING, LADDER, SUPERVISOR, Contactor, Guard, State

Wrong = Callable[[Chart, Step], str | None]

WITNESSES = frozenset({Guard.LINK_CHARGED, Guard.PACK_CLOSED})
ALWAYS_TRIED = frozenset({Guard.OPEN_NOW, Guard.STOP, Guard.WELDED, Guard.FAULTED, Guard.SUSPECTED})
FUSE = frozenset({Guard.ABOVE_BREAK_MAX, Guard.FUSE_OVERDUE})
HAZARDS = ALWAYS_TRIED | {
    Guard.ABOVE_BREAK_MAX,
    Guard.PACK_REFUSES,
    Guard.LINK_LOADED,
    Guard.PRECHARGE_FAILED,
    Guard.PACK_FOUND_CLOSED,
}
OVERDUE = SUPERVISOR.timers - {Guard.SETTLED, Guard.OVERLAPPED, Guard.BROKEN, Guard.COOLED}
FAULT_REASONS = frozenset({Guard.FAULTED, Guard.PACK_REFUSES, Guard.SIGNALS_OVERDUE})


FOLLOWS: Mapping[Enum, frozenset[Enum]] = {
    State.STARTING: frozenset({State.STANDBY, State.VERIFYING_OPEN, State.FAULT, State.LOCKED_OUT}),
    State.STANDBY: frozenset({State.WAKING_PACK, State.CLOSING_NEGATIVE, State.RUNNING, State.FAULT, State.LOCKED_OUT}),
    State.WAKING_PACK: frozenset(
        {State.CLOSING_POSITIVE, State.RUNNING, State.COOLING_DOWN, State.VERIFYING_OPEN, State.FAULT, State.LOCKED_OUT}
    ),
    State.CLOSING_NEGATIVE: frozenset({State.PRECHARGING, State.VERIFYING_OPEN, State.LOCKED_OUT}),
    State.PRECHARGING: frozenset({State.CLOSING_POSITIVE, State.COOLING_DOWN, State.VERIFYING_OPEN, State.LOCKED_OUT}),
    State.CLOSING_POSITIVE: frozenset({State.RUNNING, State.VERIFYING_OPEN, State.LOCKED_OUT}),
    State.RUNNING: frozenset({State.UNLOADING, State.VERIFYING_OPEN}),
    State.UNLOADING: frozenset({State.OPENING_POSITIVE, State.VERIFYING_OPEN}),
    State.OPENING_POSITIVE: frozenset({State.VERIFYING_OPEN}),
    State.VERIFYING_OPEN: frozenset({State.STANDBY, State.FAULT, State.LOCKED_OUT}),
    State.COOLING_DOWN: frozenset({State.STANDBY, State.FAULT, State.LOCKED_OUT}),
    State.FAULT: frozenset({State.STANDBY, State.LOCKED_OUT}),
    State.LOCKED_OUT: frozenset({State.STANDBY}),
}
"""Which state may follow which, whatever the rows say."""

ENOUGH: tuple[tuple[State, frozenset[Guard], frozenset[Enum]], ...] = (
    (State.STARTING, frozenset({Guard.SELF_TESTED, Guard.SIGNALS_SEEN}), frozenset({State.STANDBY})),
    (State.STARTING, frozenset({Guard.SELF_TESTED, Guard.SIGNALS_OVERDUE}), frozenset({State.STANDBY})),
    (State.STARTING, frozenset({Guard.SIGNALS_OVERDUE}), frozenset({State.STANDBY, State.FAULT})),
    (State.STANDBY, frozenset({Guard.READY}), FOLLOWS[State.STANDBY] - {State.FAULT, State.LOCKED_OUT}),
    (State.WAKING_PACK, frozenset({Guard.PACK_CLOSED}), frozenset({State.CLOSING_POSITIVE, State.RUNNING})),
    (State.CLOSING_NEGATIVE, frozenset({Guard.NEGATIVE_CONFIRMED, Guard.SETTLED}), frozenset({State.PRECHARGING})),
    (State.PRECHARGING, frozenset({Guard.LINK_CHARGED}), frozenset({State.CLOSING_POSITIVE})),
    (State.CLOSING_POSITIVE, frozenset({Guard.POSITIVE_CONFIRMED, Guard.OVERLAPPED}), frozenset({State.RUNNING})),
    (State.UNLOADING, frozenset({Guard.UNLOADED}), FOLLOWS[State.UNLOADING]),
    (State.OPENING_POSITIVE, frozenset({Guard.BROKEN}), frozenset({State.VERIFYING_OPEN})),
    (State.VERIFYING_OPEN, frozenset({Guard.OPEN_CHECKED}), frozenset({State.STANDBY})),
    (State.COOLING_DOWN, frozenset({Guard.COOLED}), frozenset({State.STANDBY})),
    (State.FAULT, frozenset({Guard.SELF_TESTED}), frozenset({State.STANDBY})),
    (State.LOCKED_OUT, frozenset({Guard.UNLOCKED}), frozenset({State.STANDBY})),
)
"""What is enough to go on when nothing is wrong, and where to."""

FAILING: Mapping[Enum, Mapping[Guard, State]] = {
    State.PRECHARGING: {
        Guard.PRECHARGE_FAILED: State.COOLING_DOWN,
        Guard.PRECHARGE_OVERDUE: State.COOLING_DOWN,
    },
    State.WAKING_PACK: {
        Guard.PACK_REFUSES: State.FAULT,
        Guard.LINK_LOADED: State.COOLING_DOWN,
        Guard.WAKING_OVERDUE: State.COOLING_DOWN,
    },
}
"""Where a closing that fails ends, when nothing else stops it."""

MEMBERS: Mapping[Enum, Contactor] = {
    State.WAKING_PACK: Contactor.PACK,
    State.CLOSING_NEGATIVE: Contactor.NEGATIVE,
    State.PRECHARGING: Contactor.PRECHARGE,
    State.CLOSING_POSITIVE: Contactor.POSITIVE,
    State.OPENING_POSITIVE: Contactor.POSITIVE,
}
"""The output without which a wiring skips the state."""


def _names(outputs: Iterable[Enum]) -> str:
    return ", ".join(sorted(str(o.value) for o in outputs))


def _guards(guards: Iterable[Enum]) -> str:
    return ", ".join(sorted(g.name for g in guards)) or "nothing"


def _waits_for_fuse(chart: Chart, step: Step) -> bool:
    """A hold of closed relays of ours while they must not break the current, for the fuse's time only."""
    held = step.row is not None and step.row.target is step.row.source
    current = Guard.ABOVE_BREAK_MAX in step.true and Guard.FUSE_OVERDUE not in step.true
    carrying = step.source.state in CARRYING and Contactor.POSITIVE in chart.wirings[step.wiring]
    return held and current and carrying


def _outputs(chart: Chart, step: Step) -> tuple[frozenset[Enum], frozenset[Enum]]:
    """What is energised before and after the step."""
    return chart.energised(step.source.state, step.wiring), chart.energised(step.target.state, step.wiring)


def states_follow_in_order(chart: Chart, step: Step) -> str | None:
    """No state follows another but as FOLLOWS says."""
    source, target = step.source.state, step.target.state
    if source is not target and target not in FOLLOWS[source]:
        return f"{source.name} leads to {target.name}"
    return None


def wirings_skip_what_they_lack(chart: Chart, step: Step) -> str | None:
    """No wiring enters a state whose output it does not have."""
    member = MEMBERS.get(step.target.state)
    if member is not None and member not in chart.wirings[step.wiring]:
        return f"{step.target.state.name} is entered although wiring {step.wiring} has no {member.value}"
    return None


def healthy_goes_on(chart: Chart, step: Step) -> str | None:
    """With nothing wrong and what ENOUGH asks, every state is left for where it should lead."""
    for state, enough, targets in ENOUGH:
        wrong = step.true & (HAZARDS | (OVERDUE - enough))
        if step.source.state is state and enough <= step.true and not wrong and step.target.state not in targets:
            return f"{state.name} leads to {step.target.state.name} although {_guards(enough)} and nothing is wrong"
    return None


def positive_needs_a_charged_link(chart: Chart, step: Step) -> str | None:
    """I1: positive closed ⇒ this cycle's precharge was verified; a pack's own CLOSED stands for it."""
    _, after = _outputs(chart, step)
    if Contactor.POSITIVE in after and not step.target.witnessed:
        return f"{step.target.state.name} energises positive, and nothing has verified the link in this cycle"
    return None


def nothing_rises_on_suspicion(chart: Chart, step: Step) -> str | None:
    """I4: while a stop cause acts, or is seen and not yet long enough to act, no output rises."""
    before, after = _outputs(chart, step)
    why = step.true & {Guard.OPEN_NOW, Guard.STOP, Guard.WELDED, Guard.SUSPECTED}
    if why and not after <= before:
        return f"{step.source.state.name} energises {_names(after - before)} although {_guards(why)}"
    return None


def pack_runs_only_when_it_says_closed(chart: Chart, step: Step) -> str | None:
    """I1: beyond waking, a pack that holds its own contactors has said CLOSED in this cycle."""
    _, after = _outputs(chart, step)
    asked = Contactor.PACK in after and step.target.state is not State.WAKING_PACK
    if asked and Guard.PACK_CLOSED not in step.target.witnessed:
        return f"{step.target.state.name} is reached although the pack never said CLOSED in this cycle"
    return None


def positive_needs_negative(chart: Chart, step: Step) -> str | None:
    """I1: where we hold both, positive is never energised without negative."""
    _, after = _outputs(chart, step)
    both = {Contactor.POSITIVE, Contactor.NEGATIVE} <= chart.wirings[step.wiring]
    if both and Contactor.POSITIVE in after and Contactor.NEGATIVE not in after:
        return f"{step.target.state.name} energises positive without negative"
    return None


def precharge_only_while_precharging(chart: Chart, step: Step) -> str | None:
    """I2: the precharge relay is energised in PRECHARGING and CLOSING_POSITIVE only."""
    _, after = _outputs(chart, step)
    if Contactor.PRECHARGE in after and step.target.state not in (State.PRECHARGING, State.CLOSING_POSITIVE):
        return f"{step.target.state.name} energises the precharge relay"
    return None


def only_ready_energises(chart: Chart, step: Step) -> str | None:
    """Nothing is energised out of rest but from STANDBY, when ready, with no stop cause."""
    before, after = _outputs(chart, step)
    if before or not after:
        return None
    blocked = step.true & ALWAYS_TRIED
    if step.source.state is State.STANDBY and Guard.READY in step.true and not blocked:
        return None
    why = f"although {_guards(blocked)}" if blocked else "out of turn"
    return f"{step.source.state.name} energises {_names(after)} {why}"


def immediate_causes_open_in_the_same_tick(chart: Chart, step: Step) -> str | None:
    """OPEN_NOW from every energised state ⇒ outputs off in that tick, but for the fuse's work on relays of ours."""
    before, after = _outputs(chart, step)
    if not before or Guard.OPEN_NOW not in step.true or not after or _waits_for_fuse(chart, step):
        return None
    return f"OPEN_NOW in {step.source.state.name} leaves {_names(after)} energised"


def graceful_causes_win(chart: Chart, step: Step) -> str | None:
    """STOP or WELDED ⇒ the ladder is off at once, and RUNNING unloads (at once where OPEN_NOW holds too)."""
    source, target = step.source.state, step.target.state
    running_on = source is State.RUNNING and Guard.OPEN_NOW not in step.true
    if not step.true & {Guard.STOP, Guard.WELDED} or (_waits_for_fuse(chart, step) and not running_on):
        return None
    _, after = _outputs(chart, step)
    if source in LADDER and after:
        return f"a stop in {source.name} leaves {_names(after)} energised"
    if source is State.RUNNING and Guard.OPEN_NOW not in step.true and target is not State.UNLOADING:
        return f"a stop in RUNNING leads to {target.name}"
    return None


def the_fuse_is_waited_for(chart: Chart, step: Step) -> str | None:
    """Relays of ours hold while the current is known to exceed what they may break, for the fuse's time."""
    before, after = _outputs(chart, step)
    fuse = Guard.ABOVE_BREAK_MAX in step.true and Guard.FUSE_OVERDUE not in step.true
    source, target = step.source.state, step.target.state
    if not fuse or source not in CARRYING or Guard.UNLOADED in step.true or target is State.RUNNING:
        return None
    if Contactor.POSITIVE in chart.wirings[step.wiring] and after < before:
        return f"{source.name} breaks a current above break_max_a before the fuse had its time"
    return None


def load_is_waited_for(chart: Chart, step: Step) -> str | None:
    """I6: but for OPEN_NOW, what carries the load opens out of UNLOADING when unloaded or overdue, positive first."""
    before, after = _outputs(chart, step)
    source = step.source.state
    if source not in (State.RUNNING, State.UNLOADING) or Guard.OPEN_NOW in step.true or after >= before:
        return None
    if source is State.RUNNING or not step.true & {Guard.UNLOADED, Guard.UNLOAD_OVERDUE}:
        return f"{source.name} opens {_names(before - after)} without waiting for the current to fall"
    if Contactor.POSITIVE in before and before - after != {Contactor.POSITIVE}:
        return f"{source.name} opens {_names(before - after)} at once; positive must break alone"
    return None


def the_way_down_never_turns_back(chart: Chart, step: Step) -> str | None:
    """Out of UNLOADING and OPENING_POSITIVE nothing is energised that was not."""
    before, after = _outputs(chart, step)
    if step.source.state in (State.UNLOADING, State.OPENING_POSITIVE) and not after <= before:
        return f"{step.source.state.name} energises {_names(after - before)}"
    return None


def a_failing_closing_goes_no_further(chart: Chart, step: Step) -> str | None:
    """A precharge that failed or is overdue, a pack that refuses or has a load on its link ⇒ off, as FAILING says."""
    failing = FAILING.get(step.source.state, {})
    why = [guard for guard in failing if guard in step.true]
    if not why:
        return None
    source, target = step.source.state, step.target.state
    _, after = _outputs(chart, step)
    if after:
        return f"{source.name} goes on to {target.name} although {_guards(why)}"
    if not step.true & ALWAYS_TRIED and target not in {failing[guard] for guard in why}:
        return f"{source.name} leads to {target.name} although only {_guards(why)}"
    return None


def precharging_is_entered_only_confirmed(chart: Chart, step: Step) -> str | None:
    """PRECHARGING comes after a confirmed and settled negative contactor."""
    if step.target.state is not State.PRECHARGING or step.source.state is State.PRECHARGING:
        return None
    missing = {Guard.NEGATIVE_CONFIRMED, Guard.SETTLED} - step.true
    return f"PRECHARGING is entered without {_guards(missing)}" if missing else None


def running_is_entered_only_confirmed(chart: Chart, step: Step) -> str | None:
    """RUNNING comes after a confirmed positive contactor, a pack that says CLOSED, or where we switch nothing."""
    if step.target.state is not State.RUNNING or step.source.state is State.RUNNING:
        return None
    wired = chart.wirings[step.wiring]
    blocked = {Guard.OPEN_NOW, Guard.STOP} | ({Guard.SUSPECTED} if step.source.state is State.STANDBY else set())
    if step.true & blocked:
        return f"RUNNING is entered from {step.source.state.name} although {_guards(step.true)}"
    ways: Mapping[Enum, set[Guard] | None] = {
        State.CLOSING_POSITIVE: {Guard.POSITIVE_CONFIRMED, Guard.OVERLAPPED} if Contactor.POSITIVE in wired else None,
        State.WAKING_PACK: {Guard.PACK_CLOSED} if Contactor.POSITIVE not in wired else None,
        State.STANDBY: {Guard.READY} if not wired else None,
    }
    needs = ways.get(step.source.state)
    if needs is None or not needs <= step.true:
        return f"RUNNING is entered from {step.source.state.name} in wiring {step.wiring}, true: {_guards(step.true)}"
    return None


def standby_is_entered_only_checked(chart: Chart, step: Step) -> str | None:
    """STANDBY comes after self test, weld check, cool-down, acknowledgement or unlock; never with a fault held."""
    source = step.source.state
    if step.target.state is not State.STANDBY or source is State.STANDBY:
        return None
    ways: Mapping[Enum, tuple[set[Guard], ...]] = {
        State.STARTING: ({Guard.SELF_TESTED, Guard.SIGNALS_SEEN}, {Guard.SELF_TESTED, Guard.SIGNALS_OVERDUE}),
        State.VERIFYING_OPEN: ({Guard.OPEN_CHECKED}, {Guard.VERIFY_OVERDUE}),
        State.COOLING_DOWN: ({Guard.COOLED},),
        State.FAULT: ({Guard.SELF_TESTED},),
        State.LOCKED_OUT: ({Guard.UNLOCKED},),
    }
    if not any(needs <= step.true for needs in ways.get(source, ())):
        return f"STANDBY is entered from {source.name}, true: {_guards(step.true)}"
    if source is not State.LOCKED_OUT and (held := step.true & {Guard.FAULTED, Guard.WELDED}):
        return f"STANDBY is entered from {source.name} although {_guards(held)}"
    return None


def faults_are_held(chart: Chart, step: Step) -> str | None:
    """FAULTED at rest ⇒ FAULT (a weld: LOCKED_OUT); FAULT and LOCKED_OUT are entered for such a reason only."""
    source, target = step.source.state, step.target.state
    resting = (State.STARTING, State.STANDBY, State.COOLING_DOWN, State.FAULT)
    checks_first = target is State.VERIFYING_OPEN and Guard.PACK_FOUND_CLOSED in step.true
    held = target in (State.FAULT, State.LOCKED_OUT) or checks_first
    if source in resting and Guard.FAULTED in step.true and not held:
        return f"{source.name} leads to {target.name} although a fault is held"
    if target is State.FAULT and source is not target and not step.true & FAULT_REASONS:
        return f"{source.name} leads to FAULT although {_guards(step.true)}"
    if target is State.LOCKED_OUT and source is not target and Guard.WELDED not in step.true:
        return f"{source.name} leads to LOCKED_OUT although no weld is suspected"
    return None


def only_a_person_unlocks(chart: Chart, step: Step) -> str | None:
    """LOCKED_OUT is left only by UNLOCKED, and energises nothing."""
    leaves = step.source.state is State.LOCKED_OUT and step.target.state is not State.LOCKED_OUT
    if leaves and (Guard.UNLOCKED not in step.true or step.target.state is not State.STANDBY):
        return f"LOCKED_OUT is left for {step.target.state.name} without an unlock"
    return None


def a_weld_locks_out(chart: Chart, step: Step) -> str | None:
    """WELDED in the ladder or with nothing energised ⇒ LOCKED_OUT (after VERIFYING_OPEN where OPEN_NOW holds too)."""
    source, target = step.source.state, step.target.state
    if (
        Guard.WELDED not in step.true
        or _waits_for_fuse(chart, step)
        or source in (State.RUNNING, State.UNLOADING, State.OPENING_POSITIVE)
    ):
        return None
    first_open = source in LADDER and Guard.OPEN_NOW in step.true
    if target is State.LOCKED_OUT or source is State.LOCKED_OUT or first_open:
        return None
    return f"a suspected weld in {source.name} leads to {target.name}"


def what_opened_is_checked(chart: Chart, step: Step) -> str | None:
    """An immediate cause, every way down and a pack found closed end in VERIFYING_OPEN, left with a verdict only."""
    before, after = _outputs(chart, step)
    source, target = step.source.state, step.target.state
    checked = (State.VERIFYING_OPEN, State.LOCKED_OUT)
    if source is State.STARTING and Guard.PACK_FOUND_CLOSED in step.true and target not in checked:
        return f"a pack found closed leads to {target.name}, unchecked"
    verdicts = {Guard.OPEN_CHECKED, Guard.VERIFY_OVERDUE, Guard.WELDED}
    if source is State.VERIFYING_OPEN and target is not source and not step.true & verdicts:
        return f"VERIFYING_OPEN is left for {target.name} without a verdict"
    down = source in (State.RUNNING, State.UNLOADING, State.OPENING_POSITIVE)
    asked = Guard.OPEN_NOW in step.true or (Guard.STOP in step.true and Guard.WELDED not in step.true)
    if before and not after and (down or asked) and target is not State.VERIFYING_OPEN:
        return f"{source.name} opens into {target.name}, unchecked"
    return None


INTERLOCKS: tuple[Wrong, ...] = (
    states_follow_in_order,
    wirings_skip_what_they_lack,
    healthy_goes_on,
    positive_needs_a_charged_link,
    pack_runs_only_when_it_says_closed,
    positive_needs_negative,
    nothing_rises_on_suspicion,
    precharge_only_while_precharging,
    only_ready_energises,
    immediate_causes_open_in_the_same_tick,
    graceful_causes_win,
    load_is_waited_for,
    the_fuse_is_waited_for,
    the_way_down_never_turns_back,
    what_opened_is_checked,
    a_failing_closing_goes_no_further,
    precharging_is_entered_only_confirmed,
    running_is_entered_only_confirmed,
    standby_is_entered_only_checked,
    faults_are_held,
    only_a_person_unlocks,
    a_weld_locks_out,
)


def stop_rows_energise_nothing(chart: Chart) -> Counterexample | None:
    """No row that asks for a stop cause energises anything its source did not."""
    for n, row in enumerate(chart.rows, start=1):
        for wiring in chart.wirings:
            more = chart.energised(row.target, wiring) - chart.energised(row.source, wiring)
            if set(row.when) & chart.stops and more:
                what = f"row {n} ({row.source.name} --{row.cause}--> {row.target.name}) energises {_names(more)}"
                return Counterexample("no stop row energises anything", f"{what} in wiring {wiring}", ())
    return None


@dataclass(frozen=True)
class Verdict:
    """What `verify` found. checked: each property in words, with the number of steps it was held against."""

    checked: tuple[tuple[str, int], ...]
    broken: tuple[Counterexample, ...]
    states: int
    rows: int
    steps: int


def explorations_of(chart: Chart) -> list[Exploration]:
    """All reachable steps, a wiring each."""
    return [Exploration(chart, wiring, WITNESSES, _always_tried) for wiring in chart.wirings]


def _always_tried(state: Enum) -> frozenset[Enum]:
    """Guards a property asks about: a row that is missing must not hide them."""
    enough = [guards for other, guards, _ in ENOUGH if other is state]
    return ALWAYS_TRIED.union(FUSE, *enough)


def broken(chart: Chart, explorations: list[Exploration]) -> Iterator[Counterexample]:
    """Every broken property, one counter-example each, as they are found."""
    for interlock in INTERLOCKS:
        examples = (e.broken(_name_of(interlock), partial(interlock, chart)) for e in explorations)
        yield from islice((example for example in examples if example), 1)
    if energising := stop_rows_energise_nothing(chart):
        yield energising
    yield from (example for e in explorations if (example := unbounded_stay(e)))
    yield from unreached(chart, explorations)


def verify(chart: Chart) -> Verdict:
    """Check every property in every wiring."""
    explorations = explorations_of(chart)
    steps = sum(len(e.steps) for e in explorations)
    checked = [(_name_of(interlock), steps) for interlock in INTERLOCKS]
    checked.append(("no stop row energises anything", len(chart.rows)))
    checked.append(("every passing state is left in bounded time", steps))
    checked.append(("every state can be reached, every row can fire", len(chart.rows)))
    found = tuple(broken(chart, explorations))
    return Verdict(tuple(checked), found, len(chart.states), len(chart.rows), steps)


def _name_of(interlock: Wrong) -> str:
    return interlock.__name__.replace("_", " ")
