"""The state machine as this pack runs it: the states and ways its wiring has, with the present state marked. Pure."""

from __future__ import annotations

from functools import cache
from html import escape
from typing import Final

from statecharts import render
from statecharts.chart import Chart, Row
from statecharts.shadow import SHADOW
from statecharts.supervisor import SUPERVISOR, State

CLASSES: Final = (
    "classDef energised fill:#dbe7f3,color:#12314f,stroke:#1f4e79",
    "classDef present fill:#f2a900,color:#000000,stroke:#7a4b00,stroke-width:4px",
)


def chart_of(listen_only: bool) -> Chart:
    return SHADOW if listen_only else SUPERVISOR


@cache
def rows_of(chart_name: str, wiring: str) -> tuple[Row, ...]:
    """The rows that can ever fire in this wiring, in their order."""
    chart = chart_of(chart_name == SHADOW.name)
    may, wiring = render.wirings(chart), _wired(chart, wiring)
    return tuple(row for number, row in enumerate(chart.rows, 1) if wiring in may[number])


def _wired(chart: Chart, wiring: str) -> str:
    """The shadow has no wiring of its own."""
    return wiring if wiring in chart.wirings else next(iter(chart.wirings))


def mermaid(chart: Chart, wiring: str, present: str) -> str:
    """For a browser to draw. Causes between the same two states share an arrow."""
    rows, wiring = rows_of(chart.name, wiring), _wired(chart, wiring)
    ways: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        if row.source is not row.target:
            ways.setdefault((row.source.name, row.target.name), {})[row.cause] = None
    states = [state for state in chart.states if wiring in render.reached(chart, state)]
    lit = [state.name for state in states if chart.energised(state, wiring)]
    lines = ["stateDiagram-v2", *(f"    {state.name}" for state in states)]
    lines += [f"    {tail} --> {head} : {'<br>'.join(causes)}" for (tail, head), causes in ways.items()]
    lines += [f"    {line}" for line in CLASSES]
    lines += [f"    class {','.join(lit)} energised"] if lit else []
    lines += [f"    class {present} present"] if present in [state.name for state in states] else []
    return "\n".join(lines)


def ways_out(chart: Chart, wiring: str, present: str) -> str:
    """The rows that lead out of the present state, as HTML."""
    here, wiring = State(present), _wired(chart, wiring)
    energised = ", ".join(str(output.value) for output in chart.outputs if output in chart.energised(here, wiring))
    rows = "".join(_way(row) for row in rows_of(chart.name, wiring) if row.source is here)
    return (
        f"<p>Energised in {here.value}: {escape(energised) or 'nothing'}. Ways out, of which the first that is true is "
        'taken:</p><div class="scroll"><table class="stack">'
        f"<thead><tr><th>to</th><th>cause</th><th>when</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _way(row: Row) -> str:
    target = "stays" if row.target is row.source else row.target.value
    asked = [str(guard.value) for guard in row.when] + [f"<i>not</i> {guard.value}" for guard in row.unless]
    return f"<tr><td><b>{target}</b></td><td>{escape(row.cause)}</td><td>{';<br>'.join(asked)}</td></tr>"
