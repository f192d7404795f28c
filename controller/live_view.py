"""The status as a person reads it in a terminal: state and why, limits and why, ages, causes and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from controller.model.events import Severity
from controller.shown import SEVERITY_STYLE, STATE_STYLE, painted, shown

UNKNOWN = "–"
SHOWN = (
    "pack_voltage_v", "current_a", "soc_pct", "cell_min_v", "cell_max_v", "temp_min_c", "temp_max_c",
    "contactor_state", "hvil_ok", "link_voltage_v", "lv_supply_v", "isolation_kohm", "max_charge_w", "max_discharge_w",
)  # fmt: skip
EVENTS_SHOWN = 10
Status = Mapping[str, Any]


def view(now: Status, rows: int | None = None) -> RenderableType:
    """rows: the height of the screen, None for as much as there is."""
    parts: list[RenderableType] = [*_state(now), *_limits(now), _signals(now), *_inverter(now), *_faults(now)]
    left = EVENTS_SHOWN if rows is None else max(0, min(EVENTS_SHOWN, rows - 34))
    return Group(*parts, *_events(now, left), *_health(now))


def ago(seconds: float | None) -> str:
    """A time ago, short."""
    if seconds is None:
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _state(now: Status) -> list[str]:
    state = painted(now["state"], 0, STATE_STYLE.get(now["state"]))
    lines = [f"[bold]{state}[/bold] since {ago(now['since_s'])}: {escape(now['cause'])}  [dim]{escape(now['note'])}[/]"]
    closed = ", ".join(now["closed"]) or "nothing"
    apart = "" if now["disconnected"] or now["closed"] else " [yellow](not disconnected: nothing here can switch)[/]"
    enabled = "enabled" if now["enabled"] else "not enabled: `controller enable`"
    again = "enables itself after a power cut" if now["auto_enable"] else "stays open after a power cut"
    lines.append(f"energised: {closed}{apart}; {enabled}; {again}")
    if now["listen_only"]:
        lines.append("[yellow]listening only: nothing is sent and no relay moves[/]")
    if now["stopping"]:
        lines.append("[yellow]the service is stopping[/]")
    lines += [f"  waits for  {escape(why)}" for why in now["withheld"]]
    return lines


def _limits(now: Status) -> list[str]:
    limits = now["limits"]
    return [
        f"{name:<9} {limits[f'{name}_w']:>7,} W   bounded by {escape(limits[f'{name}_by'])}{_cap(now['cap'][name])}"
        for name in ("charge", "discharge")
    ]


def _cap(cap: Mapping[str, Any] | None) -> str:
    return "" if cap is None else f"   [dim]limited to {cap['limit_w']:,.0f} W for {ago(cap['left_s'])} more[/]"


def _signals(now: Status) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    cells = []
    for name in SHOWN:
        value, age_s = now["signals"].get(name), now["ages_s"].get(name)
        age = f"[dim]{ago(age_s)}[/]" if name in now["ages_s"] else ""
        cells.append((f"[dim]{name}[/]", shown(value, name), age))
    half = (len(cells) + 1) // 2
    for left, right in zip(cells[:half], [*cells[half:], ("", "", "")][:half], strict=True):
        table.add_row(*left, *right)
    known = [volts for volts in now["cells_v"] if volts is not None]
    about = f"{len(known)} of {len(now['cells_v'])} cells known" if now["cells_v"] else "no cell voltages yet"
    return Group(table, f"[dim]{about}[/]")


def _inverter(now: Status) -> list[str]:
    inverter = now["inverter"]
    go = {True: "gives its go", False: "gives no go", None: "has not said whether it may"}[inverter["go"]]
    heard = "never heard" if inverter["heard_s"] is None else f"heard {ago(inverter['heard_s'])} ago"
    return [f"inverter {inverter['name']}: {heard}, {go}"]


def _faults(now: Status) -> list[str]:
    lines = []
    for fault in now["faults"]:
        style = SEVERITY_STYLE[Severity(fault["severity"])]
        lines.append(
            f"{painted(fault['id'], 0, style)} ({fault['severity']}{_standing(fault)}): {escape(fault['what'])}"
        )
        lines.append(f"  [dim]likely:[/] {escape(fault['cause'])}  [dim]do:[/] {escape(fault['do'])}")
    return lines


def _standing(fault: Mapping[str, Any]) -> str:
    since = f", for {ago(fault['since_s'])}" if fault["active"] else ", gone"
    if not fault["held"]:
        return since
    clears_s = fault["clears_itself_s"]
    return f"{since}, held" + ("" if clears_s is None else f" until {ago(clears_s)} without it")


def _events(now: Status, rows: int) -> list[str]:
    latest: Sequence[Mapping[str, Any]] = now["events"][-rows:] if rows else []
    lines = []
    for event in latest:
        severity = painted(event["severity"], 10, SEVERITY_STYLE[Severity(event["severity"])])
        before = ago(now["t_ms"] / 1000 - event["t_s"])
        lines.append(f"{before:>8} ago  {severity} {event['id']:<22} [dim]{escape(event['detail'])}[/]")
    return lines


def _health(now: Status) -> list[str]:
    late, closings, record = now["lateness_ms"], now["closings"], now["record"]
    lines = [
        f"[dim]closings {closings['hour']} of {closings['hour_max']} this hour, {closings['day']} of "
        f"{closings['day_max']} this day; ticks late by {late['p50']} ms (half), {late['p99']} (99 %), "
        f"{late['max']} (most); packwarden {now['program']}, {escape(now['config'])}[/]"
    ]
    if box := now["black_box"]:
        newest = f"; newest incident {box['newest']}" if box["newest"] else ""
        held = f"{ago(box['span_s'])} in {box['bytes'] / 2**20:.1f} of {box['bytes_max'] / 2**20:.0f} MiB"
        lines.append(f"[dim]black box: the last {held}{escape(newest)}[/]")
        lines += [f"[yellow]{escape(box['trouble'])}[/]"] if box["trouble"] else []
    if record["trouble"]:
        lines.append(f"[yellow]{escape(record['trouble'])}: no closing[/]")
    return lines
