"""Model check: every state × every combination of the guards its rows read, timers included, and all their sequences.

Nothing here runs the controller; a guard is free to be true or false, so what holds here holds whatever the world does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import product

from statecharts.chart import Chart, Row


@dataclass(frozen=True)
class Node:
    """A reachable situation: the state, and which witnesses a row has demanded since everything was last off."""

    state: Enum
    witnessed: frozenset[Enum]


@dataclass(frozen=True)
class Step:
    """One tick: from a node, with exactly these guards true, a row fires (None: the state stays)."""

    wiring: str
    source: Node
    true: frozenset[Enum]
    row: Row | None
    target: Node


@dataclass(frozen=True)
class Counterexample:
    """A broken property: what it says, what happened instead, and the way there from the initial state."""

    rule: str
    what: str
    path: tuple[Step, ...]

    def __str__(self) -> str:
        lines = [f"{self.rule}: {self.what}"]
        for step in self.path:
            true = ", ".join(sorted(g.name for g in step.true)) or "none"
            cause = step.row.cause if step.row else "no row fires"
            lines.append(f"    {step.source.state.name} --{cause}--> {step.target.state.name}    (true: {true})")
        if self.path:
            lines.insert(1, f"    wiring {self.path[0].wiring}:")
        return "\n".join(lines)


def first_match(rows: tuple[Row, ...], true: frozenset[Enum]) -> Row | None:
    """The first row whose guards hold when exactly `true` are true."""
    for row in rows:
        if all(g in true for g in row.when) and not any(g in true for g in row.unless):
            return row
    return None


class Exploration:
    """All reachable steps of a chart in one wiring. `always`: the guards tried in a state though no row reads them."""

    def __init__(
        self, chart: Chart, wiring: str, witnesses: frozenset[Enum], always: Callable[[Enum], frozenset[Enum]]
    ) -> None:
        self.chart, self.wiring, self.witnesses, self.always = chart, wiring, witnesses, always
        self.steps: list[Step] = []
        self._came_by: dict[Node, Step | None] = {}
        self._explore()

    def _explore(self) -> None:
        first = Node(self.chart.initial, frozenset())
        self._came_by[first] = None
        queue = deque([first])
        while queue:
            node = queue.popleft()
            for step in self._steps_from(node):
                self.steps.append(step)
                if step.target not in self._came_by:
                    self._came_by[step.target] = step
                    queue.append(step.target)

    def _steps_from(self, node: Node) -> Iterator[Step]:
        rows = self.chart.rows_from(node.state)
        for true in self._combinations(node.state):
            row = first_match(rows, true)
            yield Step(self.wiring, node, true, row, self._after(node, row))

    def _combinations(self, state: Enum) -> Iterator[frozenset[Enum]]:
        wired = self.chart.wired[self.wiring]
        read = self.chart.reads(state)
        always = self.always(state)
        tried = [g for g in self.chart.guards if (g in read or g in always) and g not in wired]
        constant = [g for g in read if wired.get(g)]
        for answers in product((False, True), repeat=len(tried)):
            yield frozenset(constant + [g for g, yes in zip(tried, answers, strict=True) if yes])

    def _after(self, node: Node, row: Row | None) -> Node:
        if row is None or row.target is row.source:
            return node
        if not self.chart.energised(row.target, self.wiring):
            return Node(row.target, frozenset())
        return Node(row.target, node.witnessed | (self.witnesses & set(row.when)))

    @property
    def states(self) -> set[Enum]:
        return {node.state for node in self._came_by}

    def path_to(self, step: Step) -> tuple[Step, ...]:
        """The shortest way from the initial state up to and including `step`."""
        path = [step]
        while (before := self._came_by[path[0].source]) is not None:
            path.insert(0, before)
        return tuple(path)

    def broken(self, rule: str, wrong: Callable[[Step], str | None]) -> Counterexample | None:
        """The first reachable step `wrong` has something to say about, as a counter-example."""
        for step in self.steps:
            if (what := wrong(step)) is not None:
                return Counterexample(rule, what, self.path_to(step))
        return None


def unbounded_stay(exploration: Exploration) -> Counterexample | None:
    """Every state that is no resting place is left once all timers have expired, and not entered again before rest."""
    chart = exploration.chart
    rule = "every passing state is left in bounded time"

    def stays(step: Step) -> str | None:
        state = step.source.state
        timers = chart.timers & set(chart.reads(state))
        if state in chart.resting or not timers <= step.true or step.target.state is not state:
            return None
        return f"{state.name} is kept although every timer has expired"

    if found := exploration.broken(rule, stays):
        return found
    edges: dict[Enum, set[Enum]] = {}
    for step in exploration.steps:
        source, target = step.source.state, step.target.state
        if source is not target and source not in chart.resting and target not in chart.resting:
            edges.setdefault(source, set()).add(target)
    if cycle := _cycle(chart, edges):
        return Counterexample(rule, "the chart can go round for ever: " + " → ".join(s.name for s in cycle), ())
    return None


def _cycle(chart: Chart, edges: dict[Enum, set[Enum]]) -> list[Enum] | None:
    """A way from a state back to itself along `edges`, or None."""
    for start in chart.states:
        ways = [[start]]
        seen: set[Enum] = set()
        while ways:
            way = ways.pop()
            for target in sorted(edges.get(way[-1], ()), key=lambda s: str(s.value)):
                if target is start:
                    return [*way, target]
                if target not in seen:
                    seen.add(target)
                    ways.append([*way, target])
    return None


def unreached(chart: Chart, explorations: list[Exploration]) -> list[Counterexample]:
    """States no wiring reaches, and rows that never fire."""
    states = set().union(*(e.states for e in explorations))
    fired = {step.row for e in explorations for step in e.steps}
    lost = [
        Counterexample("every state can be reached", f"{state.name} is out of reach in every wiring", ())
        for state in chart.states
        if state not in states
    ]
    return lost + [
        Counterexample(
            "every row can fire",
            f"row {n} ({row.source.name} --{row.cause}--> {row.target.name}) never fires, whatever the guards say",
            (),
        )
        for n, row in enumerate(chart.rows, start=1)
        if row not in fired
    ]
