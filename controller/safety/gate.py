"""Last word before the outside world. It shares no logic with the supervisor and can only refuse; that is a fault.

What it checks it works out again from the snapshot, by its own means.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.model.battery import BatterySnapshot, PackContactor
from controller.model.events import Event, Notice, Severity
from controller.ports import CanFrame, Outputs
from statecharts.supervisor import WIRINGS, Contactor

PRECHARGE_WINDOW_MS = 600_000
CHARGED_AT_LEAST = 0.95
OFF_BY_MS = 1000
"""A tick that breaks switches off; before one that is late the relay watchdog does, after 500 ms."""


@dataclass(frozen=True, slots=True)
class GateSettings:
    """What the gate is told once. precharge_ms: the longest precharge; unverified: R and C declared, nothing measured.

    battery_tx, inverter_tx: the CAN ids that may be sent. silent: nothing is transmitted, no relay moves. lacks: the
    names of signals this battery cannot give.
    """

    wiring: str
    lacks: frozenset[str]
    precharge_ms: int
    unverified: bool
    battery_tx: frozenset[int]
    inverter_tx: frozenset[int]
    silent: bool


@dataclass(frozen=True, slots=True)
class Gate:
    """What went out last, and how long the precharge relay has been energised: (from, to) of the last 10 minutes.

    refusal: why the last tick's outputs were refused, empty when they were not.
    """

    closed: frozenset[Contactor] = frozenset()
    precharge_since_ms: int | None = None
    precharged: tuple[tuple[int, int], ...] = ()
    refusal: str = ""


def allow(
    gate: Gate, settings: GateSettings, wanted: Outputs, pack: BatterySnapshot, link_v: float | None, blocked: str,
    now_ms: int,
) -> tuple[Gate, Outputs]:  # fmt: skip
    """What may go out: `wanted`, or everything off, nothing to battery or inverter, and the reason as an event.

    blocked: the cause that forbids energising anything more now, empty when none does.
    """
    refusal = (
        _forbidden_set(settings, wanted.closed)
        or _forbidden_edge(gate, settings, wanted.closed, pack, link_v, blocked, now_ms)
        or _precharged_too_long(gate, settings, wanted.closed, now_ms)
        or _forbidden_frame(wanted.battery_frames, settings.battery_tx, settings.silent)
        or _forbidden_frame(wanted.inverter_frames, settings.inverter_tx, settings.silent)
    )
    if refusal:
        notice = Notice(Event.GATE_REFUSED, Severity.OPEN, refusal)
        wanted = wanted._replace(
            closed=frozenset(), battery_frames=(), battery_bytes=b"", inverter_frames=(), registers={},
            heartbeat=False, events=(*wanted.events, notice),
        )  # fmt: skip
    if wanted.closed == gate.closed and refusal == gate.refusal:
        return gate, wanted
    return _passed(gate, wanted.closed, refusal, now_ms), wanted


def _forbidden_set(settings: GateSettings, closed: frozenset[Contactor]) -> str:
    if not closed:
        return ""
    if settings.silent:
        return "something is energised while listening only"
    if not closed <= WIRINGS[settings.wiring]:
        return f"{_names(closed - WIRINGS[settings.wiring])} energised, not wired"
    own = Contactor.NEGATIVE in WIRINGS[settings.wiring]
    if own and Contactor.NEGATIVE not in closed:
        return f"{_names(closed)} energised without negative"
    if Contactor.POSITIVE in closed and not own and Contactor.PACK not in closed:
        return "positive energised while the pack is not asked to close"
    return ""


def _forbidden_edge(
    gate: Gate, settings: GateSettings, closed: frozenset[Contactor], pack: BatterySnapshot, link_v: float | None,
    blocked: str, now_ms: int,
) -> str:  # fmt: skip
    rising = closed - gate.closed
    if not rising:
        return ""
    if blocked:
        return f"{_names(rising)} would be energised although {blocked}"
    if unknown := _unknown(pack, settings, now_ms):
        return f"{_names(rising)} would be energised although {unknown} is not known"
    if Contactor.POSITIVE in rising:
        if settings.wiring == "pack+inverter" and pack.contactor_state is not PackContactor.CLOSED:
            return "positive would be energised although the pack does not say CLOSED"
        if settings.wiring == "own" and not _link_is_charged(gate, settings, pack, link_v):
            return "positive would be energised although the link is not charged"
    return ""


def _unknown(pack: BatterySnapshot, settings: GateSettings, now_ms: int) -> str:
    """The first required signal that is unknown or stale, by value and by stamp: not as the supervisor looks at it."""
    needed = ["pack_voltage_v", "current_a", "cell_min_v", "cell_max_v", "temp_min_c", "temp_max_c", "soc_pct"]
    if settings.wiring in ("pack", "pack+inverter"):
        needed += ["contactor_state", "hvil_ok"]
    needed = [name for name in needed if name not in settings.lacks]
    for name in needed:
        if getattr(pack, name) is None:
            return name
    for feed, freshness in pack.feeds.items():
        stamp = freshness.valid_at_ms
        if feed.signals[0] not in needed:
            continue
        if stamp is not None and now_ms - stamp > 5 * max(freshness.round_ms, 100):
            return feed.value
    return ""


def switched_off(gate: Gate, last_ms: int, now_ms: int) -> Gate:
    """After ticks that broke: everything went off in the first of them, soon after `last_ms`, the last one judged."""
    return _passed(gate, frozenset(), gate.refusal, min(now_ms, last_ms + OFF_BY_MS))


def _link_is_charged(gate: Gate, settings: GateSettings, pack: BatterySnapshot, link_v: float | None) -> bool:
    if Contactor.PRECHARGE not in gate.closed:
        return False
    if settings.unverified:
        return True
    return link_v is not None and pack.pack_voltage_v is not None and link_v >= CHARGED_AT_LEAST * pack.pack_voltage_v


def _precharged_too_long(gate: Gate, settings: GateSettings, closed: frozenset[Contactor], now_ms: int) -> str:
    if Contactor.PRECHARGE not in closed or Contactor.POSITIVE in closed:
        return ""
    spans = list(gate.precharged)
    if gate.precharge_since_ms is not None:
        spans.append((gate.precharge_since_ms, now_ms))
    begin = now_ms - PRECHARGE_WINDOW_MS
    spent_ms = sum(max(0, to - max(since, begin)) for since, to in spans)
    one_ms = 0 if gate.precharge_since_ms is None else now_ms - gate.precharge_since_ms
    slack_ms = 20
    if one_ms > settings.precharge_ms + slack_ms:
        return f"precharge energised for {one_ms} ms"
    if spent_ms > 3 * (settings.precharge_ms + slack_ms):
        return f"precharge energised for {spent_ms} ms in 10 minutes"
    return ""


def _forbidden_frame(frames: tuple[CanFrame, ...], allowed: frozenset[int], silent: bool) -> str:
    for frame in frames:
        if silent:
            return f"frame {frame.id:03X} while listening only"
        if frame.id not in allowed or frame.extended or len(frame.data) > 8:
            return f"frame {frame.id:03X} is not on the list of what may be sent"
    return ""


def _passed(gate: Gate, closed: frozenset[Contactor], refusal: str, now_ms: int) -> Gate:
    charging = Contactor.PRECHARGE in closed and Contactor.POSITIVE not in closed
    since_ms, spans = gate.precharge_since_ms, gate.precharged
    if charging and since_ms is None:
        since_ms = now_ms
    elif not charging and since_ms is not None:
        recent = tuple((a, b) for a, b in spans if now_ms - b < PRECHARGE_WINDOW_MS)
        spans = (*recent, (since_ms, now_ms))
        since_ms = None
    return Gate(closed, since_ms, spans, refusal)


def _names(members: frozenset[Contactor]) -> str:
    return ", ".join(sorted(member.value for member in members))
