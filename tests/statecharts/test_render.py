"""The exports say what the chart says, all of it, in words their own tools accept; the committed copies are fresh."""

from __future__ import annotations

import fcntl
import hashlib
import html
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import pytest

from statecharts import render
from statecharts.chart import Chart, Row
from statecharts.runner import Runner
from statecharts.shadow import SHADOW
from statecharts.supervisor import SUPERVISOR, Contactor, Guard, State

ROOT = Path(__file__).parents[2]
TOOLS = Path(__file__).parent / "tools"
CHARTS = {chart.name: chart for chart in (SUPERVISOR, SHADOW)}
COMMITTED = {
    "statecharts/supervisor.md": (SUPERVISOR, "markdown"),
    "statecharts/shadow.md": (SHADOW, "markdown"),
    "docs/statechart/supervisor.mmd": (SUPERVISOR, "mermaid"),
    "docs/statechart/supervisor.dot": (SUPERVISOR, "dot"),
    "docs/statechart/supervisor.scxml": (SUPERVISOR, "scxml"),
    "docs/statechart/supervisor.puml": (SUPERVISOR, "plantuml"),
    "docs/statechart/supervisor.svg": (SUPERVISOR, "svg"),
}

each_chart = pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS)
each_format = pytest.mark.parametrize("format", render.FORMATS)


def tool(*names: str) -> str:
    """The first of the programs that is installed; skips the test when none is."""
    for name in names:
        if path := shutil.which(name):
            return path
    pytest.skip(f"{names[0]} is not installed")


