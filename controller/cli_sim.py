"""What `controller sim` shows of simulated lives and scenarios. No option is read here; cli.py does that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from controller.model.texts import TEXTS
from controller.ports import Outputs
from sim import lives
from sim.garage import Garage
from sim.lives import BUDGETS_MS, FULL, JUDGED, Life, Summary, Verdict
from sim.plot import PlotData, PlotRecorder
from sim.replay import Result
from sim.scenarios import Scenario
from statecharts.supervisor import Contactor, State

MISSING_SHOWN = 12
PLOTTED = ("pack_voltage_v", "current_a", "soc_pct", "cell_min_v", "cell_max_v", "temp_max_c")


# --- campaign ---


def campaign(
    console: Console, work: Sequence[tuple[Life, bool]], workers: int, dask: str | None, bar: bool
) -> Summary:  # fmt: skip
    """Live them all, with a bar that says how far it is."""
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                  console=console, transient=True, disable=not bar) as progress:  # fmt: skip
        task = progress.add_task("lives", total=len(work))
        broken = 0

        def told(verdict: Verdict) -> None:
            nonlocal broken
            broken += bool(verdict.broken)
            progress.update(task, advance=1, description=f"lives, {broken} broken" if broken else "lives")

        return lives.campaign(work, workers, dask, told)


def shrunk(summary: Summary) -> list[tuple[Verdict, Verdict]]:
    """Of each invariant that failed one life, and what it could be shrunk to."""
    return [(verdict, lives.shrink(verdict)) for verdict in lives.first_of_each(summary.failures)]


def tell_campaign(console: Console, summary: Summary, small: Sequence[tuple[Verdict, Verdict]], wall_s: float) -> None:
    """The summary for a person."""

    def say(text: str) -> None:
        console.print(text, highlight=False)

    kinds = ", ".join(f"{n} {wiring}" for wiring, n in sorted(summary.wirings.items()))
    simulated_s = summary.ticks / 100
    say(f"[bold]{summary.seeds} lives[/bold] ({kinds}), {simulated_s:,.0f} s simulated in {wall_s:.1f} s "
        f"({simulated_s / max(wall_s, 1e-9):.0f} × real time), {summary.closings} closings, "
        f"{summary.repeated} lived twice")  # fmt: skip
    say(f"states {len(summary.states)} of {len(State)}, rows {len(summary.rows)} of {len(lives.ROW_OF)}")
    ended = ", ".join(f"{n} {escape(name)}" for name, n in summary.ended.most_common(8))
    say(f"healed: {ended}")
    say("[bold]Slowest reaction to each cause that opened[/bold], from the first bad tick to everything off")
    width = max(map(len, summary.worst_ms), default=0)
    for name, (ms, seed) in sorted(summary.worst_ms.items()):
        say(f"  {name:<{width}} {ms:>7,} of {BUDGETS_MS[name]:>7,} ms   [dim]seed {-seed}[/dim]")
    holes = summary.holes
    if holes and not summary.tame:
        say(f"Never seen: {len(holes)} states, premises and rows; {JUDGED} lives must see the states and premises, "
            f"{FULL} the rows (--json has them)")  # fmt: skip
    elif holes:
        say(f"[bold]Never seen[/bold] ({len(holes)}, [red]holes[/red])")
        for hole in holes[:MISSING_SHOWN]:
            say(f"  {escape(hole)}")
        if len(holes) > MISSING_SHOWN:
            say(f"  … and {len(holes) - MISSING_SHOWN} more (--json shows all)")
    say(
        f"[bold]Violated[/bold]: {len(summary.failures)} lives"
        if summary.failures
        else "[green]nothing violated[/green]"
    )
    for verdict, least in small:
        say(f"  [red]{escape(verdict.broken[0])}[/red]  (seed {verdict.life.seed}, {len(verdict.troubles)} troubles)")
        troubles = escape("; ".join(least.troubles) or "none")
        say(f"    shrunk to {least.ticks / 100:g} s, {least.build.wiring}: {troubles}")
        say(f"    [bold]{least.life.command}[/bold]")


def campaign_json(
    summary: Summary, small: Sequence[tuple[Verdict, Verdict]], wall_s: float
) -> dict[str, object]:  # fmt: skip
    """The summary for a machine."""
    return {
        "schema": 1, "lives": summary.seeds, "simulated_s": summary.ticks / 100, "wall_s": round(wall_s, 3),
        "closings": summary.closings, "lived_twice": summary.repeated, "wirings": dict(sorted(summary.wirings.items())),
        "states": dict(sorted(summary.states.items())), "rows_fired": len(summary.rows),
        "rows_missing": summary.rows_missing, "states_missing": summary.states_missing, "unmet": summary.unmet,
        "met": dict(sorted(summary.met.items())), "healed": dict(sorted(summary.ended.items())),
        "worst_ms": {name: {"ms": ms, "budget_ms": BUDGETS_MS[name], "seed": -seed}
                     for name, (ms, seed) in sorted(summary.worst_ms.items())},
        "failures": [{"seed": v.life.seed, "broken": list(v.broken)} for v in summary.failures],
        "shrunk": [{"broken": list(v.broken), "command": v.life.command, "troubles": list(v.troubles)}
                   for _, v in small],
        "failed": summary.failed,
    }  # fmt: skip


def export(small: Sequence[tuple[Verdict, Verdict]], folder: Path) -> list[Path]:
    """The shrunk lives as files."""
    return [path for _, least in small for path in lives.export(least.life, folder)]


# --- scenario ---


def recording_into(recorder: PlotRecorder) -> lives.Watch:
    """What a person wants to see of a garage: the truth of the plant beside what the controller makes of it."""

    def add(garage: Garage, outputs: Outputs) -> None:
        plant, core = garage.plant, garage.state
        values: dict[str, float | str | bool | None] = {name: getattr(core.pack, name) for name in PLOTTED}
        values["link_voltage_v"] = plant.link_v
        through_a = plant.current_a if plant.relays[Contactor.PRECHARGE].closed else 0.0
        bridged = plant.relays[Contactor.POSITIVE].closed
        if garage.build.wiring == "own":
            values["resistor_w"] = 0.0 if bridged else plant.precharge_ohm * through_a**2
        values["inverter_w"] = garage.inverter.power_w
        values["charge_limit_w"], values["discharge_limit_w"] = core.limits.charge_w, -core.limits.discharge_w
        if core.pack.contactor_state is not None:
            values["contactor_state"] = core.pack.contactor_state.value
        for member, closed in garage.closed.items():
            values[f"{member.value} relay"] = "closed" if closed else "open"
        recorder.add(garage.now_ms / 1000, values)

    return add


def about(scenario: Scenario, result: Result, garage: Garage, version: str, wall_s: float) -> dict[str, object]:
    """The head of the JSON object."""
    assert result.core is not None
    setup = result.core.setup
    return {
        "scenario": scenario.name, "says": scenario.text, "synthetic": True, "battery": setup.battery.name,
        "inverter": setup.inverter.name, "wiring": scenario.build.wiring, "cells": setup.settings.pack.cells,
        "chemistry": setup.settings.pack.chemistry.name, "version": version,
        "duration_s": scenario.duration_ms / 1000, "wall_s": round(wall_s, 3), "violated": garage.broken,
        "resistor_j": round(garage.plant.precharge_j, 1),
    }  # fmt: skip


def headline(scenario: Scenario, result: Result, garage: Garage, about: Mapping[str, object]) -> list[str]:
    """What stands above the story."""
    violated = f"[red]violated: {escape('; '.join(garage.broken[:3]))}[/red]" if garage.broken else ""
    assert result.core is not None
    return [
        f"[bold]{scenario.name}[/bold]   [yellow]a simulated garage[/yellow]: {escape(scenario.text)}",
        f"{result.core.setup.battery.title}, wiring {scenario.build.wiring}; {result.core.setup.inverter.title}",
        f"{result.ticks:,} ticks in {about['wall_s']} s; every invariant watched"
        + ("" if violated else ", none violated"),
        violated,
        f"now: {escape(garage.reason)}" if garage.reason else "",
    ]


def plot_data(scenario: Scenario, result: Result, recorder: PlotRecorder) -> PlotData:
    """The picture of a scenario."""
    events = [
        {"t_s": t_ms / 1000, "id": n.id.value, "severity": n.severity.value, "detail": n.detail,
         "text": f"{TEXTS[n.id].what} {TEXTS[n.id].todo}"}
        for t_ms, n in result.events
    ]  # fmt: skip
    return PlotData(
        scenario.name, scenario.text, scenario.duration_ms / 1000,
        states=[(c.t_ms / 1000, c.state, c.cause) for c in result.states], events=events,
        series=recorder.series(), bands=recorder.bands(), cells_v=result.cells_v, badges=("a simulated garage",),
    )  # fmt: skip
