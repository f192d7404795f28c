"""docs/safety.md: what a safety reviewer is handed, from the running tables. `make docs` writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType

from controller import precharge, supervisor, watch, weld
from controller.config_keys import CONTACTORS, LIMITS, PRECHARGE, Key
from controller.hazards import ASSUMPTIONS, FAILURES, GAPS, HAZARDS, Failure
from controller.inverters.registry import INVERTERS
from controller.model.events import Event
from controller.model.settings import CHEMISTRIES, RECOVERY_A, RECOVERY_MS, Chemistry
from controller.reference import duration, reaction, release
from controller.safety import envelope, gate
from controller.safety.monitor import RULE_OF
from controller.safety.rules import RULES, Rule

Lines = Iterator[str]

FIXED: tuple[tuple[str, ModuleType, str, str], ...] = (
    ("no link below this fraction of the pack is charged", precharge, "FLOOR_FRACTION", ""),
    ("above this fraction a standing link is no stall", precharge, "STALL_FRACTION", ""),
    ("below it the link gains this fraction of the pack in every max(200 ms, τ/2)", precharge, "PROGRESS_FRACTION", ""),
    ("95 % within this many τ is too fast", precharge, "FAST_TAUS", "τ"),
    ("a charged link's current falls within", precharge, "FALLING_MS", "ms"),
    ("samples further apart verify no precharge", precharge, "SLOW_MS", "ms"),
    ("precharges are summed over", precharge, "BUDGET_MS", "ms"),
    ("and are at most so many of their limit", precharge, "BUDGET_LIMITS", ""),
    ("the gate's own floor of a charged link", gate, "CHARGED_AT_LEAST", ""),
    ("the gate sums precharges over", gate, "PRECHARGE_WINDOW_MS", "ms"),
    ("a residual link voltage is looked at every", weld, "WINDOW_MS", "ms"),
    ("and falls by this fraction each time", weld, "FALL_FRACTION", ""),
    ("for at most", weld, "DECAY_MS", "ms"),
    ("a link within this fraction of the pack is at pack voltage", weld, "STUCK_FRACTION", ""),
    ("an opened link falls by this fraction", weld, "OPENED_FRACTION", ""),
    ("a rise on negative alone by this fraction of the pack is a weld", weld, "RISE_FRACTION", ""),
    ("auxiliary contacts are fed back open within", weld, "AUX_MS", "ms"),
    ("a suspected weld unloads for at most", supervisor, "WELD_WAIT_MS", "ms"),
    ("the current's offset is the mean of", watch, "OFFSET_MS", "ms"),
    ("an SoC may move this far beyond its charge", watch, "SOC_SLACK_PCT", "%"),
    ("its charge is counted anew every", watch, "ANCHOR_MS", "ms"),
    ("a limit rises by this fraction of the configured power a second", envelope, "RISE_PER_S", ""),
    ("a derating rises by at least this, or to its end", envelope, "HYSTERESIS", ""),
)
"""Numbers nobody can configure, besides those of the cause table: meaning, where, name, unit."""

CAUSE = "cause:"
CURVES = ("charge_over_coldest", "charge_over_hottest", "discharge_over_coldest", "discharge_over_hottest")


def page(requirements: Mapping[str, str], tests: Mapping[str, Sequence[str]]) -> str:
    """The whole report. requirements: what each id says; tests: those that prove it, as file::test."""
    parts = (_head(), _item(), _hazards(), _machine(), _causes(), _thresholds(), _matrix(requirements, tests),
             _failures(), _evidence(), _gaps())  # fmt: skip
    return "\n".join(line for part in parts for line in part) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _table(*heads: str) -> Lines:
    yield _row(*heads)
    yield _row(*["---"] * len(heads))


def _head() -> Lines:
    yield from """\
# Safety report

Written by `make docs` from the tables that run; a stale copy fails a test. Words no table can know stand in
`controller/hazards.py`.

**It claims no conformity.** IEC 62619, UL 1973, ISO 26262 (method), ISO 6469-3 and DIN VDE V 0510-100 were in mind;
none was applied as a process, and nobody independent has certified or assessed anything. The gaps are listed at the
end.
""".splitlines()
    yield ""


def _item() -> Lines:
    yield from """\
