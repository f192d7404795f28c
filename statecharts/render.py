"""Chart → Mermaid, DOT, SVG, SCXML, PlantUML, Markdown. No export leaves a row out, and none says more than the chart.

Rows are numbered from 1 in the order of the table. Where every state of a phase has the same row it is drawn once, from
the phase; each text still holds every row in full. Nothing depends on hashing, so the texts diff well.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from html import escape
from itertools import groupby, pairwise
from xml.sax.saxutils import quoteattr

from statecharts.chart import Chart, Row


class MissingTool(RuntimeError):
    """A program that draws for us is not installed; the message says which, and how to get it."""


@dataclass(frozen=True)
class Arrow:
    """One row, or the same row of every state of a phase; then `tail` is the phase."""

    tail: Enum | str
    numbers: tuple[int, ...]
    row: Row

    @property
    def head(self) -> Enum:
        return self.row.target

    @property
    def holds(self) -> bool:
        return self.row.source is self.row.target


@dataclass(frozen=True)
class Kind:
    """How the arrows of a kind are drawn, and what they have in common."""

    colour: str
    style: str
    meaning: str


GO = Kind("#000000", "bold", "something was seen or asked for")
STOP = Kind("#b00020", "solid", "a stop cause: may never energise anything")
TIME = Kind("#8a5a00", "dashed", "time alone, whatever was seen")
HOLD = Kind("#666666", "dotted", "↺ the state stays and no later row is asked")
KINDS = (GO, STOP, TIME, HOLD)


def kind(chart: Chart, row: Row) -> Kind:
    """The first of hold, stop, time that fits, else go."""
    if row.source is row.target:
        return HOLD
    if chart.stops.intersection(row.when):
        return STOP
    return GO if set(row.when) - chart.timers - _constant(chart) else TIME


def arrows(chart: Chart) -> list[Arrow]:
    """Every row exactly once, in the order of the table."""
    alike: dict[tuple[object, ...], dict[Enum, tuple[int, Row]]] = {}
    for number, row in enumerate(chart.rows, start=1):
        alike.setdefault((row.when, row.unless, row.target, row.cause), {})[row.source] = number, row
    found: list[Arrow] = []
    for rows in alike.values():
        for phase, states in chart.phases.items():
            here = [rows[state] for state in states if state in rows]
            if len(states) > 1 and len(here) == len(states) and here[0][1].target not in states:
                found.append(Arrow(phase, tuple(sorted(number for number, _ in here)), here[0][1]))
            else:
                found += [Arrow(row.source, (number,), row) for number, row in here]
    return sorted(found, key=lambda arrow: arrow.numbers)


def wirings(chart: Chart) -> dict[int, tuple[str, ...]]:
    """For each row, the wirings in which it may fire: its state is reached and no earlier row is always in its way."""
    live = {wiring: set(_live(chart, wiring)) for wiring in chart.wirings}
    return {n: tuple(w for w in chart.wirings if n in live[w]) for n in range(1, len(chart.rows) + 1)}


def reached(chart: Chart, state: Enum) -> tuple[str, ...]:
    """The wirings in which some way leads to `state`."""
    may = wirings(chart)
    into = {w for n, row in enumerate(chart.rows, start=1) if row.target is state for w in may[n]}
    return tuple(w for w in chart.wirings if state is chart.initial or w in into)


def _live(chart: Chart, wiring: str) -> Iterator[int]:
    """The numbers of the rows that may fire in a wiring."""
    constant = chart.wired[wiring]
    seen, todo = {chart.initial}, [chart.initial]
    while todo:
        earlier: list[tuple[set[Enum], set[Enum]]] = []
        source = todo.pop()
        for number, row in enumerate(chart.rows, start=1):
            when, unless = set(row.when) - set(constant), set(row.unless) - set(constant)
            if row.source is not source or not all(constant.get(guard, True) for guard in row.when):
                continue
            if any(constant.get(guard, False) for guard in row.unless):
                continue
            if not any(needs <= when and bars <= unless for needs, bars in earlier):
                yield number
                if row.target not in seen:
                    seen.add(row.target)
                    todo.append(row.target)
            earlier.append((when, unless))


# ---------------------------------------------------------------- words


def _constant(chart: Chart) -> set[Enum]:
    return {guard for values in chart.wired.values() for guard in values}


def _numbers(numbers: Iterable[int]) -> str:
    """1, 2, 3, 5 → '1–3, 5'."""
    runs = ([number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]))
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def _row(number: int, row: Row) -> str:
    """A row in one line, with the names of the code."""
    guards = [guard.name for guard in row.when] + [f"not {guard.name}" for guard in row.unless]
    return f"row {number}: {row.source.name} --{row.cause}--> {row.target.name} if {', '.join(guards)}"


def _rows(chart: Chart, mark: str) -> list[str]:
    """Every row as a comment, for the formats that draw several as one arrow."""
    return [f"{mark} {_row(number, row)}" for number, row in enumerate(chart.rows, start=1)]


def _label(arrow: Arrow) -> str:
    return f"{_numbers(arrow.numbers)} {arrow.row.cause}"


def _outputs(chart: Chart, outputs: Iterable[Enum]) -> str:
    members = set(outputs)
    return ", ".join(str(output.value) for output in chart.outputs if output in members) or "–"


def _energised(chart: Chart, state: Enum) -> list[str]:
    """What is energised, one entry for each wiring that reaches the state."""
    return [f"{wiring}: {_outputs(chart, chart.energised(state, wiring))}" for wiring in reached(chart, state)]


def _bundles(chart: Chart, drawn: Iterable[Arrow], newline: str) -> Iterator[tuple[str, str, str, Kind]]:
    """Arrows between the same two places as one: tail, head, label, and the kind that stands for all."""
    bundles: dict[tuple[str, str], list[Arrow]] = {}
    for arrow in drawn:
        tail = arrow.tail.name if isinstance(arrow.tail, Enum) else _phases(chart)[arrow.tail]
        bundles.setdefault((tail, arrow.head.name), []).append(arrow)
    for (tail, head), bundle in bundles.items():
        kinds = [kind(chart, arrow.row) for arrow in bundle]
        yield tail, head, newline.join(_label(arrow) for arrow in bundle), min(kinds, key=KINDS.index)


def _phases(chart: Chart) -> dict[str, str]:
    """Phase → an identifier every format accepts."""
    return {phase: f"phase_{number}" for number, phase in enumerate(chart.phases, start=1)}


GENERATED = "generated by statecharts/render.py from the chart: do not edit"


# ---------------------------------------------------------------- DOT and SVG

LAMP_ON = ("#1f4e79", "#ffffff", "#1f4e79")
LAMP_OFF = ("#ffffff", "#9a9a9a", "#d0d0d0")


def dot(chart: Chart) -> str:
    """Graphviz: every state lists its rows in order, each row's arrow starts at its line. Made to print on A3 or A4."""
    lines = [
        f"// {GENERATED}",
        *_rows(chart, "//"),
        f"digraph {chart.name} {{",
        f"  graph [{_GRAPH} label=<{_heading(chart)}>]",
        '  node [shape=plain fontname="Arial" fontsize=12]',
        "  edge [arrowsize=0.8 constraint=false]",
    ]
    drawn, places = arrows(chart), _phases(chart)
    for phase, states in chart.phases.items():
        lines += [f"  subgraph cluster_{places[phase]} {{", f"    graph [{_CLUSTER} label=<<b>{escape(phase)}</b>>]"]
        if shared := [arrow for arrow in drawn if arrow.tail == phase]:
            lines.append(f"    {places[phase]} [label=<{_shared_box(chart, shared)}>]")
        lines += [f"    {state.name} [label=<{_state_box(chart, state, drawn)}>]" for state in states]
        lines.append("  }")
    lines += _columns(chart, drawn)
    lines += [_edge(chart, arrow) for arrow in drawn if not arrow.holds]
    return "\n".join([*lines, "}", ""])


