"""Records a state machine is written in: rows, outputs, guards. A malformed table cannot be built.

Rows are tried top to bottom and the first match wins; a row whose target is its own source holds the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import chain


class ChartError(ValueError):
    """A table that is not a state machine; the message names every mistake, one a line."""


@dataclass(frozen=True)
class Row:
    """In `source`, with every guard of `when` true and every guard of `unless` false, go to `target` for `cause`."""

    source: Enum
    when: tuple[Enum, ...]
    target: Enum
    cause: str
    unless: tuple[Enum, ...] = ()

    @property
    def reads(self) -> tuple[Enum, ...]:
        return self.when + self.unless


@dataclass(frozen=True)
class Chart:
    """A whole machine.

    closed: the outputs energised in each state (before a wiring takes away those it lacks).
    wirings: the outputs each wiring has; wired: the guards that are constant in a wiring, and their value.
    timers: the guards that only time makes true. stops: guards whose rows may never energise anything.
    phases: states grouped for drawing, in order.
    """

    name: str
    states: type[Enum]
    guards: type[Enum]
    outputs: type[Enum]
    initial: Enum
    rows: tuple[Row, ...]
    closed: Mapping[Enum, frozenset[Enum]]
    wirings: Mapping[str, frozenset[Enum]]
    wired: Mapping[str, Mapping[Enum, bool]]
    timers: frozenset[Enum]
    stops: frozenset[Enum]
    resting: frozenset[Enum]
    phases: Mapping[str, tuple[Enum, ...]]
    notes: Mapping[Enum, str]

    def __post_init__(self) -> None:
        if mistakes := list(_mistakes(self)):
            raise ChartError(f"chart {self.name!r}:\n" + "\n".join(f"  - {text}" for text in mistakes))

    def rows_from(self, state: Enum) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.source is state)

    def reads(self, state: Enum) -> tuple[Enum, ...]:
        """The guards the rows of `state` read, in the order of their declaration."""
        read = set(chain.from_iterable(row.reads for row in self.rows_from(state)))
        return tuple(guard for guard in self.guards if guard in read)

    def energised(self, state: Enum, wiring: str) -> frozenset[Enum]:
        return self.closed[state] & self.wirings[wiring]


def _mistakes(chart: Chart) -> list[str]:
    """Everything that makes the table no state machine, in the order of the table."""
    found: list[str] = []

    def check(ok: bool, text: str) -> None:
        if not ok:
            found.append(text)

    check(isinstance(chart.initial, chart.states), f"initial state {chart.initial!r} is no state of the chart")
    for number, row in enumerate(chart.rows, start=1):
        place = f"row {number} ({_name(row.source)} --{row.cause or '?'}--> {_name(row.target)})"
        check(isinstance(row.source, chart.states), f"{place}: unknown source state")
        check(isinstance(row.target, chart.states), f"{place}: unknown target state")
        check(bool(row.cause), f"{place}: a row needs a cause")
        check(bool(row.when), f"{place}: a row needs at least one guard that must be true")
        for guard in row.reads:
            check(isinstance(guard, chart.guards), f"{place}: unknown guard {guard!r}")
        check(not set(row.when) & set(row.unless), f"{place}: a guard is both required and excluded")
        check(row not in chart.rows[: number - 1], f"{place}: stands in the table twice")
    for state in chart.states:
        check(state in chart.closed, f"state {state.name}: no entry in 'closed' (say frozenset() for none)")
        check(state in chart.notes, f"state {state.name}: no note saying what is true in it")
        phases = [phase for phase, states in chart.phases.items() if state in states]
        check(len(phases) == 1, f"state {state.name}: must stand in exactly one phase, stands in {phases}")
    for state, outputs in chart.closed.items():
        check(isinstance(state, chart.states), f"'closed' names the unknown state {state!r}")
        check(all(isinstance(o, chart.outputs) for o in outputs), f"state {_name(state)}: unknown output in 'closed'")
    check(set(chart.wirings) == set(chart.wired), "wirings and their constant guards name different wirings")
    constant = {frozenset(values) for values in chart.wired.values()}
    check(len(constant) <= 1, "every wiring must fix the same guards")
    for kind in ("timers", "stops"):
        check(all(isinstance(g, chart.guards) for g in getattr(chart, kind)), f"unknown guard in '{kind}'")
    check(all(isinstance(s, chart.states) for s in chart.resting), "unknown state in 'resting'")
    unread = set(chart.guards) - set(chain.from_iterable(row.reads for row in chart.rows))
    check(not unread, f"guards no row reads: {', '.join(sorted(_name(g) for g in unread))}")
    return found


def _name(member: object) -> str:
    return member.name if isinstance(member, Enum) else repr(member)
