"""`controller diagram` and `controller verify`: the state machine, drawn and checked."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Annotated

import typer

from controller import story
from controller.console import JsonOption, fail, out, write
from statecharts import render
from statecharts.interlocks import verify as verify_chart
from statecharts.shadow import SHADOW
from statecharts.supervisor import SUPERVISOR

CHARTS = {chart.name: chart for chart in (SUPERVISOR, SHADOW)}


def diagram(
    format: Annotated[str, typer.Option("--format", help=", ".join((*render.FORMATS, "svg")))] = "mermaid",
    chart: Annotated[str, typer.Option(help="supervisor, or shadow: the one that follows a recording.")] = "supervisor",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file.")] = None,
) -> None:
    """Draw the state machine."""
    if format not in (*render.FORMATS, "svg"):
        fail(f"--format {format}: not known; one of {', '.join((*render.FORMATS, 'svg'))}")
    if chart not in CHARTS:
        fail(f"--chart {chart}: not known; one of {', '.join(CHARTS)}")
    try:
        text = render.render(CHARTS[chart], format)
    except (render.MissingTool, subprocess.TimeoutExpired) as error:
        fail(str(error))
    if output is None:
        typer.echo(text, nl=False)
    else:
        write(output, text)


def verify(
    as_json: JsonOption = False,
) -> None:
    """Check the state machine: interlocks, stop causes, reachability, bounded stay. Exit 1 with a counter-example."""
    began_s = time.perf_counter()
    verdict = verify_chart(SUPERVISOR)
    wall_s = time.perf_counter() - began_s
    if as_json:
        typer.echo(json.dumps(story.verdict_json(verdict, wall_s)))
    else:
        story.verdict(out, verdict, wall_s)
    if verdict.broken:
        raise typer.Exit(1)
