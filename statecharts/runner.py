"""Runs a Chart with `transitions` (the only file importing it). No state is kept: set it, ask once, read it back."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import cast

from transitions import Machine

from statecharts.chart import Chart, Row

Reads = Callable[[Enum], bool]


class _Seat:
    """The model `transitions` moves: a state, the guards' answers, and the row that fired."""

    state: Enum
    reads: Reads
    fired: Row | None
    tick: Callable[[], bool]  # set by `transitions`


def _holds(seat: _Seat, guard: Enum) -> bool:
    return seat.reads(guard)


_UNKNOWN = object()


class Runner:
    """One interpreter of one table. What a state does under the same answers is asked of `transitions` once."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self._asked = {state: chart.reads(state) for state in chart.states}
        self._known: dict[tuple[Enum, tuple[Enum, ...]], Row | None] = {}
        self._seat = seat = _Seat()
        machine = Machine(
            model=seat,
            states=chart.states,
            initial=chart.initial,
            auto_transitions=False,
            ignore_invalid_triggers=True,
        )
        for row in chart.rows:
            machine.add_transition(
                trigger="tick",
                source=row.source,
                dest=None if row.target is row.source else row.target,
                conditions=[partial(_holds, seat, guard) for guard in row.when],
                unless=[partial(_holds, seat, guard) for guard in row.unless],
                after=partial(self._note, row),
            )

    def _note(self, row: Row) -> None:
        self._seat.fired = row

    def fire(self, state: Enum, reads: Reads) -> Row | None:
        """The first row out of `state` whose guards hold, or None when the state stays. `reads` answers a guard."""
        asked = self._asked[state]
        true = tuple([guard for guard in asked if reads(guard)])
        known = self._known.get((state, true), _UNKNOWN)
        if known is not _UNKNOWN:
            return cast("Row | None", known)
        row = self._known[state, true] = self._tick(state, true)
        return row

    def _tick(self, state: Enum, true: tuple[Enum, ...]) -> Row | None:
        seat = self._seat
        seat.state, seat.reads, seat.fired = state, true.__contains__, None
        seat.tick()
        fired = seat.fired
        if fired is not None and fired.target is not seat.state:
            raise AssertionError(f"transitions went to {seat.state} but the row says {fired.target}")
        return fired
