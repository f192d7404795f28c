"""Runs a Chart with `transitions` (the only file importing it). No state is kept: set it, ask once, read it back."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial

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


class Runner:
    """One interpreter of one table. Reentrant is not needed: the core has one thread."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
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
        seat = self._seat
        seat.state, seat.reads, seat.fired = state, reads, None
        seat.tick()
        fired = seat.fired
        if fired is not None and fired.target is not seat.state:
            raise AssertionError(f"transitions went to {seat.state} but the row says {fired.target}")
        return fired
