"""How a value, its unit and a state are shown in a terminal."""

from __future__ import annotations

from controller.model.battery import RESOLUTION
from controller.model.events import Severity

STATE_STYLE = {
    "RUNNING": "bold green", "STANDBY": "cyan", "STARTING": "cyan", "FAULT": "bold red", "LOCKED_OUT": "bold red",
    "COOLING_DOWN": "yellow", "UNLOADING": "yellow", "OPENING_POSITIVE": "yellow", "VERIFYING_OPEN": "yellow",
}  # fmt: skip
SEVERITY_STYLE = {
    Severity.INFO: "dim", Severity.WARNING: "yellow", Severity.NO_CLOSING: "yellow", Severity.LIMIT: "yellow",
    Severity.GRACEFUL: "red", Severity.OPEN: "bold red", Severity.LOCK_OUT: "bold red",
}  # fmt: skip
UNITS = {
    "v": "V", "a": "A", "w": "W", "wh": "Wh", "c": "°C", "pct": "%", "kohm": "kΩ",
}  # fmt: skip


def unit_of(name: str) -> str:
    """The unit a signal's name ends with, "" when it has none."""
    return UNITS.get(name.rsplit("_", 1)[-1], "")


def shown(value: object, name: str = "") -> str:
    """A value as a person reads it; unknown is –."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    unit = unit_of(name)
    if isinstance(value, float):
        text = f"{value:,.{RESOLUTION[name]}f}" if name in RESOLUTION else f"{value:,.4f}".rstrip("0").rstrip(".")
        return f"{text} {unit}".rstrip()
    return f"{value:,} {unit}".rstrip() if isinstance(value, int) else str(value)


def painted(text: str, width: int, style: str | None) -> str:
    """A word in its colour, padded."""
    return f"[{style}]{text:<{width}}[/]" if style else f"{text:<{width}}"