_GRAPH = (
    'rankdir=LR newrank=true nodesep=0.13 ranksep=2.0 pad=0.2 size="15.7,10.9" '
    'fontname="Arial" fontsize=11 labelloc=t labeljust=l'
)
_CLUSTER = 'style="rounded,filled" color="#b8b8b8" fillcolor="#f3f4f6" labeljust=l fontsize=16 margin=12'


def _heading(chart: Chart) -> str:
    """The name, and how to read the drawing, in columns above it."""
    order = "Rows of a state are asked in the order of their numbers; the first that holds fires, else the state stays."
    kinds = [f'<font color="{k.colour}">{k.style}: {escape(k.meaning)}</font>' for k in KINDS]
    lit = [f"wiring {escape(w)} has: {escape(_outputs(chart, o))}" for w, o in chart.wirings.items()]
    columns = [
        [
            f'<font point-size="24"><b>{escape(chart.name)}</b></font>',
            *textwrap.wrap(order, 56),
            "● the first state",
            "Wirings beside a name or a row: only in those.",
        ],
        ["<b>arrows</b>", *kinds],
        ["<b>outputs</b>: a dark field is energised if the wiring has it", *lit],
    ]
    cells = "".join(f'<td align="left" balign="left" valign="top">{"<br/>".join(lines)}</td>' for lines in columns)
    return f'<table border="0" cellspacing="24" cellpadding="0"><tr>{cells}</tr></table>'


