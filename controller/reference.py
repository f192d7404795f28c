"""The generated pages: docs/events.md, docs/causes.md and docs/protocols/*.md, from the running tables.

python -m controller.reference docs
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from controller import protocol_pages
from controller.model.events import Event, Severity
from controller.model.texts import TEXTS
from controller.safety.rules import RULES, Rule

REACTIONS: Mapping[Severity, str] = {
    Severity.INFO: "told",
    Severity.WARNING: "warn",
    Severity.NO_CLOSING: "no closing",
    Severity.LIMIT: "zero",
    Severity.GRACEFUL: "graceful",
    Severity.OPEN: "open",
    Severity.LOCK_OUT: "lock out",
}


def events() -> str:
    """Every event id with its words."""
    lines = [
        "# Events",
        "",
        "Generated from `controller/model/texts.py` by `make docs`. An id is never renamed or reused.",
        "",
        "| id | what happened | likely cause | what to do |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| `{event.value}` | {' | '.join(TEXTS[event])} |" for event in Event]
    return "\n".join(lines) + "\n"


def causes() -> str:
    """Every rule: threshold, debounce, reaction, budget, how it is released, why."""
    lines = [
        "# Causes, times, reactions",
        "",
        "Generated from `controller/safety/rules.py` by `make docs`; the rules that run are these rows.",
        "",
        "- *open*: outputs off in the tick the cause becomes active. *graceful w*: limits 0, wait at most w for the",
        "  break current, then open in break order. *zero*: the limits of that direction are 0. *no closing*: only",
        "  withholds permission. *lock out*: off until unlocked at the machine.",
        "- Detect and react within the budget, from the first bad frame or edge to outputs off.",
        "- ↺ t: clears itself after t without it. *latched*: until acknowledged by name after it is gone. What opens",
        "  while nothing is energised only withholds permission, except †.",
        "- Unknown (never seen, stale, marked invalid) never counts as bad and never as good.",
        "- *shadow*: not judged in a replay, since it",
        "  compares with what the recording does not hold.",
        "",
        "| cause | threshold | debounce | reaction | budget | release | why |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_row(rule) for rule in RULES]
    return "\n".join(lines) + "\n"


def _row(rule: Rule) -> str:
    dagger, masked = " †" if rule.always else "", " (shadow)" if rule.masked else ""
    cells = (
        f"`{rule.id.value}`{dagger}{masked}", rule.threshold, duration(rule.hold_ms), reaction(rule),
        duration(rule.budget_ms), release(rule), rule.why,
    )  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def reaction(rule: Rule) -> str:
    words = REACTIONS[rule.severity]
    if rule.severity is Severity.GRACEFUL:
        words += f" {duration(rule.wait_ms)}" + (" → STANDBY" if rule.rests else "")
    if rule.severity is Severity.LIMIT and not rule.charge:
        words += " discharge"
    if rule.severity is Severity.LIMIT and not rule.discharge:
        words += " charge"
    return words


def release(rule: Rule) -> str:
    if rule.severity is Severity.LOCK_OUT:
        return "unlock"
    if rule.severity not in (Severity.GRACEFUL, Severity.OPEN):
        return "with the cause" if not rule.quiet_ms else f"↺ {duration(rule.quiet_ms)}"
    if rule.rests:
        return "with the cause"
    return "latched" if rule.quiet_ms is None else f"↺ {duration(rule.quiet_ms)}"


def duration(ms: int | None) -> str:
    if not ms:
        return "–"
    return f"{ms} ms" if ms < 1000 or ms % 100 else f"{ms / 1000:g} s"


PAGES: Mapping[str, Callable[[], str]] = {"events.md": events, "causes.md": causes, **protocol_pages.PAGES}


def main(folder: Path) -> None:
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