## Item and boundary

The item is the software on one small computer: from the frames, pins and feedback that arrive to the relay outputs,
frames and limits that leave. Outside are the pack and its BMS, fuse, breaker, contactors, resistor, the hard-wired
stop, the external watchdog, the inverter, and the gateway process, which may only ask.

It assumes:
""".splitlines()
    yield ""
    yield from (f"{number}. {text}" for number, text in enumerate(ASSUMPTIONS, start=1))
    yield ""


def _hazards() -> Lines:
    yield from """\
## Safe state and hazards

The safe state is **every contactor output off, charge and discharge limit 0 W**. It is also what nothing decided, an
exception, an exit and a dead process lead to. Time: the shortest and the longest budget of the causes that see the
hazard come, from the first bad frame or edge to outputs off; causes bound to the round of their source, or judged at
rest, have none.
""".splitlines()
    yield ""
    yield from _table("", "hazard", "what is done", "time", "causes")
    for number, hazard in enumerate(HAZARDS, start=1):
        known = [ms for event in hazard.causes if (ms := RULE_OF[event].budget_ms) is not None]
        times = dict.fromkeys(duration(ms) for ms in (min(known), max(known)))
        yield _row(f"H{number}", hazard.name, hazard.safe, " to ".join(times), _ids(hazard.causes))
    yield ""


def _ids(events: Sequence[Event]) -> str:
    return ", ".join(f"`{event.value}`" for event in events) or "–"


def _machine() -> Lines:
    yield from """\
## The machine

![The supervisor chart](statechart/supervisor.svg)