def _state_box(chart: Chart, state: Enum, drawn: Sequence[Arrow]) -> str:
    """Name, lamps, note, then the rows that leave only from here."""
    lamps = "".join(_lamp(str(output.value), output in chart.closed[state]) for output in chart.outputs)
    only = reached(chart, state)
    names = escape(", ".join(only) or "never reached")
    where = "" if len(only) == len(chart.wirings) else f'&#160; <font point-size="10">{names}</font>'
    note = "<br/>".join(escape(line) for line in textwrap.wrap(chart.notes[state], 64))
    first = "● " if state is chart.initial else ""
    own = [_exit(chart, arrow) for arrow in drawn if arrow.tail is state]
    return _box(
        GO.colour,
        f'<td port="in" width="300"><font point-size="14"><b>{first}{state.name}</b></font>{where}</td>',
        f'<td><table border="0" cellborder="1" cellspacing="2" cellpadding="2"><tr>{lamps}</tr></table></td>',
        f'<td><font point-size="10"><i>{note}</i></font></td>',
        *own,
    )


def _shared_box(chart: Chart, shared: Sequence[Arrow]) -> str:
    colour = kind(chart, shared[0].row).colour
    lines = [_exit(chart, arrow) for arrow in shared]
    return _box(colour, '<td width="300"><i>from every state in here</i></td>', *lines)


def _box(colour: str, *cells: str) -> str:
    rows = "".join(f"<tr>{cell}</tr>" for cell in cells)
    return (
        f'<table border="2" style="rounded" color="{colour}" bgcolor="white" cellborder="0" cellspacing="0" '
        f'cellpadding="3">{rows}</table>'
    )


def _lamp(name: str, on: bool) -> str:
    fill, ink, edge = LAMP_ON if on else LAMP_OFF
    return (
        f'<td width="56" bgcolor="{fill}" color="{edge}"><font point-size="10" color="{ink}">{escape(name)}</font></td>'
    )