def run(*command: str | Path, text: str = "", cwd: Path | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", cwd=cwd, timeout=120)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    return done.stdout


def numbers(text: str) -> list[int]:
    """'1–3, 5' → 1, 2, 3, 5."""
    runs = [[int(end) for end in part.split("–")] for part in text.split(", ")]
    return [number for run in runs for number in range(run[0], run[-1] + 1)]


# ---------------------------------------------------------------- the committed copies


@pytest.mark.parametrize("path", COMMITTED)
def test_the_committed_exports_are_those_of_the_chart(path: str) -> None:
    chart, name = COMMITTED[path]
    command = f"controller diagram --chart {chart.name} --format {format} -o {path}   (or: make diagrams)"
    committed = (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).exists() else ""
    if name == "svg":  # Graphviz versions draw differently: only what it was drawn from is compared
        fresh = f"dot sha256: {render.dot_sha256(chart)}" in committed
    else:
        fresh = committed == render.render(chart, name)
    assert fresh, f"{path} is stale; make it anew with:\n\n    {command}\n"


def test_the_exports_do_not_depend_on_hashing() -> None:
    code = (
        "from statecharts import render, shadow, supervisor\n"
        "for chart in (supervisor.SUPERVISOR, shadow.SHADOW):\n"
        "    print(*(format(chart) for format in render.FORMATS.values()))\n"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(texts) == 1


# ---------------------------------------------------------------- nothing is left out


def drawn(chart: Chart, text: str) -> list[int]:
    """The row numbers in the labels of a drawing; what stands in comments does not count."""
    text = re.sub(r"^\s*(//|%%|').*$", "", html.unescape(text), flags=re.MULTILINE)
    text = re.sub(r'tooltip="[^"]*"', "", text)
    causes = "|".join(sorted({re.escape(row.cause) for row in chart.rows}, key=len, reverse=True))
    return sorted(n for label in re.findall(rf"(\d[\d–, ]*) (?:{causes})(?![\w-])", text) for n in numbers(label))


@each_chart
@pytest.mark.parametrize("format", ["mermaid", "dot", "plantuml", "svg"])
def test_every_row_is_drawn_exactly_once(chart: Chart, format: str) -> None:
    if format == "svg":
        tool("dot")
        text = "\n".join(re.findall(r"<text[^>]*>([^<]*)</text>", render.svg(chart)))
    else:
        text = render.render(chart, format)
    assert drawn(chart, text) == list(range(1, len(chart.rows) + 1))


INWARD = replace(SUPERVISOR, rows=(*SUPERVISOR.rows, Row(State.UNLOADING, (Guard.STOP,), State.UNLOADING, "stop")))


@pytest.mark.parametrize("chart", [*CHARTS.values(), INWARD], ids=[*CHARTS, "a phase into itself"])
def test_an_arrow_from_a_phase_stands_for_the_same_row_of_each_of_its_states(chart: Chart) -> None:
    arrows = render.arrows(chart)
    assert sorted(n for arrow in arrows for n in arrow.numbers) == list(range(1, len(chart.rows) + 1))
    for arrow in arrows:
        states = (arrow.tail,) if isinstance(arrow.tail, Enum) else chart.phases[arrow.tail]
        rows = [chart.rows[n - 1] for n in arrow.numbers]
        assert sorted(row.source.name for row in rows) == sorted(state.name for state in states)
        assert {replace(row, source=arrow.row.source) for row in rows} == {arrow.row}
        assert isinstance(arrow.tail, Enum) or arrow.head not in states


@each_chart
@pytest.mark.parametrize(("format", "mark"), [("mermaid", "%%"), ("dot", "//"), ("plantuml", "'")])
def test_a_drawing_holds_every_row_in_full_as_a_comment(chart: Chart, format: str, mark: str) -> None:
    lines = [line.strip() for line in render.render(chart, format).splitlines()]
    for number, row in enumerate(chart.rows, start=1):
        guards = ", ".join([g.name for g in row.when] + [f"not {g.name}" for g in row.unless])
        assert f"{mark} row {number}: {row.source.name} --{row.cause}--> {row.target.name} if {guards}" in lines


@each_chart
def test_the_table_has_a_line_for_every_row_with_its_guards_in_words(chart: Chart) -> None:
    lines = render.markdown(chart).splitlines()
    for number, row in enumerate(chart.rows, start=1):
        (line,) = [line for line in lines if line.startswith(f"| {number} | ")]
        _, _, source, when, unless, target, cause, _, _ = (cell.strip() for cell in line.split("|"))
        assert source == f"`{row.source.name}`"
        assert target == ("stays" if row.target is row.source else f"`{row.target.name}`")
        assert when == "; ".join(g.value for g in row.when)
        assert unless == ("; ".join(g.value for g in row.unless) or "–")
        assert cause == row.cause


@each_chart
def test_the_scxml_states_hold_their_rows_in_order(chart: Chart) -> None:
    name = "{http://www.w3.org/2005/07/scxml}"
    states = {s.get("id"): s for s in ElementTree.fromstring(render.scxml(chart).encode()).iter(f"{name}state")}
    assert set(states) == {state.name for state in chart.states}
    for state in chart.states:
        transitions = states[state.name].findall(f"{name}transition")
        rows = [(n, row) for n, row in enumerate(chart.rows, start=1) if row.source is state]
        assert [t[0].get("expr") for t in transitions] == [str(n) for n, _ in rows]
        targets = [None if row.target is row.source else row.target.name for _, row in rows]
        assert [t.get("target") for t in transitions] == targets


def test_what_is_energised_in_each_wiring_can_be_read() -> None:
    line = "pack+inverter: pack, positive; own: negative, precharge, positive"
    assert line in render.scxml(SUPERVISOR)
    for text in (render.mermaid(SUPERVISOR), render.plantuml(SUPERVISOR)):
        assert all(f"CLOSING_POSITIVE : {part}" in text for part in line.split("; "))
    (row,) = [
        row for row in render.markdown(SUPERVISOR).splitlines() if row.startswith("| closing | `CLOSING_POSITIVE`")
    ]
    assert "| never here | pack, positive | negative, precharge, positive | never here |" in row


# ---------------------------------------------------------------- a changed chart changes every export


def with_row(number: int, **changes: object) -> Chart:
    rows = list(SUPERVISOR.rows)
    rows[number - 1] = replace(rows[number - 1], **changes)  # type: ignore[arg-type]
    return replace(SUPERVISOR, rows=tuple(rows))


def row_number(source: State, cause: str) -> int:
    return next(n for n, r in enumerate(SUPERVISOR.rows, start=1) if (r.source, r.cause) == (source, cause))


def swapped() -> Chart:
    """Charged is asked before failed: the kind of slip a reviewer must be able to see."""
    rows = list(SUPERVISOR.rows)
    a, b = (row_number(State.PRECHARGING, cause) - 1 for cause in ("precharge-failed", "link-charged"))
    rows[a], rows[b] = rows[b], rows[a]
    return replace(SUPERVISOR, rows=tuple(rows))


PACK_CLOSED = row_number(State.WAKING_PACK, "pack-closed")
FAILED = row_number(State.PRECHARGING, "precharge-failed")
CHANGES: dict[str, Callable[[], Chart]] = {
    "two rows swapped": swapped,
    "another target": lambda: with_row(FAILED, target=State.FAULT),
    "another cause": lambda: with_row(FAILED, cause="precharge-odd"),
    "another guard": lambda: with_row(FAILED, when=(Guard.PRECHARGE_FAILED, Guard.SETTLED)),
    "one more exception": lambda: with_row(FAILED, unless=(Guard.UNLOADED,)),
    "another output": lambda: replace(
        SUPERVISOR, closed={**SUPERVISOR.closed, State.PRECHARGING: frozenset({Contactor.NEGATIVE})}
    ),
    "another note": lambda: replace(SUPERVISOR, notes={**SUPERVISOR.notes, State.PRECHARGING: "something else"}),
}


@each_format
@pytest.mark.parametrize("change", CHANGES)
def test_no_change_of_the_chart_leaves_an_export_as_it_was(change: str, format: str) -> None:
    assert render.render(CHANGES[change](), format) != render.render(SUPERVISOR, format)


def test_the_hash_in_the_drawing_follows_the_chart() -> None:
    tool("dot")
    svg = render.svg(SUPERVISOR)
    assert f"dot sha256: {hashlib.sha256(render.dot(SUPERVISOR).encode()).hexdigest()}" in svg
    assert render.dot_sha256(swapped()) not in svg
    ElementTree.fromstring(svg.encode())


def test_a_missing_graphviz_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(render.MissingTool, match="sudo apt install graphviz"):
        render.render(SUPERVISOR, "svg")


# ---------------------------------------------------------------- the wirings of a row


def fired(chart: Chart, wiring: str) -> set[Row]:
    """Every row that can fire in a wiring, found by trying everything."""
    runner, constant = Runner(chart), chart.wired[wiring]
    rows: set[Row] = set()
    seen, todo = {chart.initial}, [chart.initial]
    while todo:
        state = todo.pop()
        free = [guard for guard in chart.reads(state) if guard not in constant]
        for answers in product((False, True), repeat=len(free)):
            row = runner.fire(state, {**constant, **dict(zip(free, answers, strict=True))}.__getitem__)
            if row is not None:
                rows.add(row)
                todo += {row.target} - seen
                seen.add(row.target)
    return rows


@pytest.mark.parametrize(
    "chart", [*CHARTS.values(), with_row(PACK_CLOSED, unless=(Guard.SETTLED,))], ids=[*CHARTS, "an exception"]
)
def test_the_wirings_beside_a_row_are_those_it_fires_in(chart: Chart) -> None:
    told = render.wirings(chart)
    for wiring in chart.wirings:
        rows = fired(chart, wiring)
        assert {n for n, names in told.items() if wiring in names} == {
            n for n, row in enumerate(chart.rows, start=1) if row in rows
        }


# ---------------------------------------------------------------- each text is accepted by its own tool


@pytest.fixture(scope="session")
def mermaid_parser() -> Callable[[str], dict[str, list]]:
    """Mermaid itself, installed by npm beside this file once and kept."""
    node, npm = tool("node"), tool("npm")
    wanted = json.loads((TOOLS / "package.json").read_text())["dependencies"]["mermaid"]
    with (TOOLS / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = TOOLS / "node_modules" / "mermaid" / "package.json"
        if not installed.exists() or json.loads(installed.read_text())["version"] != wanted:
            command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
            done = subprocess.run(command, cwd=TOOLS, capture_output=True, encoding="utf-8", check=False)
            if done.returncode:
                pytest.skip(f"npm could not install mermaid {wanted}: {done.stderr.strip().splitlines()[-1:]}")
    return lambda text: json.loads(run(node, TOOLS / "mermaid_parse.mjs", text=text))


@each_chart
def test_mermaid_reads_our_states_and_arrows_and_no_others(
    chart: Chart, mermaid_parser: Callable[[str], dict[str, list]]
) -> None:
    understood = mermaid_parser(render.mermaid(chart))
    assert sorted(understood["states"]) == sorted([*(state.name for state in chart.states), "root_start"])
    arrows = Counter((a, b, line) for a, b, label in understood["arrows"] if label for line in label.split("<br>"))
    rows = Counter((r.source.name, r.target.name, f"{n} {r.cause}") for n, r in enumerate(chart.rows, start=1))
    assert arrows == rows


def test_mermaid_reads_the_drawing_inside_the_markdown(mermaid_parser: Callable[[str], dict[str, list]]) -> None:
    (drawing,) = re.findall(r"^```mermaid\n(.*?)^```$", render.markdown(SUPERVISOR), re.DOTALL | re.MULTILINE)
    assert mermaid_parser(drawing) == mermaid_parser(render.mermaid(SUPERVISOR))


@each_chart
def test_graphviz_accepts_the_dot_text(chart: Chart) -> None:
    canon = run(tool("dot"), "-Tcanon", text=render.dot(chart))
    assert all(state.name in canon for state in chart.states)


@each_chart
def test_graphviz_draws_without_a_word(chart: Chart) -> None:
    done = subprocess.run(
        [tool("dot"), "-Tsvg"], input=render.dot(chart), capture_output=True, encoding="utf-8", check=True
    )
    assert done.stderr == ""


@each_chart
def test_plantuml_accepts_its_text(chart: Chart) -> None:
    assert run(tool("plantuml"), "-syntax", text=render.plantuml(chart)).startswith("STATE")


# ---------------------------------------------------------------- the SCXML runs as the runner does


Step = tuple[set[Enum], Enum, int]


def lives(chart: Chart) -> list[list[Step]]:
    """Walks from the start: true guards, then state and number of the last row by our runner. Every row fires."""
    chance, runner = random.Random(7), Runner(chart)
    count = dict.fromkeys(chart.rows, 0)

    def step(state: Enum, last: int) -> Step:
        wanted = min(chart.rows_from(state), key=lambda row: count[row], default=None)
        held = {guard for guard in chart.guards if chance.random() < 0.05}
        if wanted is not None and chance.random() < 0.9:
            held = (held | set(wanted.when)) - set(wanted.unless)
        if (row := runner.fire(state, held.__contains__)) is None:
            return held, state, last
        count[row] += 1
        return held, row.target, chart.rows.index(row) + 1

    walks = []
    for _ in range(10):
        steps = [step(chart.initial, 0)]
        while len(steps) < 100:
            steps.append(step(*steps[-1][1:]))
        walks.append(steps)
    never = [number for number, row in enumerate(chart.rows, start=1) if count[row] == 0]
    assert not never, f"rows {never} never fired: walk on, or ask why"
    return walks


@each_chart
def test_python_statemachine_runs_the_scxml_as_we_run_the_chart(chart: Chart) -> None:
    io = pytest.importorskip("statemachine.io")
    for life in lives(chart):
        machine = io.load(render.scxml(chart), format="scxml")()  # only the first of a class gets its data
        assert [getattr(machine.model, guard.name) for guard in chart.guards] == [False] * len(chart.guards)
        for held, state, row in life:
            for guard in chart.guards:
                setattr(machine.model, guard.name, guard in held)
            machine.send("tick")
            assert ([s.id for s in machine.configuration], machine.model.row) == ([state.name], row)
            assert machine.model.cause == (chart.rows[row - 1].cause if row else "")
            for wiring in render.reached(chart, state):
                lit = [str(o.value) for o in chart.outputs if o in chart.energised(state, wiring)]
                assert f"{wiring}: {', '.join(lit) or '–'}" in machine.model.energised.split("; ")


@each_chart
def test_qscxmlc_compiles_the_scxml(chart: Chart, tmp_path: Path) -> None:
    (tmp_path / "chart.scxml").write_text(render.scxml(chart), encoding="utf-8")
    run(
        tool("qscxmlc", "/usr/lib/qt6/libexec/qscxmlc"),
        "--classname",
        "Chart",
        "-o",
        "chart",
        "chart.scxml",
        cwd=tmp_path,
    )
    assert all(state.name in (tmp_path / "chart.h").read_text(encoding="utf-8-sig") for state in chart.states)


@pytest.mark.slow
@each_chart
def test_qt_runs_the_scxml_as_we_run_the_chart(chart: Chart, tmp_path: Path) -> None:
    test_qscxmlc_compiles_the_scxml(chart, tmp_path)
    found = subprocess.run(
        [tool("pkg-config"), "--cflags", "--libs", "Qt6Scxml"], capture_output=True, encoding="utf-8", check=False
    )
    if found.returncode:
        pytest.skip("the Qt 6 SCXML headers are not installed")
    sources = (TOOLS / "scxml_walk.cpp", "chart.cpp", "-I.", *found.stdout.split())
    run(tool("g++"), "-fPIC", "-std=c++17", *sources, "-o", "walk", cwd=tmp_path)
    for life in lives(chart):
        text = "".join(" ".join(sorted(guard.name for guard in held)) + "\n" for held, _, _ in life)
        answers = run(tmp_path / "walk", *(guard.name for guard in chart.guards), text=text)
        assert answers.splitlines() == [f"{state.name} {row}" for _, state, row in life]
