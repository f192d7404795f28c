"""THE machine: which states the controller can be in, what is energised in each, and every way from one to another.

This table is the only source: the runtime (`runner`), the exports (`render`) and the model check (`explore`) read it.
What makes a guard true stands in `controller/supervisor.py`, one function for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import cast

from statecharts.chart import Chart, Row


class State(StrEnum):
    """Each state is named after what is true in it."""

    STARTING = "STARTING"
    STANDBY = "STANDBY"
    WAKING_PACK = "WAKING_PACK"
    CLOSING_NEGATIVE = "CLOSING_NEGATIVE"
    PRECHARGING = "PRECHARGING"
    CLOSING_POSITIVE = "CLOSING_POSITIVE"
    RUNNING = "RUNNING"
    UNLOADING = "UNLOADING"
    OPENING_POSITIVE = "OPENING_POSITIVE"
    VERIFYING_OPEN = "VERIFYING_OPEN"
    COOLING_DOWN = "COOLING_DOWN"
    FAULT = "FAULT"
    LOCKED_OUT = "LOCKED_OUT"


class Contactor(StrEnum):
    """The outputs. PACK is no coil of ours: it is "the pack is asked to close its own contactors"."""

    PACK = "pack"
    NEGATIVE = "negative"
    PRECHARGE = "precharge"
    POSITIVE = "positive"


class Guard(StrEnum):
    """What rows ask. The value is the question in words."""

    # stop causes, most urgent first
    OPEN_NOW = "a cause to open at once is active"
    WELDED = "a weld is suspected, or a lock-out is on record"
    FAULTED = "a cause that needs an acknowledgement, or its quiet time, is held"
    STOP = "a cause to unload and open is active, or the operator, the service or the inverter asks for it"
    SUSPECTED = "a cause that would stop it is seen, and not yet long enough to act"
    PACK_REFUSES = "the pack refuses or cannot close"
    LINK_LOADED = "a load on the link keeps the pack from precharging it"
    PRECHARGE_FAILED = "the link charges too fast, makes no progress, or its current does not fall"
    # the fuse's work
    ABOVE_BREAK_MAX = "the current is known to exceed what our relays may break"
    # going on
    PACK_FOUND_CLOSED = "the pack is closed, or was when the record was written, though we have not asked for it"
    SELF_TESTED = "config valid, records read, feedback open"
    SIGNALS_SEEN = "every required signal has been seen"
    READY = "enabled, every permission present, and this closing is on record"
    PACK_CLOSED = "the pack says its contactors are closed"
    NEGATIVE_CONFIRMED = "the negative contactor is fed back closed, or has no feedback"
    LINK_CHARGED = "the link is verified charged"
    POSITIVE_CONFIRMED = "the positive contactor is fed back closed, or has no feedback"
    UNLOADED = "the current is below the break current"
    OPEN_CHECKED = "the weld check has its verdict"
    UNLOCKED = "a person has inspected the pack and unlocked at the machine"
    # the wiring
    WIRED_PACK = "the pack holds its own contactors"
    WIRED_NEGATIVE = "we hold negative and precharge relays"
    WIRED_POSITIVE = "we hold a positive relay"
    # timers
    SIGNALS_OVERDUE = "60 s without every required signal"
    WAKING_OVERDUE = "the pack has not closed in time"
    SETTLED = "the negative contactor has settled"
    NEGATIVE_OVERDUE = "the negative contactor has not been confirmed in time"
    PRECHARGE_OVERDUE = "the link is not charged in time"
    OVERLAPPED = "positive and precharge have overlapped long enough"
    POSITIVE_OVERDUE = "the positive contactor has not been confirmed in time"
    UNLOAD_OVERDUE = "the longest wait of every active cause is over"
    FUSE_OVERDUE = "the fuse has had its time"
    BROKEN = "the positive contactor has had its time to open"
    VERIFY_OVERDUE = "the weld check has had its time"
    COOLED = "the precharge resistor has cooled down"


S, C, G = State, Contactor, Guard

LADDER = (S.WAKING_PACK, S.CLOSING_NEGATIVE, S.PRECHARGING, S.CLOSING_POSITIVE)
ENERGISED = (*LADDER, S.RUNNING, S.UNLOADING, S.OPENING_POSITIVE)
CARRYING = (S.CLOSING_POSITIVE, S.RUNNING, S.UNLOADING, S.OPENING_POSITIVE)

FUSE_ROWS = tuple(
    Row(state, (why, G.ABOVE_BREAK_MAX, G.WIRED_POSITIVE), state, "fuse-clearing", unless=(G.FUSE_OVERDUE,))
    for state, why in (
        *((s, G.OPEN_NOW) for s in CARRYING),
        (S.CLOSING_POSITIVE, G.WELDED),
        (S.CLOSING_POSITIVE, G.STOP),
        (S.CLOSING_POSITIVE, G.POSITIVE_OVERDUE),
        (S.UNLOADING, G.UNLOAD_OVERDUE),
        (S.OPENING_POSITIVE, G.BROKEN),
    )
)
STOP_ROWS = (
    *(Row(s, (G.OPEN_NOW,), S.VERIFYING_OPEN, "open-now") for s in ENERGISED),
    *(Row(s, (G.WELDED,), S.LOCKED_OUT, "weld-suspected") for s in LADDER),
    *(Row(s, (G.STOP,), S.VERIFYING_OPEN, "stop") for s in LADDER),
    Row(S.RUNNING, (G.WELDED,), S.UNLOADING, "weld-suspected"),
    Row(S.RUNNING, (G.STOP,), S.UNLOADING, "stop"),
)

NOT_NOW = (G.OPEN_NOW, G.STOP, G.SUSPECTED)
"""Nothing more is energised while one of these holds."""

ROWS = (
    *FUSE_ROWS,
    *STOP_ROWS,
    # nothing energised yet
    Row(S.STARTING, (G.WELDED,), S.LOCKED_OUT, "weld-suspected"),
    Row(S.STARTING, (G.PACK_FOUND_CLOSED,), S.VERIFYING_OPEN, "found-closed"),
    Row(S.STARTING, (G.FAULTED,), S.FAULT, "fault-held"),
    Row(S.STARTING, (G.SELF_TESTED, G.SIGNALS_SEEN), S.STANDBY, "self-tested"),
    Row(S.STARTING, (G.SELF_TESTED, G.SIGNALS_OVERDUE), S.STANDBY, "signals-missing"),
    Row(S.STARTING, (G.SIGNALS_OVERDUE,), S.FAULT, "self-test-failed"),
    Row(S.STANDBY, (G.WELDED,), S.LOCKED_OUT, "weld-suspected"),
    Row(S.STANDBY, (G.FAULTED,), S.FAULT, "fault-held"),
    Row(S.STANDBY, (G.READY, G.WIRED_PACK), S.WAKING_PACK, "ready", unless=NOT_NOW),
    Row(S.STANDBY, (G.READY, G.WIRED_NEGATIVE), S.CLOSING_NEGATIVE, "ready", unless=NOT_NOW),
    Row(S.STANDBY, (G.READY,), S.RUNNING, "ready", unless=(*NOT_NOW, G.WIRED_PACK, G.WIRED_NEGATIVE)),
    # the ladder
    Row(S.WAKING_PACK, (G.PACK_REFUSES,), S.FAULT, "pack-refuses"),
    Row(S.WAKING_PACK, (G.LINK_LOADED,), S.COOLING_DOWN, "link-loaded"),
    Row(S.WAKING_PACK, (G.WAKING_OVERDUE,), S.COOLING_DOWN, "waking-overdue"),
    Row(S.WAKING_PACK, (G.PACK_CLOSED, G.WIRED_POSITIVE), S.CLOSING_POSITIVE, "pack-closed", unless=(G.SUSPECTED,)),
    Row(S.WAKING_PACK, (G.PACK_CLOSED,), S.RUNNING, "pack-closed", unless=(G.WIRED_POSITIVE,)),
    Row(S.CLOSING_NEGATIVE, (G.NEGATIVE_CONFIRMED, G.SETTLED), S.PRECHARGING, "negative-closed", unless=(G.SUSPECTED,)),
    Row(S.CLOSING_NEGATIVE, (G.NEGATIVE_OVERDUE,), S.VERIFYING_OPEN, "negative-overdue"),
    Row(S.PRECHARGING, (G.PRECHARGE_FAILED,), S.COOLING_DOWN, "precharge-failed"),
    Row(S.PRECHARGING, (G.PRECHARGE_OVERDUE,), S.COOLING_DOWN, "precharge-overdue"),
    Row(S.PRECHARGING, (G.LINK_CHARGED,), S.CLOSING_POSITIVE, "link-charged", unless=(G.SUSPECTED,)),
    Row(S.CLOSING_POSITIVE, (G.POSITIVE_CONFIRMED, G.OVERLAPPED), S.RUNNING, "positive-closed"),
    Row(S.CLOSING_POSITIVE, (G.POSITIVE_OVERDUE,), S.VERIFYING_OPEN, "positive-overdue"),
    # the way down
    Row(S.UNLOADING, (G.UNLOADED, G.WIRED_POSITIVE), S.OPENING_POSITIVE, "unloaded"),
    Row(S.UNLOADING, (G.UNLOADED,), S.VERIFYING_OPEN, "unloaded"),
    Row(S.UNLOADING, (G.UNLOAD_OVERDUE, G.WIRED_POSITIVE), S.OPENING_POSITIVE, "wait-over"),
    Row(S.UNLOADING, (G.UNLOAD_OVERDUE,), S.VERIFYING_OPEN, "wait-over"),
    Row(S.OPENING_POSITIVE, (G.BROKEN,), S.VERIFYING_OPEN, "positive-opened"),
    Row(S.VERIFYING_OPEN, (G.WELDED,), S.LOCKED_OUT, "weld-suspected"),
    Row(S.VERIFYING_OPEN, (G.OPEN_CHECKED, G.FAULTED), S.FAULT, "fault-held"),
    Row(S.VERIFYING_OPEN, (G.OPEN_CHECKED,), S.STANDBY, "open-checked"),
    Row(S.VERIFYING_OPEN, (G.VERIFY_OVERDUE, G.FAULTED), S.FAULT, "fault-held"),
    Row(S.VERIFYING_OPEN, (G.VERIFY_OVERDUE,), S.STANDBY, "open-unknown"),
    # resting, nothing energised
    Row(S.COOLING_DOWN, (G.WELDED,), S.LOCKED_OUT, "weld-suspected"),
    Row(S.COOLING_DOWN, (G.FAULTED,), S.FAULT, "fault-held"),
    Row(S.COOLING_DOWN, (G.COOLED,), S.STANDBY, "cooled-down"),
    Row(S.FAULT, (G.WELDED,), S.LOCKED_OUT, "weld-suspected"),
    Row(S.FAULT, (G.SELF_TESTED,), S.STANDBY, "acknowledged", unless=(G.FAULTED,)),
    Row(S.LOCKED_OUT, (G.UNLOCKED,), S.STANDBY, "unlocked"),
)

CLOSED: Mapping[Enum, frozenset[Enum]] = {
    S.STARTING: frozenset(),
    S.STANDBY: frozenset(),
    S.WAKING_PACK: frozenset({C.PACK}),
    S.CLOSING_NEGATIVE: frozenset({C.PACK, C.NEGATIVE}),
    S.PRECHARGING: frozenset({C.PACK, C.NEGATIVE, C.PRECHARGE}),
    S.CLOSING_POSITIVE: frozenset({C.PACK, C.NEGATIVE, C.PRECHARGE, C.POSITIVE}),
    S.RUNNING: frozenset({C.PACK, C.NEGATIVE, C.POSITIVE}),
    S.UNLOADING: frozenset({C.PACK, C.NEGATIVE, C.POSITIVE}),
    S.OPENING_POSITIVE: frozenset({C.PACK, C.NEGATIVE}),
    S.VERIFYING_OPEN: frozenset(),
    S.COOLING_DOWN: frozenset(),
    S.FAULT: frozenset(),
    S.LOCKED_OUT: frozenset(),
}

NOTES: Mapping[Enum, str] = {
    S.STARTING: "self test; waiting for the required signals",
    S.STANDBY: "open and healthy; waiting for every permission",
    S.WAKING_PACK: "the pack is asked to precharge and close by itself",
    S.CLOSING_NEGATIVE: "the negative contactor settles; the link must not rise",
    S.PRECHARGING: "the link is charged through the resistor and measured",
    S.CLOSING_POSITIVE: "the positive contactor settles beside the precharge",
    S.RUNNING: "closed; the limits are published",
    S.UNLOADING: "closed; limits are 0; waiting for the current to fall",
    S.OPENING_POSITIVE: "the positive contactor breaks first",
    S.VERIFYING_OPEN: "everything off; the weld check looks at what is left",
    S.COOLING_DOWN: "everything off; the precharge resistor cools",
    S.FAULT: "everything off until acknowledged, or quiet long enough",
    S.LOCKED_OUT: "everything off until unlocked at the machine after inspection",
}

WIRINGS: Mapping[str, frozenset[Enum]] = {
    "pack": frozenset({C.PACK}),
    "pack+inverter": frozenset({C.PACK, C.POSITIVE}),
    "own": frozenset({C.NEGATIVE, C.PRECHARGE, C.POSITIVE}),
    "none": frozenset(),
}

SUPERVISOR = Chart(
    name="supervisor",
    states=State,
    guards=Guard,
    outputs=Contactor,
    initial=S.STARTING,
    rows=ROWS,
    closed=CLOSED,
    wirings=WIRINGS,
    wired={
        wiring: {
            G.WIRED_PACK: C.PACK in members,
            G.WIRED_NEGATIVE: C.NEGATIVE in members,
            G.WIRED_POSITIVE: C.POSITIVE in members,
        }
        for wiring, members in WIRINGS.items()
    },
    timers=frozenset(
        {
            G.SIGNALS_OVERDUE, G.WAKING_OVERDUE, G.SETTLED, G.NEGATIVE_OVERDUE, G.PRECHARGE_OVERDUE, G.OVERLAPPED,
            G.POSITIVE_OVERDUE, G.UNLOAD_OVERDUE, G.FUSE_OVERDUE, G.BROKEN, G.VERIFY_OVERDUE, G.COOLED,
        }
    ),
    stops=frozenset(
        {G.OPEN_NOW, G.WELDED, G.FAULTED, G.STOP, G.SUSPECTED, G.PACK_REFUSES, G.LINK_LOADED, G.PRECHARGE_FAILED}
    ),
    resting=frozenset({S.STANDBY, S.RUNNING, S.FAULT, S.LOCKED_OUT}),
    phases={
        "at rest": (S.STARTING, S.STANDBY),
        "closing": LADDER,
        "closed": (S.RUNNING, S.UNLOADING),
        "opening": (S.OPENING_POSITIVE, S.VERIFYING_OPEN),
        "held open": (S.COOLING_DOWN, S.FAULT, S.LOCKED_OUT),
    },
    notes=NOTES,
)  # fmt: skip


def energised(state: State, wiring: str) -> frozenset[Contactor]:
    """What is energised in a state of the supervisor, in a wiring."""
    return cast(frozenset[Contactor], SUPERVISOR.energised(state, wiring))