def _exit(chart: Chart, arrow: Arrow) -> str:
    """A row as a line of its state's box: number, cause, target, and the wirings when the wiring decides."""
    text = escape(f"{_label(arrow)} → {'↺' if arrow.holds else arrow.head.name}")
    may = wirings(chart)[arrow.numbers[0]]
    if arrow.tail is arrow.row.source and may != reached(chart, arrow.row.source):
        text += f'&#160;<font point-size="9">({", ".join(may) or "never"})</font>'
    if kind(chart, arrow.row) is GO:
        text = f"<b>{text}</b>"
    colour = kind(chart, arrow.row).colour
    return f'<td port="r{arrow.numbers[0]}" align="left"><font point-size="11" color="{colour}">{text}</font></td>'


def _column(chart: Chart) -> dict[str, int]:
    """Phase → column: a way round, so the first and the last on the left, the second in the middle, others right."""
    last = len(chart.phases) - 1
    return {phase: 0 if number == last else min(number, 2) for number, phase in enumerate(chart.phases)}


def _columns(chart: Chart, drawn: Sequence[Arrow]) -> list[str]:
    """What makes `dot` stack the boxes in columns, in the order of the chart."""
    column, shared = _column(chart), {arrow.tail for arrow in drawn}
    stacks: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for phase, states in chart.phases.items():
        stacks[column[phase]] += [_phases(chart)[phase]] * (phase in shared) + [state.name for state in states]
    lines = []
    for stack in stacks.values():
        pairs = "; ".join(f"{below} -> {above}" for above, below in pairwise(stack))
        lines.append(f"  {{ rank=same; edge [style=invis constraint=true weight=100]; {pairs} }}")
    heads = [stack[0] for stack in stacks.values() if stack]
    return lines + [f"  {left} -> {right} [style=invis constraint=true]" for left, right in pairwise(heads)]


def _edge(chart: Chart, arrow: Arrow) -> str:
    column, places = _column(chart), _phases(chart)
    here = next(column[phase] for phase, states in chart.phases.items() if arrow.row.source in states)
    there = next(column[phase] for phase, states in chart.phases.items() if arrow.head in states)
    leaves, enters = ("e", "w") if there > here else ("w", "e") if there < here else ("e", "e") if here else ("w", "w")
    tail = arrow.tail.name if isinstance(arrow.tail, Enum) else places[arrow.tail]
    look = kind(chart, arrow.row)
    tip = "&#10;".join(escape(_row(number, chart.rows[number - 1])) for number in arrow.numbers)
    return (
        f"  {tail}:r{arrow.numbers[0]}:{leaves} -> {arrow.head.name}:in:{enters} "
        f'[color="{look.colour}" style={look.style} tooltip="{tip}"]'
    )


def dot_sha256(chart: Chart) -> str:
    """What an SVG was drawn from: Graphviz versions draw differently, so drawings are never compared."""
    return hashlib.sha256(dot(chart).encode()).hexdigest()


def svg(chart: Chart) -> str:
    """The DOT text as drawn by the `dot` of this machine, with the hash of that text. Raises MissingTool."""
    if shutil.which("dot") is None:
        raise MissingTool("`dot` of the Debian package graphviz is missing: sudo apt install graphviz")
    done = subprocess.run(
        ["dot", "-Tsvg"], input=dot(chart), capture_output=True, encoding="utf-8", check=True, timeout=60
    )
    return done.stdout.replace("<svg", f"<!-- dot sha256: {dot_sha256(chart)} -->\n<svg", 1)


# ---------------------------------------------------------------- Mermaid and PlantUML


