"""The machine that follows a pack somebody else controls: a recording, or a bus we only listen to.

It has the states of the supervisor and never energises anything; closed in the recording counts as if we had closed it.
"""

from __future__ import annotations

from enum import StrEnum

from statecharts.chart import Chart, Row
from statecharts.supervisor import NOTES, SUPERVISOR, State


class Seen(StrEnum):
    """What a recording can tell. The value is the question in words."""

    CLOSED = "the recorded pack is closed (without any contactor frame: its current is above 5 A)"
    CLOSING = "the recorded pack is closing"
    OPEN = "the recorded pack is open"
    SIGNALS = "every required signal has been seen"
    SIGNALS_OVERDUE = "60 s without every required signal"


S, R = State, Seen

SHADOW = Chart(
    name="shadow",
    states=State,
    guards=Seen,
    outputs=SUPERVISOR.outputs,
    initial=S.STARTING,
    rows=(
        *(Row(s, (R.CLOSED,), S.RUNNING, "recorded-closed") for s in (S.STARTING, S.STANDBY, S.WAKING_PACK)),
        Row(S.STARTING, (R.OPEN, R.SIGNALS), S.STANDBY, "recorded-open"),
        Row(S.STARTING, (R.OPEN, R.SIGNALS_OVERDUE), S.STANDBY, "signals-missing"),
        Row(S.STANDBY, (R.CLOSING,), S.WAKING_PACK, "recorded-closing"),
        Row(S.WAKING_PACK, (R.OPEN,), S.VERIFYING_OPEN, "recorded-open"),
        Row(S.RUNNING, (R.OPEN,), S.VERIFYING_OPEN, "recorded-open"),
        Row(S.VERIFYING_OPEN, (R.OPEN,), S.STANDBY, "open-checked"),
        Row(S.VERIFYING_OPEN, (R.CLOSED,), S.RUNNING, "recorded-closed"),
    ),
    closed={state: frozenset() for state in State},
    wirings={"shadow": frozenset()},
    wired={"shadow": {}},
    timers=frozenset({R.SIGNALS_OVERDUE}),
    stops=frozenset(),
    resting=SUPERVISOR.resting | {S.STARTING, S.WAKING_PACK, S.VERIFYING_OPEN},
    phases=SUPERVISOR.phases,
    notes=NOTES,
)