The same chart as [table](../statecharts/supervisor.md), [SCXML](statechart/supervisor.scxml),
[DOT](statechart/supervisor.dot), [Mermaid](statechart/supervisor.mmd) and [PlantUML](statechart/supervisor.puml).
`controller verify` proves its interlocks over every state, every combination of the guards its rows read, and every
wiring. A gate that shares no logic with it has the last word.
""".splitlines()
    yield ""


def _causes() -> Lines:
    yield "## Causes"
    yield ""
    yield "[Why, and what each word means](causes.md); [what a person is told to do](events.md)."
    yield ""
    yield from _table("cause", "threshold", "debounce", "reaction", "budget", "release")
    for rule in RULES:
        dagger = " †" if rule.always else ""
        yield _row(f"`{rule.id.value}`{dagger}", rule.threshold, duration(rule.hold_ms), reaction(rule),
                   duration(rule.budget_ms), release(rule))  # fmt: skip
    yield ""


def _thresholds() -> Lines:
    yield "## Every threshold"
    yield ""
    yield "Source: the safety concept, by its section. A default moves to the safe side only, within its hard bound; a"
    yield "config that goes beyond, or lacks what is yours to set, is refused."
    yield ""
    yield from _table("key", "default", "hard bound", "meaning", "section")
    for keys, section in ((LIMITS, "4"), (PRECHARGE, "2"), (CONTACTORS, "2")):
        cells = Chemistry.__dataclass_fields__
        yield from (_key(key, section) for key in keys if key.name not in CURVES and key.name not in cells)
    yield ""
    yield from _table("one cell, V (section 4)", *CHEMISTRIES)
    for name in Chemistry.__dataclass_fields__:
        if name != "name":
            yield _row(f"`{name}`", *(f"{getattr(cell, name):.2f}" for cell in CHEMISTRIES.values()))
    yield ""
    yield from _table("fraction of the current (section 4)", "points: °C → fraction")
    for key in LIMITS:
        if key.name in CURVES:
            yield _row(f"`{key.name}`", ", ".join(f"{at:g} → {fraction:g}" for at, fraction in key.default))
    yield ""
    yield from _table("inverter", "limits zero after", "opened after", "time to follow", "offered at most")
    for inverter in INVERTERS.values():
        times = (inverter.zero_ms, inverter.silent_ms, inverter.follow_ms)
        yield _row(f"`{inverter.name}`", *(duration(ms) for ms in times), f"{inverter.max_w:g} W")
    yield ""
    yield from _table("fixed, besides those of the causes", "value", "where")
    for text, module, name, unit in FIXED:
        value = getattr(module, name)
        shown = duration(value) if unit == "ms" else f"{value:g} {unit}".strip()
        yield _row(text, shown, f"`{module.__name__}.{name}`")
    yield _row("a recovery charge", f"{RECOVERY_A:g} A, {RECOVERY_MS // 60_000} min", "`controller.model.settings`")
    yield ""


def _key(key: Key, section: str) -> str:
    default = "yours to set" if key.yours else "–" if key.default in (None, "") else f"{key.default} {key.unit}".strip()
    return _row(f"`{key.path}`", default, key.bound or "–", key.text, section)


def _matrix(requirements: Mapping[str, str], tests: Mapping[str, Sequence[str]]) -> Lines:
    every = set.intersection(*(set(tests[name]) for name in requirements if name.startswith(CAUSE)))
    yield "## Requirements and the tests that prove them"
    yield ""
    yield "P: what a peer gets wrong (section 6). C: complaints of users. S: sections 1 to 4. I and L: invariants and"
    yield "liveness (section 5), looked at on every tick of every simulated life besides. No requirement is without a"
    yield "test, no test of `tests/requirements` without a requirement; a test sees to both. Causes come last; besides"
    yield "the tests named there each is tried by " + " and ".join(f"`{_short(test)}`" for test in sorted(every)) + "."
    yield ""
    yield from _table("", "requirement", "tests")
    for name, text in requirements.items():
        proofs = [f"`{_short(test)}`" for test in tests[name] if not (name.startswith(CAUSE) and test in every)]
        yield _row(f"`{name.removeprefix(CAUSE)}`" if name.startswith(CAUSE) else name, text, ", ".join(proofs) or "–")
    yield ""
    yield "The tests stand in:"
    yield ""
    places = sorted({test.partition("::")[0] for proofs in tests.values() for test in proofs})
    yield from (f"- `{place}`" for place in places)
    yield ""


def _short(test: str) -> str:
    return test.partition("::")[2].removeprefix("test_")


def _failures() -> Lines:
    yield "## Failures, their effect and what is left"
    yield ""
    yield "Reaction: the strongest of the causes that tell of it, and the budget of the quickest. Tried by: the fault"
    yield "classes of the simulation (`sim/faults.py`) that bring it about in generated lives."
    yield ""
    yield from _table("failure", "effect if nothing were done", "told by", "borne by", "reaction", "left", "tried by")
    for failure in FAILURES:
        yield _row(failure.what, failure.effect, _ids(failure.told_by), failure.borne or "–", _strongest(failure),
                   failure.residual, ", ".join(failure.tried_by) or "unit and requirement tests")  # fmt: skip
    yield ""


def _strongest(failure: Failure) -> str:
    rules = [RULE_OF[event] for event in failure.told_by]
    if not rules:
        return "none needed"
    worst = max(rules, key=lambda rule: list(rule.severity.__class__).index(rule.severity))
    within = [rule.budget_ms for rule in rules if rule.budget_ms]
    return _word(worst) + (f", from {duration(min(within))}" if within else "")


def _word(rule: Rule) -> str:
    return reaction(rule).partition(" → ")[0]


EVIDENCE: Mapping[str, str] = {
    "lives, faults, invariants, worst reaction per cause": (
        "`controller sim --campaign N --seed S`; `make campaign` prints its fresh seeds, and a failing life the line "
        "that lives it again"
    ),
    "branch coverage of chart, rules, monitor, limits, gate, supervisor": "`make coverage`: fails below 100 %",
    "mutation score of the same files": (
        "`make mutation`; what survives because it changes nothing, with the reason: `tests/mutation/equivalent.toml`"
    ),
    "damages to single rows of the chart": "`make slow`: `tests/statecharts/test_interlocks.py`",
    "planted bugs": "`make slow`: `tests/mutation/test_planted.py`",
    "the chart's interlocks": "`controller verify`",
    "recordings through the whole controller": "`make demo`, `controller sim --replay FILE`",
}


def _evidence() -> Lines:
    yield "## Evidence"
    yield ""
    yield from _table("what", "how to see it")
    yield from (_row(what, how) for what, how in EVIDENCE.items())
    yield ""


def _gaps() -> Lines:
    yield "## Known gaps"
    yield ""
    yield from (f"- {text}" for text in GAPS)