def mermaid(chart: Chart) -> str:
    """A Mermaid state diagram, without phases: Mermaid draws arrows straight through the states of a group."""
    spacing = ["config:", "  state:", "    nodeSpacing: 60", "    rankSpacing: 60"]
    lines = ["---", f"title: {chart.name}", *spacing, "---", "stateDiagram-v2", f"    %% {GENERATED}"]
    lines += [f"    {line}" for line in _rows(chart, "%%")]
    for state in sorted(chart.states, key=lambda state: state not in chart.resting):  # in this order it crosses least
        facts = (fact.replace(";", "#59;") for fact in _facts(chart, state))  # a bare ; would end the statement
        lines += [f"    {state.name} : {fact}" for fact in (state.name, *facts)]
    lines.append(f"    [*] --> {chart.initial.name}")
    single = [Arrow(row.source, (number,), row) for number, row in enumerate(chart.rows, start=1)]
    lines += [f"    {tail} --> {head} : {label}" for tail, head, label, _ in _bundles(chart, single, "<br>")]
    if lit := [state.name for state in chart.states if chart.closed[state]]:
        lines += [
            "    classDef energised fill:#1f4e79,color:#ffffff,stroke:#1f4e79",
            f"    class {','.join(lit)} energised",
        ]
    return "\n".join([*lines, ""])


def plantuml(chart: Chart) -> str:
    """A PlantUML state diagram with the phases, shared rows and colours of the DOT text."""
    places = _phases(chart)
    lines = ["@startuml", f"' {GENERATED}", *_rows(chart, "'"), f"title {chart.name}", "left to right direction"]
    for phase, states in chart.phases.items():
        lines.append(f'state "{phase}" as {places[phase]} {{')
        for state in states:
            lines.append(f"  state {state.name}{' #DDE8F3' if chart.closed[state] else ''}")
            lines += [f"  {state.name} : {fact}" for fact in _facts(chart, state)]
        lines.append("}")
    lines.append(f"[*] --> {chart.initial.name}")
    for tail, head, label, look in _bundles(chart, arrows(chart), "\\n"):
        style = look.colour if look is STOP else f"{look.colour},{look.style}"
        lines.append(f"{tail} -[{style}]-> {head} : {label}")
    return "\n".join([*lines, "@enduml", ""])


def _facts(chart: Chart, state: Enum) -> list[str]:
    """What the boxes of Mermaid and PlantUML say."""
    return [chart.notes[state], *(_energised(chart, state) if chart.closed[state] else ["nothing energised"])]


# ---------------------------------------------------------------- SCXML


def scxml(chart: Chart) -> str:
    """A machine other interpreters can run: set the guards' data, send `tick`, read `row`, `cause` and `energised`.

    Guards start false. `row` is the number of the row that fired last, 0 before the first.
    """
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f"<!-- {GENERATED} -->",
        f'<scxml xmlns="http://www.w3.org/2005/07/scxml" version="1.0" name={quoteattr(chart.name)} '
        f'datamodel="ecmascript" initial="{chart.initial.name}">',
        "  <datamodel>",
        """    <data id="row" expr="0"/>""",
        """    <data id="cause" expr="''"/>""",
        """    <data id="energised" expr="''"/>""",
    ]
    for guard in chart.guards:
        lines += [f"    <!-- {_comment(str(guard.value))} -->", f'    <data id="{guard.name}" expr="{_FALSE}"/>']
    lines.append("  </datamodel>")
    for phase, states in chart.phases.items():
        lines.append(f"  <!-- {_comment(phase)} -->")
        for state in states:
            lines += _scxml_state(chart, state)
    return "\n".join([*lines, "</scxml>", ""])


_FALSE = "1 == 0"  # python-statemachine knows `false` in conditions, but not in data


def _scxml_state(chart: Chart, state: Enum) -> Iterator[str]:
    yield f'  <state id="{state.name}">'
    yield f"    <!-- {_comment(chart.notes[state])} -->"
    lit = quoteattr("'" + "; ".join(_energised(chart, state)) + "'")
    yield f'    <onentry><assign location="energised" expr={lit}/></onentry>'
    for number, row in enumerate(chart.rows, start=1):
        if row.source is not state:
            continue
        guards = [guard.name for guard in row.when] + [f"{guard.name} == false" for guard in row.unless]
        target = "" if row.target is state else f' target="{row.target.name}"'
        yield f'    <transition event="tick" cond={quoteattr(" && ".join(guards))}{target}>'
        yield f'      <assign location="row" expr="{number}"/>'
        yield f"""      <assign location="cause" expr={quoteattr(f"'{row.cause}'")}/>"""
        yield "    </transition>"
    yield "  </state>"


