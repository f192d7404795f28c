"""What a person reads in a terminal: the story of a run, the verdict of the model check, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from controller.core import CoreState, masked_rules
from controller.model.events import Severity
from controller.model.texts import TEXTS
from controller.ports import CanFrame
from controller.safety.envelope import Limits
from controller.safety.rules import Masked
from controller.shown import SEVERITY_STYLE, STATE_STYLE, painted, shown
from sim.replay import Result
from statecharts.interlocks import Verdict
from statecharts.supervisor import SUPERVISOR, State

EVENTS_SHOWN = 60


def tell(console: Console, result: Result, headline: Sequence[str]) -> None:
    """The story of a replay: who, states with causes, events, signals, limits, what the inverter would read."""
    for line in headline:
        console.print(line, highlight=False)
    console.print()
    _states(console, result)
    _events(console, result)
    _signals(console, result)
    _published(console, result)
    _masked(console, result)


def _states(console: Console, result: Result) -> None:
    console.print("[bold]States[/bold]")
    for change in result.states:
        note = SUPERVISOR.notes[State(change.state)]
        state = painted(change.state, 16, STATE_STYLE.get(change.state))
        at = f"{change.t_ms / 1000:9.2f} s"
        console.print(f"  {at}  {state}  {escape(change.cause):<22} [dim]{note}[/dim]", highlight=False)
    if result.missing:
        console.print(f"  [yellow]required and not known at the end:[/yellow] {', '.join(result.missing)}")
    console.print()


def _events(console: Console, result: Result) -> None:
    console.print(f"[bold]Events[/bold] ({len(result.events)})")
    if not result.events:
        console.print("  none")
    explained = set()
    for t_ms, notice in result.events[:EVENTS_SHOWN]:
        severity = painted(notice.severity.value, 10, SEVERITY_STYLE[notice.severity])
        words = f"{severity} {notice.id.value:<26} [dim]{escape(notice.detail)}[/dim]"
        console.print(f"  {t_ms / 1000:9.2f} s  {words}", highlight=False)
        if notice.severity is not Severity.INFO and notice.id not in explained:
            explained.add(notice.id)
            text = TEXTS[notice.id]
            console.print(f"  {'':13}{text.what} {text.todo}", highlight=False)
    if len(result.events) > EVENTS_SHOWN:
        console.print(f"  … and {len(result.events) - EVENTS_SHOWN} more (--json and --plot show all)")
    console.print()


def _signals(console: Console, result: Result) -> None:
    table = Table("signal", "first", "last", "min", "max", "known in ticks", title="Signals", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, summary in result.signals.items():
        table.add_row(
            name, shown(summary.first, name), shown(summary.last, name), shown(summary.least, name),
            shown(summary.most, name), f"{summary.samples:,}",
        )  # fmt: skip
    console.print(table)
    assert result.core is not None
    cells = result.cells_v
    if known := [v for v in cells if v is not None]:
        console.print(f"cells: {len(known)} of {len(cells)} known, {min(known):.4f} to {max(known):.4f} V")
    console.print()


def _published(console: Console, result: Result) -> None:
    """Limits and register image: when the inverter was told ACTIVE last, and at the end."""
    assert result.core is not None
    active = result.active
    if active is not None and (active.registers, active.frames) != (result.registers, result.frames):
        _limits(console, f"when it was told ACTIVE last ({active.t_ms / 1000:.2f} s)", active.limits)
        _image(console, result.core, active.registers, active.frames)
        console.print()
    _limits(console, "at the end", result.core.limits)
    _image(console, result.core, result.registers, result.frames)
    console.print()


def _limits(console: Console, when: str, limits: Limits) -> None:
    console.print(f"[bold]Limits and what the inverter would read, {when}[/bold]")
    console.print(f"  charge    {int(limits.charge_w):>7,} W   bounded by {limits.charge_by}", highlight=False)
    console.print(f"  discharge {int(limits.discharge_w):>7,} W   bounded by {limits.discharge_by}", highlight=False)


def _image(
    console: Console, core: CoreState, registers: Mapping[int, tuple[int, ...]], frames: Sequence[CanFrame]
) -> None:  # fmt: skip
    inverter = core.setup.inverter
    named = inverter.explain(registers) if registers else {}
    told: list[tuple[str, Mapping[str, object]]] = [(str(n), named[n]) for n in (201, 301) if n in named]
    told += [(f"{frame.id:03X}", values) for frame in frames for _, values in inverter.explain_frame(frame)]
    for place, values in told:
        words = ", ".join(f"{name} {shown(value, name)}" for name, value in values.items())
        console.print(f"  {place}: {escape(words)}", highlight=False)


def _masked(console: Console, result: Result) -> None:
    assert result.core is not None
    if not result.core.setup.shadow:
        return
    masked = masked_rules(True)
    for reason in Masked:
        names = [name for name, why in masked.items() if why is reason]
        console.print(f"[dim]Not judged here ({reason.value}): {', '.join(names)}[/dim]", highlight=False)


def verdict(console: Console, verdict: Verdict, wall_s: float) -> None:
    """The model check, property by property, and each counter-example with its path."""
    console.print(
        f"{verdict.states} states, {verdict.rows} rows, {verdict.steps:,} steps in {len(SUPERVISOR.wirings)} wirings, "
        f"{wall_s:.2f} s"
    )
    broken = {example.rule for example in verdict.broken}
    for rule, held_against in verdict.checked:
        wrong = any(rule.startswith(b) or b in rule for b in broken)
        mark = "[bold red]broken[/bold red]" if wrong else "[green]holds [/green]"
        console.print(f"  {mark}  {rule} [dim]({held_against:,})[/dim]", highlight=False)
    for example in verdict.broken:
        console.print()
        console.print(f"[bold red]{escape(str(example))}[/bold red]", highlight=False)


def verdict_json(verdict: Verdict, wall_s: float) -> dict[str, object]:
    """The model check as JSON."""
    return {
        "schema": 1, "states": verdict.states, "rows": verdict.rows, "steps": verdict.steps, "wall_s": round(wall_s, 3),
        "checked": [rule for rule, _ in verdict.checked], "broken": [str(example) for example in verdict.broken],
    }  # fmt: skip


def json_of(result: Result, about: Mapping[str, object]) -> dict[str, object]:
    """The object `--json` prints: the contract other tools rely on (design note, Commands)."""
    assert result.core is not None
    active = result.active
    return {
        "schema": 1,
        **about,
        "ticks": result.ticks,
        "final_state": result.final_state,
        "masked_rules": list(masked_rules(result.core.setup.shadow)),
        "missing_signals": list(result.missing),
        "states": [{"t_s": c.t_ms / 1000, "state": c.state, "cause": c.cause} for c in result.states],
        "events": [
            {"t_s": t_ms / 1000, "id": n.id.value, "severity": n.severity.value, "detail": n.detail}
            for t_ms, n in result.events
        ],
        "signals": {name: summary.as_json() for name, summary in result.signals.items()},
        "cells_v": list(result.cells_v),
        "limits": _limits_json(result.core.limits),
        "last_active": None if active is None else {
            "t_s": active.t_ms / 1000, "limits": _limits_json(active.limits),
            "inverter_image": _inverter_image(active.registers, active.frames),
        },
        "trace_sha256": result.trace_sha256,
        "inverter_image": _inverter_image(result.registers, result.frames),
    }  # fmt: skip


def _inverter_image(
    registers: Mapping[int, tuple[int, ...]], frames: Sequence[CanFrame]
) -> dict[str, list[int]] | list[str]:
    """Register blocks by their first register; of an inverter on CAN its frames, "110#09200640…"."""
    blocks = {str(block): list(words) for block, words in registers.items() if block in (101, 201, 301, 401)}
    return blocks or [f"{frame.id:03X}#{frame.data.hex().upper()}" for frame in frames]


def _limits_json(limits: Limits) -> dict[str, object]:
    return {
        "charge_w": int(limits.charge_w), "discharge_w": int(limits.discharge_w),
        "charge_by": limits.charge_by, "discharge_by": limits.discharge_by,
    }  # fmt: skip