def _comment(text: str) -> str:
    return text.replace("--", "- -")


# ---------------------------------------------------------------- Markdown


def markdown(chart: Chart) -> str:
    """What a reviewer reads: states, rows in order with their guards in words, guards, drawing."""
    lines = [
        f"# The {chart.name} chart",
        "",
        f"<!-- {GENERATED} -->",
        "",
        f"It begins in `{chart.initial.name}`. On every tick the rows of the present state are asked from top to",
        "bottom; the first whose guards hold fires, and if none does the state stays. A state fixes what is energised.",
        "",
        *_states_table(chart),
        *_rows_table(chart),
        *_guards_table(chart),
        "## Drawing",
        "",
        "```mermaid",
        mermaid(chart).rstrip("\n"),
        "```",
        "",
    ]
    return "\n".join(lines)


def _states_table(chart: Chart) -> list[str]:
    lines = []
    for phase, states in chart.phases.items():
        for state in states:
            here = reached(chart, state)
            lit = [_outputs(chart, chart.energised(state, w)) if w in here else "never here" for w in chart.wirings]
            out = _numbers(n for n, row in enumerate(chart.rows, start=1) if row.source is state) or "none"
            lines.append((phase, f"`{state.name}`", *lit, chart.notes[state], out))
    return [
        "## States",
        "",
        "What is energised, in each wiring (–: nothing; never here: no row leads here in this wiring).",
        "",
        *_table(("phase", "state", *(f"wiring {w}" for w in chart.wirings), "what is true", "rows out"), lines),
    ]


def _rows_table(chart: Chart) -> list[str]:
    may = wirings(chart)
    lines = [
        (
            str(number),
            f"`{row.source.name}`",
            _words(row.when),
            _words(row.unless),
            "stays" if row.target is row.source else f"`{row.target.name}`",
            row.cause,
            "all" if len(may[number]) == len(chart.wirings) else ", ".join(may[number]) or "none",
        )
        for number, row in enumerate(chart.rows, start=1)
    ]
    heads = ("row", "from", "when all of this is true", "and none of this", "to", "cause", "wirings")
    return ["## Rows", "", "Wirings: those in which the row may fire.", "", *_table(heads, lines)]


def _guards_table(chart: Chart) -> list[str]:
    lines = []
    for guard in chart.guards:
        marks = ["stop"] * (guard in chart.stops) + ["time"] * (guard in chart.timers)
        if guard in _constant(chart):
            marks.append(f"true in: {', '.join(w for w, values in chart.wired.items() if values[guard]) or 'none'}")
        read = _numbers(n for n, row in enumerate(chart.rows, start=1) if guard in row.reads)
        lines.append((f"`{guard.name}`", str(guard.value), ", ".join(marks) or "–", read))
    about = "stop: its rows may never energise anything; time: only time makes it true."
    return ["## Guards", "", about, "", *_table(("guard", "in words", "kind", "read by rows"), lines)]


def _words(guards: Iterable[Enum]) -> str:
    return "; ".join(str(guard.value) for guard in guards) or "–"


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    cells = [heads, ["---"] * len(heads), *lines]
    return [*(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in cells), ""]


# ---------------------------------------------------------------- all of them

FORMATS: Mapping[str, Callable[[Chart], str]] = {
    "mermaid": mermaid,
    "dot": dot,
    "scxml": scxml,
    "plantuml": plantuml,
    "markdown": markdown,
}


def render(chart: Chart, format: str) -> str:
    """The chart in one of FORMATS, or as 'svg'. Raises KeyError for any other, MissingTool without Graphviz."""
    return svg(chart) if format == "svg" else FORMATS[format](chart)
